//! Clients that read the end of a conversation again and again: what a message costs the broker that is read once more.
//!
//! The conversation is filled beforehand. Each client is a bare session ([`crate::wire`]) that has one request under way: the
//! newest rows, page by page backward. Every row is checked: it must have the position before the one that came last, and the
//! body that was written there.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_protocol::{LogName, Row, frames::Ack};
use bytes::BytesMut;
use clap::Args;
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    fanout::{SESSIONS_PER_SOCKET, new_send},
    measured::Scenario,
    merge::Group,
    names::{Names, Seat},
    payload::{number, numbered},
    probe::cpu_us_between,
    report::{Latencies, LatencySummary},
    stage,
    target::{Target, Usage},
    wire::{Dialer, KEEP_ALIVE, Session, WireError, expect, open_all},
};

/// Messages that wait for their acknowledgement while the conversation is filled.
pub(crate) const FILLED_AT_ONCE: u64 = 100;

/// The load.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Clients, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) clients: usize,
    /// Messages of the conversation.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) kept: u64,
    /// Of these, how many a client reads each time, the newest ones.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) newest: u64,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Load before the measurement.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) warm_up: f64,
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct HistoryReport {
    /// Clients.
    pub clients: usize,
    /// Messages of the conversation.
    pub kept: u64,
    /// Messages that were read in the measurement, each checked.
    pub messages: u64,
    /// Of these, per second.
    pub messages_per_second: f64,
    /// CPU time of the broker per message, in microseconds.
    pub cpu_us_per_message: Option<f64>,
    /// From a request until all of its messages were there, in the whole run.
    pub replay: Option<LatencySummary>,
    /// Memory of the broker at the end, in KiB.
    pub resident_kib: Option<u64>,
    /// What went wrong first.
    pub broken: Option<String>,
}

impl HistoryReport {
    /// Every client got every message in its place.
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.messages > 0
    }
}

impl fmt::Display for HistoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "unknown".into(), |figure| format!("{figure:.2}"));
        let Self { clients, kept, messages, messages_per_second, .. } = self;
        writeln!(f, "history                       {clients} clients, {kept} messages")?;
        writeln!(f, "read                          {messages}, {messages_per_second:.0} per second")?;
        writeln!(f, "server CPU us/message         {}", figure(self.cpu_us_per_message))?;
        if let Some(LatencySummary { p50_ms, p99_ms, max_ms, .. }) = self.replay {
            writeln!(f, "one reading                   p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  max {max_ms:.2} ms")?;
        }
        let kept = self.broken.as_deref().unwrap_or("every message came once and in its place");
        writeln!(f, "promises                      {kept}")
    }
}

/// What the clients have in common.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    stop: watch::Receiver<bool>,
    /// Messages that were read.
    messages: Arc<AtomicU64>,
}

impl Reading {
    /// Counts one reading of so many messages.
    pub(crate) fn note(&self, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        *self.stop.borrow()
    }
}

/// The clients of one run.
pub(crate) struct Readers {
    stop: watch::Sender<bool>,
    reading: Reading,
    tasks: JoinSet<Result<Latencies, String>>,
}

impl Readers {
    pub(crate) fn new() -> Self {
        let (stop, stops) = watch::channel(false);
        Self { stop, reading: Reading { stop: stops, messages: Arc::default() }, tasks: JoinSet::new() }
    }

    /// Adds a client, which reads until it is told that it is over.
    pub(crate) fn spawn<F>(&mut self, client: impl FnOnce(Reading) -> F)
    where
        F: Future<Output = Result<Latencies, String>> + Send + 'static,
    {
        self.tasks.spawn(client(self.reading.clone()));
    }

    /// Lets them read and takes the figures between two moments in the midst of it.
    pub(crate) async fn measure(
        mut self,
        usage: impl Fn() -> Usage,
        (warm_up, seconds): (f64, f64),
    ) -> Result<HistoryReport, Box<dyn Error>> {
        sleep(Duration::from_secs_f64(warm_up)).await;
        let messages = || self.reading.messages.load(Ordering::Relaxed);
        let (before, start, read_before) = (usage(), Instant::now(), messages());
        sleep(Duration::from_secs_f64(seconds)).await;
        let (after, elapsed, read) = (usage(), start.elapsed().as_secs_f64(), messages() - read_before);
        self.stop.send_replace(true);
        let (mut latencies, mut broken) = (Latencies::default(), None);
        while let Some(client) = self.tasks.join_next().await {
            match client? {
                Ok(of_one) => latencies.add(&of_one),
                Err(error) => _ = broken.get_or_insert(error),
            }
        }
        Ok(HistoryReport {
            messages: read,
            messages_per_second: read as f64 / elapsed,
            cpu_us_per_message: cpu_us_between(before.cpu_ns, after.cpu_ns).map(|us| us / read as f64),
            replay: latencies.summary(),
            resident_kib: after.resident_kib,
            broken,
            ..HistoryReport::default()
        })
    }
}

impl Scenario for HistoryArgs {
    type Report = HistoryReport;

    async fn run(&self, target: &Arc<Target>) -> Result<HistoryReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(report: &HistoryReport) -> bool {
        report.holds()
    }
}

/// Runs it against a broker.
async fn run(args: &HistoryArgs, target: &Target) -> Result<HistoryReport, Box<dyn Error>> {
    let HistoryArgs { clients, kept, newest, bytes, seconds, warm_up } = *args;
    // The first member writes, and reads no more.
    let groups = [Group { members: clients as u32 + 1, messages: Vec::new() }];
    let names = Names::new(format!("hist{}", std::process::id()), &groups);
    let service = target.connect_service(&names.service()).await?;
    stage::create_conversations(&service, &groups, &names).await?;
    let users = (0..=clients as u32).map(|member| names.user(Seat { group: 0, member }).map(|user| user.to_string()));
    let users: Vec<String> = users.collect::<Result<_, _>>()?;
    let sockets = users.len().div_ceil(SESSIONS_PER_SOCKET);
    let dialer = Arc::new(Dialer::new(target.address(), target.trust(), sockets, KEEP_ALIVE)?);
    let mut sessions = open_all(target, &dialer, &users).await?.into_iter();
    let log = LogName::Conversation(names.conversation(0)?);
    let mut writer = sessions.next().ok_or("there is no writer")?;
    let end = fill(&mut writer, &log, kept, bytes).await?;

    let mut readers = Readers::new();
    let wanted = Wanted { log, end, last: kept, newest: newest.min(kept) };
    for session in sessions {
        let wanted = wanted.clone();
        readers.spawn(|reading| read(session, wanted, reading));
    }
    let report = readers.measure(|| target.process_usage(), (warm_up, seconds)).await?;
    Ok(HistoryReport { clients, kept, ..report })
}

/// Writes so many messages, numbered from 1; the position of the last one.
async fn fill(writer: &mut Session, log: &LogName, count: u64, bytes: usize) -> Result<u64, WireError> {
    let (mut sent, mut answered, mut end) = (0, 0, 0);
    while answered < count {
        let mut packed = BytesMut::new();
        while sent < count && sent < answered + FILLED_AT_ONCE {
            sent += 1;
            let id = writer.next_id();
            packed.extend_from_slice(&new_send(log, sent, &numbered(sent, bytes)).to_frame(id));
        }
        writer.write(packed.freeze()).await?;
        while answered < sent {
            let answer = writer.answer().await?;
            expect(antiphon_protocol::FrameType::Ack, &answer)?;
            end = Ack::decode(&answer.body)?.position.seq;
            answered += 1;
        }
    }
    Ok(end)
}

/// What a client reads.
#[derive(Debug, Clone)]
struct Wanted {
    log: LogName,
    /// Position of the last message.
    end: u64,
    /// Its number.
    last: u64,
    /// How many, backward from there.
    newest: u64,
}

impl Wanted {
    /// The row that must come after so many others.
    fn check(&self, row: &Row, nth: u64) -> Result<(), String> {
        let (seq, wanted) = (self.end - nth, self.last - nth);
        let found = number(&row.body());
        if (row.seq(), found) == (seq, Some(wanted)) {
            return Ok(());
        }
        Err(format!("{}: message {found:?} at {} came instead of {wanted} at {seq}", self.log, row.seq()))
    }
}

async fn read(mut session: Session, wanted: Wanted, reading: Reading) -> Result<Latencies, String> {
    let mut latencies = Latencies::default();
    while !reading.is_over() {
        let start = Instant::now();
        let (mut count, mut before) = (0, 0);
        while count < wanted.newest {
            let page = session.page_before(&wanted.log, before, (wanted.newest - count) as u32).await;
            let page = page.map_err(|error| format!("{}: {error}", wanted.log))?;
            for row in &page.rows {
                wanted.check(row, count)?;
                count += 1;
            }
            before = page.next;
            if count < wanted.newest && before == 0 {
                return Err(format!("{}: {count} of {} came", wanted.log, wanted.newest));
            }
        }
        latencies.record(start.elapsed());
        reading.note(count);
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, EventKind, NewRow, UserId};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn rows_must_come_backward_with_what_was_written() {
        let ann = UserId::new("ann").unwrap();
        let row = |seq: u64, body: &[u8]| {
            let kind = EventKind::MESSAGE;
            let (event_id, client_message_id) = (Uuid::from_u128(seq.into()), Uuid::nil());
            let (msgno, time_ms, content_type) = (seq, 0, ContentType::Text);
            let sender = &ann;
            let (via, envelope) = (None, &b""[..]);
            let row = NewRow {
                seq,
                msgno,
                time_ms,
                event_id,
                client_message_id,
                kind,
                content_type,
                sender,
                via,
                envelope,
                body,
            };
            row.to_row()
        };
        // One event, the conversation's beginning, stands before the first message.
        let wanted = Wanted { log: "c:room".parse().unwrap(), end: 11, last: 10, newest: 5 };
        assert_eq!(wanted.check(&row(11, &numbered(10, 200)), 0), Ok(()));
        assert_eq!(wanted.check(&row(8, &numbered(7, 200)), 3), Ok(()));
        assert!(wanted.check(&row(9, &numbered(7, 200)), 3).is_err());
        assert!(wanted.check(&row(8, &numbered(8, 200)), 3).is_err());
        assert!(wanted.check(&row(8, b"other"), 3).is_err());
    }

    #[tokio::test]
    async fn readers_are_measured_in_the_midst_of_it() {
        let mut readers = Readers::new();
        readers.spawn(|reading| async move {
            let mut latencies = Latencies::default();
            while !reading.is_over() {
                sleep(Duration::from_millis(1)).await;
                reading.note(10);
                latencies.record(Duration::from_millis(1));
            }
            Ok(latencies)
        });
        let report = readers.measure(Usage::default, (0.05, 0.1)).await.unwrap();
        assert!(report.messages > 0 && report.messages.is_multiple_of(10), "{report:?}");
        assert!(report.holds() && report.replay.is_some());
        let mut readers = Readers::new();
        readers.spawn(|_| async { Err("refused".to_owned()) });
        assert_eq!(readers.measure(Usage::default, (0.0, 0.0)).await.unwrap().broken.as_deref(), Some("refused"));
    }
}
