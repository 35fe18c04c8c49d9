//! A data directory as the source or the destination of a copy: which logs it has, and how far the copy has come.
//!
//! While a copy into it is unfinished the directory has a note, and [`Embedded::open`] refuses it: whoever read it would
//! take a part for the whole.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::Path,
};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;
use thiserror::Error;

use super::{
    disk::sync_dir,
    format::{Layout, OpenError, write_whole},
    keys::Key,
    replay::PARTITIONS,
    shard::EmbeddedShard,
    store::{Embedded, EmbeddedConfig, StoreHandle, make},
    table::{KeyRange, TableError, View},
    writer::Wake,
};

/// Why the logs of a directory cannot be listed.
#[derive(Debug, Error)]
pub enum ListError {
    /// Some of them may be lost.
    #[error("partition {partition} of the data directory is damaged: {reason}")]
    Damaged {
        /// Which.
        partition: u8,
        /// Why.
        reason: String,
    },
    /// The index cannot be read.
    #[error(transparent)]
    Index(#[from] TableError),
}

/// Fails if a copy into the directory is unfinished.
pub(super) fn refuse_unfinished(layout: &Layout) -> Result<(), OpenError> {
    match layout.copying().exists() {
        true => Err(OpenError::UnfinishedCopy(layout.dir().to_owned())),
        false => Ok(()),
    }
}

impl Embedded {
    /// Opens `dir` to copy into, as [`Embedded::open`] does to serve from. It must be without logs, and becomes a data
    /// directory in `epoch`, or hold a copy that is unfinished: then the second answer is what was noted last.
    pub fn open_for_copy(
        dir: &Path,
        config: EmbeddedConfig,
        wakers: Vec<Wake>,
        epoch: u32,
    ) -> Result<(Vec<EmbeddedShard>, Option<String>), OpenError> {
        fs::create_dir_all(dir)?;
        let layout = Layout::new(dir);
        let lock = layout.lock()?;
        let note = read_note(&layout)?;
        let format = match (layout.format()?, &note) {
            (Some(format), Some(_)) => format,
            (Some(_), None) => return Err(OpenError::NotEmpty(dir.to_owned())),
            // The note first: from now on nobody takes the directory for a whole one.
            (None, _) => {
                write_whole(&layout.copying(), b"")?;
                make(&layout, epoch)?
            }
        };
        Ok((Self::start(layout, lock, format, config, wakers)?, note.filter(|note| !note.is_empty())))
    }
}

fn read_note(layout: &Layout) -> io::Result<Option<String>> {
    match fs::read_to_string(layout.copying()) {
        Ok(note) => Ok(Some(note)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl StoreHandle {
    /// When the directory was made, Unix seconds: tells it from others.
    pub fn created(&self) -> u64 {
        self.0.format.created
    }

    /// Counts the times that the directory was opened, this one included.
    pub fn starts(&self) -> u64 {
        self.0.boot
    }

    /// The directory's lock, held until the store is gone.
    pub fn lock(&self) -> &File {
        &self.0.lock
    }

    /// Notes durably how far the copy into this directory has come.
    pub fn note_copy(&self, note: &str) -> io::Result<()> {
        write_whole(&self.0.layout.copying(), note.as_bytes())
    }

    /// The copy is whole: the directory may be opened as any other.
    pub fn finish_copy(&self) -> io::Result<()> {
        fs::remove_file(self.0.layout.copying())?;
        sync_dir(self.0.layout.dir())
    }

    /// The next logs behind `after`, or the first, at most `max`, by partition and key; empty if there are no more. A log
    /// is listed once a write to it is in the index, which for those of earlier starts is at once.
    pub fn logs_after(&self, after: Option<LogKey>, max: usize) -> Result<Vec<LogKey>, ListError> {
        let mut logs = Vec::new();
        let first = after.map_or(0, LogKey::partition);
        for partition in first..PARTITIONS {
            if let Some(reason) = self.0.partitions.damage(partition) {
                return Err(ListError::Damaged { partition, reason: reason.to_owned() });
            }
            let Some(table) = self.0.partitions.table(partition) else { continue };
            let view = table.view();
            let mut from = after.filter(|after| after.partition() == partition).map_or(Some(LogKey([0; 16])), next_key);
            while let Some(log) = from.map(|from| first_log(&*view, from)).transpose()?.flatten() {
                logs.push(log);
                if logs.len() == max {
                    return Ok(logs);
                }
                from = next_key(log);
            }
        }
        Ok(logs)
    }
}

/// The first log at or behind `from` that has anything in the index.
fn first_log(view: &dyn View, from: LogKey) -> Result<Option<LogKey>, TableError> {
    let mut found = None;
    let mut first = |key: &[u8], _: &[u8]| {
        found = Key::parse(key).map(|(log, _)| log);
        ControlFlow::Break(())
    };
    // No key is as long as this one and begins as high: the kinds are small numbers.
    let to = [u8::MAX; 17];
    view.scan(KeyRange { from: &from.0, to: &to }, Direction::Forward, &mut first)?;
    Ok(found)
}

/// The key behind `log`; nothing behind the last.
fn next_key(log: LogKey) -> Option<LogKey> {
    u128::from_be_bytes(log.0).checked_add(1).map(|next| LogKey(next.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_behind_another_carries() {
        let mut last_byte_full = [0; 16];
        last_byte_full[15] = u8::MAX;
        let mut expected = [0; 16];
        expected[14] = 1;
        assert_eq!(next_key(LogKey(last_byte_full)), Some(LogKey(expected)));
        assert_eq!(next_key(LogKey([u8::MAX; 16])), None);
    }
}
