//! `antiphon-bench-fanout`: the broker's fan-out and the control's, in turn, as a ratio.
//!
//! A ratio within one round says more than two absolute figures: what disturbs the machine disturbs both.

use std::{
    error::Error,
    fs,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use antiphon_bench::rounds::Spread;
use clap::Parser;
use serde_json::Value;

/// How long the machine's other load is looked at before the first round.
const LOOK: Duration = Duration::from_secs(2);

/// Runs the broker and the bare driver in turn and prints the ratio of their CPU time per delivery.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Rounds.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Subscribers, each on a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 500)]
    members: u32,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    bytes: u32,
    /// Messages per second.
    #[arg(long, value_name = "R", default_value_t = 50.0)]
    rate: f64,
    /// Length of one measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    seconds: f64,
    /// Processor of the server.
    #[arg(long, value_name = "N", default_value_t = 0)]
    server_core: u32,
    /// Processor of the generator.
    #[arg(long, value_name = "N", default_value_t = 1)]
    core: u32,
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH")]
    antiphon: Option<PathBuf>,
}

/// One round, in microseconds of CPU time per delivery.
#[derive(Debug, Clone, Copy)]
struct Round {
    broker: f64,
    bare: f64,
    floor: f64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("antiphon-bench-fanout: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    println!("1 -> {} x {} B at {}/s, CPU us per delivery", args.members, args.bytes, args.rate);
    println!("processors busy with something else: {:.0} %", foreign_load()? * 100.0);
    println!("{:>6} {:>8} {:>8} {:>8} {:>12}", "round", "broker", "bare", "UDP", "broker/bare");
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        let round = round(args)?;
        println!(
            "{number:>6} {:>8.2} {:>8.2} {:>8.2} {:>12.2}",
            round.broker,
            round.bare,
            round.floor,
            round.broker / round.bare
        );
        rounds.push(round);
    }
    let tell = |name: &str, figure: fn(&Round) -> f64| {
        if let Some(spread) = Spread::of(rounds.iter().map(figure)) {
            println!("{name:<14} {spread}");
        }
    };
    println!("median (range)");
    tell("broker", |round| round.broker);
    tell("bare", |round| round.bare);
    tell("UDP", |round| round.floor);
    tell("broker/bare", |round| round.broker / round.bare);
    tell("broker/UDP", |round| round.broker / round.floor);
    Ok(())
}

fn round(args: &Args) -> Result<Round, Box<dyn Error>> {
    let (broker, control) = (broker(args)?, control(args)?);
    let figure = |figures: &Value, name: &str| {
        figures[name].as_f64().ok_or_else(|| Box::<dyn Error>::from(format!("{name} was not measured: {figures}")))
    };
    Ok(Round {
        broker: figure(&broker, "cpu_us_per_delivery")?,
        bare: figure(&control, "cpu_us_per_delivery")?,
        floor: figure(&control, "udp_cpu_us_per_datagram")?,
    })
}

fn broker(args: &Args) -> Result<Value, Box<dyn Error>> {
    let figures = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(beside("antiphon-loadgen")?);
    command.args(["fanout", "--shards", "1", "--json"]).arg(figures.path()).args(load(args));
    if let Some(antiphon) = &args.antiphon {
        command.arg("--antiphon").arg(antiphon);
    }
    let status = command.stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(format!("the broker's round has no result: antiphon-loadgen ended with {status}").into());
    }
    Ok(serde_json::from_slice(&fs::read(figures.path())?)?)
}

fn control(args: &Args) -> Result<Value, Box<dyn Error>> {
    let output =
        Command::new(beside("antiphon-bench-bare-driver")?).args(load(args)).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the control's round has no result: it ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What both sides are given alike.
fn load(args: &Args) -> Vec<String> {
    let Args { members, bytes, rate, seconds, server_core, core, .. } = args;
    let load = format!(
        "--members {members} --bytes {bytes} --rate {rate} --seconds {seconds} --server-core {server_core} --core {core}"
    );
    load.split(' ').map(str::to_owned).collect()
}

fn beside(name: &str) -> Result<PathBuf, Box<dyn Error>> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.exists() { Ok(path) } else { Err(format!("{} has to be built first", path.display()).into()) }
}

/// Part of all processors' time that is not idle now.
fn foreign_load() -> Result<f64, Box<dyn Error>> {
    let (before, after) = (processor_ticks()?, {
        thread::sleep(LOOK);
        processor_ticks()?
    });
    let (idle, all) = (after.0 - before.0, after.1 - before.1);
    Ok(if all == 0 { 0.0 } else { 1.0 - idle as f64 / all as f64 })
}

/// Idle ticks and all ticks of all processors since the boot.
fn processor_ticks() -> Result<(u64, u64), Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().ok_or("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let idle = ticks.iter().skip(3).take(2).sum();
    Ok((idle, ticks.iter().take(8).sum()))
}
