//! Rooms with one publisher and many subscribers: what a live delivery costs the broker.
//!
//! Every subscriber is a bare session ([`crate::wire`]) and checks its stream by position: the next event must have the
//! next position, and at the end all have all. The CPU time is that of all threads of the broker between two moments at
//! which nothing is under way, so that it holds everything that the deliveries between them caused: receipt, storage,
//! sync, encryption, acknowledgements, timers.

use std::{
    error::Error,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_protocol::{
    ContentType, EventKind, FrameType, InvalidId, LogName, RawFrame,
    frames::{Ack, NewSend},
};
use clap::Args;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::sleep,
};

use crate::{
    follower::{End, Tally, follow, settle},
    loopback::Traffic,
    measured::Scenario,
    merge::Group,
    names::{MessageNumber, Names, Seat, message_id},
    probe::{METRIC_FSYNCS, cpu_us_between},
    report::{Latencies, LatencySummary},
    rooms::{Choice, Publish, Rooms},
    stage,
    target::{Target, Usage},
    wire::{Dialer, KEEP_ALIVE, Session, WireError, expect, open_all},
};

/// Sessions that share one socket of the generator.
pub const SESSIONS_PER_SOCKET: usize = 64;
/// How old the broker's metrics page may be.
pub(crate) const METRICS_AGE: Duration = Duration::from_millis(1_200);

/// The load.
#[derive(Debug, Args)]
pub struct FanoutArgs {
    /// Rooms, each with a publisher of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rooms: u32,
    /// Subscribers of each room, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub(crate) members: u32,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Messages per second, over all rooms.
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    pub(crate) rate: f64,
    /// A few rooms get most messages, by Zipf's law; else they take turns.
    #[arg(long)]
    pub(crate) zipf: bool,
    /// Send each message at its moment, as latencies need it; else with what is due in the same millisecond.
    #[arg(long)]
    pub(crate) exact: bool,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Load before the measurement.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) warm_up: f64,
}

impl FanoutArgs {
    fn choice(&self) -> Choice {
        if self.zipf { Choice::Zipf } else { Choice::Turns }
    }
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FanoutReport {
    /// Rooms.
    pub rooms: u32,
    /// Subscribers of each.
    pub members: u32,
    /// Bytes of a body.
    pub bytes: usize,
    /// Messages per second that were offered.
    pub rate: f64,
    /// Messages of the measurement.
    pub messages: u64,
    /// Copies that came, each checked by its position.
    pub delivered: u64,
    /// Copies that should have come.
    pub expected: u64,
    /// CPU time of the broker per copy, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Times per message that a thread of the broker went to sleep.
    pub wake_ups_per_message: Option<f64>,
    /// Memory of the broker at the end, in KiB.
    pub resident_kib: Option<u64>,
    /// Packets that the broker sent per copy.
    pub datagrams_out_per_delivery: Option<f64>,
    /// Packets that it received per copy.
    pub datagrams_in_per_delivery: Option<f64>,
    /// Bytes over loopback per copy, those of messages on their way to the broker and of acknowledgements included.
    pub wire_bytes_per_delivery: Option<f64>,
    /// The same, packets.
    pub wire_packets_per_delivery: Option<f64>,
    /// Turns of its loop per message.
    pub turns_per_message: Option<f64>,
    /// Synced writes per message.
    pub fsyncs_per_message: Option<f64>,
    /// From the planned send to the receipt.
    pub delivery: Option<LatencySummary>,
    /// From the planned send to the actual one.
    pub lag: Option<LatencySummary>,
    /// What went wrong at a subscriber first.
    pub broken: Option<String>,
}

impl FanoutReport {
    /// Every subscriber got every message once and in order.
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.delivered == self.expected
    }
}

impl fmt::Display for FanoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "unknown".into(), |figure| format!("{figure:.2}"));
        let Self { rooms, members, bytes, rate, .. } = self;
        writeln!(f, "fan-out                       {rooms} x 1 -> {members} x {bytes} B at {rate}/s")?;
        writeln!(f, "delivered                     {} of {}", self.delivered, self.expected)?;
        writeln!(f, "server CPU us/delivery        {}", figure(self.cpu_us_per_delivery))?;
        writeln!(f, "wake-ups per message          {}", figure(self.wake_ups_per_message))?;
        writeln!(f, "datagrams out per delivery    {}", figure(self.datagrams_out_per_delivery))?;
        writeln!(f, "datagrams in per delivery     {}", figure(self.datagrams_in_per_delivery))?;
        writeln!(f, "wire bytes per delivery       {}", figure(self.wire_bytes_per_delivery))?;
        writeln!(f, "loop turns per message        {}", figure(self.turns_per_message))?;
        writeln!(f, "fsyncs per message            {}", figure(self.fsyncs_per_message))?;
        for (name, summary) in [("delivery latency", self.delivery), ("generator lag", self.lag)] {
            if let Some(LatencySummary { p50_ms, p99_ms, max_ms, .. }) = summary {
                writeln!(f, "{name:<30}p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  max {max_ms:.2} ms")?;
            }
        }
        let kept = self.broken.as_deref().map_or("every copy came once and in order", |broken| broken);
        writeln!(f, "promises                      {kept}")
    }
}

/// Sends to one room.
struct Publisher {
    session: Session,
    log: LogName,
    body: Vec<u8>,
    sent: u64,
    answered: u64,
    /// Position of the newest message that was acknowledged.
    acked: u64,
}

impl Publish for Publisher {
    async fn write(&mut self) -> Result<(), String> {
        self.sent += 1;
        let id = self.session.next_id();
        let send = new_send(&self.log, self.sent, &self.body);
        self.session.write(send.to_frame(id)).await.map_err(|error| self.told(&error))
    }

    async fn answer(&mut self) -> Result<(), String> {
        let answer = self.session.answer().await.map_err(|error| self.told(&error))?;
        self.note(&answer).map_err(|error| self.told(&error))
    }

    fn is_owed(&self) -> bool {
        self.answered < self.sent
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    fn next_position(&self) -> u64 {
        self.acked + 1
    }
}

impl Publisher {
    fn note(&mut self, answer: &RawFrame) -> Result<(), WireError> {
        expect(FrameType::Ack, answer)?;
        self.answered += 1;
        self.acked = Ack::decode(&answer.body)?.position.seq;
        Ok(())
    }

    fn told(&self, error: &WireError) -> String {
        format!("{}: {error}", self.log)
    }
}

/// The `dseq`th SEND of a session to a log.
pub(crate) fn new_send<'a>(log: &'a LogName, dseq: u64, body: &'a [u8]) -> NewSend<'a> {
    let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    NewSend {
        client_message_id: message_id(MessageNumber(dseq as u32), unix_ms),
        dseq,
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        log,
        act_as: None,
        envelope: &[],
        body,
    }
}

impl Scenario for FanoutArgs {
    type Report = FanoutReport;

    async fn run(&self, target: &Arc<Target>) -> Result<FanoutReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(report: &FanoutReport) -> bool {
        report.holds()
    }
}

/// Runs it against a broker.
async fn run(args: &FanoutArgs, target: &Arc<Target>) -> Result<FanoutReport, Box<dyn Error>> {
    let FanoutArgs { members, bytes, rate, rooms: rooms_wanted, .. } = *args;
    // The last one of each room only sends.
    let groups = vec![Group { members: members + 1, messages: Vec::new() }; rooms_wanted as usize];
    let names = Names::new(format!("fan{}", std::process::id()), &groups);
    let service = target.connect_service(&names.service()).await?;
    stage::create_conversations(&service, &groups, &names).await?;

    let mut rooms = Rooms::new(rate).exact(args.exact)?;
    let seats = (0..rooms_wanted).flat_map(|group| (0..members).map(move |member| Seat { group, member }));
    let mut sessions = open_seats(target.clone(), users(&names, seats)?).await?.into_iter();
    let seats = (0..rooms_wanted).map(|group| Seat { group, member: members });
    let publishers = rooms.senders().spawn(open_seats(target.clone(), users(&names, seats)?)).await??;

    let tally = Arc::new(Tally::default());
    let (mut readers, mut followers) = (JoinSet::new(), Vec::new());
    for (room, session) in (0..rooms_wanted).zip(publishers) {
        let log = LogName::Conversation(names.conversation(room)?);
        let (plan, plans) = watch::channel(None);
        for mut session in sessions.by_ref().take(members as usize) {
            let attach = session.subscribe(&log).await?;
            let events = session.take_events().ok_or("a subscription has no events stream")?;
            readers.spawn(follow(events, attach.live_from, plans.clone(), tally.clone()));
            followers.push(session);
        }
        rooms.add(Publisher { session, log, body: vec![b'x'; bytes], sent: 0, answered: 0, acked: 0 }, plan);
    }
    let mut report = FanoutReport { rooms: rooms_wanted, members, bytes, rate, ..Default::default() };

    // Every room has had a message then.
    rooms.send(messages(args.warm_up, rate).max(rooms_wanted.into()), Choice::Turns, false).await?;
    settle(&tally, rooms.sent() * u64::from(members)).await;
    sleep(METRICS_AGE).await;
    let before = target.usage();
    report.messages = messages(args.seconds, rate).max(1);
    report.lag = rooms.send(report.messages, args.choice(), true).await?.summary();
    let expected = rooms.sent() * u64::from(members);
    settle(&tally, expected).await;
    let after = target.process_usage();
    sleep(METRICS_AGE).await;
    let page = target.usage();
    drop(followers);

    report.expected = report.messages * u64::from(members);
    report.delivered = (tally.delivered.load(Ordering::Relaxed) + report.expected).saturating_sub(expected);
    report.apply(&before, &after, &page);
    // The sessions are closed, so every reader comes to an end.
    report.gather(readers).await?;
    Ok(report)
}

fn users(names: &Names, seats: impl Iterator<Item = Seat>) -> Result<Vec<String>, InvalidId> {
    seats.map(|seat| names.user(seat).map(|user| user.to_string())).collect()
}

/// Opens sessions on sockets of their own.
async fn open_seats(target: Arc<Target>, users: Vec<String>) -> Result<Vec<Session>, WireError> {
    let sockets = users.len().div_ceil(SESSIONS_PER_SOCKET);
    let dialer = Arc::new(Dialer::new(target.address(), target.trust(), sockets, KEEP_ALIVE)?);
    open_all(&target, &dialer, &users).await
}

pub(crate) fn messages(seconds: f64, rate: f64) -> u64 {
    (seconds * rate).round() as u64
}

impl FanoutReport {
    /// Waits for the readers' ends. Where everything came, a connection that closed means nothing.
    pub(crate) async fn gather(&mut self, mut readers: JoinSet<(Latencies, End)>) -> Result<(), JoinError> {
        let mut latencies = Latencies::default();
        let are_all_here = self.delivered == self.expected;
        while let Some(reader) = readers.join_next().await {
            let (of_one, end) = reader?;
            latencies.add(&of_one);
            if !are_all_here || matches!(end, End::Wrong(_)) {
                self.broken.get_or_insert(end.to_string());
            }
        }
        self.delivery = latencies.summary();
        Ok(())
    }

    /// Takes over what the broker used between two readings; `page` was read when its metrics had caught up.
    pub(crate) fn apply(&mut self, before: &Usage, after: &Usage, page: &Usage) {
        let (deliveries, messages) = (self.delivered as f64, self.messages as f64);
        let grown = |name| page.metrics.as_ref()?.growth(before.metrics.as_ref()?, name);
        self.cpu_us_per_delivery = cpu_us_between(before.cpu_ns, after.cpu_ns).map(|us| us / deliveries);
        self.wake_ups_per_message =
            after.wake_ups.zip(before.wake_ups).map(|(after, before)| (after - before) as f64 / messages);
        self.resident_kib = after.resident_kib;
        self.datagrams_out_per_delivery = grown("antiphon_datagrams_out_total").map(|count| count / deliveries);
        self.datagrams_in_per_delivery = grown("antiphon_datagrams_in_total").map(|count| count / deliveries);
        let wire = Traffic::between(before.loopback, after.loopback).map(|wire| wire.per(deliveries));
        self.wire_bytes_per_delivery = wire.map(|[bytes, _]| bytes);
        self.wire_packets_per_delivery = wire.map(|[_, packets]| packets);
        self.turns_per_message = grown("antiphon_loop_turns_total").map(|count| count / messages);
        self.fsyncs_per_message = grown(METRIC_FSYNCS).map(|count| count / messages);
    }
}
