//! `antiphon-bench-instructions`: how many instructions the cases of the benches take, held against their budgets.
//!
//! ```text
//! cases --callgrind--> counts --compare--> budgets of this toolchain, or counts of the base commit by this toolchain
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `callgrind` | a case under valgrind |
//! | `budgets` | the budget file |
//! | `toolchain` | what a count depends on besides the code |
//! | `base` | the program as it was when the budgets were last changed |
//! | `verdict` | counts beside budgets |
//!
//! A count is the same on an idle machine and on a busy one. Arguments are read by hand: a parser for them would be the
//! largest part of what every check builds.

mod base;
mod budgets;
mod callgrind;
mod toolchain;
mod verdict;

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use base::BaseError;
use budgets::{Budget, Budgets};
use thiserror::Error;
use toolchain::Toolchain;
use verdict::Comparison;

const USAGE: &str = "usage: antiphon-bench-instructions COMMAND

    check                   counts every case; fails if one takes more than its budget
    record [--reason TEXT]  writes what was counted into the budgets; a raise needs a reason
    count [CASE]            prints the instructions of a round of every case, or of one
    run CASE                does a case, for callgrind to count";

const BUDGET_FILE: &str = "bench/budgets.toml";
/// Exit code where this toolchain has no budgets and the commit that would stand in for them cannot be built.
const NOTHING_TO_COMPARE_WITH: u8 = 3;

/// Instructions of a round, by case.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, Error)]
#[error("{USAGE}")]
struct Usage;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match perform(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprint!("antiphon-bench-instructions: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::from(if error.is::<BaseError>() { NOTHING_TO_COMPARE_WITH } else { 2 })
        }
    }
}

fn perform(arguments: &[&str]) -> Result<bool, Box<dyn Error>> {
    match arguments {
        ["check"] => check(),
        ["record"] => record(None),
        ["record", "--reason", reason] => record(Some(reason)),
        ["count"] => count(""),
        ["count", case] => count(case),
        ["run", case] => {
            antiphon_bench_cases::all().into_iter().find(|known| known.id() == *case).ok_or(Usage)?.count();
            Ok(true)
        }
        _ => Err(Usage.into()),
    }
}

fn check() -> Result<bool, Box<dyn Error>> {
    let toolchain = toolchain::current()?;
    let file = Budgets::read(&root().join(BUDGET_FILE))?;
    let (origin, budgets) = budgets(&file, &toolchain)?;
    let comparison = Comparison::new(callgrind::count_all("")?, &budgets);
    println!("instructions of a round, by {toolchain}\nbudgets from {origin}\n\n{comparison}");
    // What the base does not know yet is compared once its budget is recorded.
    let is_met = comparison.is_met(matches!(origin, Origin::Base(_)));
    if !is_met {
        println!("over budget, or without one: make it cheaper, or `antiphon-bench-instructions record --reason TEXT`");
    }
    Ok(is_met)
}

fn record(reason: Option<&str>) -> Result<bool, Box<dyn Error>> {
    let toolchain = toolchain::current()?;
    let path = root().join(BUDGET_FILE);
    let mut file = Budgets::read(&path)?;
    let budgets = match budgets(&file, &toolchain) {
        Ok((_, budgets)) => budgets,
        // Before the first budgets are committed.
        Err(BaseError::NoCommit) => BTreeMap::new(),
        Err(error) => return Err(error.into()),
    };
    let comparison = Comparison::new(callgrind::count_all("")?, &budgets);
    println!("{comparison}");
    file.set(&toolchain, comparison.recorded(&budgets, reason)?);
    file.write(&path)?;
    Ok(true)
}

/// What the base's program is asked for: lines of a count, a tab and a case.
fn count(case: &str) -> Result<bool, Box<dyn Error>> {
    for (case, instructions) in callgrind::count_all(case)? {
        println!("{instructions}\t{case}");
    }
    Ok(true)
}

/// Where budgets are from.
enum Origin {
    File,
    /// A commit, because the file has none for this toolchain.
    Base(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str(BUDGET_FILE),
            Self::Base(commit) => write!(f, "commit {commit}, built by this toolchain"),
        }
    }
}

fn budgets(file: &Budgets, toolchain: &Toolchain) -> Result<(Origin, BTreeMap<String, Budget>), BaseError> {
    if let Some(budgets) = file.of(toolchain) {
        return Ok((Origin::File, budgets.clone()));
    }
    println!("no budgets for {toolchain}: building the commit that changed them last");
    let (commit, counts) = base::counts(&root(), BUDGET_FILE)?;
    let budget = |(case, instructions)| (case, Budget { instructions, raises: Vec::new() });
    Ok((Origin::Base(commit), counts.into_iter().map(budget).collect()))
}

/// The folder of the workspace that this program was built from.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
