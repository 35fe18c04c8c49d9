//! The embedded store on a simulated disk: one thread, no files, and crashes that lose what was not synced.
//!
//! The disk keeps apart what is durable and which writes are under way. A crash keeps, drops or tears each write under
//! way, sector by sector and in any order, and the index loses what it had not flushed. [`SimulatedWriter`] finishes
//! its requests in the order that the simulation chooses.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{
    counters::WriterCounters,
    disk::{Disk, SegmentName},
    index::InlineIndex,
    memory_table::MemoryTable,
    partitions::Partitions,
    replay::{PARTITIONS, Replay},
    shard::{EmbeddedShard, ShardParts},
    table::Table,
    wal::WalConfig,
    writer::{BlockWriter, FatalError, Wake, WriteFinished, WriteRequest},
};
use crate::dice::Dice;

/// The disk writes this many bytes at once, or none of them.
const SECTOR_BYTES: usize = 512;

/// Segments in memory. Clones share the disk.
#[derive(Debug, Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    files: BTreeMap<SegmentName, Vec<u8>>,
    under_way: Vec<UnderWay>,
    next_write: u64,
    bytes_max: Option<u64>,
    syncs_fail: bool,
}

#[derive(Debug)]
struct UnderWay {
    id: u64,
    segment: SegmentName,
    offset: usize,
    bytes: Bytes,
}

impl Platter {
    fn make_durable(&mut self, chosen: impl Fn(&UnderWay) -> bool) -> io::Result<()> {
        if self.syncs_fail {
            return Err(io::Error::other("simulated failure"));
        }
        let (done, rest) = std::mem::take(&mut self.under_way).into_iter().partition(|write| chosen(write));
        self.under_way = rest;
        let done: Vec<UnderWay> = done;
        for UnderWay { segment, offset, bytes, .. } in done {
            self.put(segment, offset, &bytes);
        }
        Ok(())
    }

    fn put(&mut self, segment: SegmentName, offset: usize, bytes: &[u8]) {
        if let Some(range) = self.files.get_mut(&segment).and_then(|file| file.get_mut(offset..offset + bytes.len())) {
            range.copy_from_slice(bytes);
        }
    }
}

impl SimulatedDisk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses segments that would make the disk hold more than this.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.platter().bytes_max = bytes_max;
    }

    /// Whether syncs fail from now on.
    pub fn fail_syncs(&self, fail: bool) {
        self.platter().syncs_fail = fail;
    }

    /// Cuts the power: each write under way is kept, lost, or kept in part.
    pub fn crash(&self, dice: &mut Dice) {
        let mut platter = self.platter();
        let mut under_way = std::mem::take(&mut platter.under_way);
        while !under_way.is_empty() {
            let write = under_way.swap_remove(dice.below(under_way.len() as u64) as usize);
            let (lost, torn) = (dice.once_in(3), dice.once_in(2));
            for (n, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                if lost || (torn && dice.once_in(2)) {
                    continue;
                }
                platter.put(write.segment, write.offset + n * SECTOR_BYTES, sector);
            }
        }
    }

    fn begin(&self, segment: SegmentName, offset: u64, bytes: Bytes) -> u64 {
        let mut platter = self.platter();
        platter.next_write += 1;
        let id = platter.next_write;
        platter.under_way.push(UnderWay { id, segment, offset: offset as usize, bytes });
        id
    }

    fn finish(&self, id: u64) -> io::Result<()> {
        self.platter().make_durable(|write| write.id == id)
    }
}

impl Disk for SimulatedDisk {
    fn list(&mut self) -> io::Result<Vec<SegmentName>> {
        Ok(self.platter().files.keys().copied().collect())
    }

    fn create(&mut self, segment: SegmentName, len: u64) -> io::Result<()> {
        let mut platter = self.platter();
        let used: u64 = platter.files.values().map(|file| file.len() as u64).sum();
        if platter.bytes_max.is_some_and(|max| used + len > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        platter.files.insert(segment, vec![0; len as usize]);
        Ok(())
    }

    fn recycle(&mut self, from: SegmentName, to: SegmentName) -> io::Result<()> {
        let mut platter = self.platter();
        let file = platter.files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
        platter.files.insert(to, file);
        Ok(())
    }

    fn remove(&mut self, segment: SegmentName) -> io::Result<()> {
        self.platter().files.remove(&segment);
        Ok(())
    }

    fn write_at(&mut self, segment: SegmentName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.begin(segment, offset, Bytes::copy_from_slice(bytes));
        Ok(())
    }

    fn sync(&mut self, segment: SegmentName) -> io::Result<()> {
        self.platter().make_durable(|write| write.segment == segment)
    }

    fn read(&mut self, segment: SegmentName) -> io::Result<Bytes> {
        let platter = self.platter();
        platter.files.get(&segment).map(|file| Bytes::from(file.clone())).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// A [`BlockWriter`] whose requests finish when the simulation says so.
#[derive(Debug)]
pub struct SimulatedWriter {
    disk: SimulatedDisk,
    under_way: Vec<Request>,
    finished: Vec<WriteFinished>,
    recyclable: Vec<SegmentName>,
    counters: WriterCounters,
    is_busy: bool,
    failed: bool,
}

#[derive(Debug)]
enum Request {
    Allocate { segment: SegmentName, len: u64 },
    Write { number: u64, id: u64 },
}

impl SimulatedWriter {
    /// A writer on `disk`.
    pub fn new(disk: SimulatedDisk) -> Self {
        Self {
            disk,
            under_way: Vec::new(),
            finished: Vec::new(),
            recyclable: Vec::new(),
            counters: WriterCounters::default(),
            is_busy: false,
            failed: false,
        }
    }

    /// Whether blocks are still expected, so that no seal is wanted.
    pub fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
    }

    /// Requests that have not finished.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Finishes one request, chosen by `choice`; whether there was one.
    pub fn finish_one(&mut self, choice: u64) -> bool {
        if self.under_way.is_empty() || self.failed {
            return false;
        }
        let request = self.under_way.remove((choice % self.under_way.len() as u64) as usize);
        let finished = match request {
            Request::Allocate { segment, len } => self.allocate(segment, len),
            Request::Write { number, id } => {
                self.counters.syncs += 1;
                self.disk.finish(id).map(|()| WriteFinished::Written { number })
            }
        };
        self.finished.push(finished.unwrap_or_else(|error| {
            self.failed = true;
            WriteFinished::Failed(FatalError(error.to_string()))
        }));
        true
    }

    fn allocate(&mut self, segment: SegmentName, len: u64) -> io::Result<WriteFinished> {
        let made = match self.recyclable.pop() {
            Some(old) => self.disk.recycle(old, segment),
            None => self.disk.create(segment, len),
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Ok(WriteFinished::NotAllocated(segment)),
            made => made.map(|()| WriteFinished::Allocated(segment)),
        }
    }
}

impl BlockWriter for SimulatedWriter {
    fn submit(&mut self, request: WriteRequest) {
        match request {
            WriteRequest::Allocate { segment, len } => self.under_way.push(Request::Allocate { segment, len }),
            WriteRequest::Write { number, segment, offset, bytes, .. } => {
                self.counters.blocks += 1;
                self.counters.bytes += bytes.len() as u64;
                let id = self.disk.begin(segment, offset, bytes);
                self.under_way.push(Request::Write { number, id });
            }
            WriteRequest::Release { segments, .. } => {
                for segment in segments {
                    let spare = SegmentName { boot: super::segments::SPARE_BOOT, ..segment };
                    match self.disk.recycle(segment, spare) {
                        Ok(()) => self.recyclable.push(spare),
                        Err(error) => self.finished.push(WriteFinished::Failed(FatalError(error.to_string()))),
                    }
                }
            }
        }
    }

    fn poll(&mut self, finished: &mut Vec<WriteFinished>) {
        finished.append(&mut self.finished);
    }

    fn counters(&self) -> WriterCounters {
        self.counters
    }

    fn is_quiet(&self) -> bool {
        !self.is_busy
    }
}

/// A shard of a simulated store.
pub type SimulatedShard = EmbeddedShard<SimulatedWriter, InlineIndex<MemoryTable>>;

/// A data directory in memory that survives simulated crashes.
#[derive(Debug)]
pub struct SimulatedStore {
    disk: SimulatedDisk,
    tables: Arc<Vec<Arc<MemoryTable>>>,
    boot: u64,
    segment_bytes: u64,
}

impl SimulatedStore {
    /// An empty directory.
    pub fn new(segment_bytes: u64) -> Self {
        let tables = (0..PARTITIONS).map(|_| Arc::default()).collect();
        Self { disk: SimulatedDisk::default(), tables: Arc::new(tables), boot: 0, segment_bytes }
    }

    /// The disk, to limit it or make it fail.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Starts on the directory with this many shards, after bringing older logs into the index. Fails if an
    /// acknowledged block cannot be read, which no crash alone can cause.
    pub fn open(&mut self, shards: u16, wake: &Wake) -> Result<Vec<SimulatedShard>, String> {
        self.replay()?;
        self.boot += 1;
        let shard = |shard| {
            let wal = WalConfig {
                boot: self.boot,
                shard,
                shards,
                segment_bytes: self.segment_bytes,
                wal_bytes_max: 8 * self.segment_bytes,
            };
            EmbeddedShard::new(ShardParts {
                wal,
                writer: SimulatedWriter::new(self.disk.clone()),
                index: InlineIndex::new(self.tables.clone(), 1),
                wake: wake.clone(),
            })
        };
        Ok((0..shards).map(shard).collect())
    }

    /// Cuts the power. Drop the shards before or after; open again to go on.
    pub fn crash(&mut self, dice: &mut Dice) {
        self.disk.crash(dice);
        self.tables = Arc::new(self.tables.iter().map(|table| Arc::new(table.after_crash())).collect());
    }

    fn replay(&mut self) -> Result<(), String> {
        let opened = self.tables.iter().map(|table| Ok(table.clone() as Arc<dyn Table>)).collect();
        let partitions = Partitions::new(opened);
        let mut disk = self.disk.clone();
        let segments = disk.list().map_err(|error| error.to_string())?;
        let mut replay = Replay::new(&partitions, u64::MAX, 1);
        for log in segments.chunk_by(|a, b| (a.boot, a.shard) == (b.boot, b.shard)) {
            let SegmentName { boot, shard, .. } = log[0];
            if boot != super::segments::SPARE_BOOT
                && replay.log(&mut disk, (boot, shard), log).map_err(|error| error.to_string())?
            {
                return Err(format!("damage was found: {:?}", partitions.degraded()));
            }
        }
        replay.flush(u64::MAX).map_err(|error| error.to_string())?;
        segments.iter().try_for_each(|segment| disk.remove(*segment)).map_err(|error| error.to_string())
    }
}
