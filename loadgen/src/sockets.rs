//! WebSockets that follow one log on the broker's gateway: what each costs while nothing happens, while messages come, and
//! when it stops reading among others that go on.
//!
//! Memory is that of the broker's process with the gateway in it, between half of the sockets and all; for those that do
//! not read, that of the kernel's socket buffers is counted too.

use std::{error::Error, fmt, fs, io, sync::Arc, time::Duration};

use antiphon_sdk::{Client, LogName};
use clap::Args;
use serde::Serialize;
use tokio::time::{self, Instant};

use crate::{
    machine::resident_kib,
    measured::Scenario,
    probe::cpu_us_between,
    report::LatencySummary,
    socket_reader::{Readers, open},
    target::{Target, TargetArgs, Usage},
};

/// From the last connection to the measurement.
const REST: Duration = Duration::from_secs(2);
/// How long the last deliveries may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that make sockets lag which do not read: more than everything that may wait for one.
const LARGE_BYTES: usize = 8 << 10;
const LARGE_MESSAGES: u32 = 64;
/// Bytes that the kernel of a client that does not read holds for it.
const NARROW_BYTES: u32 = 4 << 10;
pub(crate) const METRIC_RENDERED: &str = "antiphon_gateway_json_rendered_total";
pub(crate) const METRIC_TRUNKS: &str = "antiphon_gateway_trunks";
const METRIC_LAGGING: &str = "antiphon_gateway_lagging_total";

/// The load.
#[derive(Debug, Args)]
pub struct SocketsArgs {
    /// Sockets that read; an even number.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    connections: usize,
    /// Sockets that stop reading.
    #[arg(long, value_name = "N", default_value_t = 100)]
    stalled: usize,
    /// Messages that come while all read.
    #[arg(long, value_name = "N", default_value_t = 100)]
    messages: u32,
    /// Messages per second.
    #[arg(long, value_name = "R", default_value_t = 10)]
    rate: u32,
    /// Bytes of a message's text.
    #[arg(long, value_name = "B", default_value_t = 200)]
    bytes: usize,
    /// Most KiB of an idle socket; the run fails if there are more.
    #[arg(long, value_name = "KIB")]
    idle_kib_max: Option<f64>,
    /// Most KiB of a socket that stopped reading, the kernel's with them.
    #[arg(long, value_name = "KIB")]
    stalled_kib_max: Option<f64>,
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SocketsReport {
    /// Sockets that read.
    pub connections: usize,
    /// From half of them to all, per socket, in KiB.
    pub idle_kib: f64,
    /// The most while messages came, per socket, in KiB.
    pub chatting_kib: f64,
    /// CPU time of broker and gateway.
    pub cpu_us_per_delivery: Option<f64>,
    /// From the send to the socket's other end, while all read.
    pub latency: Option<LatencySummary>,
    /// The same while some did not.
    pub latency_beside_stalled: Option<LatencySummary>,
    /// Deliveries that were to come, and that came in their places.
    pub deliveries: [u64; 2],
    /// Times that an event was written as JSON, for each trunk that it came on.
    pub renderings_per_event: f64,
    /// Sockets that stopped reading.
    pub stalled: usize,
    /// Those that the gateway let go of their log for it.
    pub lagging: u64,
    /// Each of them in the process and in the kernel, in KiB.
    pub stalled_kib: [f64; 2],
    /// What was not as it has to be.
    pub broken: Vec<String>,
}

impl fmt::Display for SocketsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p99 = |summary: Option<LatencySummary>| {
            summary.map_or_else(|| "unknown".into(), |latency| format!("p99 {:.1} ms", latency.p99_ms))
        };
        let cpu = self.cpu_us_per_delivery.map_or_else(|| "unknown".into(), |cpu| format!("{cpu:.2}"));
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<30}{value}");
        row("sockets", &self.connections)?;
        row("KiB per idle socket", &format_args!("{:.1}", self.idle_kib))?;
        row("KiB per chatting socket", &format_args!("{:.1}", self.chatting_kib))?;
        row("server CPU us/delivery", &cpu)?;
        row("deliveries", &format_args!("{} of {}", self.deliveries[1], self.deliveries[0]))?;
        row("JSON renderings per event", &self.renderings_per_event)?;
        row("stalled sockets", &format_args!("{}, {} of them told to lag", self.stalled, self.lagging))?;
        let [process, kernel] = self.stalled_kib;
        let both = process + kernel;
        row(
            "KiB per stalled socket",
            &format_args!("{both:.0}: {process:.0} in the process, {kernel:.0} in the kernel"),
        )?;
        row(
            "the others' deliveries",
            &format_args!("{}, beside stalled ones {}", p99(self.latency), p99(self.latency_beside_stalled)),
        )?;
        self.broken.iter().try_for_each(|broken| row("BROKEN", broken))?;
        row("promises", if self.broken.is_empty() { &"kept" } else { &"BROKEN" })
    }
}

impl Scenario for SocketsArgs {
    type Report = SocketsReport;

    fn prefer(target: &mut TargetArgs) {
        target.prefer_cache(4);
    }

    async fn run(&self, target: &Arc<Target>) -> Result<SocketsReport, Box<dyn Error>> {
        let gateway = target.gateway().ok_or("a broker of the run's own with a gateway is needed")?;
        let pid = target.pid().ok_or("the broker's process is not known")?;
        let name = format!("square-{}", std::process::id());
        let log = format!("c:{name}");
        let author = target.connect_service(&format!("{name}.author")).await?;
        let square = Square { args: self, target, pid, log: log.parse()?, author };
        let readers = Readers::default();
        let mut report = SocketsReport { connections: self.connections, stalled: self.stalled, ..Default::default() };

        let mut resident = [0; 2];
        for (half, resident) in resident.iter_mut().enumerate() {
            for number in half * self.connections / 2..(half + 1) * self.connections / 2 {
                let token = target.reader_token(&format!("{name}.{number}"), &log);
                readers.follow(open(gateway, &token, &log, None).await?);
            }
            time::sleep(REST).await;
            *resident = resident_kib(pid)?;
        }
        report.idle_kib = (resident[1] as f64 - resident[0] as f64) / (self.connections / 2) as f64;
        square.chat(&readers, resident[1], &mut report).await?;
        report.latency = readers.take_latency();

        let before = (resident_kib(pid)?, kernel_kib()?, sum(&target.usage(), METRIC_LAGGING));
        let mut stalled = Vec::new();
        for number in 0..self.stalled {
            let token = target.reader_token(&format!("{name}.stalled.{number}"), &log);
            stalled.push(open(gateway, &token, &log, Some(NARROW_BYTES)).await?);
        }
        square.send(LARGE_MESSAGES, LARGE_BYTES).await?;
        square.expect(&readers, u64::from(self.messages) + u64::from(LARGE_MESSAGES), &mut report).await;
        report.lagging = square.counted(METRIC_LAGGING, before.2, self.stalled as u64).await;
        time::sleep(REST).await;
        let each = |after: u64, before: u64| (after as f64 - before as f64) / self.stalled.max(1) as f64;
        report.stalled_kib = [each(resident_kib(pid)?, before.0), each(kernel_kib()?, before.1)];
        report.latency_beside_stalled = readers.take_latency();
        drop(stalled);
        square.author.close().await;
        self.judge(&mut report);
        Ok(report)
    }

    fn holds(report: &SocketsReport) -> bool {
        report.broken.is_empty()
    }
}

impl SocketsArgs {
    fn judge(&self, report: &mut SocketsReport) {
        let [expected, came] = report.deliveries;
        let mut wrong = Vec::new();
        if came != expected {
            wrong.push(format!("{came} of {expected} deliveries came, each once and in order"));
        }
        if report.renderings_per_event != 1.0 {
            wrong.push("an event is written as JSON more than once".into());
        }
        if report.lagging != self.stalled as u64 {
            wrong.push("a socket that does not read is not told to lag".into());
        }
        if self.idle_kib_max.is_some_and(|most| report.idle_kib > most) {
            wrong.push("an idle socket takes more memory than it may".into());
        }
        if self.stalled_kib_max.is_some_and(|most| report.stalled_kib.iter().sum::<f64>() > most) {
            wrong.push("a socket that does not read takes more memory than it may".into());
        }
        report.broken = wrong;
    }
}

/// The log that all follow.
struct Square<'a> {
    args: &'a SocketsArgs,
    target: &'a Target,
    pid: u32,
    log: LogName,
    author: Client,
}

impl Square<'_> {
    async fn chat(&self, readers: &Readers, idle_kib: u64, report: &mut SocketsReport) -> Result<(), Box<dyn Error>> {
        let (rate, messages, connections) = (self.args.rate, self.args.messages, self.args.connections as f64);
        let before = self.target.usage();
        let mut most = idle_kib;
        // A second at a time, and a look at the memory after each.
        for sent in (0..messages).step_by(rate as usize) {
            self.send(rate.min(messages - sent), self.args.bytes).await?;
            most = most.max(resident_kib(self.pid)?);
        }
        self.expect(readers, messages.into(), report).await;
        let after = self.target.usage();
        let came = readers.in_order();
        let cpu_us = cpu_us_between(before.cpu_ns, after.cpu_ns).filter(|_| came > 0);
        report.cpu_us_per_delivery = cpu_us.map(|us| us / came as f64);
        report.chatting_kib = report.idle_kib + most.saturating_sub(idle_kib) as f64 / connections;
        let trunks = sum(&after, METRIC_TRUNKS).max(1);
        let wanted = trunks * u64::from(messages);
        report.renderings_per_event =
            self.counted(METRIC_RENDERED, sum(&before, METRIC_RENDERED), wanted).await as f64 / wanted as f64;
        Ok(())
    }

    /// Sends at the rate of the run, each after the one before is acknowledged.
    async fn send(&self, messages: u32, bytes: usize) -> Result<(), Box<dyn Error>> {
        let mut interval = time::interval(Duration::from_secs(1) / self.args.rate);
        for _ in 0..messages {
            interval.tick().await;
            self.author.send(&self.log, Readers::text(bytes)).await?;
        }
        Ok(())
    }

    /// Waits until every reader has so many messages.
    async fn expect(&self, readers: &Readers, messages: u64, report: &mut SocketsReport) {
        let expected = messages * self.args.connections as u64;
        let deadline = Instant::now() + PATIENCE;
        while readers.in_order() < expected && Instant::now() < deadline {
            time::sleep(Duration::from_millis(20)).await;
        }
        report.deliveries = [expected, readers.in_order()];
    }

    /// How much a number has grown, once it is what is wanted or has had time for it: numbers are published now and then.
    async fn counted(&self, name: &str, before: u64, wanted: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        // One look more than it takes, so that what is too much is seen too.
        let mut is_there = false;
        loop {
            let grown = sum(&self.target.usage(), name).saturating_sub(before);
            if is_there || Instant::now() >= deadline {
                return grown;
            }
            is_there = grown >= wanted;
            time::sleep(REST).await;
        }
    }
}

fn sum(usage: &Usage, name: &str) -> u64 {
    usage.metrics.as_ref().and_then(|metrics| metrics.sum(name)).unwrap_or_default() as u64
}

/// What the kernel holds for TCP sockets, both ends of those on loopback.
fn kernel_kib() -> io::Result<u64> {
    const PAGE_KIB: u64 = 4;
    let stat = fs::read_to_string("/proc/net/sockstat")?;
    let line = stat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = line.split_whitespace().skip_while(|word| *word != "mem").nth(1).and_then(|pages| pages.parse().ok());
    pages.map(|pages: u64| pages * PAGE_KIB).ok_or_else(|| io::Error::other("sockstat says nothing of TCP's memory"))
}
