//! The seam between the write-ahead log and whatever writes its blocks, and the plain writer behind it.
//!
//! The plain writer is one thread per shard that writes every block queued at that moment and then calls `fdatasync`
//! once. The other one is [`super::uring`].

use std::{
    collections::BTreeSet,
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use thiserror::Error;

use super::{
    counters::WriterCounters,
    disk::SegmentName,
    segments::{Answers, AnyDisk, SegmentKeeper, Segments},
    wal::BLOCKS_IN_FLIGHT_MAX,
};

/// A write or sync of the log failed: what was acknowledged may not be durable, so the process must end.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the store cannot go on and the process must end: {0}")]
pub struct FatalError(pub String);

/// Called once, from any thread, when the store cannot go on.
pub type FatalHook = Arc<dyn Fn(FatalError) + Send + Sync>;

/// Called, from any thread, when the owner of a shard should poll it.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What the write-ahead log asks of its writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteRequest {
    /// Prepare a segment. Answer: [`WriteFinished::Allocated`] or [`WriteFinished::NotAllocated`].
    Allocate { segment: SegmentName, len: u64 },
    /// Write a block. Answer: [`WriteFinished::Written`] once it is durable.
    Write { number: u64, segment: SegmentName, offset: u64, bytes: Bytes },
    /// The segments' writes are in the index for good: their space may be used again. No answer.
    Release { segments: Vec<SegmentName>, len: u64 },
}

/// What became of a [`WriteRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteFinished {
    /// The segment is there, durably.
    Allocated(SegmentName),
    /// There is no space for the segment.
    NotAllocated(SegmentName),
    /// The block is durable; blocks may finish in any order.
    Written { number: u64 },
    /// Nothing is known any more of blocks that have not finished.
    Failed(FatalError),
}

/// Writes the blocks of one shard's log.
pub trait BlockWriter {
    /// Begins a request; never blocks.
    fn submit(&mut self, request: WriteRequest);

    /// Moves what has finished into `finished`.
    fn poll(&mut self, finished: &mut Vec<WriteFinished>);

    /// Work done so far, for metrics.
    fn counters(&self) -> WriterCounters;

    /// Blocks that are better handed over than collected into a larger one, 1 to [`BLOCKS_IN_FLIGHT_MAX`].
    fn blocks_max(&self) -> usize {
        BLOCKS_IN_FLIGHT_MAX
    }

    /// Whether no block has come for a while, so that a seal keeps nobody waiting and is not followed by a block that says
    /// the same. The writer wakes the owner when it becomes so.
    fn is_quiet(&self) -> bool {
        true
    }

    /// Becomes readable when [`BlockWriter::poll`] has something, for a writer that has no thread to wake the owner.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// `pwrite` and `fdatasync` on a thread per shard.
pub struct PlainWriter {
    writes: Option<Sender<WriteRequest>>,
    segments: Segments,
    finished: Receiver<WriteFinished>,
    is_quiet: Arc<AtomicBool>,
    counters: Arc<Mutex<WriterCounters>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for PlainWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainWriter").finish_non_exhaustive()
    }
}

impl PlainWriter {
    /// Starts the thread of one shard.
    pub(crate) fn start(disk: AnyDisk, keeper: &SegmentKeeper, wake: Wake, fatal: FatalHook) -> io::Result<Self> {
        let (writes, requests) = mpsc::channel();
        let (answers, finished) = Answers::new(wake);
        let (is_quiet, counters) = (Arc::new(AtomicBool::new(true)), Arc::<Mutex<WriterCounters>>::default());
        let worker = Worker {
            disk,
            answers: answers.clone(),
            fatal,
            is_quiet: is_quiet.clone(),
            counters: counters.clone(),
            unsynced: Vec::new(),
            dirty: BTreeSet::new(),
        };
        let thread = std::thread::Builder::new().name("wal".into()).spawn(move || worker.run(&requests))?;
        let segments = keeper.segments(answers);
        Ok(Self { writes: Some(writes), segments, finished, is_quiet, counters, thread: Some(thread) })
    }
}

impl Drop for PlainWriter {
    fn drop(&mut self) {
        // Closing the queue ends the thread once it has written and synced what is in it.
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl BlockWriter for PlainWriter {
    fn submit(&mut self, request: WriteRequest) {
        match request {
            // The thread ends before this writer only after a fatal error.
            WriteRequest::Write { .. } => {
                self.is_quiet.store(false, Ordering::Relaxed);
                _ = self.writes.as_ref().map(|writes| writes.send(request));
            }
            WriteRequest::Allocate { segment, len } => self.segments.allocate(segment, len),
            WriteRequest::Release { segments, len } => self.segments.release(segments, len),
        }
    }

    fn poll(&mut self, finished: &mut Vec<WriteFinished>) {
        finished.extend(self.finished.try_iter());
    }

    fn counters(&self) -> WriterCounters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_quiet(&self) -> bool {
        self.is_quiet.load(Ordering::Relaxed)
    }
}

/// After how long without a block a writer is quiet.
pub(crate) const QUIET_AFTER: Duration = Duration::from_millis(500);

struct Worker {
    disk: AnyDisk,
    answers: Answers,
    fatal: FatalHook,
    is_quiet: Arc<AtomicBool>,
    counters: Arc<Mutex<WriterCounters>>,
    /// Blocks written since the last sync.
    unsynced: Vec<u64>,
    dirty: BTreeSet<SegmentName>,
}

impl Worker {
    fn run(mut self, requests: &Receiver<WriteRequest>) {
        while let Some(first) = self.next(requests) {
            if let Err(error) = self.write_all(first, requests) {
                return self.fail(&error);
            }
        }
    }

    /// The next block; `None` once there will be no more. Tells the owner when none has come for a while.
    fn next(&self, requests: &Receiver<WriteRequest>) -> Option<WriteRequest> {
        if !self.is_quiet.load(Ordering::Relaxed) {
            match requests.recv_timeout(QUIET_AFTER) {
                Err(RecvTimeoutError::Timeout) => {
                    self.is_quiet.store(true, Ordering::Relaxed);
                    self.answers.send([]);
                }
                received => return received.ok(),
            }
        }
        requests.recv().ok()
    }

    /// Writes everything that is queued now; one sync covers it.
    fn write_all(&mut self, first: WriteRequest, requests: &Receiver<WriteRequest>) -> io::Result<()> {
        let mut written = WriterCounters::default();
        for request in std::iter::once(first).chain(requests.try_iter()) {
            let WriteRequest::Write { number, segment, offset, bytes } = request else { continue };
            self.disk.write_at(segment, offset, &bytes)?;
            self.dirty.insert(segment);
            self.unsynced.push(number);
            written.blocks += 1;
            written.bytes += bytes.len() as u64;
        }
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).add(written);
        self.sync()
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut done = WriterCounters::default();
        for segment in &self.dirty {
            let start = Instant::now();
            self.disk.sync(*segment)?;
            done.sync_times.record(start.elapsed());
            done.syncs += 1;
        }
        if let Some(newest) = self.dirty.last() {
            self.disk.close_before(*newest);
        }
        self.dirty.clear();
        self.counters.lock().unwrap_or_else(PoisonError::into_inner).add(done);
        self.answers.send(self.unsynced.drain(..).map(|number| WriteFinished::Written { number }));
        Ok(())
    }

    /// Nothing is written or synced after an error, so nothing is acknowledged after it.
    fn fail(&self, error: &io::Error) {
        let error = FatalError(format!("a write or sync of the write-ahead log failed: {error}"));
        (self.fatal)(error.clone());
        self.answers.send([WriteFinished::Failed(error)]);
    }
}

#[cfg(test)]
mod tests {
    use antiphon_storage_contract::{EventLog, Op, Outcome, RecordWrite, StoreError, Token};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use crate::embedded::{
        InlineIndex, MemoryTable, ShardParts, WalConfig, disk::Disk, segments::FilesGate, shard::EmbeddedShard,
        simulated::SimulatedDisk,
    };

    /// Fails one kind of call after it is told to, and counts the calls that follow.
    #[derive(Clone, Default)]
    struct Failing {
        disk: SimulatedDisk,
        fail_writes: Arc<AtomicBool>,
        fail_syncs: Arc<AtomicBool>,
        calls_after: Arc<AtomicU64>,
    }

    impl Failing {
        fn call(&self, fail: &AtomicBool) -> io::Result<()> {
            if self.fail_writes.load(Ordering::SeqCst) || self.fail_syncs.load(Ordering::SeqCst) {
                self.calls_after.fetch_add(1, Ordering::SeqCst);
            }
            if fail.load(Ordering::SeqCst) { Err(io::Error::other("input/output error")) } else { Ok(()) }
        }
    }

    impl Disk for Failing {
        fn list(&mut self) -> io::Result<Vec<SegmentName>> {
            self.disk.list()
        }
        fn create(&mut self, segment: SegmentName, len: u64) -> io::Result<()> {
            self.disk.create(segment, len)
        }
        fn recycle(&mut self, from: SegmentName, to: SegmentName) -> io::Result<()> {
            self.disk.recycle(from, to)
        }
        fn remove(&mut self, segment: SegmentName) -> io::Result<()> {
            self.disk.remove(segment)
        }
        fn write_at(&mut self, segment: SegmentName, offset: u64, bytes: &[u8]) -> io::Result<()> {
            self.call(&self.fail_writes)?;
            self.disk.write_at(segment, offset, bytes)
        }
        fn sync(&mut self, segment: SegmentName) -> io::Result<()> {
            self.call(&self.fail_syncs)?;
            self.disk.sync(segment)
        }
        fn read(&mut self, segment: SegmentName) -> io::Result<Bytes> {
            self.disk.read(segment)
        }
    }

    struct Rig {
        shard: EmbeddedShard<PlainWriter, InlineIndex<MemoryTable>>,
        disk: Failing,
        fatal: Receiver<FatalError>,
        woken: Receiver<()>,
        next: u64,
    }

    impl Rig {
        fn new(segment_bytes: u64) -> Self {
            let disk = Failing::default();
            let (fatal_sender, fatal) = mpsc::channel();
            let (wake_sender, woken) = mpsc::channel();
            let hook: FatalHook = Arc::new(move |error| _ = fatal_sender.send(error));
            let wake: Wake = Arc::new(move || _ = wake_sender.send(()));
            let (keeper, _) = SegmentKeeper::start(Box::new(disk.clone()), FilesGate::default(), hook.clone()).unwrap();
            let writer = PlainWriter::start(Box::new(disk.clone()), &keeper, wake.clone(), hook).unwrap();
            let tables = Arc::new((0..64).map(|_| Arc::default()).collect());
            let wal = WalConfig { boot: 1, shard: 0, shards: 1, segment_bytes, wal_bytes_max: 1 << 30 };
            let shard = EmbeddedShard::new(ShardParts { wal, writer, index: InlineIndex::new(tables, 1), wake });
            Self { shard, disk, fatal, woken, next: 0 }
        }

        fn put(&mut self, bytes: usize) -> Token {
            self.next += 1;
            let records = vec![RecordWrite { key: Bytes::from_static(b"k"), value: Some(vec![7; bytes].into()) }];
            self.shard.submit(Op::PutRecords { log: antiphon_protocol::LogKey([1; 16]), records }, Token(self.next));
            Token(self.next)
        }

        fn result(&mut self, token: Token) -> Result<Outcome, StoreError> {
            let mut completions = Vec::new();
            loop {
                self.shard.poll_completions(&mut completions);
                if let Some(found) = completions.iter().find(|completion| completion.token == token) {
                    return found.result.clone();
                }
                self.woken.recv_timeout(Duration::from_secs(30)).unwrap();
            }
        }
    }

    fn fails_once_and_for_all(fail: impl Fn(&Failing) -> &AtomicBool) {
        let mut rig = Rig::new(64 << 10);
        let token = rig.put(10);
        assert_eq!(rig.result(token), Ok(Outcome::Done));
        fail(&rig.disk).store(true, Ordering::SeqCst);
        let failed = rig.put(10);
        assert!(matches!(rig.result(failed), Err(StoreError::Unavailable(_))));
        assert!(rig.fatal.recv_timeout(Duration::from_secs(30)).is_ok());
        // Even if the disk recovers, nothing is tried and nothing acknowledged again.
        let calls = rig.disk.calls_after.load(Ordering::SeqCst);
        fail(&rig.disk).store(false, Ordering::SeqCst);
        for _ in 0..20 {
            let token = rig.put(10);
            assert!(matches!(rig.result(token), Err(StoreError::Unavailable(_))));
        }
        assert_eq!(rig.disk.calls_after.load(Ordering::SeqCst), calls);
        assert!(rig.fatal.try_recv().is_err());
    }

    #[test]
    fn nothing_is_acknowledged_after_a_failed_sync() {
        fails_once_and_for_all(|disk| &disk.fail_syncs);
    }

    #[test]
    fn nothing_is_acknowledged_after_a_failed_write() {
        fails_once_and_for_all(|disk| &disk.fail_writes);
    }

    #[test]
    fn a_seal_follows_when_nothing_else_does() {
        let mut rig = Rig::new(64 << 10);
        let token = rig.put(10);
        assert_eq!(rig.result(token), Ok(Outcome::Done));
        while rig.shard.counters().writer.blocks < 2 {
            rig.woken.recv_timeout(Duration::from_secs(30)).unwrap();
            rig.shard.poll_completions(&mut Vec::new());
        }
    }

    #[test]
    fn a_full_disk_refuses_writes_and_space_ends_the_refusal() {
        let mut rig = Rig::new(64 << 10);
        rig.disk.disk.limit_bytes(Some(128 << 10));
        let mut stored = 0;
        let refused = loop {
            let token = rig.put(20_000);
            match rig.result(token) {
                Ok(_) => stored += 1,
                Err(error) => break error,
            }
        };
        assert_eq!((refused, stored), (StoreError::Full, 6));
        for _ in 0..3 {
            let token = rig.put(20_000);
            assert_eq!(rig.result(token), Err(StoreError::Full));
        }
        rig.disk.disk.limit_bytes(None);
        let token = rig.put(20_000);
        assert_eq!(rig.result(token), Ok(Outcome::Done));
        assert!(rig.fatal.try_recv().is_err());
    }
}
