//! What a start does with the logs of earlier ones: bring them into the index, flush it, remove them.
//!
//! Any earlier number of shards will do, since a partition belonged to exactly one shard in each start. Everything is
//! flushed before the first log is removed and before the first new write, so doing it again after a crash in between
//! gives the same index.
//!
//! Where damage is found, its partitions are noted as damaged for good and the logs move aside for the operator.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    thread,
};

use antiphon_storage_contract::Op;
use bytes::Bytes;
use lsm_tree::Cache;

use super::{
    admission,
    disk::{Disk, RealDisk, SegmentName, sync_dir},
    format::{Layout, OpenError},
    lsm::{Absent, LsmTable},
    partitions::Partitions,
    payload, query,
    recovery::{self, RecoveredBlock},
    segments::SPARE_BOOT,
    table::{Table, TableError},
};

/// Number of index partitions.
pub(crate) const PARTITIONS: u8 = antiphon_protocol::limits::PARTITIONS as u8;

/// Partitions that are opened or flushed at once by a start.
const THREADS: u8 = 16;

/// Opens every partition of the index. One that is damaged is left out, not an error.
pub(crate) fn open_partitions(layout: &Layout, cache_bytes: u64) -> Result<Partitions, OpenError> {
    let cache = Arc::new(Cache::with_capacity_bytes(cache_bytes));
    // The first start counts itself after it has made every partition.
    let absent = if layout.was_started() { Absent::Damage } else { Absent::Make };
    let opened = in_parallel(THREADS, |partition| {
        let dir = layout.partition(partition);
        catch_unwind(AssertUnwindSafe(|| LsmTable::open(&dir, absent, cache.clone())))
            .unwrap_or_else(|_| Err(TableError::Damaged("its files cannot be read".to_owned())))
    });
    let opened = opened.into_iter().map(|table| match table {
        Ok(table) => Ok(Ok(Arc::new(table) as Arc<dyn Table>)),
        Err(TableError::Damaged(reason)) => Ok(Err(reason)),
        Err(TableError::Full) => Err(OpenError::Full),
        Err(TableError::Io(error)) => Err(error.into()),
    });
    let opened = opened.collect::<Result<_, OpenError>>()?;
    let partitions = Partitions::new(opened);
    for (partition, reason) in layout.read_damaged()? {
        partitions.degrade(partition, &reason);
    }
    Ok(partitions)
}

/// Brings every log in the directory into the index, flushes it and removes the logs.
pub(crate) fn replay(layout: &Layout, partitions: &Partitions, memtable_bytes: u64) -> Result<(), OpenError> {
    let mut disk = RealDisk::new(&layout.wal());
    let mut logs: BTreeMap<(u64, u16), Vec<SegmentName>> = BTreeMap::new();
    let mut spares = Vec::new();
    for segment in disk.list()? {
        match segment.boot {
            SPARE_BOOT => spares.push(segment),
            boot => logs.entry((boot, segment.shard)).or_default().push(segment),
        }
    }
    let mut replay = Replay::new(partitions, memtable_bytes, THREADS);
    let mut damaged_logs = Vec::new();
    for (log, segments) in &logs {
        if replay.log(&mut disk, *log, segments)? {
            damaged_logs.push(*log);
        }
    }
    replay.flush(u64::MAX)?;
    remember_damage(layout, partitions)?;
    for (log, segments) in &logs {
        if damaged_logs.contains(log) {
            move_aside(layout, segments)?;
        } else {
            segments.iter().try_for_each(|segment| disk.remove(*segment))?;
        }
    }
    Ok(spares.iter().try_for_each(|spare| disk.remove(*spare))?)
}

pub(crate) struct Replay<'a> {
    partitions: &'a Partitions,
    memtable_bytes: u64,
    /// Partitions with writes that are not flushed.
    touched: u64,
    scratch: Vec<u8>,
    full: bool,
    /// Partitions that are flushed at once.
    threads: u8,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(partitions: &'a Partitions, memtable_bytes: u64, threads: u8) -> Self {
        Self { partitions, memtable_bytes, touched: 0, scratch: Vec::new(), full: false, threads }
    }

    /// Brings one log into the index; whether it must be kept.
    pub(crate) fn log(
        &mut self,
        disk: &mut impl Disk,
        (boot, shard): (u64, u16),
        segments: &[SegmentName],
    ) -> Result<bool, OpenError> {
        let mut keep = false;
        let recovered = recovery::recover(disk, segments, |block| {
            keep |= self.block(block)?;
            Ok(())
        });
        let recovered = match recovered {
            Err(_) if self.full => return Err(OpenError::Full),
            recovered => recovered?,
        };
        if recovered.torn {
            tracing::info!(boot, shard, "cut the unacknowledged tail of a write-ahead log");
        }
        for damage in &recovered.damage {
            let reason = format!("block {} of the write-ahead log {boot}/{shard} is damaged", damage.number);
            for partition in bits(damage.partitions) {
                self.partitions.degrade(partition, &reason);
            }
        }
        Ok(keep || !recovered.damage.is_empty())
    }

    /// Brings one block into the index; whether its log must be kept because not all of it could be.
    fn block(&mut self, block: RecoveredBlock) -> io::Result<bool> {
        let mut payload: Bytes = block.payload;
        let mut keep = false;
        loop {
            let op = match payload::decode(&mut payload) {
                Ok(Some(op)) => op,
                Ok(None) => break,
                Err(error) => {
                    let reason = format!("block {} of a write-ahead log cannot be read: {error}", block.number);
                    bits(block.partitions).for_each(|partition| self.partitions.degrade(partition, &reason));
                    return Ok(true);
                }
            };
            let partition = op.log().partition();
            let Some(table) = self.partitions.table(partition) else {
                keep = true;
                continue;
            };
            // Behind damage a write may presume one that is lost; such a log ends before it.
            if block.after_damage & (1 << partition) == 0 || presumes_nothing_lost(&op, table) {
                query::apply(&op, table, &mut self.scratch);
                self.touched |= 1 << partition;
            }
        }
        self.flush(self.memtable_bytes)?;
        Ok(keep)
    }

    /// Flushes partitions; all of them if `bytes` is the largest number, else those that collected more.
    pub(crate) fn flush(&mut self, bytes: u64) -> io::Result<()> {
        let due = |table: &dyn Table| bytes == u64::MAX || table.unsealed_bytes() >= bytes;
        let due: u64 = bits(self.touched)
            .filter(|partition| self.partitions.table(*partition).is_some_and(due))
            .fold(0, |mask, partition| mask | 1 << partition);
        if due == 0 {
            return Ok(());
        }
        let flushed = in_parallel(self.threads, |partition| match self.partitions.table(partition) {
            Some(table) if due & (1 << partition) != 0 => {
                table.seal();
                table.flush().map(|()| table.publish())
            }
            _ => Ok(()),
        });
        self.touched &= !due;
        for flushed in flushed {
            match flushed {
                Ok(()) => {}
                Err(TableError::Full) => {
                    self.full = true;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(())
    }
}

/// Does the same for every partition, several at a time: most of it is waiting for the disk.
fn in_parallel<T: Send>(threads: u8, work: impl Fn(u8) -> T + Sync) -> Vec<T> {
    if threads <= 1 {
        return (0..PARTITIONS).map(work).collect();
    }
    let work = &work;
    let mut done: Vec<(u8, T)> = thread::scope(|scope| {
        let share = |first| move || (first..PARTITIONS).step_by(threads.into()).map(|p| (p, work(p))).collect();
        let threads: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Vec<_>>| match thread.join() {
            Ok(done) => done,
            Err(panic) => resume_unwind(panic),
        };
        threads.into_iter().flat_map(join).collect()
    });
    done.sort_unstable_by_key(|(partition, _)| *partition);
    done.into_iter().map(|(_, result)| result).collect()
}

fn presumes_nothing_lost(op: &Op, table: &dyn Table) -> bool {
    query::bounds(op.log(), &*table.view()).is_ok_and(|bounds| admission::check(op, bounds, usize::MAX).is_ok())
}

fn bits(mask: u64) -> impl Iterator<Item = u8> {
    (0..PARTITIONS).filter(move |partition| mask & (1 << partition) != 0)
}

fn remember_damage(layout: &Layout, partitions: &Partitions) -> io::Result<()> {
    let damaged: BTreeMap<u8, String> = partitions.degraded().into_iter().collect();
    if damaged.is_empty() { Ok(()) } else { layout.write_damaged(&damaged) }
}

fn move_aside(layout: &Layout, segments: &[SegmentName]) -> io::Result<()> {
    let aside = layout.damaged_wal();
    fs::create_dir_all(&aside)?;
    for segment in segments {
        let name = segment.to_string();
        fs::rename(layout.wal().join(&name), aside.join(&name))?;
    }
    sync_dir(&aside)?;
    sync_dir(&layout.wal())
}
