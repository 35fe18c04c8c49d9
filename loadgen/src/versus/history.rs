//! Clients that read the end of a peer's stream again and again.
//!
//! Redis answers XREVRANGE; of JetStream each reading takes a consumer that begins so far before the end, pushes, and is deleted.
//! As with the broker, a client has one reading under way, and checks every message by its number and bytes.

use std::{error::Error, sync::Arc, time::Instant};

use antiphon_peers::{Connection, Server, codec::Keep};
use rustls::ClientConfig;
use serde::Serialize;

use super::{
    contender::Contender,
    durable::kept,
    outcome::{Measure, Outcome},
    rows::{Goal, NATS, REDIS, Row, Size, Work, goal},
};
use crate::{
    history::{FILLED_AT_ONCE, HistoryArgs, HistoryReport, Readers, Reading},
    payload::{number, numbered},
    report::Latencies,
    target::Usage,
};

const SUBJECT: &str = "c.history";

/// Reading the end of a conversation.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct History {
    /// Clients, each on a connection of its own.
    pub clients: usize,
    /// Messages of the conversation.
    pub kept: u64,
    /// Of these, how many each reading has.
    pub newest: u64,
    /// Bytes of a message.
    pub bytes: usize,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
}

impl From<History> for HistoryArgs {
    fn from(history: History) -> Self {
        let History { clients, kept, newest, bytes, seconds, warm_up } = history;
        Self { clients, kept, newest, bytes, seconds, warm_up }
    }
}

impl From<HistoryReport> for Outcome {
    fn from(report: HistoryReport) -> Self {
        let mut outcome = Self::new([
            (Measure::CpuUs, report.cpu_us_per_message),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
            (Measure::P50Ms, report.replay.map(|replay| replay.p50_ms)),
            (Measure::P99Ms, report.replay.map(|replay| replay.p99_ms)),
        ]);
        (outcome.done, outcome.expected, outcome.broken) = (report.messages, report.messages, report.broken);
        if outcome.done == 0 {
            outcome.broken.get_or_insert("nothing was read in the measurement".into());
        }
        outcome
    }
}

const HISTORY_GOALS: &[Goal] = &[goal(Measure::CpuUs, REDIS, 2.0, 1.2)];

/// Its row.
pub(super) fn history_row(size: Size) -> Row {
    let clients = (if size.is_full { 1_000 } else { 200 } / size.divide as usize).max(10);
    let kept = (10_000 / u64::from(size.divide)).max(1_000);
    let history = History { clients, kept, newest: 100, bytes: 200, seconds: size.seconds, warm_up: 2.0 };
    Row {
        name: "S6",
        title: format!(
            "history, {clients} clients read the last 100 of {kept} messages of 200 bytes, per message read"
        ),
        work: Work::History(history),
        contenders: vec![Contender::Antiphon, NATS, REDIS],
        headline: Measure::CpuUs,
        goals: HISTORY_GOALS,
        rounds: size.rounds,
    }
}

/// Runs it.
pub async fn run(
    server: &Server,
    client: Option<&Arc<ClientConfig>>,
    load: History,
) -> Result<HistoryReport, Box<dyn Error>> {
    let History { clients, kept, newest, bytes, seconds, warm_up } = load;
    let open = async |number| Connection::open(server.peer(), server.address(), client, number).await;
    let mut service = open(0).await?;
    service.make_stream("c.*").await?;
    fill(&mut service, kept, bytes).await?;

    let mut readers = Readers::new();
    for number in 1..=clients as u64 {
        let connection = open(number).await?;
        readers.spawn(|reading| read(connection, (kept, newest.min(kept)), reading));
    }
    let report = readers.measure(|| Usage::of_process(server.pid()), (warm_up, seconds)).await?;
    Ok(HistoryReport { clients, kept, ..report })
}

/// Keeps so many messages, numbered from 1.
async fn fill(service: &mut Connection, count: u64, bytes: usize) -> Result<(), Box<dyn Error>> {
    let mut sent = 0;
    while sent < count {
        let answers = FILLED_AT_ONCE.min(count - sent);
        for _ in 0..answers {
            sent += 1;
            service.keep(Keep { subject: SUBJECT, request: sent, payload: &numbered(sent, bytes) });
        }
        service.flush().await?;
        for _ in 0..answers {
            kept(&service.next().await?)?;
        }
    }
    Ok(())
}

async fn read(mut connection: Connection, (kept, newest): (u64, u64), reading: Reading) -> Result<Latencies, String> {
    let mut latencies = Latencies::default();
    while !reading.is_over() {
        let start = Instant::now();
        let messages = connection.newest(SUBJECT, kept, newest as usize).await.map_err(|error| error.to_string())?;
        check(messages.iter().map(|message| number(message)), (kept, newest))?;
        latencies.record(start.elapsed());
        reading.note(newest);
    }
    Ok(latencies)
}

/// The numbers must be those of the newest messages, backward.
fn check(found: impl ExactSizeIterator<Item = Option<u64>>, (kept, newest): (u64, u64)) -> Result<(), String> {
    if found.len() as u64 != newest {
        return Err(format!("{} messages came instead of {newest}", found.len()));
    }
    for (found, wanted) in found.zip((1..=kept).rev()) {
        if found != Some(wanted) {
            return Err(format!("message {found:?} came instead of {wanted}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_must_be_the_newest_ones_backward() {
        let checked = |numbers: &[u64]| check(numbers.iter().copied().map(Some), (9, 3));
        assert_eq!(checked(&[9, 8, 7]), Ok(()));
        assert!(checked(&[9, 8]).is_err() && checked(&[7, 8, 9]).is_err() && checked(&[9, 8, 8]).is_err());
        assert!(check([None].into_iter(), (9, 1)).is_err());
    }
}
