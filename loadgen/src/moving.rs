//! Moves the logs of a run's broker to the other engine and back, with the broker's own program, while clients wait.
//!
//! Each copy is killed once on its way, unless it is whole before, and begun again. From a cluster that was just copied into, everything is copied back
//! into a scratch directory: both must have the digest that was printed for the original.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    broker::{Broker, BrokerError},
    cassandra::{Cassandra, CassandraError},
};

/// What a data directory has when its logs are in it.
const LOG_FILES: [&str; 4] = ["format", "boot", "wal", "index"];
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why logs were not moved.
#[derive(Debug, Error)]
pub enum MoveError {
    /// The broker does not end or start.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The keyspace cannot be made.
    #[error(transparent)]
    Cassandra(#[from] CassandraError),
    /// The program cannot be run, or the data directory not be emptied.
    #[error("the logs cannot be moved")]
    Io(#[from] io::Error),
    /// The copy failed.
    #[error("`antiphon copy` failed: {0}")]
    Copy(String),
    /// What came back is something else.
    #[error("the original's digest is {original}, that of what came back {back}")]
    Unequal {
        /// Of the first copy.
        original: String,
        /// Of the second.
        back: String,
    },
}

/// Where the logs are now.
#[derive(Debug, Default)]
pub struct Mover {
    is_on_cluster: bool,
    moves: u32,
}

/// What one move did.
#[derive(Debug, Clone, Copy)]
pub struct Moved {
    /// Whether the copy was still under way when it was killed.
    pub was_interrupted: bool,
    /// Whether it was copied back and compared.
    pub was_compared: bool,
    /// From the broker's end to its readiness.
    pub took: Duration,
}

impl Mover {
    /// Kills the broker, moves its logs, and starts it again where they are now. The copy is killed after `patience`.
    pub fn move_logs(
        &mut self,
        broker: &mut Broker,
        cassandra: &Cassandra,
        patience: Duration,
    ) -> Result<Moved, MoveError> {
        let began = Instant::now();
        broker.kill()?;
        self.moves += 1;
        // A keyspace that was left still has its logs; each move has one of its own.
        let keyspace = format!("moved_{}", self.moves / 2 + self.moves % 2);
        let cluster = cassandra.environment_of(&keyspace);
        let (program, data) = (broker.program().to_owned(), broker.config().data.clone());
        let (from, to) = if self.is_on_cluster { ("scylla", "embedded") } else { ("embedded", "scylla") };
        match self.is_on_cluster {
            true => move_away(&data)?,
            false => cassandra.apply_schema(&program, &cluster)?,
        }
        let copy = |from, to, data: &Path| {
            let mut command = Command::new(&program);
            command.args(["copy", "--from", from, "--to", to, "--data"]).arg(data);
            command.envs(cluster.iter().map(|(name, value)| (name, value)));
            command.env("ANTIPHON_LOG_FILTER", "warn").stdin(Stdio::null());
            command
        };
        let whole = interrupt(copy(from, to, &data), patience)?;
        let was_interrupted = whole.is_none();
        let original = digest(whole.map_or_else(|| copy(from, to, &data).output(), Ok)?)?;
        if !self.is_on_cluster {
            let scratch = tempfile::tempdir()?;
            let back = digest(copy(to, from, &scratch.path().join("back")).output()?)?;
            if original != back {
                return Err(MoveError::Unequal { original, back });
            }
        }
        let was_compared = !self.is_on_cluster;
        self.is_on_cluster = !self.is_on_cluster;
        broker.set_environment(if self.is_on_cluster { cluster } else { Vec::new() });
        broker.restart()?;
        Ok(Moved { was_interrupted, was_compared, took: began.elapsed() })
    }
}

/// Leaves a data directory without logs, as an operator would who wants them back in it: secrets stay.
fn move_away(data: &Path) -> io::Result<()> {
    let old = data.join("before");
    if old.exists() {
        fs::remove_dir_all(&old)?;
    }
    fs::create_dir(&old)?;
    LOG_FILES.iter().try_for_each(|name| fs::rename(data.join(name), old.join(name)))
}

/// Runs a copy and kills it after `patience`. What it printed if it was whole before: its destination takes no other.
fn interrupt(mut copy: Command, patience: Duration) -> io::Result<Option<Output>> {
    let mut child = copy.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline && child.try_wait()?.is_none() {
        thread::sleep(POLL_INTERVAL);
    }
    child.kill()?;
    let output = child.wait_with_output()?;
    Ok(output.status.success().then_some(output))
}

/// What a copy that is whole has printed.
fn digest(output: Output) -> Result<String, MoveError> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let digest = stdout.lines().find_map(|line| line.strip_prefix("digest: "));
    match digest {
        Some(digest) if output.status.success() => Ok(digest.to_owned()),
        _ => Err(MoveError::Copy(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_copy_that_is_whole_in_time_is_not_run_again() {
        let whole = interrupt(shell("echo digest: 5"), Duration::from_secs(30)).unwrap().unwrap();
        assert_eq!(digest(whole).unwrap(), "5");
    }

    #[test]
    fn a_copy_at_work_is_killed_and_one_that_failed_has_no_digest() {
        assert!(interrupt(shell("exec sleep 30"), Duration::from_millis(10)).unwrap().is_none());
        assert!(interrupt(shell("echo digest: 5; exit 1"), Duration::from_secs(30)).unwrap().is_none());
    }
}
