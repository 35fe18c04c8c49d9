//! A case under valgrind, with only its rounds counted.

use std::{
    env, fs, io,
    num::NonZero,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use antiphon_bench_cases::{COUNTED, Case};
use thiserror::Error;

use crate::Counts;

/// Code of the C library that every processor can run, so that machines with different ones count the same.
const GLIBC_TUNABLES: &str = "glibc.cpu.hwcaps=-AVX2,-AVX,-SSE4_2,-SSSE3,-ERMS,-FSRM,-BMI2,-AVX_Fast_Unaligned_Load";

/// A case was not counted.
#[derive(Debug, Error)]
pub(crate) enum CountError {
    #[error("there is no case {0:?}")]
    NoCase(String),
    #[error("cannot run valgrind, of the Debian package of that name")]
    Valgrind(#[source] io::Error),
    #[error("the case {case:?} failed under valgrind:\n{said}")]
    Failed { case: String, said: String },
    #[error("the case {0:?} was not counted: callgrind has no total of {COUNTED}")]
    NoTotal(String),
}

/// Counts the case called `id`, or every case if that is empty, as many at once as there are processors.
pub(crate) fn count_all(id: &str) -> Result<Counts, CountError> {
    let cases: Vec<Case> =
        antiphon_bench_cases::all().into_iter().filter(|case| id.is_empty() || case.id() == id).collect();
    if cases.is_empty() {
        return Err(CountError::NoCase(id.to_owned()));
    }
    let jobs: Vec<Job> = cases.iter().map(Job::of).collect();
    let (waiting, counts) = (Mutex::new(jobs.into_iter()), Mutex::new(Ok(Counts::new())));
    let work = || {
        while let Some(job) = lock(&waiting).next() {
            let counted = job.count();
            let mut counts = lock(&counts);
            match (counted, &mut *counts) {
                (Ok(count), Ok(counts)) => drop(counts.insert(job.id, count)),
                (Err(error), Ok(_)) => *counts = Err(error),
                (_, Err(_)) => {}
            }
            if counts.is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
    counts.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Valgrind with nothing of this machine around it. Arguments and environment take memory, so their lengths shift everything
/// after them: the program is named relative to its own folder for the same reason.
pub(crate) fn valgrind() -> Command {
    let mut valgrind = Command::new("valgrind");
    valgrind.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("GLIBC_TUNABLES", GLIBC_TUNABLES);
    valgrind
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Job {
    id: String,
    rounds: u64,
}

impl Job {
    fn of(case: &Case) -> Self {
        Self { id: case.id(), rounds: case.rounds_counted().into() }
    }

    /// Instructions of one round.
    fn count(&self) -> Result<u64, CountError> {
        let folder = tempfile::tempdir().map_err(CountError::Valgrind)?;
        let profile = folder.path().join("profile");
        self.run(&profile)?;
        let total = fs::read_to_string(profile).ok().and_then(|profile| total(&profile));
        // Nothing at all means that the symbol was not found.
        let total = total.filter(|total| *total > 0).ok_or_else(|| CountError::NoTotal(self.id.clone()))?;
        Ok((total + self.rounds / 2) / self.rounds)
    }

    fn run(&self, profile: &Path) -> Result<(), CountError> {
        let program = env::current_exe().map_err(CountError::Valgrind)?;
        let output = valgrind()
            .current_dir(program.parent().unwrap_or(Path::new("/")))
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--toggle-collect=*{COUNTED}*"))
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(Path::new(".").join(program.file_name().unwrap_or_default()))
            .args(["run", &self.id])
            .stdin(Stdio::null())
            .output()
            .map_err(CountError::Valgrind)?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(CountError::Failed { case: self.id.clone(), said })
    }
}

/// The instructions of a whole profile, which has one line for them.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_names_its_total_once() {
        let profile = "version: 1\nevents: Ir\nsummary: 4100\n\nfn=(1) f\n1 100\ncalls=2 0\n1 4000\ntotals: 4100\n";
        assert_eq!(total(profile), Some(4_100));
        assert_eq!(total("events: Ir Bc\ntotals: 17 3\n"), Some(17));
    }

    #[test]
    fn a_profile_that_was_cut_off_has_no_total() {
        for profile in ["", "version: 1\nsummary: 4100\n", "totals:", "totals: many"] {
            assert_eq!(total(profile), None, "{profile:?}");
        }
    }
}
