//! The command line.

use std::{
    error::Error,
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    carrier::{CarrierArgs, CarrierChoice, CarrierError},
    corpus,
    describe::Description,
    fanout::FanoutArgs,
    fault::{FaultArgs, FaultError, FaultKind, FaultPlan},
    full::FullArgs,
    gateway::Gateway,
    history::HistoryArgs,
    idle::IdleArgs,
    import::ImportArgs,
    measured::Measured,
    publish::PublishArgs,
    run::{Processes, Run},
    schedule::{Rate, Schedule},
    sockets::SocketsArgs,
    spread::SpreadArgs,
    stall::StallArgs,
    storm::StormArgs,
    synthetic::Synthetic,
    target::{Target, TargetArgs},
    versus::VersusArgs,
    workload::{RateArgs, WorkloadArgs},
};

/// Replays conversations against an Antiphon broker and proves that none of its promises broke.
#[derive(Debug, Parser)]
#[command(name = "antiphon-loadgen", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what a replay would send, without sending it.
    Describe(DescribeArgs),
    /// Write a made-up corpus of two-person conversations.
    Synthesize(SynthesizeArgs),
    /// Replay conversations: every participant on a session of its own, every delivery counted and checked.
    Replay(ReplayArgs),
    /// Replay while the broker is killed (kill -9) and started again, then check that nothing was lost.
    Kill(DisturbedArgs),
    /// Replay while the clients' sockets move to other ports, as phones do between networks.
    Rebind(DisturbedArgs),
    /// Replay while connections are cut without a word.
    Cut(DisturbedArgs),
    /// Replay on a Cassandra cluster while its nodes are killed, stand still, and lose their majority.
    Nodes(DisturbedArgs),
    /// Replay at two brokers on one Cassandra cluster: the active one stands still beyond its lease, the other takes over.
    Takeover(DisturbedArgs),
    /// Replay while the broker's logs move from its data directory to a Cassandra cluster and back.
    Copy(DisturbedArgs),
    /// Send until the broker's disk is full, read meanwhile, give space back, then check that nothing was lost. Takes root.
    Full(FullArgs),
    /// Import conversations as from another system while the import and the broker are killed, and once more: nothing is
    /// lost, nothing comes twice.
    Import(ImportArgs),
    /// One publisher, many subscribers: CPU time per live delivery.
    Fanout(Measured<FanoutArgs>),
    /// A few connections with many messages in flight: durable acknowledgements, and messages per sync.
    Publish(Measured<PublishArgs>),
    /// One load over few or many conversations: CPU time per message.
    Spread(Measured<SpreadArgs>),
    /// Clients that read the end of a conversation: CPU time per message.
    History(Measured<HistoryArgs>),
    /// All connections end at once, and all come back within a second: CPU time per session, nothing lost, nothing twice.
    Storm(Measured<StormArgs>),
    /// Sessions that follow conversations while nothing happens: memory and CPU time of each.
    Idle(Measured<IdleArgs>),
    /// WebSockets on the broker's gateway, idle, chatting, and some that stop reading: memory and CPU time of each.
    Sockets(Measured<SocketsArgs>),
    /// Readers that stop reading among others that go on: memory of each, nobody harmed, no gap.
    Stall(Measured<StallArgs>),
    /// The same work by the broker and by other servers in turn: what each takes of the machine, as ratios.
    Versus(VersusArgs),
}

/// Segments of a broker that is killed: so small that one is begun about every second.
const KILLED_SEGMENT_BYTES: u32 = 1 << 20;

#[derive(Debug, Args)]
struct ReplayArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    rate: RateArgs,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    carrier: CarrierArgs,
    /// Read the whole history of every conversation at the end, and judge everything against it.
    #[arg(long)]
    check: bool,
    /// Also write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct DisturbedArgs {
    #[command(flatten)]
    replay: ReplayArgs,
    #[command(flatten)]
    faults: FaultArgs,
}

#[derive(Debug, Args)]
struct DescribeArgs {
    #[command(flatten)]
    workload: WorkloadArgs,
    #[command(flatten)]
    rate: RateArgs,
}

#[derive(Debug, Args)]
struct SynthesizeArgs {
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How many conversations.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    conversations: usize,
    /// Everything random follows from it.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

impl Cli {
    /// Does what was asked for and tells the result on `out`; false if a promise was broken.
    pub fn run(self, out: &mut impl Write) -> Result<bool, Box<dyn Error>> {
        match self.command {
            Command::Describe(args) => {
                let groups = args.workload.groups()?;
                let schedule = Schedule::plan(&groups, args.rate.rate(), args.workload.seed)?;
                writeln!(out, "{}", Description::of(&groups, &schedule))?;
            }
            Command::Synthesize(args) => {
                let mut file = BufWriter::new(File::create(&args.out)?);
                for conversation in Synthetic::new(args.seed).take(args.conversations) {
                    corpus::write_line(&conversation, &mut file)?;
                }
                file.flush()?;
            }
            Command::Replay(args) => return replay("replay", args, None, out),
            Command::Kill(args) => return disturbed("kill", FaultKind::Kill, args, out),
            Command::Rebind(args) => return disturbed("rebind", FaultKind::Rebind, args, out),
            Command::Cut(args) => return disturbed("cut", FaultKind::Cut, args, out),
            Command::Nodes(args) => return disturbed("nodes", FaultKind::Nodes, args, out),
            Command::Takeover(args) => return disturbed("takeover", FaultKind::Takeover, args, out),
            Command::Copy(args) => return disturbed("copy", FaultKind::Copy, args, out),
            Command::Full(args) => return args.run(out),
            Command::Import(args) => return args.run(out),
            Command::Fanout(args) => return args.run(out),
            Command::Publish(args) => return args.run(out),
            Command::Spread(args) => return args.run(out),
            Command::History(args) => return args.run(out),
            Command::Storm(args) => return args.run(out),
            Command::Idle(args) => return args.run(out),
            Command::Sockets(args) => return args.run(out),
            Command::Stall(args) => return args.run(out),
            Command::Versus(args) => return args.run(out),
        }
        Ok(true)
    }
}

/// Histories are always read: what a fault may have lost shows there.
fn disturbed(
    scenario: &'static str,
    kind: FaultKind,
    args: DisturbedArgs,
    out: &mut impl Write,
) -> Result<bool, Box<dyn Error>> {
    let DisturbedArgs { replay: mut args, faults } = args;
    let is_on_quic = args.carrier.carrier == CarrierChoice::Quic;
    if kind == FaultKind::Rebind && !is_on_quic {
        return Err(CarrierError::CannotMove.into());
    }
    if faults.gateway_kills > 0 && is_on_quic {
        return Err(CarrierError::NobodyThere.into());
    }
    args.check = true;
    if kind == FaultKind::Kill {
        args.target.prefer_segments(KILLED_SEGMENT_BYTES);
    }
    if let FaultKind::Nodes | FaultKind::Takeover | FaultKind::Copy = kind {
        args.target.prefer_cluster(if kind == FaultKind::Nodes { 3 } else { 1 });
    }
    if kind == FaultKind::Copy {
        args.target.begin_embedded();
    }
    if args.workload.corpus.is_none() {
        args.workload.messages.get_or_insert_with(|| enough_messages(&args.rate, args.workload.merge, kind, faults));
    }
    let plan = FaultPlan { kind, args: faults, seed: args.workload.seed };
    replay(scenario, args, Some(plan), out)
}

/// Made-up messages that last for all rounds, with half a second for each restart, as much for a kill to be aimed, what a
/// fault of nodes lasts, and a quarter to spare.
fn enough_messages(rate: &RateArgs, merge: Option<u32>, kind: FaultKind, faults: FaultArgs) -> u64 {
    // A node that was killed takes some seconds to come back.
    let lasting = match kind {
        FaultKind::Kill => 1.0,
        FaultKind::Nodes => faults.outage_ms as f64 / 1e3 + 6.0,
        FaultKind::Takeover => 15.0,
        // The lease of a copier that was killed has to end first.
        FaultKind::Copy => 25.0,
        FaultKind::Rebind | FaultKind::Cut => 0.5,
    };
    let seconds = f64::from(faults.rounds) * (faults.every_ms as f64 / 1e3 + lasting);
    let per_second = match rate.rate() {
        Rate::Messages(rate) => rate,
        Rate::Deliveries(rate) => rate / f64::from(merge.unwrap_or(2)),
    };
    (per_second * seconds * 1.25).ceil().max(1.0) as u64
}

fn replay(
    scenario: &'static str,
    args: ReplayArgs,
    faults: Option<FaultPlan>,
    out: &mut impl Write,
) -> Result<bool, Box<dyn Error>> {
    let seed = args.workload.seed;
    let groups = args.workload.groups()?;
    let schedule = Schedule::plan(&groups, args.rate.rate(), seed)?;
    let run = Run { scenario, groups, schedule, faults, check: args.check, seed };

    let (mut target, broker) = Target::find(args.target)?;
    let gateway = match (faults.map_or(0, |plan| plan.args.gateway_kills), &broker) {
        (0, _) => None,
        (_, Some(broker)) => Some(Gateway::start(broker)?),
        (_, None) => return Err(FaultError::NotOurs.into()),
    };
    let standby = match (faults.map(|plan| plan.kind), &broker) {
        (Some(FaultKind::Takeover), Some(broker)) => Some(target.stand_by(broker)?),
        (Some(FaultKind::Takeover), None) => return Err(FaultError::NotOurs.into()),
        _ => None,
    };
    target.set_carriers(args.carrier.find(broker.as_ref(), gateway.as_ref())?);
    // One thread: the generator is to cost one core at most, and what it records needs no lock that waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run.execute(Arc::new(target), Processes { broker, gateway, standby }))?;
    if let Some(path) = args.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    write!(out, "{report}")?;
    // What was found counts even then; a pass that was not earned does not.
    match faults {
        Some(FaultPlan { args: FaultArgs { rounds: wanted, .. }, .. })
            if report.holds() && report.faults < u64::from(wanted) =>
        {
            Err(FaultError::TooShort { done: report.faults, wanted }.into())
        }
        _ => Ok(report.holds()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_made_up_corpus_can_be_described() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let run = |line: &[&str]| {
            let mut out = Vec::new();
            let cli = Cli::parse_from([&["antiphon-loadgen"], line].concat());
            cli.run(&mut out).map(|kept| (kept, String::from_utf8(out).unwrap()))
        };
        assert_eq!(run(&["synthesize", "--out", path, "--conversations", "20"]).unwrap(), (true, String::new()));
        let (_, text) = run(&["describe", "--corpus", path, "--merge", "4", "--deliveries", "100"]).unwrap();
        assert!(text.starts_with("conversations     10\nsessions          40\n"), "{text}");
        assert!(run(&["describe", "--corpus", "/nonexistent"]).is_err());
    }
}
