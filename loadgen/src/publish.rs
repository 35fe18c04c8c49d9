//! A few connections that send as fast as a window of unacknowledged messages lets them: what a durable
//! acknowledgement costs the broker, and how many of them one sync of its log serves.
//!
//! The loop is closed on purpose: the window is the load. Where two clients are compared it is open, at one rate for both:
//! the window is then a burst, and how many messages arrive together does not follow from how fast a client is. Each
//! connection sends to a conversation of its own, and its acknowledgements are checked by position: the next one must be
//! the answer to the next request and name the next position.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_protocol::{FrameType, LogName, RawFrame, frames::Ack};
use bytes::{Bytes, BytesMut};
use clap::Args;
use serde::Serialize;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, sleep_until},
};

use crate::{
    fanout::{METRICS_AGE, new_send},
    measured::Scenario,
    merge::Group,
    names::{Names, Seat},
    probe::{METRIC_FSYNCS, cpu_us_between},
    report::{Latencies, LatencySummary},
    stage,
    target::{Target, Usage},
    wire::{Dialer, KEEP_ALIVE, Session, WireError, expect, open_all},
};

const METRIC_APPENDED: &str = "antiphon_events_appended_total";
const METRIC_BLOCKS: &str = "antiphon_store_blocks_total";

/// The load.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// Connections that send.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) connections: usize,
    /// Messages of one connection that wait for their acknowledgement.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) in_flight: usize,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Messages per second, over all connections in turn: each sends as many as may be in flight at once, and not before
    /// the last ones are acknowledged. Default: as many as the windows let through.
    #[arg(long, value_name = "R")]
    pub(crate) rate: Option<f64>,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Load before the measurement.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) warm_up: f64,
}

/// When a connection sends a whole window.
#[derive(Debug, Clone, Copy)]
struct Bursts {
    start: Instant,
    interval: Duration,
    count: u32,
}

impl PublishArgs {
    /// The bursts of each connection, evenly spread over all of them.
    fn bursts(&self, rate: f64, seconds: f64) -> impl Iterator<Item = Bursts> + use<> {
        let between = Duration::from_secs_f64(self.in_flight as f64 / rate);
        let interval = between * self.connections as u32;
        let count = (seconds / interval.as_secs_f64()).round().max(1.0) as u32;
        let start = Instant::now();
        (0..self.connections as u32).map(move |number| Bursts { start: start + between * number, interval, count })
    }
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PublishReport {
    /// Connections.
    pub connections: usize,
    /// Messages in flight on each.
    pub in_flight: usize,
    /// Bytes of a body.
    pub bytes: usize,
    /// Messages per second that were offered; none in a closed loop.
    pub rate: Option<f64>,
    /// Acknowledgements in the measurement.
    pub acks: u64,
    /// Of these, per second.
    pub acks_per_second: f64,
    /// CPU time of the broker per acknowledgement, in microseconds.
    pub cpu_us_per_ack: Option<f64>,
    /// Part of the measurement in which the broker's threads ran, summed.
    pub cores_busy: Option<f64>,
    /// Messages that one synced write made durable.
    pub messages_per_fsync: Option<f64>,
    /// Messages in one block of the write-ahead log, or in one batch of rows to a cluster.
    pub messages_per_block: Option<f64>,
    /// Blocks that one synced write made durable.
    pub blocks_per_fsync: Option<f64>,
    /// Syncs per second.
    pub fsyncs_per_second: Option<f64>,
    /// Memory of the broker at the end, in KiB.
    pub resident_kib: Option<u64>,
    /// Packets that the broker received per acknowledgement.
    pub datagrams_in_per_ack: Option<f64>,
    /// From when a burst was due to when it was sent.
    pub lag: Option<LatencySummary>,
    /// What went wrong first.
    pub broken: Option<String>,
}

impl PublishReport {
    /// Takes over how long the acknowledgements took, and the CPU time, in microseconds.
    pub(crate) fn divide(&mut self, seconds: f64, cpu_us: Option<f64>) {
        self.acks_per_second = self.acks as f64 / seconds;
        self.cpu_us_per_ack = cpu_us.map(|us| us / self.acks as f64);
        self.cores_busy = cpu_us.map(|us| us / 1e6 / seconds);
    }

    /// Takes over what the broker used between two readings.
    pub(crate) fn apply(&mut self, before: &Usage, after: &Usage, seconds: f64) {
        self.divide(seconds, cpu_us_between(before.cpu_ns, after.cpu_ns));
        self.resident_kib = after.resident_kib;
        // All counters come from the same page, so that its age does not matter.
        let grown = |name| after.metrics.as_ref()?.growth(before.metrics.as_ref()?, name);
        let per = |amount: Option<f64>, count: Option<f64>| {
            // A cluster has no syncs that the broker could count.
            amount.zip(count.filter(|count| *count > 0.0)).map(|(amount, count)| amount / count)
        };
        let (appended, fsyncs) = (grown(METRIC_APPENDED), grown(METRIC_FSYNCS));
        self.messages_per_fsync = per(appended, fsyncs);
        self.messages_per_block = per(appended, grown(METRIC_BLOCKS));
        self.blocks_per_fsync = per(grown(METRIC_BLOCKS), fsyncs);
        self.datagrams_in_per_ack = per(grown("antiphon_datagrams_in_total"), appended);
        self.fsyncs_per_second = self.messages_per_fsync.map(|messages| self.acks_per_second / messages);
    }

    /// Every message was acknowledged once, at the next position.
    pub fn holds(&self) -> bool {
        self.broken.is_none()
    }
}

impl fmt::Display for PublishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "unknown".into(), |figure| format!("{figure:.2}"));
        let Self { connections, in_flight, bytes, acks, acks_per_second, .. } = self;
        let rate = self.rate.map(|rate| format!(" at {rate}/s")).unwrap_or_default();
        writeln!(
            f,
            "publish                       {connections} connections x {in_flight} in flight x {bytes} B{rate}"
        )?;
        writeln!(f, "durable acks                  {acks}, {acks_per_second:.0} per second")?;
        writeln!(f, "server CPU us/ack             {}", figure(self.cpu_us_per_ack))?;
        writeln!(f, "server cores busy             {}", figure(self.cores_busy))?;
        writeln!(f, "messages per fsync            {}", figure(self.messages_per_fsync))?;
        writeln!(f, "messages per block or batch   {}", figure(self.messages_per_block))?;
        writeln!(f, "blocks per fsync              {}", figure(self.blocks_per_fsync))?;
        writeln!(f, "fsyncs per second             {}", figure(self.fsyncs_per_second))?;
        writeln!(f, "datagrams in per ack          {}", figure(self.datagrams_in_per_ack))?;
        if let Some(LatencySummary { p50_ms, p99_ms, max_ms, .. }) = self.lag {
            writeln!(f, "generator lag                 p50 {p50_ms:.2} ms  p99 {p99_ms:.2} ms  max {max_ms:.2} ms")?;
        }
        let kept = self.broken.as_deref().unwrap_or("every message was acknowledged once and in order");
        writeln!(f, "promises                      {kept}")
    }
}

/// One connection that sends.
struct Sender {
    session: Session,
    log: LogName,
    body: Bytes,
    sent: u64,
    /// The request that must be answered next; requests are answered in order.
    next_answer: u32,
    /// Position of the last acknowledgement.
    position: Option<u64>,
    acks: Arc<AtomicU64>,
}

impl Sender {
    /// Keeps `window` messages under way until it is told to stop, then waits for the rest.
    async fn run(mut self, window: usize, stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut room = window;
        loop {
            if !*stop.borrow() && room > 0 {
                let frames = self.messages(room);
                room = 0;
                self.session.write(frames).await.map_err(text_of(&self.log))?;
            }
            if room == window {
                return Ok(());
            }
            let answer = self.session.answer().await.map_err(text_of(&self.log))?;
            self.note(&answer)?;
            room += 1;
            while let Some(answer) = self.session.answer_buffered().map_err(text_of(&self.log))? {
                self.note(&answer)?;
                room += 1;
            }
        }
    }

    /// Sends a window each time that it is due, and not before the last one is acknowledged. How late it was.
    async fn send_bursts(&mut self, window: usize, bursts: Bursts) -> Result<Latencies, String> {
        let mut lag = Latencies::default();
        for number in 0..bursts.count {
            let due = bursts.start + bursts.interval * number;
            sleep_until(due.into()).await;
            lag.record(due.elapsed());
            let frames = self.messages(window);
            self.session.write(frames).await.map_err(text_of(&self.log))?;
            for _ in 0..window {
                let answer = self.session.answer().await.map_err(text_of(&self.log))?;
                self.note(&answer)?;
            }
        }
        Ok(lag)
    }

    /// The next `count` SENDs, packed together.
    fn messages(&mut self, count: usize) -> Bytes {
        let mut packed = BytesMut::new();
        for _ in 0..count {
            self.sent += 1;
            let id = self.session.next_id();
            packed.extend_from_slice(&new_send(&self.log, self.sent, &self.body).to_frame(id));
        }
        packed.freeze()
    }

    fn note(&mut self, answer: &RawFrame) -> Result<(), String> {
        let text = text_of(&self.log);
        expect(FrameType::Ack, answer).map_err(text)?;
        let ack = Ack::decode(&answer.body).map_err(|error| error.to_string())?;
        let (found, wanted) = (ack.position.seq, self.position.map_or(ack.position.seq, |last| last + 1));
        if (answer.id, found) != (self.next_answer, wanted) || ack.duplicate {
            return Err(format!("{}: request {} was acknowledged at {found}, not {wanted}", self.log, answer.id));
        }
        self.next_answer += 1;
        self.position = Some(found);
        self.acks.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn text_of(log: &LogName) -> impl FnOnce(WireError) -> String {
    let log = log.to_string();
    move |error| format!("{log}: {error}")
}

impl Scenario for PublishArgs {
    type Report = PublishReport;

    async fn run(&self, target: &Arc<Target>) -> Result<PublishReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(report: &PublishReport) -> bool {
        report.holds()
    }
}

/// Runs it against a broker.
async fn run(args: &PublishArgs, target: &Target) -> Result<PublishReport, Box<dyn Error>> {
    let groups = vec![Group { members: 1, messages: Vec::new() }; args.connections];
    let names = Names::new(format!("pub{}", std::process::id()), &groups);
    let service = target.connect_service(&names.service()).await?;
    stage::create_conversations(&service, &groups, &names).await?;
    let seats = (0..args.connections as u32).map(|group| Seat { group, member: 0 });
    let users: Result<Vec<_>, _> = seats.map(|seat| names.user(seat).map(|user| user.to_string())).collect();
    let dialer = Arc::new(Dialer::new(target.address(), target.trust(), args.connections, KEEP_ALIVE)?);

    let acks = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    for (group, mut session) in (0..).zip(open_all(target, &dialer, &users?).await?) {
        let (log, body) = (LogName::Conversation(names.conversation(group)?), Bytes::from(vec![b'x'; args.bytes]));
        let next_answer = session.next_id() + 1;
        senders.push(Sender { session, log, body, sent: 0, next_answer, position: None, acks: acks.clone() });
    }
    let mut report = PublishReport {
        connections: args.connections,
        in_flight: args.in_flight,
        bytes: args.bytes,
        rate: args.rate,
        ..Default::default()
    };
    match args.rate {
        None => at_full_speed(args, target, senders, &acks, &mut report).await?,
        Some(rate) => at_rate(args, rate, target, senders, &mut report).await?,
    }
    Ok(report)
}

/// The windows stay full from the beginning to the end.
async fn at_full_speed(
    args: &PublishArgs,
    target: &Target,
    senders: Vec<Sender>,
    acks: &AtomicU64,
    report: &mut PublishReport,
) -> Result<(), Box<dyn Error>> {
    let (stop, stops) = watch::channel(false);
    let mut sending = JoinSet::new();
    for sender in senders {
        sending.spawn(sender.run(args.in_flight, stops.clone()));
    }
    sleep(Duration::from_secs_f64(args.warm_up)).await;
    let mut before = target.usage();
    let (start, acks_before) = (Instant::now(), acks.load(Ordering::Relaxed));
    before.cpu_ns = target.cpu_ns();
    sleep(Duration::from_secs_f64(args.seconds)).await;
    let (cpu_ns, seconds, acks_after) = (target.cpu_ns(), start.elapsed().as_secs_f64(), acks.load(Ordering::Relaxed));
    let after = Usage { cpu_ns, ..target.usage() };
    stop.send_replace(true);
    while let Some(sender) = sending.join_next().await {
        if let Err(error) = sender? {
            report.broken.get_or_insert(error);
        }
    }
    report.acks = acks_after - acks_before;
    report.apply(&before, &after, seconds);
    Ok(())
}

/// Between two moments at which nothing is under way.
async fn at_rate(
    args: &PublishArgs,
    rate: f64,
    target: &Target,
    mut senders: Vec<Sender>,
    report: &mut PublishReport,
) -> Result<(), Box<dyn Error>> {
    send_bursts(args, rate, args.warm_up, &mut senders).await?;
    sleep(METRICS_AGE).await;
    let (before, start) = (target.usage(), Instant::now());
    let sent_before: u64 = senders.iter().map(|sender| sender.sent).sum();
    report.lag = send_bursts(args, rate, args.seconds, &mut senders).await?.summary();
    let (cpu_ns, seconds) = (target.cpu_ns(), start.elapsed().as_secs_f64());
    report.acks = senders.iter().map(|sender| sender.sent).sum::<u64>() - sent_before;
    sleep(METRICS_AGE).await;
    report.apply(&before, &Usage { cpu_ns, ..target.usage() }, seconds);
    Ok(())
}

/// Lets all connections send for so long, and waits until everything is acknowledged. How late the bursts were.
async fn send_bursts(
    args: &PublishArgs,
    rate: f64,
    seconds: f64,
    senders: &mut Vec<Sender>,
) -> Result<Latencies, Box<dyn Error>> {
    let (mut sending, window) = (JoinSet::new(), args.in_flight);
    for (mut sender, bursts) in senders.drain(..).zip(args.bursts(rate, seconds)) {
        sending.spawn(async move {
            let lag = sender.send_bursts(window, bursts).await;
            (sender, lag)
        });
    }
    let mut all = Latencies::default();
    while let Some(sent) = sending.join_next().await {
        let (sender, lag) = sent?;
        all.add(&lag?);
        senders.push(sender);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_take_turns_at_one_rate() {
        let args =
            PublishArgs { connections: 4, in_flight: 50, bytes: 200, rate: Some(10_000.0), seconds: 2.0, warm_up: 0.0 };
        let bursts: Vec<Bursts> = args.bursts(10_000.0, args.seconds).collect();
        let starts: Vec<Duration> = bursts.iter().map(|one| one.start - bursts[0].start).collect();
        assert_eq!(starts, [0, 5, 10, 15].map(Duration::from_millis));
        assert!(bursts.iter().all(|one| one.interval == Duration::from_millis(20) && one.count == 100), "{bursts:?}");
        // The shortest run sends something.
        assert!(args.bursts(10_000.0, 0.001).all(|one| one.count == 1));
    }
}
