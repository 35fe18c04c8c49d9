//! Copies of a data directory: taken while it runs, and brought back.
//!
//! A backup holds off flushes, compactions and the release of segments while it copies, not writes. It holds the index
//! files and every block that was durable when the index had been copied; so it has every write that was acknowledged
//! before it began. Its format file is written last: a copy that was broken off cannot be opened.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use thiserror::Error;

use super::{
    block::{self, Found, PAGE_BYTES},
    copying,
    disk::{Disk as _, RealDisk, SegmentName, sync_dir},
    format::{Format, Layout, OpenError},
    segments::SPARE_BOOT,
    store::StoreHandle,
};

/// Why a backup or its restoration failed. What was written so far is left and cannot be opened.
#[derive(Debug, Error)]
pub enum BackupError {
    /// The destination is there already.
    #[error("{0} is not empty; a copy needs a place of its own")]
    NotEmpty(PathBuf),
    /// The source is not a backup or data directory that this version reads.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// The operating system refused.
    #[error("the copy failed: {0}")]
    Io(#[from] io::Error),
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Files copied or linked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl StoreHandle {
    /// Copies the running store to `to`, which must not exist or be empty. Index files are linked where `to` is on the
    /// same file system. Blocks the calling thread; writes go on meanwhile, up to the size of the write-ahead log.
    pub fn backup(&self, to: &Path) -> Result<BackupReport, BackupError> {
        let (from, to) = (&self.0.layout, make_empty(to)?);
        let mut copy = Copy::default();
        {
            let _gate = self.0.gate.write().unwrap_or_else(PoisonError::into_inner);
            copy.tree(&from.index(), &to.index(), Link::Allowed)?;
            // Read after the index, so that the logs reach at least as far as what the index lacks.
            let durable: Vec<u64> = self.0.durable.iter().map(|block| block.load(Ordering::Acquire)).collect();
            fs::create_dir_all(to.wal())?;
            for segment in RealDisk::new(&from.wal()).list()? {
                let durable = durable.get(usize::from(segment.shard)).copied().unwrap_or(0);
                if self.0.is_current(segment) {
                    copy.segment(from, &to, segment, durable)?;
                }
            }
            sync_dir(&to.wal())?;
        }
        copy.notes(from, &to)?;
        to.write_format(&self.0.format)?;
        Ok(copy.report)
    }
}

/// Makes a data directory at `dir`, which must not exist or be empty, from a backup. Positions may have been given out
/// after the backup was taken, so the new directory has a higher epoch: the time in Unix seconds, so that restoring
/// the same backup twice gives two epochs.
pub fn restore(backup: &Path, dir: &Path) -> Result<Format, BackupError> {
    let from = Layout::new(backup);
    let _lock = from.lock()?;
    copying::refuse_unfinished(&from)?;
    let missing = || OpenError::NotADataDirectory(backup.to_owned(), "its format file is missing".to_owned());
    let format = from.format()?.ok_or_else(missing)?;
    let to = make_empty(dir)?;
    let mut copy = Copy::default();
    copy.tree(&from.index(), &to.index(), Link::Never)?;
    copy.tree(&from.wal(), &to.wal(), Link::Never)?;
    copy.notes(&from, &to)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let epoch = u32::try_from(now).unwrap_or(0).max(format.epoch.saturating_add(1));
    let restored = Format { epoch, ..format };
    to.write_format(&restored)?;
    Ok(restored)
}

fn make_empty(dir: &Path) -> Result<Layout, BackupError> {
    fs::create_dir_all(dir)?;
    if fs::read_dir(dir)?.next().is_some() {
        return Err(BackupError::NotEmpty(dir.to_owned()));
    }
    Ok(Layout::new(dir))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Allowed,
    Never,
}

#[derive(Default)]
struct Copy {
    report: BackupReport,
}

impl Copy {
    fn tree(&mut self, from: &Path, to: &Path, link: Link) -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.tree(&entry.path(), &target, link)?;
            } else {
                self.file(&entry.path(), &target, link)?;
            }
        }
        sync_dir(to)
    }

    fn file(&mut self, from: &Path, to: &Path, link: Link) -> io::Result<()> {
        if link == Link::Never || fs::hard_link(from, to).is_err() {
            fs::copy(from, to)?;
            fs::File::open(to)?.sync_all()?;
        }
        self.report.files += 1;
        self.report.bytes += fs::metadata(to)?.len();
        Ok(())
    }

    /// Copies a segment up to its last block that is durable. What follows is still being written.
    fn segment(&mut self, from: &Layout, to: &Layout, segment: SegmentName, durable: u64) -> io::Result<()> {
        let bytes = RealDisk::new(&from.wal()).read(segment)?;
        let end = durable_end(&bytes, segment, durable);
        if end == 0 || segment.boot == SPARE_BOOT {
            return Ok(());
        }
        let target = segment.path_in(&to.wal());
        fs::write(&target, &bytes[..end])?;
        fs::File::open(&target)?.sync_all()?;
        self.report.files += 1;
        self.report.bytes += end as u64;
        Ok(())
    }

    /// Copies what was found damaged, and the count of starts.
    fn notes(&mut self, from: &Layout, to: &Layout) -> Result<(), BackupError> {
        fs::copy(from.boot(), to.boot())?;
        fs::File::open(to.boot())?.sync_all()?;
        let damaged = from.read_damaged()?;
        if !damaged.is_empty() {
            to.write_damaged(&damaged)?;
        }
        Ok(())
    }
}

/// Where the last durable block of a segment ends. Steps over damage page by page, so that the copy shows it too.
fn durable_end(bytes: &Bytes, segment: SegmentName, durable: u64) -> usize {
    let (mut offset, mut end) = (0, 0);
    while offset < bytes.len() {
        match block::find(bytes, segment, offset as u64) {
            Found::Block(header, payload) => {
                offset += block::padded_len(payload.len());
                if header.number <= durable {
                    end = offset;
                }
            }
            _ => offset += PAGE_BYTES,
        }
    }
    end
}
