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
//! A seal waits for the next block and goes out in one write with it, or by itself after a quiet moment, so that a
//! lone message costs one write of the disk and not two.
//!
//! The ring belongs to the thread that submits the first block: from then on the shard must stay there.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Arc, mpsc::Receiver},
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
    writer::{BlockWriter, FatalError, FatalHook, SEAL_SYNC_DELAY, Wake, WriteFinished, WriteRequest},
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
    /// Seals have waited long enough.
    seals_are_due: bool,
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
    seal: bool,
}

/// The blocks of one write.
#[derive(Debug, Clone, Copy)]
struct Blocks {
    first: u64,
    count: u64,
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
            seals_are_due: false,
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
        self.seals_are_due &= !self.queue.is_empty();
        if let Some(ring) = self.ring.as_mut().filter(|_| !self.failed && !self.queue.is_empty())
            && let Err(error) = ring.set_alarm(SEAL_SYNC_DELAY)
        {
            self.fail(&error);
        }
    }

    fn may_start(&self) -> bool {
        let has_room = self.ring.as_ref().is_none_or(WriteRing::has_room);
        has_room && !self.queue.is_empty() && (self.seals_are_due || self.queue.iter().any(|block| !block.seal))
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
            self.file = Some((segment, DurableFile::open(&self.dir.join(segment.to_string()))?));
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
        self.counters.add(WriterCounters { blocks: count, bytes: buffer.len() as u64, syncs: 0 });
        ring.submit(file, offset, buffer, Blocks { first, count })
    }

    fn reap(&mut self, finished: &mut Vec<WriteFinished>) {
        let Some(ring) = &mut self.ring else { return };
        let (counters, mut failure) = (&mut self.counters, None);
        let failed = self.failed;
        ring.reap(|Blocks { first, count }, result| match result {
            _ if failed || failure.is_some() => {}
            Ok(()) => {
                counters.syncs += 1;
                finished.extend((first..first + count).map(|number| WriteFinished::Written { number }));
            }
            Err(error) => failure = Some(error),
        });
        self.seals_are_due |= ring.take_alarm();
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
            WriteRequest::Write { number, segment, offset, bytes, seal } => {
                self.queue.push_back(Block { number, segment, offset, bytes, seal });
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
        finished.extend(self.failure.take().map(WriteFinished::Failed));
    }

    fn counters(&self) -> WriterCounters {
        self.counters
    }

    fn blocks_max(&self) -> usize {
        // One more for a seal that waits for the next block.
        WRITES_IN_FLIGHT_MAX + 1
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.ring.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for UringWriter {
    /// Writes what is queued. A failure is nobody's concern any more, since none of it was acknowledged.
    fn drop(&mut self) {
        (self.fatal, self.wake) = (Arc::new(|_| {}), Arc::new(|| {}));
        self.seals_are_due = true;
        self.start_writes();
        while !self.failed && !self.queue.is_empty() {
            let Some(Ok(_)) = self.ring.as_ref().map(|ring| wait([Source::readable(ring)], None)) else { return };
            self.reap(&mut Vec::new());
            self.start_writes();
        }
    }
}
