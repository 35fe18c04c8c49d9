//! One run from start to verdict: set up, send on schedule, disturb, wait for everything, read all back, judge.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_sdk::Client;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    sync::{mpsc::unbounded_channel, watch},
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use crate::{
    broker::Broker,
    fault::{FaultError, FaultKind, FaultPlan, FaultsDone, Victims},
    gateway::Gateway,
    merge::Group,
    names::{Names, Seat},
    pacer::{self, Handout},
    recorder::Recorder,
    report::{Report, ServerFigures},
    schedule::Schedule,
    session::Member,
    stage,
    target::Target,
};

/// From the last connection to the first message.
const LEAD: Duration = Duration::from_millis(500);
/// How long acknowledgements and deliveries may stand still before the run is over.
const PATIENCE: Duration = Duration::from_secs(45);
/// The same where all logs move, during which nothing comes.
const PATIENCE_WITH_COPIES: Duration = Duration::from_secs(600);
/// Nothing more than what is expected comes within this time, or it is counted.
const AFTERMATH: Duration = Duration::from_millis(500);
/// From so many kills on, some must have fallen on a rotation and some on a flush.
const KILLS_THAT_MUST_HIT: u32 = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What is run.
#[derive(Debug)]
pub struct Run {
    /// The scenario's name.
    pub scenario: &'static str,
    /// The load.
    pub groups: Vec<Group>,
    /// When it is sent.
    pub schedule: Schedule,
    /// What happens meanwhile.
    pub faults: Option<FaultPlan>,
    /// Read every log's whole history at the end, and judge everything against it.
    pub check: bool,
    /// For the report.
    pub seed: u64,
}

/// The processes of a run.
#[derive(Debug)]
pub struct Processes {
    /// The broker, if it is the run's own.
    pub broker: Option<Broker>,
    /// The gateway, if it is a process of its own.
    pub gateway: Option<Gateway>,
    /// A second broker on the same cluster, which stands by.
    pub standby: Option<Broker>,
}

/// Members at work.
struct Crew {
    tasks: JoinSet<Client>,
    stop: watch::Sender<bool>,
}

impl Run {
    /// Runs it. The progress is shown on standard error, if that is a terminal.
    ///
    /// What was started for this run is killed when it is over.
    pub async fn execute(self, target: Arc<Target>, processes: Processes) -> Result<Report, Box<dyn Error>> {
        let Processes { broker, gateway, standby } = processes;
        if broker.is_none() && self.faults.is_some_and(|faults| faults.kind == FaultKind::Kill) {
            return Err(FaultError::NotOurs.into());
        }
        let names = Names::new(run_name(), &self.groups);
        let sizes = self.groups.iter().map(|group| group.members);
        let recorder = Arc::new(Recorder::new(names, sizes, self.due_times()));

        let service = target.connect_service(&recorder.names().service()).await?;
        stage::create_conversations(&service, &self.groups, recorder.names()).await?;
        let bar = bar("connecting", self.groups.iter().map(|group| u64::from(group.members)).sum());
        let (members, endpoints) = stage::connect_members(&target, &self.groups, &recorder, || bar.inc(1)).await?;
        bar.finish_and_clear();

        let clients = members.iter().map(|member| member.client.clone()).collect();
        let sessions = members.len() as u64;
        let before = target.usage();
        let start = Instant::now() + LEAD;
        recorder.begin(start);
        let crew = self.begin(members, start, &recorder)?;
        let cassandra = target.cassandra().cloned();
        let disturbing = self.disturb(Victims { broker, gateway, standby, cassandra, endpoints, clients }, start);
        self.wait(&recorder).await;
        let seconds = start.elapsed().as_secs_f64();
        let faults = disturbing.end().await?;
        self.wait_for_rest(&recorder).await;
        let after = target.usage();

        crew.stop.send_replace(true);
        let clients = crew.tasks.join_all().await;
        if self.check {
            stage::read_histories(&service, self.groups.len(), &recorder).await?;
        }
        let report = self.judge(&recorder, sessions, seconds, |report| {
            // A broker that was killed took its counters with it.
            if faults.restarts.is_empty() && faults.takeovers.is_empty() {
                report.server = target.figures(&before, &after, report.acked, report.delivered);
            }
            report.carriers = target.carriers().count(sessions as usize);
            report.faults = faults.rounds.into();
            report.gateway_kills = faults.gateway_kills;
            report.node_faults = faults.node_faults;
            report.copies = faults.copies.len() as u64;
            report.copies_interrupted = faults.copies.iter().filter(|copy| copy.was_interrupted).count() as u64;
            report.copies_compared = faults.copies.iter().filter(|copy| copy.was_compared).count() as u64;
            report.takeovers = faults.takeovers.len() as u64;
            report.takeover_seconds_max = faults.takeovers.iter().max().map(Duration::as_secs_f64);
            report.store = target.cassandra().map(|cassandra| cassandra.describe());
            report.forged_too_few = target.cassandra().is_some_and(|cassandra| !cassandra.forged_enough());
            (report.moves, report.cuts, report.kills) = (faults.moves, faults.cuts, faults.restarts.len() as u64);
            (report.kills_at_rotation, report.kills_at_flush) = (faults.kills_at_rotation, faults.kills_at_flush);
            let is_kill = self.faults.is_some_and(|plan| plan.kind == FaultKind::Kill);
            // On a cluster there is no moment at which the broker's own files are half made.
            let has_files = target.cassandra().is_none();
            report.kills_must_hit = is_kill && has_files && faults.rounds >= KILLS_THAT_MUST_HIT;
            report.reconnects = recorder.progress().reconnects;
            report.connections_must_last =
                self.faults.is_none_or(|faults| matches!(faults.kind, FaultKind::Rebind | FaultKind::Nodes));
            report.restart_seconds_max = faults.restarts.iter().max().map(Duration::as_secs_f64);
        });
        drop((clients, service));
        Ok(report)
    }

    /// When each message falls due, by its number.
    fn due_times(&self) -> Vec<Duration> {
        let names = Names::new(String::new(), &self.groups);
        let mut due = vec![Duration::ZERO; self.schedule.sends.len()];
        for planned in &self.schedule.sends {
            due[names.message(planned.group, planned.message).0 as usize] = planned.due;
        }
        due
    }

    fn begin(&self, members: Vec<Member>, start: Instant, recorder: &Arc<Recorder>) -> std::io::Result<Crew> {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut channels = Vec::with_capacity(members.len());
        for member in members {
            let (sender, receiver) = unbounded_channel();
            channels.push(sender);
            tasks.spawn(member.run(receiver, stopped.clone(), recorder.clone()));
        }
        // Members are in the order of their numbers.
        let channel = |group, member| channels[recorder.names().number(Seat { group, member }).0 as usize].clone();
        let handouts = Handout::prepare(&self.schedule.sends, &self.groups, recorder.names(), channel);
        pacer::spawn(handouts, start)?;
        Ok(Crew { tasks, stop })
    }

    fn disturb(&self, victims: Victims, start: Instant) -> Disturbing {
        let Some(plan) = self.faults else { return Disturbing::Nothing(Box::new(victims)) };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            tokio::time::sleep_until(start.into()).await;
            plan.run(victims, stopped).await
        });
        Disturbing::Task { task, stop }
    }

    /// Waits until every message has been sent and its fate is known, or nothing moves any more.
    async fn wait(&self, recorder: &Recorder) {
        let total = self.schedule.sends.len() as u64;
        let bar = bar("sending", total);
        let (patience, mut moved) = (self.patience(), Instant::now());
        let mut before = recorder.progress();
        while before.ended < total && moved.elapsed() < patience {
            sleep(POLL_INTERVAL).await;
            let progress = recorder.progress();
            // Nothing need move while nothing is due, as early in a slow schedule.
            if progress != before || progress.ended == progress.sent {
                moved = Instant::now();
            }
            before = progress;
            bar.set_position(progress.ended);
            bar.set_message(format!("{} delivered", progress.delivered));
        }
        bar.finish_and_clear();
    }

    /// Waits until every member has everything, or nothing moves any more; then a little, for what should not come.
    async fn wait_for_rest(&self, recorder: &Recorder) {
        let (patience, mut moved) = (self.patience(), Instant::now());
        let mut before = recorder.progress();
        while before.delivered < before.expected && moved.elapsed() < patience {
            sleep(POLL_INTERVAL).await;
            let progress = recorder.progress();
            if progress != before {
                moved = Instant::now();
            }
            before = progress;
        }
        sleep(AFTERMATH).await;
    }

    fn patience(&self) -> Duration {
        match self.faults.map(|plan| plan.kind) {
            Some(FaultKind::Copy) => PATIENCE_WITH_COPIES,
            _ => PATIENCE,
        }
    }

    fn judge(&self, recorder: &Recorder, sessions: u64, seconds: f64, complete: impl FnOnce(&mut Report)) -> Report {
        let seats =
            (0..).zip(&self.groups).flat_map(|(group, of)| (0..of.members).map(move |member| Seat { group, member }));
        let expected = recorder.progress().expected;
        let (verdict, latencies) = recorder.finish(seats);
        let mut report = Report {
            scenario: self.scenario,
            seed: self.seed,
            conversations: self.groups.len() as u64,
            sessions,
            seconds,
            offered_per_second: self.schedule.messages_per_second,
            planned: self.schedule.sends.len() as u64,
            expected,
            delivery: latencies.delivery.summary(),
            ack: latencies.ack.summary(),
            lag: latencies.lag.summary(),
            server: ServerFigures::default(),
            checked: self.check,
            ..Report::default()
        };
        report.apply(&verdict);
        complete(&mut report);
        report
    }
}

/// Faults under way.
enum Disturbing {
    /// None; what could be broken is kept until the run is over.
    Nothing(Box<Victims>),
    /// A task.
    Task { task: JoinHandle<Result<FaultsDone, FaultError>>, stop: watch::Sender<bool> },
}

impl Disturbing {
    async fn end(self) -> Result<FaultsDone, FaultError> {
        match self {
            Self::Nothing(victims) => {
                let Victims { broker, gateway, standby, .. } = *victims;
                Ok(FaultsDone { broker, gateway, standby, ..FaultsDone::default() })
            }
            Self::Task { task, stop } => {
                stop.send_replace(true);
                task.await?
            }
        }
    }
}

/// Unlike that of any other run against the same broker: the milliseconds since 1970.
pub(crate) fn run_name() -> String {
    format!("l{:x}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

/// Drawn on standard error; hidden when that is no terminal.
fn bar(what: &'static str, length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>10} {wide_bar} {pos}/{len} {msg} {elapsed}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style).with_prefix(what)
}
