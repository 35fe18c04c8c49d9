//! The writer without a thread: direct, durable writes of the shard's own thread through io_uring, several under way.
//!
//! ```text
//! Write -> queue -> one write of neighbouring blocks -> ring -> readable descriptor -> poll -> Written
//! ```
//!
//! # Invariants
//!
//! - A block is reported as written only after the disk said so for all of its bytes; no other sync exists.
//! - After the first error, be it in making the ring, opening a segment or writing, nothing more is written and nothing
//!   reported as written.
//!
//! An alarm of the ring tells when no block has come for a while.
//!
//! The ring belongs to the thread that submits the first block: from then on the shard must stay there.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, mpsc::Receiver},
    time::Instant,
};

use antiphon_sys::{
    poller::{Source, wait},
    ring::{DurableFile, WriteRing},
};
use bytes::Bytes;

use super::{
    counters::WriterCounters,
    disk::SegmentName,
    segments::{Answers, SegmentKeeper, Segments},
    writer::{BlockWriter, FatalError, FatalHook, QUIET_AFTER, Wake, WriteFinished, WriteRequest},
};

/// Writes under way at once. One alone leaves the disk idle between two; more make blocks smaller, not faster.
const WRITES_IN_FLIGHT_MAX: usize = 3;
/// Neighbouring blocks go out as one write up to this size.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Durable writes through io_uring.
pub struct UringWriter {
    /// Where the segments are.
    dir: PathBuf,
    ring: Option<WriteRing<Blocks>>,
    /// The segment of the last write.
    file: Option<(SegmentName, DurableFile)>,
    /// Blocks that the ring does not have yet, in the order of their numbers and places.
    queue: VecDeque<Block>,
    /// A block has come since the alarm was set that tells whether none does.
    is_busy: bool,
    is_quiet: bool,
    segments: Segments,
    finished: Receiver<WriteFinished>,
    failed: bool,
    /// To be reported at the next poll.
    failure: Option<FatalError>,
    wake: Wake,
    fatal: FatalHook,
    counters: WriterCounters,
}

struct Block {
    number: u64,
    segment: SegmentName,
    offset: u64,
    bytes: Bytes,
}

/// The blocks of one write.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    first: u64,
    count: u64,
    begun: Instant,
}

impl std::fmt::Debug for UringWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UringWriter").field("ring", &self.ring).finish_non_exhaustive()
    }
}

impl UringWriter {
    /// A writer of one shard whose segments `keeper` makes in `dir`. The ring is made with the first block.
    pub(crate) fn new(dir: PathBuf, keeper: &SegmentKeeper, wake: Wake, fatal: FatalHook) -> Self {
        let (answers, finished) = Answers::new(wake.clone());
        Self {
            dir,
            ring: None,
            file: None,
            queue: VecDeque::new(),
            is_busy: false,
            is_quiet: true,
            segments: keeper.segments(answers),
            finished,
            failed: false,
            failure: None,
            wake,
            fatal,
            counters: WriterCounters::default(),
        }
    }

    /// Hands queued blocks to the kernel as far as it takes them.
    fn start_writes(&mut self) {
        while !self.failed && self.may_start() {
            if let Err(error) = self.start_write() {
                self.fail(&error);
            }
        }
    }

    fn may_start(&self) -> bool {
        !self.queue.is_empty() && self.ring.as_ref().is_none_or(WriteRing::has_room)
    }

    /// Finds out whether blocks still come: an alarm goes off while they do, and once after the last one.
    fn watch(&mut self) {
        let Some(ring) = self.ring.as_mut().filter(|_| !self.failed && !self.is_quiet) else { return };
        if ring.take_alarm() {
            self.is_quiet = !std::mem::take(&mut self.is_busy);
        }
        if !self.is_quiet
            && let Err(error) = ring.set_alarm(QUIET_AFTER)
        {
            self.fail(&error);
        }
    }

    /// Begins one write of as many blocks as lie next to each other.
    fn start_write(&mut self) -> io::Result<()> {
        let Some(Block { number: first, segment, offset, .. }) = self.queue.front() else { return Ok(()) };
        let (first, segment, offset) = (*first, *segment, *offset);
        let ring = match &mut self.ring {
            Some(ring) => ring,
            none => none.insert(WriteRing::new(WRITES_IN_FLIGHT_MAX)?),
        };
        if self.file.as_ref().is_none_or(|(name, _)| *name != segment) {
            self.file = Some((segment, DurableFile::open(&segment.path_in(&self.dir))?));
        }
        let Some((_, file)) = &self.file else { return Ok(()) };
        let (mut buffer, mut count) = (ring.buffer(), 0);
        let belongs = |block: &mut Block, written: usize| {
            let fits = written == 0 || written + block.bytes.len() <= WRITE_BYTES_MAX;
            fits && block.segment == segment && block.offset == offset + written as u64
        };
        while let Some(block) = self.queue.pop_front_if(|block| belongs(block, buffer.len())) {
            buffer.append(&block.bytes);
            count += 1;
        }
        self.counters.add(WriterCounters { blocks: count, bytes: buffer.len() as u64, ..WriterCounters::default() });
        ring.submit(file, offset, buffer, Blocks { first, count, begun: Instant::now() })
    }

    fn reap(&mut self, finished: &mut Vec<WriteFinished>) {
        let Some(ring) = &mut self.ring else { return };
        let (counters, mut failure) = (&mut self.counters, None);
        let failed = self.failed;
        ring.reap(|Blocks { first, count, begun }, result| match result {
            _ if failed || failure.is_some() => {}
            Ok(()) => {
                counters.syncs += 1;
                counters.sync_times.record(begun.elapsed());
                finished.extend((first..first + count).map(|number| WriteFinished::Written { number }));
            }
            Err(error) => failure = Some(error),
        });
        if let Some(error) = failure.filter(|_| !failed) {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &io::Error) {
        let error = FatalError(format!("a write of the write-ahead log failed: {error}"));
        self.failed = true;
        self.queue.clear();
        (self.fatal)(error.clone());
        self.failure = Some(error);
        (self.wake)();
    }
}

impl BlockWriter for UringWriter {
    fn submit(&mut self, request: WriteRequest) {
        match request {
            WriteRequest::Write { .. } if self.failed => {}
            WriteRequest::Write { number, segment, offset, bytes } => {
                self.queue.push_back(Block { number, segment, offset, bytes });
                (self.is_busy, self.is_quiet) = (true, false);
                self.start_writes();
            }
            WriteRequest::Allocate { segment, len } => self.segments.allocate(segment, len),
            WriteRequest::Release { segments, len } => self.segments.release(segments, len),
        }
    }

    fn poll(&mut self, finished: &mut Vec<WriteFinished>) {
        finished.extend(self.finished.try_iter());
        self.reap(finished);
        self.start_writes();
        self.watch();
        finished.extend(self.failure.take().map(WriteFinished::Failed));
    }

    fn counters(&self) -> WriterCounters {
        self.counters
    }

    fn blocks_max(&self) -> usize {
        WRITES_IN_FLIGHT_MAX
    }

    fn is_quiet(&self) -> bool {
        self.is_quiet
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for UringWriter {
    /// Writes what is queued. A failure is nobody's concern any more, since none of it was acknowledged.
    fn drop(&mut self) {
        (self.fatal, self.wake) = (Arc::new(|_| {}), Arc::new(|| {}));
        self.start_writes();
        while !self.failed && !self.queue.is_empty() {
            let Some(Ok(_)) = self.ring.as_ref().map(|ring| wait([Source::readable(ring)], None)) else { return };
            self.reap(&mut Vec::new());
            self.start_writes();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        sync::{
            Mutex,
            atomic::{AtomicBool, Ordering},
        },
        time::Duration,
    };

    use antiphon_storage_contract::{EventLog, Op, Outcome, RecordWrite, StoreError, Token};
    use antiphon_sys::{doorbell::Doorbell, ring};
    use tempfile::TempDir;

    use super::*;
    use crate::embedded::{
        EmbeddedShard, InlineIndex, MemoryTable, ShardParts, WalConfig,
        block::{self, Found, PAGE_BYTES},
        disk::{Disk, RealDisk},
    };

    /// A disk that can be full.
    struct Limited {
        disk: RealDisk,
        full: Arc<AtomicBool>,
    }

    impl Disk for Limited {
        fn list(&mut self) -> io::Result<Vec<SegmentName>> {
            self.disk.list()
        }
        fn create(&mut self, segment: SegmentName, len: u64) -> io::Result<()> {
            if self.full.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.disk.create(segment, len)
        }
        fn recycle(&mut self, from: SegmentName, to: SegmentName) -> io::Result<()> {
            self.disk.recycle(from, to)
        }
        fn remove(&mut self, segment: SegmentName) -> io::Result<()> {
            self.disk.remove(segment)
        }
        fn write_at(&mut self, segment: SegmentName, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.disk.write_at(segment, offset, bytes)
        }
        fn sync(&mut self, segment: SegmentName) -> io::Result<()> {
            self.disk.sync(segment)
        }
        fn read(&mut self, segment: SegmentName) -> io::Result<Bytes> {
            self.disk.read(segment)
        }
    }

    struct Rig {
        dir: TempDir,
        full: Arc<AtomicBool>,
        keeper: SegmentKeeper,
        bell: Doorbell,
        told: Arc<Mutex<Vec<FatalError>>>,
    }

    impl Rig {
        /// Nothing, with a line that says why, where io_uring does not work.
        fn new() -> Option<Self> {
            let dir = tempfile::tempdir().unwrap();
            if let Err(error) = ring::probe(dir.path()) {
                eprintln!("skipped: {error}");
                return None;
            }
            let (bell, told) = (Doorbell::new().unwrap(), Arc::default());
            bell.arm();
            let full = Arc::new(AtomicBool::new(false));
            let disk = Limited { disk: RealDisk::new(dir.path()), full: full.clone() };
            let (keeper, _) = SegmentKeeper::start(Box::new(disk), Arc::default(), fatal(&told)).unwrap();
            Some(Self { dir, full, keeper, bell, told })
        }

        fn wake(&self) -> Wake {
            let ringer = self.bell.ringer();
            Arc::new(move || ringer.ring())
        }

        fn writer(&self) -> UringWriter {
            UringWriter::new(self.dir.path().to_owned(), &self.keeper, self.wake(), fatal(&self.told))
        }

        /// Waits as the owner of a shard does. What happened is found by polling.
        fn wait(&self, fd: Option<BorrowedFd<'_>>) {
            let fd = fd.unwrap_or(self.bell.as_fd());
            let sources = [Source::readable(&self.bell), Source::readable(&fd)];
            let ready = wait(sources, Some(Duration::from_secs(30))).unwrap();
            assert!(ready.iter().any(|ready| ready.readable), "nothing happened for 30 seconds");
            self.bell.disarm(ready[0].readable);
            self.bell.arm();
        }

        /// The answers up to and with the `count`th.
        fn finish(&self, writer: &mut UringWriter, count: usize) -> Vec<WriteFinished> {
            let mut finished = Vec::new();
            writer.poll(&mut finished);
            while finished.len() < count {
                self.wait(writer.wait_fd());
                writer.poll(&mut finished);
            }
            finished
        }

        fn told(&self) -> usize {
            self.told.lock().unwrap().len()
        }
    }

    fn fatal(told: &Arc<Mutex<Vec<FatalError>>>) -> FatalHook {
        let told = told.clone();
        Arc::new(move |error| told.lock().unwrap().push(error))
    }

    const SEGMENT: SegmentName = SegmentName { boot: 1, shard: 0, number: 1 };

    fn write(number: u64, page: u64) -> WriteRequest {
        let bytes = Bytes::from(vec![number as u8; PAGE_BYTES]);
        WriteRequest::Write { number, segment: SEGMENT, offset: page * PAGE_BYTES as u64, bytes }
    }

    fn written(number: u64) -> WriteFinished {
        WriteFinished::Written { number }
    }

    #[test]
    fn neighbours_that_wait_for_room_go_out_as_one_write_also_at_the_end() {
        let Some(rig) = Rig::new() else { return };
        let mut writer = rig.writer();
        writer.submit(WriteRequest::Allocate { segment: SEGMENT, len: 64 << 10 });
        assert_eq!(rig.finish(&mut writer, 1), [WriteFinished::Allocated(SEGMENT)]);
        let count = WRITES_IN_FLIGHT_MAX as u64 + 3;
        (1..=count).for_each(|number| writer.submit(write(number, number - 1)));
        let mut finished = rig.finish(&mut writer, count as usize);
        finished.sort_by_key(|finished| format!("{finished:?}"));
        assert_eq!(finished, (1..=count).map(written).collect::<Vec<_>>());
        let WriterCounters { blocks, bytes, syncs, sync_times } = writer.counters();
        assert_eq!((blocks, bytes), (count, count * 4096));
        let writes = WRITES_IN_FLIGHT_MAX as u64 + 1;
        assert_eq!((syncs, sync_times.count()), (writes, writes));
        (count + 1..=count * 2).for_each(|number| writer.submit(write(number, number - 1)));
        drop(writer);
        let bytes = RealDisk::new(rig.dir.path()).read(SEGMENT).unwrap();
        assert!((0..count as usize * 2).all(|page| bytes[page * PAGE_BYTES] == page as u8 + 1));
    }

    #[test]
    fn nothing_is_reported_as_written_after_a_failed_write() {
        let Some(rig) = Rig::new() else { return };
        let mut writer = rig.writer();
        RealDisk::new(rig.dir.path()).create(SEGMENT, 64 << 10).unwrap();
        writer.submit(write(1, 0));
        assert_eq!(rig.finish(&mut writer, 1), [written(1)]);
        // No file system has files this long, so the kernel fails the write.
        writer.submit(write(2, 1 << 50));
        writer.submit(write(3, 1));
        let mut finished = rig.finish(&mut writer, 1);
        while !matches!(finished.last(), Some(WriteFinished::Failed(_))) {
            rig.wait(writer.wait_fd());
            writer.poll(&mut finished);
        }
        assert!(!finished.contains(&written(2)));
        let told = rig.told.lock().unwrap().clone();
        assert_eq!(finished.last(), Some(&WriteFinished::Failed(told[0].clone())));
        for number in 4..10 {
            writer.submit(write(number, number));
            let mut finished = Vec::new();
            writer.poll(&mut finished);
            assert_eq!((finished, told.len()), (vec![], 1));
        }
        drop(writer);
        let bytes = RealDisk::new(rig.dir.path()).read(SEGMENT).unwrap();
        assert!(bytes[2 * PAGE_BYTES..].iter().all(|byte| *byte == 0));
    }

    struct Shard<'a> {
        rig: &'a Rig,
        shard: EmbeddedShard<UringWriter, InlineIndex<MemoryTable>>,
        next: u64,
    }

    impl<'a> Shard<'a> {
        fn new(rig: &'a Rig, segment_bytes: u64) -> Self {
            let tables = Arc::new((0..64).map(|_| Arc::default()).collect());
            let wal = WalConfig { boot: 1, shard: 0, shards: 1, segment_bytes, wal_bytes_max: 1 << 30 };
            let index = InlineIndex::new(tables, 1);
            let parts = ShardParts { wal, writer: rig.writer(), index, wake: rig.wake() };
            Self { rig, shard: EmbeddedShard::new(parts), next: 0 }
        }

        fn put(&mut self, bytes: usize) -> Result<Outcome, StoreError> {
            self.next += 1;
            let records = vec![RecordWrite { key: Bytes::from_static(b"k"), value: Some(vec![7; bytes].into()) }];
            self.shard.submit(Op::PutRecords { log: antiphon_protocol::LogKey([1; 16]), records }, Token(self.next));
            let mut completions = Vec::new();
            loop {
                self.shard.poll_completions(&mut completions);
                if let Some(completion) = completions.pop() {
                    return completion.result;
                }
                self.rig.wait(self.shard.wait_fd());
            }
        }
    }

    #[test]
    fn every_block_is_found_where_it_was_placed() {
        let Some(rig) = Rig::new() else { return };
        let mut shard = Shard::new(&rig, 64 << 10);
        for n in 0..60 {
            assert_eq!(shard.put(n * 97), Ok(Outcome::Done));
        }
        assert!(shard.shard.counters().writer.blocks >= 60);
        drop(shard);
        let mut disk = RealDisk::new(rig.dir.path());
        let (mut next, mut filled) = (1, 0);
        for segment in disk.list().unwrap() {
            let bytes = disk.read(segment).unwrap();
            let mut offset = 0;
            while let Found::Block(header, payload) = block::find(&bytes, segment, offset) {
                assert_eq!(header.number, next);
                (next, filled) = (next + 1, filled + u64::from(!payload.is_empty()));
                offset += block::padded_len(payload.len()) as u64;
            }
        }
        assert_eq!(filled, 60);
    }

    #[test]
    fn a_seal_follows_when_nothing_else_does() {
        let Some(rig) = Rig::new() else { return };
        let mut shard = Shard::new(&rig, 64 << 10);
        assert_eq!(shard.put(10), Ok(Outcome::Done));
        while shard.shard.counters().writer.blocks < 2 {
            rig.wait(shard.shard.wait_fd());
            shard.shard.poll_completions(&mut Vec::new());
        }
    }

    #[test]
    fn a_segment_that_cannot_be_opened_is_the_end() {
        let Some(rig) = Rig::new() else { return };
        let mut shard = Shard::new(&rig, 64 << 10);
        assert_eq!(shard.put(10), Ok(Outcome::Done));
        let second = rig.dir.path().join(SegmentName { number: 2, ..SEGMENT }.to_string());
        while !second.exists() {
            rig.wait(None);
        }
        fs::remove_file(&second).unwrap();
        let error = (0..10).map(|_| shard.put(20_000)).find_map(Result::err);
        assert!(matches!(error, Some(StoreError::Unavailable(_))), "{error:?}");
        for _ in 0..20 {
            assert!(matches!(shard.put(10), Err(StoreError::Unavailable(_))));
        }
        assert_eq!(rig.told(), 1);
    }

    #[test]
    fn a_full_disk_refuses_writes_and_space_ends_the_refusal() {
        let Some(rig) = Rig::new() else { return };
        let mut shard = Shard::new(&rig, 64 << 10);
        assert_eq!(shard.put(10), Ok(Outcome::Done));
        rig.full.store(true, Ordering::SeqCst);
        let refused = (0..20).map(|_| shard.put(20_000)).find_map(Result::err);
        assert_eq!(refused, Some(StoreError::Full));
        assert_eq!(shard.put(20_000), Err(StoreError::Full));
        rig.full.store(false, Ordering::SeqCst);
        assert_eq!(shard.put(20_000), Ok(Outcome::Done));
        assert_eq!(rig.told(), 0);
    }
}
