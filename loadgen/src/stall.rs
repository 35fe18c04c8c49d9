//! Readers that stop reading, among others that go on: what each stalled one costs the broker in memory, that the others
//! get everything meanwhile, and that the stalled ones catch up without a gap.
//!
//! Every reader is an SDK client that follows the one conversation it is a member of, and checks it by position. The
//! stalled ones sit in different conversations as far as there are enough, so that what the broker holds for them is not
//! the same bytes.
//!
//! Memory: four steps with the same number of messages each. In the first two nobody stalls: the first fills what fills
//! once, the second shows what the messages alone add, in the store's tables above all. In the third half of the stalled
//! readers stand still, in the fourth all. What the larger of these two adds beyond the second is what they cost.

use std::{
    collections::VecDeque,
    error::Error,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use antiphon_sdk::{Client, ContentType, Endpoint, From, Item, LogName, NewMessage, Subscription};
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep,
};

use crate::{
    machine::resident_kib,
    measured::Scenario,
    merge::Group,
    names::{Names, Seat},
    stage,
    target::{Target, TargetArgs},
};

/// Sessions that share one socket.
const SESSIONS_PER_SOCKET: usize = 16;
/// Sessions that are being made at the same time, by each thread of readers.
const CONNECTING_MAX: usize = 32;
/// How long readers may get nothing new before the run is over.
const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that may wait for their acknowledgement.
const UNACKED_MAX: usize = 1_000;
/// From the last delivery of a step to the reading of memory.
const REST: Duration = Duration::from_secs(1);

/// How a reader stalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StallKind {
    /// The process stands still: its socket is not read and nothing is acknowledged, as on a phone that sleeps.
    Process,
    /// The application does not read its subscription; the SDK behind it goes on.
    Application,
}

/// The load.
#[derive(Debug, Args)]
pub struct StallArgs {
    /// All readers, each on a connection of its own; a multiple of --members.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    readers: u32,
    /// Of these, how many stall; an even number.
    #[arg(long, value_name = "N", default_value_t = 100)]
    stalled: u32,
    /// Readers of one conversation.
    #[arg(long, value_name = "N", default_value_t = 10)]
    members: u32,
    /// How they stall.
    #[arg(long, value_name = "KIND", value_enum, default_value = "process")]
    kind: StallKind,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 4_000)]
    bytes: usize,
    /// Messages of each step in each conversation. Default: 200 KiB of bodies, or 4 MiB where the SDK holds some too.
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Messages per second, over all conversations.
    #[arg(long, value_name = "R", default_value_t = 500.0)]
    rate: f64,
    /// What a stalled reader may cost, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 256)]
    kib_max: u64,
}

impl StallArgs {
    fn messages(&self) -> u64 {
        let kib: u64 = match self.kind {
            StallKind::Process => 200,
            StallKind::Application => 4_096,
        };
        self.messages.unwrap_or_else(|| (kib << 10).div_ceil(self.bytes.max(1) as u64))
    }

    fn conversations(&self) -> u32 {
        self.readers / self.members.max(1)
    }

    /// Neighbours sit in different conversations.
    fn seat(&self, reader: u32) -> Seat {
        Seat { group: reader % self.conversations(), member: reader / self.conversations() }
    }
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StallReport {
    /// All readers.
    pub readers: u32,
    /// Of these, how many stalled.
    pub stalled: u32,
    /// Readers of one conversation.
    pub members: u32,
    /// Messages of each step in each conversation.
    pub messages_per_step: u64,
    /// Resident memory of the broker after each step, in KiB: two with nobody stalled, half, all; and caught up.
    pub resident_kib: [u64; 5],
    /// What a stalled reader added beyond what the messages did.
    pub kib_per_stalled: f64,
    /// What it may be.
    pub kib_max: u64,
    /// Copies that came to readers that never stalled, while others did.
    pub others_delivered: u64,
    /// Copies that should have come to them.
    pub others_expected: u64,
    /// Longest time from a step's last acknowledgement to its last copy at a reader that did not stall.
    pub others_seconds: f64,
    /// Copies that came to stalled readers, in the end.
    pub stalled_delivered: u64,
    /// Copies that should have come to them.
    pub stalled_expected: u64,
    /// How long the stalled ones took to catch up.
    pub catch_up_seconds: f64,
    /// What was broken.
    pub broken: Vec<String>,
}

impl StallReport {
    /// Memory is bounded, the others got everything meanwhile, and the stalled ones caught up without a gap.
    pub fn holds(&self) -> bool {
        self.broken.is_empty()
            && self.kib_per_stalled <= self.kib_max as f64
            && self.others_delivered == self.others_expected
            && self.stalled_delivered == self.stalled_expected
    }
}

impl fmt::Display for StallReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [filled, none, half, all, end] = self.resident_kib;
        let Self { others_delivered, others_expected, stalled_delivered, stalled_expected, .. } = self;
        writeln!(f, "stall                         {} of {} readers", self.stalled, self.readers)?;
        writeln!(f, "readers of a conversation     {}", self.members)?;
        writeln!(f, "messages per step             {}", self.messages_per_step)?;
        writeln!(
            f,
            "resident KiB                  {filled}, then {none} with none, {half} with half, {all} with all, {end} after it"
        )?;
        writeln!(f, "KiB per stalled reader        {:.1} (at most {})", self.kib_per_stalled, self.kib_max)?;
        writeln!(f, "delivered to the others       {others_delivered} of {others_expected}")?;
        writeln!(f, "the others were behind        {:.2} s", self.others_seconds)?;
        writeln!(f, "delivered to the stalled      {stalled_delivered} of {stalled_expected}")?;
        writeln!(f, "catching up took              {:.2} s", self.catch_up_seconds)?;
        for broken in &self.broken {
            writeln!(f, "BROKEN                        {broken}")?;
        }
        writeln!(f, "promises                      {}", if self.holds() { "kept" } else { "BROKEN" })
    }
}

/// Counts of a thread of readers.
#[derive(Debug, Default)]
struct Tally {
    delivered: AtomicU64,
}

/// A thread with readers of its own, which can stand still.
struct Crew {
    size: u64,
    tally: Arc<Tally>,
    /// Whether its applications read.
    reads: watch::Sender<bool>,
    /// Given away while the whole thread is to stand still: the other end waits until it is dropped.
    gates: mpsc::UnboundedSender<std_mpsc::Receiver<()>>,
    gate: Option<std_mpsc::Sender<()>>,
    broken: std_mpsc::Receiver<String>,
    thread: JoinHandle<()>,
}

/// What a thread of readers needs to begin.
struct Readers {
    target: Arc<Target>,
    /// Who they are and what they follow.
    readers: Vec<(String, LogName)>,
    tally: Arc<Tally>,
    reads: watch::Receiver<bool>,
    gates: mpsc::UnboundedReceiver<std_mpsc::Receiver<()>>,
    broken: std_mpsc::Sender<String>,
}

impl Crew {
    /// Starts the thread and waits until all its readers follow their logs.
    async fn start(target: &Arc<Target>, readers: Vec<(String, LogName)>) -> Result<Self, Box<dyn Error>> {
        let (tally, size) = (Arc::new(Tally::default()), readers.len() as u64);
        let (reads, reading) = watch::channel(true);
        let (gates, gates_taken) = mpsc::unbounded_channel();
        let (breaking, broken) = std_mpsc::channel();
        let readers = Readers {
            target: target.clone(),
            readers,
            tally: tally.clone(),
            reads: reading,
            gates: gates_taken,
            broken: breaking,
        };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = thread::Builder::new().name("readers".into()).spawn(move || {
            runtime.block_on(readers.run(ready));
        })?;
        is_ready.await.map_err(|_| io::Error::other("a thread of readers ended"))??;
        Ok(Self { size, tally, reads, gates, gate: None, broken, thread })
    }

    fn stall(&mut self, kind: StallKind) {
        match kind {
            StallKind::Application => drop(self.reads.send_replace(false)),
            StallKind::Process => {
                let (gate, waits) = std_mpsc::channel();
                self.gate = Some(gate);
                // A thread that is gone has said why.
                let _ = self.gates.send(waits);
            }
        }
    }

    fn go_on(&mut self) {
        self.gate = None;
        self.reads.send_replace(true);
    }

    fn delivered(&self) -> u64 {
        self.tally.delivered.load(Ordering::Relaxed)
    }

    /// Ends it; what went wrong at its readers.
    fn end(self) -> Vec<String> {
        drop((self.gates, self.gate));
        if self.thread.join().is_err() {
            return vec!["a thread of readers panicked".into()];
        }
        self.broken.try_iter().collect()
    }
}

impl Readers {
    async fn run(mut self, ready: tokio::sync::oneshot::Sender<Result<(), String>>) {
        let mut readers = JoinSet::new();
        let opened = self.open(&mut readers).await;
        // Whoever waits for it is there until the end.
        let _ = ready.send(opened);
        while let Some(gate) = self.gates.recv().await {
            // Nothing else of this thread runs meanwhile: no socket is read, no packet acknowledged.
            let _released = gate.recv();
        }
        readers.shutdown().await;
    }

    async fn open(&self, readers: &mut JoinSet<()>) -> Result<(), String> {
        let sockets = self.readers.len().div_ceil(SESSIONS_PER_SOCKET);
        let endpoints: Result<Vec<Endpoint>, _> = (0..sockets).map(|_| self.target.endpoint()).collect();
        let endpoints = endpoints.map_err(|error| error.to_string())?;
        let mut opening = JoinSet::new();
        for (index, (user, log)) in self.readers.iter().enumerate() {
            if opening.len() >= CONNECTING_MAX {
                self.begin(opening.join_next().await, readers)?;
            }
            let (target, user, log) = (self.target.clone(), user.clone(), log.clone());
            let endpoint = endpoints[index % sockets].clone();
            opening.spawn(async move {
                let client = target.connect(&user, endpoint, 0).await?;
                let events = client.subscribe(&log, From::Start).await?;
                Ok((client, events))
            });
        }
        while let Some(opened) = opening.join_next().await {
            self.begin(Some(opened), readers)?;
        }
        Ok(())
    }

    fn begin(
        &self,
        opened: Option<Result<antiphon_sdk::Result<(Client, Subscription)>, tokio::task::JoinError>>,
        readers: &mut JoinSet<()>,
    ) -> Result<(), String> {
        let Some(opened) = opened else { return Ok(()) };
        let (client, events) = opened.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let (tally, reads, broken) = (self.tally.clone(), self.reads.clone(), self.broken.clone());
        readers.spawn(async move {
            let Err(error) = read(&client, events, reads, &tally).await;
            // The run may be over already.
            let _ = broken.send(error);
        });
        Ok(())
    }
}

/// Reads as long as it may, and checks that nothing is missing, repeated or out of order.
async fn read(
    _client: &Client,
    mut events: Subscription,
    mut reads: watch::Receiver<bool>,
    tally: &Tally,
) -> Result<std::convert::Infallible, String> {
    let mut next = 1;
    loop {
        let may_read = reads.wait_for(|reads| *reads).await.map(|_| ());
        may_read.map_err(|_| "the run is over".to_owned())?;
        let item = tokio::select! {
            item = events.next() => item,
            // Looks again whether it may read.
            _ = reads.changed() => continue,
        };
        let log = events.log();
        match item {
            Some(Item::Event(event)) if event.position().seq == next => {}
            Some(Item::Event(event)) => {
                return Err(format!("{log}: position {} came instead of {next}", event.position().seq));
            }
            Some(Item::Skipped { .. } | Item::Reset { .. }) => return Err(format!("{log}: a gap at position {next}")),
            Some(_) => continue,
            None => return Err(format!("{log}: the subscription ended before position {next}")),
        }
        next += 1;
        tally.delivered.fetch_add(1, Ordering::Relaxed);
    }
}

/// The two halves that stall, the others, and who sends.
struct Stage {
    first: Crew,
    second: Crew,
    others: Crew,
    sender: Client,
    logs: Vec<LogName>,
    pid: u32,
    /// Rows of each log.
    rows: u64,
}

impl Stage {
    async fn set(args: &StallArgs, target: &Arc<Target>) -> Result<Self, Box<dyn Error>> {
        let pid = target.pid().ok_or("the broker's process is not known: say --broker-pid")?;
        let group = Group { members: args.members, messages: Vec::new() };
        let groups = vec![group; args.conversations() as usize];
        let names = Names::new(format!("stall{}", std::process::id()), &groups);
        let sender = target.connect_service(&names.service()).await?;
        stage::create_conversations(&sender, &groups, &names).await?;
        let readers = |range: std::ops::Range<u32>| -> Result<Vec<(String, LogName)>, Box<dyn Error>> {
            let seats = range.map(|reader| args.seat(reader));
            seats
                .map(|seat| {
                    let log = LogName::Conversation(names.conversation(seat.group)?);
                    Ok((names.user(seat)?.to_string(), log))
                })
                .collect()
        };
        let half = args.stalled / 2;
        let first = Crew::start(target, readers(0..half)?).await?;
        let second = Crew::start(target, readers(half..args.stalled)?).await?;
        let others = Crew::start(target, readers(args.stalled..args.readers)?).await?;
        let ids: Result<Vec<_>, _> = (0..args.conversations()).map(|group| names.conversation(group)).collect();
        let ids = ids?;
        // All were made alike.
        let rows = sender.conversation(&ids[0]).await?.head;
        let logs = ids.into_iter().map(LogName::Conversation).collect();
        Ok(Self { first, second, others, sender, logs, pid, rows })
    }

    /// Sends a step's messages and waits until the others have them. Returns memory then, and how late they were.
    async fn step(&mut self, args: &StallArgs) -> Result<(u64, Duration), Box<dyn Error>> {
        let start = Instant::now();
        let mut unacked = VecDeque::new();
        let messages = args.messages() * self.logs.len() as u64;
        for (number, log) in (0..messages).zip(self.logs.iter().cycle()) {
            let due = start + Duration::from_secs_f64(number as f64 / args.rate);
            sleep(due.saturating_duration_since(Instant::now())).await;
            let message = NewMessage::new(log.clone(), ContentType::Text, vec![b'x'; args.bytes].into());
            unacked.push_back(self.sender.send_queued(message).await?);
            if unacked.len() > UNACKED_MAX
                && let Some(mut oldest) = unacked.pop_front()
            {
                oldest.sent().await?;
            }
        }
        for mut queued in unacked {
            queued.sent().await?;
        }
        let sent = Instant::now();
        self.rows += args.messages();
        wait_for(&self.others, self.rows * self.others.size).await;
        let late = sent.elapsed();
        sleep(REST).await;
        Ok((resident_kib(self.pid)?, late))
    }
}

impl Scenario for StallArgs {
    type Report = StallReport;

    /// Segments that are full and flushed often, so that what the store holds does not grow from step to step.
    fn prefer(target: &mut TargetArgs) {
        target.prefer_segments(1 << 20);
        target.prefer_cache(4);
    }

    async fn run(&self, target: &Arc<Target>) -> Result<StallReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(report: &StallReport) -> bool {
        report.holds()
    }
}

/// Runs it against a broker whose process is known.
async fn run(args: &StallArgs, target: &Arc<Target>) -> Result<StallReport, Box<dyn Error>> {
    if args.stalled < 2 || !args.stalled.is_multiple_of(2) || args.stalled >= args.readers {
        return Err("--stalled must be an even number below --readers".into());
    }
    if args.conversations() == 0 || !args.readers.is_multiple_of(args.members) {
        return Err("--readers must be a multiple of --members".into());
    }
    let mut stage = Stage::set(args, target).await?;
    let mut report = StallReport {
        readers: args.readers,
        stalled: args.stalled,
        members: args.members,
        messages_per_step: args.messages(),
        kib_max: args.kib_max,
        ..Default::default()
    };
    for step in 0..4 {
        match step {
            2 => stage.first.stall(args.kind),
            3 => stage.second.stall(args.kind),
            _ => {}
        }
        let (kib, late) = stage.step(args).await?;
        report.resident_kib[step] = kib;
        report.others_seconds = report.others_seconds.max(late.as_secs_f64());
    }
    report.others_delivered = stage.others.delivered();
    report.others_expected = stage.rows * stage.others.size;

    let start = Instant::now();
    stage.first.go_on();
    stage.second.go_on();
    wait_for(&stage.first, stage.rows * stage.first.size).await;
    wait_for(&stage.second, stage.rows * stage.second.size).await;
    report.catch_up_seconds = start.elapsed().as_secs_f64();
    report.stalled_delivered = stage.first.delivered() + stage.second.delivered();
    report.stalled_expected = stage.rows * (stage.first.size + stage.second.size);
    sleep(REST).await;
    report.resident_kib[4] = resident_kib(stage.pid)?;
    let [filled, none, half, all, _] = report.resident_kib.map(|kib| kib as f64);
    // The larger one: memory that readers gave back may serve the others, and then grows nothing.
    let grown = (half - none).max(all - half) - (none - filled);
    report.kib_per_stalled = grown / f64::from(args.stalled / 2);
    for crew in [stage.first, stage.second, stage.others] {
        report.broken.extend(crew.end());
    }
    Ok(report)
}

/// Waits until a crew has got `expected` copies, or gets none any more.
async fn wait_for(crew: &Crew, expected: u64) {
    let (mut seen, mut moved) = (0, Instant::now());
    while moved.elapsed() < PATIENCE {
        let delivered = crew.delivered();
        if delivered >= expected {
            return;
        }
        if delivered > seen {
            (seen, moved) = (delivered, Instant::now());
        }
        sleep(Duration::from_millis(5)).await;
    }
}
