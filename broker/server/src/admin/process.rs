//! Gauges of the process as a whole: what it is, whether it wants traffic, and the space that its data has.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use metrics::{describe_gauge, gauge};
use tokio::task::{JoinHandle, spawn_blocking};

use super::health::{DRAINING, Health, STARTING};

/// How often the data directory is looked through: a few thousand files at most.
const DISK_INTERVAL: Duration = Duration::from_secs(60);
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// Sets the gauges, from the admin thread's tick.
#[derive(Debug)]
pub(super) struct ProcessGauges {
    data_dir: PathBuf,
    /// Reasons that have been said: one that is over stands at 0.
    reasons: BTreeSet<String>,
    disk_due: Option<Instant>,
    looking: Option<JoinHandle<()>>,
}

impl ProcessGauges {
    /// Says at once what never changes.
    pub(super) fn new(data_dir: PathBuf) -> Self {
        describe_gauge!("antiphon_build_info", "1, with the version of the program.");
        describe_gauge!("antiphon_ready", "Whether /readyz wants traffic, 1 or 0.");
        describe_gauge!("antiphon_not_ready", "1 for each reason against traffic; 0 once it is over.");
        describe_gauge!("antiphon_store_free_bytes", "Space that is free for the broker where its data is.");
        describe_gauge!("antiphon_store_files_bytes", "Space that the files of the data directory take.");
        gauge!("antiphon_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Self { data_dir, reasons: [STARTING.to_owned(), DRAINING.to_owned()].into(), disk_due: None, looking: None }
    }

    /// About once a second.
    pub(super) fn tick(&mut self, health: &Health, now: Instant) {
        let against: BTreeSet<String> = health.reasons(now).into_iter().collect();
        gauge!("antiphon_ready").set(if against.is_empty() { 1.0 } else { 0.0 });
        self.reasons.extend(against.iter().cloned());
        for reason in &self.reasons {
            let holds = against.contains(reason);
            gauge!("antiphon_not_ready", "reason" => reason.clone()).set(if holds { 1.0 } else { 0.0 });
        }
        // A disk that does not answer is asked no second time.
        let is_looking = self.looking.as_ref().is_some_and(|looking| !looking.is_finished());
        if !is_looking && self.disk_due.is_none_or(|due| due <= now) {
            self.disk_due = Some(now + DISK_INTERVAL);
            let dir = self.data_dir.clone();
            self.looking = Some(spawn_blocking(move || look_at_disk(&dir)));
        }
    }
}

/// What cannot be found out keeps its last value.
fn look_at_disk(dir: &Path) {
    match rustix::fs::statvfs(dir) {
        // Sizes are far below 2^53, where f64 stops being exact.
        Ok(found) => gauge!("antiphon_store_free_bytes").set(found.f_bavail as f64 * found.f_frsize as f64),
        Err(error) => tracing::debug!(%error, "the file system of the data directory does not say its space"),
    }
    match taken(dir) {
        Ok(bytes) => gauge!("antiphon_store_files_bytes").set(bytes as f64),
        Err(error) => tracing::debug!(%error, "the data directory cannot be looked through"),
    }
}

/// Bytes that the files under `dir` take on the disk. Files come and go meanwhile.
fn taken(dir: &Path) -> io::Result<u64> {
    let (mut bytes, mut folders) = (0, vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => bytes += found.blocks() * BLOCK_BYTES,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_in_folders_count_with_the_space_that_they_take() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(taken(dir.path()).unwrap(), 0);
        fs::create_dir(dir.path().join("wal")).unwrap();
        fs::write(dir.path().join("wal/1"), vec![1; 100_000]).unwrap();
        fs::write(dir.path().join("format"), "1").unwrap();
        let bytes = taken(dir.path()).unwrap();
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
        assert!(taken(&dir.path().join("absent")).is_err());
    }
}
