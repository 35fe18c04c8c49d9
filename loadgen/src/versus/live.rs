//! A fan-out by a peer: rooms with one publisher and many subscribers, each on a connection of its own.
//!
//! As with the broker, each subscriber checks that the next message has the next number, and the processor time is that
//! between two moments at which nothing is under way. Where messages are kept, each is acknowledged once, in order, and
//! nobody gets it before.

use std::{
    error::Error,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use antiphon_peers::{Connection, ConnectionError, Incoming, Keeping, Server, codec::Keep};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::{
    contender::Contender,
    durable::Answers,
    outcome::{Measure, Outcome},
    rows::{Goal, MOQ_RELAY, MOSQUITTO, NATS, REDIS, Row, Size, Work, goal},
};
use crate::{
    fanout::{FanoutArgs, FanoutReport, messages},
    follower::{End, Plan, Tally, settle},
    report::Latencies,
    rooms::{Choice, Publish, Rooms},
    target::Usage,
};

/// Nothing more than what is expected comes within this time, or the measurement has no result.
const AFTERMATH: Duration = Duration::from_millis(500);
/// The first bytes of a message are its number in its room, from 1.
const NUMBER_BYTES: usize = size_of::<u64>();

/// A fan-out.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Live {
    /// Rooms, each with a publisher of its own, on a connection of its own.
    pub rooms: u32,
    /// Followers of each, each on a connection of its own.
    pub members: u32,
    /// Bytes of a message.
    pub bytes: usize,
    /// Messages per second, over all rooms.
    pub rate: f64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
    /// What a peer does with a message first. The broker syncs it anyhow.
    pub keeping: Keeping,
    /// Which room gets a message.
    pub choice: Choice,
    /// Each message is sent at its moment, for latencies; else with what is due in the same millisecond.
    pub exact: bool,
}

impl From<Live> for FanoutArgs {
    fn from(live: Live) -> Self {
        let Live { rooms, members, bytes, rate, seconds, warm_up, keeping: _, choice, exact } = live;
        Self { rooms, members, bytes, rate, zipf: choice == Choice::Zipf, exact, seconds, warm_up }
    }
}

impl From<FanoutReport> for Outcome {
    fn from(report: FanoutReport) -> Self {
        let mut outcome = Self::new([
            (Measure::CpuUs, report.cpu_us_per_delivery),
            (Measure::WakeUps, report.wake_ups_per_message),
            (Measure::WireBytes, report.wire_bytes_per_delivery),
            (Measure::WirePackets, report.wire_packets_per_delivery),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
            (Measure::P50Ms, report.delivery.map(|delivery| delivery.p50_ms)),
            (Measure::P99Ms, report.delivery.map(|delivery| delivery.p99_ms)),
            (Measure::P999Ms, report.delivery.map(|delivery| delivery.p999_ms)),
            (Measure::LagP999Ms, report.lag.map(|lag| lag.p999_ms)),
        ]);
        (outcome.done, outcome.expected, outcome.broken) = (report.delivered, report.expected, report.broken);
        outcome
    }
}

const LIVE_GOALS: &[Goal] = &[
    goal(Measure::CpuUs, NATS, 0.75, 0.55),
    goal(Measure::CpuUs, REDIS, 1.2, 0.95),
    goal(Measure::CpuUs, MOQ_RELAY, 1.0, 0.7),
];
const BARE_GOALS: &[Goal] = &[goal(Measure::CpuUs, Contender::Bare, 1.15, 1.05)];
/// So many rounds more than with peers: the bare driver's figure moves by a third between rounds.
const BARE_ROUNDS_MORE: u32 = 2;
const CHAT_GOALS: &[Goal] = &[goal(Measure::CpuUs, NATS, 0.3, 0.25), goal(Measure::CpuUs, REDIS, 1.3, 1.0)];

/// The rows of live fan-out.
pub(super) fn live_rows(size: Size) -> Vec<Row> {
    let row = |name, members: u32, rate: f64, rounds| {
        let members = (members / size.divide).max(1);
        let (seconds, keeping, choice) = (size.seconds, Keeping::Nothing, Choice::Turns);
        let live = Live { rooms: 1, members, bytes: 200, rate, seconds, warm_up: 2.0, keeping, choice, exact: false };
        let bytes = live.bytes;
        Row {
            name,
            title: format!("live fan-out, 1 -> {members}, {bytes} bytes, {rate} messages a second"),
            work: Work::Live(live),
            contenders: vec![Contender::Floor, Contender::Antiphon, NATS, REDIS, MOSQUITTO, MOQ_RELAY],
            headline: Measure::CpuUs,
            goals: LIVE_GOALS,
            rounds,
        }
    };
    let bare = Row {
        contenders: vec![Contender::Floor, Contender::Bare, Contender::Antiphon],
        goals: BARE_GOALS,
        ..row("S1-500-bare", 500, 50.0, size.rounds + BARE_ROUNDS_MORE)
    };
    let mut rows = vec![row("S1-500", 500, 50.0, size.rounds), bare];
    if size.is_full {
        rows.push(row("S1-5000", 5_000, 5.0, 1));
    }
    rows
}

/// The rows of chat.
pub(super) fn chat_rows(size: Size) -> Vec<Row> {
    let row = |name, rooms: u32, members: u32, rate: f64, choice, rounds| {
        let rooms = (rooms / size.divide).max(1);
        let (seconds, keeping) = (size.seconds, Keeping::Synced);
        let live = Live { rooms, members, bytes: 200, rate, seconds, warm_up: 2.0, keeping, choice, exact: false };
        let (chosen, mut contenders) = match choice {
            Choice::Turns => ("", vec![Contender::Floor, Contender::Bare]),
            // The controls' rooms take turns.
            Choice::Zipf => (" by Zipf's law", Vec::new()),
        };
        contenders.extend([Contender::Antiphon, NATS, REDIS]);
        Row {
            name,
            title: format!(
                "chat, {rooms} rooms x {members} members, 200 bytes, {rate} messages a second{chosen}, synced before \
                 anybody gets them"
            ),
            work: Work::Live(live),
            contenders,
            headline: Measure::CpuUs,
            goals: CHAT_GOALS,
            rounds,
        }
    };
    let mut rows = vec![row("S2-50x10", 50, 10, 2_500.0, Choice::Turns, size.rounds)];
    if size.is_full {
        rows.push(row("S2-1000x10", 1_000, 10, 2_500.0, Choice::Zipf, 1));
        rows.push(row("S2-50x200", 50, 200, 125.0, Choice::Turns, 1));
    }
    rows
}

/// Runs it; the server is gone when it is over.
pub async fn run(
    server: Server,
    client: Option<&Arc<ClientConfig>>,
    live: Live,
) -> Result<FanoutReport, Box<dyn Error>> {
    let Live { rooms: rooms_wanted, members, bytes, rate, seconds, warm_up, keeping, choice, exact } = live;
    let (peer, address, mut connections) = (server.peer(), server.address(), 0);
    let mut open = || {
        connections += 1;
        let (client, number) = (client.cloned(), connections);
        async move { Connection::open(peer, address, client.as_ref(), number).await }
    };
    if keeping.keeps() {
        open().await?.make_stream("c.*").await?;
    }
    let tally = Arc::new(Tally::default());
    let (mut rooms, mut readers) = (Rooms::new(rate).exact(exact)?, JoinSet::new());
    for room in 0..rooms_wanted {
        let subject = format!("c.{room}");
        let (plan, plans) = watch::channel(None);
        for _ in 0..members {
            let mut connection = open().await?;
            match keeping {
                Keeping::Nothing => connection.subscribe(&subject).await?,
                Keeping::Written | Keeping::Synced => connection.follow_kept(&subject).await?,
            }
            readers.spawn(follow(connection, plans.clone(), tally.clone()));
        }
        let connection = rooms.senders().spawn(open()).await??;
        let body = vec![b'x'; bytes.max(NUMBER_BYTES)];
        let publisher = Publisher { connection, subject, body, keeping, sent: 0, answers: Answers::default() };
        rooms.add(publisher, plan);
    }
    let mut report = FanoutReport { rooms: rooms_wanted, members, bytes, rate, ..Default::default() };

    rooms.send(messages(warm_up, rate).max(rooms_wanted.into()), Choice::Turns, false).await?;
    settle(&tally, rooms.sent() * u64::from(members)).await;
    report.messages = messages(seconds, rate).max(1);
    let before = Usage::of_process(server.pid());
    report.lag = rooms.send(report.messages, choice, true).await?.summary();
    let expected = rooms.sent() * u64::from(members);
    settle(&tally, expected).await;
    let after = Usage::of_process(server.pid());

    report.expected = report.messages * u64::from(members);
    report.delivered = (tally.delivered.load(Ordering::Relaxed) + report.expected).saturating_sub(expected);
    report.apply(&before, &after, &after);
    // What should not come has a moment to do so; then every reader comes to an end.
    sleep(AFTERMATH).await;
    drop(server);
    report.gather(readers).await?;
    Ok(report)
}

/// Sends to one room.
struct Publisher {
    connection: Connection,
    subject: String,
    body: Vec<u8>,
    keeping: Keeping,
    sent: u64,
    answers: Answers,
}

impl Publish for Publisher {
    async fn write(&mut self) -> Result<(), String> {
        self.sent += 1;
        self.body[..NUMBER_BYTES].copy_from_slice(&self.sent.to_be_bytes());
        self.put();
        self.connection.flush().await.map_err(|error| self.told(&error))
    }

    /// An acknowledgement must be the next one; what else comes says how many got a message.
    async fn answer(&mut self) -> Result<(), String> {
        let answer = self.connection.next().await.map_err(|error| self.told(&error))?;
        if let Incoming::Kept { request, position } = answer {
            self.answers.note(request, position).map_err(|error| format!("{}: {error}", self.subject))?;
        }
        Ok(())
    }

    fn is_owed(&self) -> bool {
        self.keeping.keeps() && self.answers.count < self.sent
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn next_position(&self) -> u64 {
        self.sent + 1
    }
}

impl Publisher {
    fn put(&mut self) {
        match self.keeping {
            Keeping::Nothing => self.connection.publish(&self.subject, &self.body),
            Keeping::Written | Keeping::Synced => {
                let message = Keep { subject: &self.subject, request: self.sent, payload: &self.body };
                self.connection.keep_and_publish(message);
            }
        }
    }

    fn told(&self, error: &ConnectionError) -> String {
        format!("{}: {error}", self.subject)
    }
}

async fn follow(
    mut connection: Connection,
    plan: watch::Receiver<Option<Plan>>,
    tally: Arc<Tally>,
) -> (Latencies, End) {
    let mut latencies = Latencies::default();
    for next in 1.. {
        let number = match connection.next().await {
            Ok(Incoming::Message(payload)) => payload.first_chunk::<NUMBER_BYTES>().copied().map(u64::from_be_bytes),
            Ok(_) => None,
            Err(ConnectionError::Io(error)) => return (latencies, End::Closed(error.to_string())),
            Err(error) => return (latencies, End::Wrong(error.to_string())),
        };
        if number != Some(next) {
            return (latencies, End::Wrong(format!("{number:?} came instead of {next}")));
        }
        tally.note(next, &plan, &mut latencies);
    }
    (latencies, End::Closed("there are no more numbers".into()))
}
