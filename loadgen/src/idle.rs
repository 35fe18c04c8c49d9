//! Sessions that follow their conversations while nothing happens: what each costs in memory, and in CPU time.
//!
//! Memory is the slope between half of the sessions and all of them, so that what the broker holds anyway is not
//! counted. The conversations are made beforehand and the broker is started again: what the sessions take up, their
//! inboxes and conversations, is counted; what the store has just been given, and holds for a while, is not.

use std::{error::Error, fmt, io, ops::Range, sync::Arc, time::Duration};

use antiphon_protocol::LogName;
use clap::Args;
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    blocks::{Blocks, MEMBERS},
    fanout::SESSIONS_PER_SOCKET,
    machine::{kernel_kib, resident_kib},
    measured::Scenario,
    probe::cpu_us_between,
    target::{Target, TargetArgs},
    wire::{Dialer, Session, at_a_time},
};

/// From the last subscription to the measurement: handshakes are confirmed, connection ids issued, buffers let go.
pub(crate) const REST: Duration = Duration::from_secs(4);
/// The broker's cache: full long before the first reading, so that it does not look like what a session costs.
pub(crate) const CACHE_MIB: u32 = 4;

/// The load.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Sessions, each on a connection of its own; an even number.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    connections: usize,
    /// Conversations that each session follows.
    #[arg(long, value_name = "N", default_value_t = 10)]
    subscriptions: usize,
    /// Members of each conversation.
    #[arg(long, value_name = "N", default_value_t = MEMBERS)]
    members: usize,
    /// How often a client says that it is there.
    #[arg(long, value_name = "S", default_value_t = 25)]
    keep_alive: u64,
    /// How long the CPU time of all sessions is measured.
    #[arg(long, value_name = "S", default_value_t = 30)]
    seconds: u64,
}

impl IdleArgs {
    /// So many sessions, each in so many conversations of a hundred, looked at for so long.
    pub(crate) fn new(connections: usize, subscriptions: usize, seconds: u64) -> Self {
        Self { connections, subscriptions, members: MEMBERS, keep_alive: 25, seconds }
    }
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct IdleReport {
    /// Sessions.
    pub connections: usize,
    /// Conversations that each follows.
    pub subscriptions: usize,
    /// Members of each conversation.
    pub members: usize,
    /// Resident memory of the broker with no session, half of them, and all, in KiB.
    pub resident_kib: [u64; 3],
    /// The kernel's memory for its objects, sockets among them, at the same moments.
    pub kernel_kib: [u64; 3],
    /// From half to all, per session.
    pub kib_per_connection: f64,
    /// The same of the kernel's memory, half of it: the other half belongs to the generator's sockets.
    pub kernel_kib_per_connection: f64,
    /// CPU time of the broker to make one session and its subscriptions, in microseconds.
    pub cpu_us_per_connect: Option<f64>,
    /// CPU time per second and idle session, in microseconds.
    pub idle_cpu_us_per_second: Option<f64>,
}

impl IdleReport {
    /// Reads the memory with no session (0), half of them (1) or all (2).
    pub(crate) fn note_memory(&mut self, step: usize, pid: u32) -> io::Result<()> {
        (self.resident_kib[step], self.kernel_kib[step]) = (resident_kib(pid)?, kernel_kib()?);
        Ok(())
    }

    /// Memory of one session, when it was read with half of them and all.
    pub(crate) fn divide(&mut self) {
        let slope = |[_, half, all]: [u64; 3]| (all as f64 - half as f64) / (self.connections / 2) as f64;
        self.kib_per_connection = slope(self.resident_kib);
        self.kernel_kib_per_connection = slope(self.kernel_kib) / 2.0;
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "unknown".into(), |figure| format!("{figure:.2}"));
        let Self { connections, subscriptions, members, .. } = self;
        let [none, half, all] = self.resident_kib;
        writeln!(
            f,
            "idle                          {connections} sessions x {subscriptions} logs of {members} members"
        )?;
        writeln!(f, "resident KiB                  {none} with none, {half} with half, {all} with all")?;
        writeln!(f, "KiB per connection            {:.1}", self.kib_per_connection)?;
        writeln!(f, "kernel KiB per connection     {:.1}", self.kernel_kib_per_connection)?;
        writeln!(f, "server CPU us/connect         {}", figure(self.cpu_us_per_connect))?;
        writeln!(f, "idle CPU us/s/connection      {}", figure(self.idle_cpu_us_per_second))
    }
}

impl IdleArgs {
    fn blocks(&self) -> Blocks {
        let run = format!("idle{}", std::process::id());
        Blocks { run, subscriptions: self.subscriptions, members: self.members.max(1) }
    }

    /// Makes every conversation.
    async fn make_conversations(&self, target: &Target) -> Result<(), Box<dyn Error>> {
        let blocks = self.blocks();
        let half = self.connections / 2;
        if half == 0 || !half.is_multiple_of(blocks.members) {
            return Err("half of --connections must be a multiple of --members".into());
        }
        let service = target.connect_service(&format!("{}.service", blocks.run)).await?;
        for block in 0..2 * half / blocks.members {
            blocks.make(&service, block, None).await?;
        }
        service.close().await;
        Ok(())
    }
}

impl Scenario for IdleArgs {
    type Report = IdleReport;

    fn prefer(target: &mut TargetArgs) {
        target.prefer_cache(CACHE_MIB);
    }

    async fn prepare(&self, target: &Target) -> Result<bool, Box<dyn Error>> {
        self.make_conversations(target).await?;
        Ok(true)
    }

    async fn run(&self, target: &Arc<Target>) -> Result<IdleReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(_: &IdleReport) -> bool {
        true
    }
}

/// Runs it against a broker whose process is known.
async fn run(args: &IdleArgs, target: &Target) -> Result<IdleReport, Box<dyn Error>> {
    let pid = target.pid().ok_or("the broker's process is not known: say --broker-pid")?;
    let blocks = args.blocks();
    let half = args.connections / 2;
    let sockets = args.connections.div_ceil(SESSIONS_PER_SOCKET);
    let keep_alive = Duration::from_secs(args.keep_alive);
    let dialer = Arc::new(Dialer::new(target.address(), target.trust(), sockets, keep_alive)?);

    let mut report = IdleReport {
        connections: args.connections,
        subscriptions: args.subscriptions,
        members: blocks.members,
        ..Default::default()
    };
    let mut sessions = Vec::new();
    sleep(REST).await;
    report.note_memory(0, pid)?;
    let mut connect_us = None;
    for step in 1..=2 {
        let before = target.cpu_ns();
        follow(sessions.len()..step * half, &blocks, target, &dialer, &mut sessions).await?;
        connect_us = cpu_us_between(before, target.cpu_ns());
        sleep(REST).await;
        report.note_memory(step, pid)?;
    }
    report.divide();
    report.cpu_us_per_connect = connect_us.map(|us| us / half as f64);

    let before = target.cpu_ns();
    sleep(Duration::from_secs(args.seconds)).await;
    let idle_us = cpu_us_between(before, target.cpu_ns());
    let seconds_and_sessions = args.seconds as f64 * sessions.len() as f64;
    report.idle_cpu_us_per_second = idle_us.map(|us| us / seconds_and_sessions);
    Ok(report)
}

/// Opens sessions, each of which follows its conversations, a bounded number at a time.
async fn follow(
    numbers: Range<usize>,
    blocks: &Blocks,
    target: &Target,
    dialer: &Arc<Dialer>,
    sessions: &mut Vec<Session>,
) -> Result<(), Box<dyn Error>> {
    let open = |number| {
        let logs: Result<Vec<LogName>, _> = blocks.rooms(number).map(|room| blocks.log(room)).collect();
        let (dialer, token) = (dialer.clone(), target.user_token(&blocks.user(number)));
        async move {
            let mut session = Session::open(&dialer, number, token).await?;
            for log in &logs.map_err(io::Error::other)? {
                session.subscribe(log).await?;
            }
            Ok(session)
        }
    };
    sessions.extend(at_a_time(numbers.map(open)).await?);
    Ok(())
}
