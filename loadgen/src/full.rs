//! A broker on a disk that becomes full: it refuses what it cannot store in a way that says to try again, answers
//! readers meanwhile, goes on by itself when space returns, and loses nothing that it acknowledged.
//!
//! fill -> refused -> read, subscribe, connect -> space returns -> acknowledged -> kill -9 -> start -> judge

use std::{
    error::Error,
    fmt,
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_checker::Verdict;
use antiphon_sdk::{Client, From, Item, LogName};
use clap::Args;
use tokio::{
    sync::{mpsc::unbounded_channel, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    broker::Broker,
    chance::Chance,
    full_sender::{FullSender, Told, Until},
    merge::Group,
    names::{Names, Seat},
    recorder::Recorder,
    run::run_name,
    small_disk::{SmallDisk, enter_namespace},
    stage,
    target::{OwnBroker, Target},
    wire::{Dialer, open_all},
};

/// Until the disk is full, at most.
const FILL_TIMEOUT: Duration = Duration::from_secs(120);
/// From the return of space to an acknowledgement, at most.
const RECOVERY_MAX: Duration = Duration::from_secs(15);
/// What a reader may wait while the disk is full.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages of each sender after space has returned.
const AFTERWARDS: u64 = 40;
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How large everything is. The store's segments are small so that the disk can be; 0 leaves them as they are.
#[derive(Debug, Args)]
pub struct FullArgs {
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH", env = "ANTIPHON")]
    antiphon: Option<PathBuf>,
    /// The disk, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 80)]
    disk_mib: usize,
    /// What takes up a part of it until space returns, in MiB. A start brings the log into the index before it removes it,
    /// so the space that returns is to be more than the log of all shards.
    #[arg(long, value_name = "MIB", default_value_t = 40)]
    ballast_mib: usize,
    /// Segments of the broker's write-ahead log, in bytes; 0 = the usual ones.
    #[arg(long, value_name = "BYTES", default_value_t = 2 << 20)]
    segment_bytes: u32,
    /// The broker's shards.
    #[arg(long, value_name = "N", default_value_t = 2)]
    shards: u32,
    /// Conversations, each with a sender of its own.
    #[arg(long, value_name = "N", default_value_t = 8)]
    conversations: usize,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 16_000)]
    bytes: usize,
    /// Everything random follows from it.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub struct FullReport {
    filled: Told,
    rows_read: u64,
    still_refused: u64,
    recovery: Option<Duration>,
    afterwards: Told,
    restart: Option<Duration>,
    verdict: Option<Verdict>,
    delivered: u64,
    expected: u64,
    broken: Vec<String>,
}

impl FullReport {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
            && self.delivered == self.expected
            && self.verdict.as_ref().is_some_and(|verdict| verdict.findings.is_empty())
    }
}

impl fmt::Display for FullReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds =
            |time: Option<Duration>| time.map_or_else(|| "never".into(), |t| format!("{:.2} s", t.as_secs_f64()));
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<30}{value}");
        row("acked until the disk was full", &self.filled.acked)?;
        let Told { refused, held_off, .. } = self.filled;
        row("refused then", &format_args!("{refused} for want of space, {held_off} held off behind them"))?;
        row("refused after reading", &format_args!("{} for want of space", self.still_refused))?;
        row("rows read while full", &self.rows_read)?;
        row("acked again after", &seconds(self.recovery))?;
        row("acked afterwards", &format_args!("{}, {} refused", self.afterwards.acked, self.afterwards.refused))?;
        row("restart after kill -9", &seconds(self.restart))?;
        row("delivered", &format_args!("{} of {}", self.delivered, self.expected))?;
        if let Some(verdict) = &self.verdict {
            row("lost, duplicated", &format_args!("{}, {}", verdict.counts.lost, verdict.counts.duplicated))?;
            verdict.findings.keys().try_for_each(|rule| row("BROKEN", rule))?;
        }
        self.broken.iter().try_for_each(|broken| row("BROKEN", broken))?;
        row("promises", if self.holds() { &"kept" } else { &"BROKEN" })
    }
}

impl FullArgs {
    /// Runs it and tells what happened on `out`; false if a promise was broken.
    pub fn run(self, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
        enter_namespace()?;
        let disk = SmallDisk::mount(self.disk_mib, self.ballast_mib)?;
        let logs = tempfile::tempdir()?;
        let own = OwnBroker {
            program: self.antiphon.clone(),
            log: logs.path().join("broker.log"),
            shards: Some(self.shards),
            segment_bytes: Some(self.segment_bytes).filter(|bytes| *bytes > 0),
            ..OwnBroker::new(disk.path())
        };
        let (target, broker) = Target::start_own(own)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let report = runtime.block_on(self.go_through(&Arc::new(target), broker, &disk))?;
        write!(out, "{report}")?;
        if !report.holds() {
            // It goes with this run.
            out.write_all(&std::fs::read(logs.path().join("broker.log")).unwrap_or_default())?;
        }
        Ok(report.holds())
    }

    async fn go_through(
        &self,
        target: &Arc<Target>,
        mut broker: Broker,
        disk: &SmallDisk,
    ) -> Result<FullReport, Box<dyn Error>> {
        let groups = vec![Group { members: 1, messages: Vec::new() }; self.conversations];
        let names = Names::new(run_name(), &groups);
        let recorder = Arc::new(Recorder::new(names, groups.iter().map(|group| group.members), Vec::new()));
        let service = target.connect_service(&recorder.names().service()).await?;
        stage::create_conversations(&service, &groups, recorder.names()).await?;
        let (members, _endpoints) = stage::connect_members(target, &groups, &recorder, || ()).await?;
        let (stop, stopped) = watch::channel(false);
        let mut readers = JoinSet::new();
        for member in members {
            // Nothing falls due: they only read.
            let (_, due) = unbounded_channel();
            readers.spawn(member.run(due, stopped.clone(), recorder.clone()));
        }

        let mut report = FullReport::default();
        let mut senders = self.senders(target, &recorder).await?;
        self.fill_and_empty(target, &service, &mut senders, disk, &recorder, &mut report).await?;
        if let Some(status) = broker.ended()? {
            report.broken.push(format!("the broker ended with {status}"));
        }
        drop(senders);
        let began = Instant::now();
        broker.restart()?;
        report.restart = Some(began.elapsed());

        wait_for_rest(&recorder).await;
        let progress = recorder.progress();
        (report.delivered, report.expected) = (progress.delivered, progress.expected);
        stop.send_replace(true);
        let clients = readers.join_all().await;
        stage::read_histories(&service, groups.len(), &recorder).await?;
        let seats = (0..self.conversations as u32).map(|group| Seat { group, member: 0 });
        report.verdict = Some(recorder.finish(seats).0);
        drop((clients, service));
        Ok(report)
    }

    /// One sender for each conversation: its member, on a second device.
    async fn senders(&self, target: &Target, recorder: &Arc<Recorder>) -> Result<Vec<FullSender>, Box<dyn Error>> {
        let dialer = Arc::new(Dialer::new(target.address(), target.trust(), 2, KEEP_ALIVE)?);
        let seats: Vec<Seat> = (0..self.conversations as u32).map(|group| Seat { group, member: 0 }).collect();
        let users: Result<Vec<_>, _> = seats.iter().map(|seat| recorder.names().user(*seat)).collect();
        let users: Vec<String> = users?.iter().map(ToString::to_string).collect();
        let sessions = open_all(target, &dialer, &users).await?;
        let mut senders = Vec::new();
        for (session, seat) in sessions.into_iter().zip(seats) {
            senders.push(FullSender {
                session,
                seat,
                log: LogName::Conversation(recorder.names().conversation(seat.group)?),
                recorder: recorder.clone(),
                chance: Chance::new(self.seed + u64::from(seat.group)),
                body_bytes: self.bytes,
                next: seat.group,
                step: self.conversations as u32,
                asked: Default::default(),
            });
        }
        Ok(senders)
    }

    async fn fill_and_empty(
        &self,
        target: &Target,
        service: &Client,
        senders: &mut Vec<FullSender>,
        disk: &SmallDisk,
        recorder: &Recorder,
        report: &mut FullReport,
    ) -> Result<(), Box<dyn Error>> {
        report.filled = all(senders, Until::Full, FILL_TIMEOUT, &mut report.broken).await?;
        for group in 0..self.conversations as u32 {
            let log = LogName::Conversation(recorder.names().conversation(group)?);
            match timeout(READ_TIMEOUT, read_twice(target, service, &log, recorder.head(group))).await {
                Ok(Ok(rows)) => report.rows_read += rows,
                Ok(Err(error)) => report.broken.push(format!("{log} was not readable: {error}")),
                Err(_) => report.broken.push(format!("{log} was not readable in time")),
            }
        }
        // The disk is still full, so all that was read was read from a full one.
        let still = all(senders, Until::Full, FILL_TIMEOUT, &mut report.broken).await?;
        report.still_refused = still.refused;
        if report.filled.refused == 0 || report.still_refused == 0 {
            report.broken.push("nothing was refused for want of space although the disk is small".into());
        }

        disk.remove_ballast()?;
        let began = Instant::now();
        let first = all(senders, Until::Acked(1), RECOVERY_MAX, &mut report.broken).await?;
        if first.acked >= senders.len() as u64 {
            report.recovery = Some(began.elapsed());
        } else {
            report.broken.push(format!("{} of {} senders were acknowledged again", first.acked, senders.len()));
        }
        report.afterwards = all(senders, Until::Acked(AFTERWARDS), RECOVERY_MAX, &mut report.broken).await?;
        if report.afterwards.acked < AFTERWARDS * senders.len() as u64 {
            report.broken.push("sends did not go on after space had returned".into());
        }
        Ok(())
    }
}

/// Lets every sender send at the same time until each is content, and sums up what they were told.
async fn all(
    senders: &mut Vec<FullSender>,
    until: Until,
    within: Duration,
    broken: &mut Vec<String>,
) -> Result<Told, Box<dyn Error>> {
    let deadline = Instant::now() + within;
    let mut sending = JoinSet::new();
    for mut sender in senders.drain(..) {
        sending.spawn(async move {
            let told = sender.run(until, deadline).await;
            (sender, told)
        });
    }
    let mut sum = Told::default();
    while let Some(done) = sending.join_next().await {
        let (sender, told) = done?;
        sum.acked += told.acked;
        sum.refused += told.refused;
        sum.held_off += told.held_off;
        broken.extend(told.wrong);
        senders.push(sender);
    }
    Ok(sum)
}

/// Reads a log up to `head` by pages, and by a new subscription of a new session; the rows of both.
async fn read_twice(
    target: &Target,
    service: &Client,
    log: &LogName,
    head: u64,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let paged = stage::history(service, log).await?;
    if paged.len() as u64 != head {
        return Err(format!("{} rows of {head} are in its pages", paged.len()).into());
    }
    let client = target.connect_service("late").await?;
    let mut events = client.subscribe(log, From::Start).await?;
    let mut rows = 0;
    while rows < head {
        match events.next().await {
            Some(Item::Event(event)) if event.seq() == rows + 1 => rows += 1,
            Some(Item::Attached(_)) => {}
            other => return Err(format!("{other:?} came after position {rows}").into()),
        }
    }
    Ok(head + rows)
}

/// Waits until every reader has everything that was acknowledged, or nothing comes any more.
async fn wait_for_rest(recorder: &Recorder) {
    let mut moved = Instant::now();
    let mut before = recorder.progress();
    while before.delivered < before.expected && moved.elapsed() < RECOVERY_MAX {
        sleep(POLL_INTERVAL).await;
        let progress = recorder.progress();
        if progress != before {
            moved = Instant::now();
        }
        before = progress;
    }
}
