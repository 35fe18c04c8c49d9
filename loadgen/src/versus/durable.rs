//! Durable publishing to a peer: each connection keeps a window of messages that wait until they are kept.
//!
//! Each message must be answered once, in order, with a position beyond the last one of its connection; at the end the
//! server must have as many messages as it acknowledged.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_peers::{Connection, Incoming, Keeping, Peer, Position, Server, codec::Keep};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    contender::Contender,
    outcome::{Measure, Outcome},
    rows::{Goal, NATS, REDIS, Row, Size, Work, goal},
};
use crate::{
    probe::cpu_us_between,
    publish::{PublishArgs, PublishReport},
    target::Usage,
};

/// All subjects, as the peer that keeps them in one stream names them.
const SUBJECTS: &str = "c.*";

/// Durable publishing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Durable {
    /// Connections, each with a subject of its own.
    pub connections: usize,
    /// Messages that wait on each.
    pub in_flight: usize,
    /// Bytes of a message.
    pub bytes: usize,
    /// What a peer does with a message before it acknowledges it. The broker syncs it anyhow.
    pub keeping: Keeping,
    /// Messages per second, in bursts of what may wait; as many as there can be if `None`.
    pub rate: Option<f64>,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
}

impl From<Durable> for PublishArgs {
    fn from(durable: Durable) -> Self {
        let Durable { connections, in_flight, bytes, keeping: _, rate, seconds, warm_up } = durable;
        Self { connections, in_flight, bytes, rate, seconds, warm_up }
    }
}

impl From<PublishReport> for Outcome {
    fn from(report: PublishReport) -> Self {
        let mut outcome = Self::new([
            (Measure::PerSecond, Some(report.acks_per_second)),
            (Measure::CpuUs, report.cpu_us_per_ack),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
            (Measure::LagP999Ms, report.lag.map(|lag| lag.p999_ms)),
        ]);
        (outcome.done, outcome.expected, outcome.broken) = (report.acks, report.acks, report.broken);
        outcome
    }
}

const PIPELINED_GOALS: &[Goal] = &[goal(Measure::PerSecond, NATS, 10.0, 20.0)];
const ONE_BY_ONE_GOALS: &[Goal] = &[goal(Measure::CpuUs, REDIS, 1.2, 0.8)];

/// Its rows.
pub(super) fn durable_rows(size: Size) -> Vec<Row> {
    let row = |name, connections, in_flight, headline, goals| {
        let (keeping, rate, seconds) = (Keeping::Synced, None, size.seconds);
        let durable = Durable { connections, in_flight, bytes: 200, keeping, rate, seconds, warm_up: 2.0 };
        Row {
            name,
            title: format!("durable publish, {connections} connections x {in_flight} in flight, 200 bytes, synced"),
            work: Work::Durable(durable),
            contenders: vec![Contender::Antiphon, NATS, REDIS],
            headline,
            goals,
            rounds: size.rounds,
        }
    };
    vec![
        row("S3-10x50", 10, 50, Measure::PerSecond, PIPELINED_GOALS),
        row("S3-50x1", 50, 1, Measure::CpuUs, ONE_BY_ONE_GOALS),
    ]
}

/// Runs it.
pub async fn run(
    server: &Server,
    client: Option<&Arc<ClientConfig>>,
    load: Durable,
) -> Result<PublishReport, Box<dyn Error>> {
    let Durable { connections, in_flight, bytes, seconds, warm_up, .. } = load;
    let open = async |number| Connection::open(server.peer(), server.address(), client, number).await;
    let mut service = open(0).await?;
    service.make_stream(SUBJECTS).await?;
    let (stop, stops) = watch::channel(false);
    let acks = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for number in 1..=connections as u64 {
        let sender = Sender {
            connection: open(number).await?,
            subject: subject(number),
            body: vec![b'x'; bytes],
            sent: 0,
            answers: Answers::default(),
            acks: acks.clone(),
        };
        senders.spawn(sender.run(in_flight, stops.clone()));
    }
    sleep(Duration::from_secs_f64(warm_up)).await;
    let mut report = PublishReport { connections, in_flight, bytes, ..Default::default() };
    let (before, start, acks_before) = (Usage::of_process(server.pid()), Instant::now(), acks.load(Ordering::Relaxed));
    sleep(Duration::from_secs_f64(seconds)).await;
    let (after, elapsed) = (Usage::of_process(server.pid()), start.elapsed().as_secs_f64());
    report.acks = acks.load(Ordering::Relaxed) - acks_before;
    stop.send_replace(true);
    while let Some(sender) = senders.join_next().await {
        if let Err(error) = sender? {
            report.broken.get_or_insert(error);
        }
    }
    let (kept, acked) = (count(&mut service, server.peer(), connections as u64).await?, acks.load(Ordering::Relaxed));
    if kept != acked {
        report.broken.get_or_insert(format!("{acked} messages were acknowledged and {kept} are there"));
    }
    report.divide(elapsed, cpu_us_between(before.cpu_ns, after.cpu_ns));
    report.resident_kib = after.resident_kib;
    Ok(report)
}

fn subject(number: u64) -> String {
    format!("c.{number}")
}

/// Messages that the server has.
async fn count(service: &mut Connection, peer: Peer, connections: u64) -> Result<u64, Box<dyn Error>> {
    match peer {
        // One stream has all subjects.
        Peer::Nats => Ok(service.count(SUBJECTS).await?),
        _ => {
            let mut total = 0;
            for number in 1..=connections {
                total += service.count(&subject(number)).await?;
            }
            Ok(total)
        }
    }
}

/// What the answer to a message that is to be kept says: of which request, and where it stands.
pub(super) fn kept(answer: &Incoming) -> Result<(Option<u64>, Position), String> {
    match *answer {
        Incoming::Kept { request, position } => Ok((request, position)),
        _ => Err(format!("{answer:?} is no answer to a message that is to be kept")),
    }
}

/// Answers to the messages of one connection that are kept.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) count: u64,
    /// Where the message that was answered last stands.
    last: Position,
}

impl Answers {
    /// Each must be the answer to the next request, where the protocol says to which, and stand behind the last one.
    pub(super) fn note(&mut self, request: Option<u64>, position: Position) -> Result<(), String> {
        let wanted = self.count + 1;
        if request.unwrap_or(wanted) != wanted || position <= self.last {
            let last = self.last;
            return Err(format!("request {request:?} at {position:?} is answered instead of {wanted}, after {last:?}"));
        }
        (self.count, self.last) = (wanted, position);
        Ok(())
    }
}

struct Sender {
    connection: Connection,
    subject: String,
    body: Vec<u8>,
    sent: u64,
    answers: Answers,
    acks: Arc<AtomicU64>,
}

impl Sender {
    /// Keeps `window` messages under way until it is told to stop, then waits for the rest.
    async fn run(mut self, window: usize, stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut room = window;
        loop {
            if !*stop.borrow() && room > 0 {
                for _ in 0..std::mem::take(&mut room) {
                    self.sent += 1;
                    let message = Keep { subject: &self.subject, request: self.sent, payload: &self.body };
                    self.connection.keep(message);
                }
                self.connection.flush().await.map_err(|error| self.told(&error))?;
            }
            if room == window {
                return Ok(());
            }
            let mut answer = Some(self.connection.next().await.map_err(|error| self.told(&error))?);
            while let Some(incoming) = answer {
                self.note(&incoming)?;
                room += 1;
                answer = self.connection.next_buffered().await.map_err(|error| self.told(&error))?;
            }
        }
    }

    fn note(&mut self, answer: &Incoming) -> Result<(), String> {
        let told = |error| format!("{}: {error}", self.subject);
        let (request, position) = kept(answer).map_err(told)?;
        self.answers.note(request, position).map_err(told)?;
        self.acks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn told(&self, error: &dyn Error) -> String {
        format!("{}: {error}", self.subject)
    }
}
