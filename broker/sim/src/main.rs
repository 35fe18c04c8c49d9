//! `cargo sim`: runs seeds, prints what was done to the broker, and how to replay whatever went wrong.

use std::{
    num::NonZero,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use antiphon_sim::{Fault, Phase, Report, Tally};
use clap::Parser;

/// Violations printed of one run.
const VIOLATIONS_SHOWN: usize = 20;
/// Failing seeds shown in full.
const FAILURES_SHOWN: usize = 5;

/// Simulates the broker, its clients, their network and its disk in one thread of virtual time.
#[derive(Debug, Parser)]
#[command(name = "cargo sim")]
struct Arguments {
    /// Runs one seed twice and compares the two, byte for byte.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Runs so many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads that share the seeds out; each seed runs in one of them. Default: one per processor.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,
    /// Prints everything that happens in the one seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plants a bug, and stops at the first seed that finds it.
    #[cfg(feature = "mutants")]
    #[arg(long, conflicts_with = "seed")]
    mutant: Option<antiphon_sim::Mutant>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    #[cfg(feature = "mutants")]
    if let Some(mutant) = arguments.mutant {
        return if hunt(mutant, arguments.from, arguments.seeds) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let is_good = match arguments.seed {
        Some(seed) => replay(seed, arguments.trace),
        None => run_all(arguments.from, arguments.seeds, arguments.jobs),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed twice.
fn replay(seed: u64, with_trace: bool) -> bool {
    let report = run(seed, with_trace);
    for line in &report.trace {
        println!("{line}");
    }
    let again = run(seed, false);
    println!("seed {seed}, digest {:016x}", report.digest);
    println!("{}", report.tally);
    show(&report);
    let is_same = again.digest == report.digest;
    if !is_same {
        println!("NOT THE SAME: the second run has digest {:016x}", again.digest);
    }
    is_same && report.violations.is_empty()
}

fn run_all(from: u64, seeds: u64, jobs: Option<NonZero<usize>>) -> bool {
    let Sum { tally: sum, failed } = share_out(from, seeds, jobs);
    for report in failed.iter().take(FAILURES_SHOWN) {
        show(report);
    }
    let failed: Vec<_> = failed.iter().map(|report| report.seed).collect();
    println!("{seeds} seeds from {from}");
    println!("{sum}");
    let unused = Fault::ALL.iter().filter(|fault| sum.of(**fault) == 0).map(|fault| fault.word());
    let unused: Vec<_> = unused.chain(Phase::ALL.iter().filter(|p| sum.cuts(**p) == 0).map(|p| p.word())).collect();
    if !unused.is_empty() {
        println!("never happened: {}", unused.join(", "));
    }
    // What comes to make up for what was missed may be a tenth more than that.
    let is_lean = sum.fetched <= sum.missed + sum.missed / 10;
    if !is_lean {
        println!("too much was fetched again: {} rows for {} missed", sum.fetched, sum.missed);
    }
    println!("violations in {} seeds {failed:?}", failed.len());
    failed.is_empty() && is_lean
}

/// What the seeds came to.
#[derive(Default)]
struct Sum {
    tally: Tally,
    /// Reports with violations, by seed.
    failed: Vec<Report>,
}

/// Runs the seeds on several threads. No seed knows of another, so the sum does not depend on how many threads there are.
fn share_out(from: u64, seeds: u64, jobs: Option<NonZero<usize>>) -> Sum {
    let jobs = jobs.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let (next, end) = (AtomicU64::new(from), from.saturating_add(seeds));
    let sum = Mutex::new(Sum::default());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let report = run(seed, false);
                    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
                    sum.tally.merge(&report.tally);
                    if !report.violations.is_empty() {
                        sum.failed.push(report);
                    }
                }
            });
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.failed.sort_by_key(|report| report.seed);
    sum
}

/// Whether one of the seeds finds the planted bug.
#[cfg(feature = "mutants")]
fn hunt(mutant: antiphon_sim::Mutant, from: u64, seeds: u64) -> bool {
    mutant.plant();
    for seed in from..from.saturating_add(seeds) {
        let report = run(seed, false);
        if !report.violations.is_empty() {
            show(&report);
            println!("{mutant:?} was caught by seed {seed}, after {} seeds", seed - from + 1);
            return true;
        }
    }
    println!("{mutant:?} was NOT caught by {seeds} seeds");
    false
}

/// A panic of the code under test is a violation like any other.
fn run(seed: u64, with_trace: bool) -> Report {
    catch_unwind(AssertUnwindSafe(|| antiphon_sim::run(seed, with_trace))).unwrap_or_else(|_| Report {
        seed,
        digest: 0,
        tally: Tally::default(),
        violations: vec!["a panic, printed above".into()],
        trace: Vec::new(),
    })
}

fn show(report: &Report) {
    if report.violations.is_empty() {
        return;
    }
    println!("seed {}: {} violations", report.seed, report.violations.len());
    for violation in report.violations.iter().take(VIOLATIONS_SHOWN) {
        println!("  {violation}");
    }
    println!("  replay: cargo sim --seed {} --trace", report.seed);
}
