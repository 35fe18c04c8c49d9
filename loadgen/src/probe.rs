//! What a broker's process and its metrics page say, read from outside.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use thiserror::Error;

/// Group commits of the store, one synced write each, over all shards.
pub const METRIC_FSYNCS: &str = "antiphon_store_syncs_total";
/// Events handed to live subscribers, over all shards.
pub const METRIC_DELIVERIES: &str = "antiphon_events_delivered_total";
/// Those among them whose session lives on another shard than their log.
pub const METRIC_DELIVERIES_CROSSED: &str = "antiphon_events_crossed_total";
/// Datagrams that the kernel gave to another shard than their connection's, over all shards.
pub const METRIC_FORWARDED: &str = "antiphon_datagrams_forwarded_total";

/// Longest metrics page, in bytes.
const PAGE_BYTES_MAX: u64 = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);

/// CPU time that the threads of a process have used, in nanoseconds. Threads that ended are not in it.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let on_cpu = schedstat.split_ascii_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        total += on_cpu.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "schedstat has no CPU time"))?;
    }
    Ok(total)
}

/// CPU time between two readings of [`cpu_ns`], in microseconds.
pub fn cpu_us_between(before: Option<u64>, after: Option<u64>) -> Option<f64> {
    Some(after?.saturating_sub(before?) as f64 / 1e3)
}

/// How often the threads of a process went to sleep so far. Threads that ended are not in it.
pub fn wake_ups(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        total += voluntary_switches(&status)?;
    }
    Ok(total)
}

/// How often the calling thread went to sleep so far.
pub(crate) fn thread_wake_ups() -> io::Result<u64> {
    voluntary_switches(&fs::read_to_string("/proc/thread-self/status")?)
}

fn voluntary_switches(status: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let count = line.and_then(|line| line.trim().parse().ok());
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "status has no voluntary_ctxt_switches"))
}

/// Resident memory of a process, in KiB.
pub fn rss_kib(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "status has no VmRSS"))
}

/// Why a metrics page cannot be used.
#[derive(Debug, Error)]
pub enum ScrapeError {
    /// No answer.
    #[error("the broker's metrics page cannot be read")]
    Io(#[from] io::Error),
    /// An answer other than 200.
    #[error("the broker's metrics page answers {0:?}, expected status 200")]
    Status(String),
}

/// The samples of a metrics page, summed over their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Fetches `/metrics` from a broker's admin listener, within seconds.
    pub fn scrape(admin: SocketAddr) -> Result<Self, ScrapeError> {
        let mut connection = TcpStream::connect_timeout(&admin, TIMEOUT)?;
        connection.set_read_timeout(Some(TIMEOUT))?;
        connection.set_write_timeout(Some(TIMEOUT))?;
        // Version 1.0, so that the answer is not chunked and ends with the connection.
        write!(connection, "GET /metrics HTTP/1.0\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        connection.take(PAGE_BYTES_MAX).read_to_string(&mut answer)?;
        let (head, page) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.lines().next().unwrap_or_default();
        if status.split(' ').nth(1) != Some("200") {
            return Err(ScrapeError::Status(status.to_owned()));
        }
        Ok(Self::parse(page))
    }

    /// Reads the text format of Prometheus; lines that are no samples are ignored.
    fn parse(page: &str) -> Self {
        let mut sums = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name_end = line.find(['{', ' ']).unwrap_or(line.len());
            let value_start = line.rfind('}').map_or(name_end, |brace| brace + 1);
            let value = line[value_start..].split_ascii_whitespace().next().and_then(|value| value.parse::<f64>().ok());
            if let Some(value) = value {
                *sums.entry(line[..name_end].to_owned()).or_insert(0.0) += value;
            }
        }
        Self(sums)
    }

    /// The sum of all series of `name`; `None` if the page has none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    /// How much `name` grew since `before`. A counter that is not there yet counts from 0.
    pub fn growth(&self, before: &Self, name: &str) -> Option<f64> {
        Some(self.sum(name)? - before.sum(name).unwrap_or(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::BufRead, net::TcpListener, thread};

    use super::*;

    const PAGE: &str = "# HELP a_total things\n# TYPE a_total counter\na_total{shard=\"0\",note=\"a } b\"} 3\n\
                        a_total{shard=\"1\"} 4.5 1700000000\nb 7\nnonsense\n";

    #[test]
    fn samples_are_summed_over_labels() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!((metrics.sum("a_total"), metrics.sum("b"), metrics.sum("c")), (Some(7.5), Some(7.0), None));
        assert_eq!(metrics.growth(&Metrics::default(), "a_total"), Some(7.5));
        assert_eq!(metrics.growth(&metrics, "b"), Some(0.0));
    }

    /// Answers one request with `answer`.
    fn serve(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let request = io::BufReader::new(connection.try_clone().unwrap());
            let _head: Vec<_> = request.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            connection.write_all(answer.as_bytes()).unwrap();
        });
        address
    }

    #[test]
    fn a_page_is_fetched_over_http() {
        let metrics = Metrics::scrape(serve("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nb 7\n")).unwrap();
        assert_eq!(metrics.sum("b"), Some(7.0));
    }

    #[test]
    fn another_status_is_an_error() {
        let refused = Metrics::scrape(serve("HTTP/1.0 403 Forbidden\r\n\r\n"));
        assert!(matches!(refused, Err(ScrapeError::Status(_))), "{refused:?}");
    }

    #[test]
    fn this_process_has_used_cpu_and_memory() {
        let pid = std::process::id();
        let before = cpu_ns(pid).unwrap();
        let mut sum = 0_u64;
        while cpu_ns(pid).unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(rss_kib(pid).unwrap() > 0);
        let asleep = wake_ups(pid).unwrap();
        thread::sleep(Duration::from_millis(1));
        assert!(wake_ups(pid).unwrap() > asleep);
        let asleep = thread_wake_ups().unwrap();
        thread::sleep(Duration::from_millis(1));
        assert!(thread_wake_ups().unwrap() > asleep);
    }
}
