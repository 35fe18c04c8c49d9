//! One shard of the embedded store: orders writes, forms blocks, acknowledges the durable prefix.
//!
//! ```text
//! submit -> check -> open block -> (poll) placed in the log -> written -> durable prefix -> index, completion
//! ```
//!
//! A block is whatever came in while earlier blocks were on their way, so the group commit forms by itself. Writes are
//! acknowledged before the index has them; queries queue behind it. A refused write is answered in its place among the
//! writes that came before it.
//!
//! Absent: threads and clocks. With an [`super::index::InlineIndex`] and a simulated writer a shard is deterministic.
//! What is queued here is bounded by what the owner submits and has not got back.

use std::{
    collections::VecDeque,
    fmt,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{Completion, EventLog, Op, Outcome, StoreError, Token};
use bytes::{Bytes, BytesMut};

use super::{
    admission::{self, Admitted},
    block::{HEADER_BYTES, PAGE_BYTES},
    choice::Writer,
    counters::Counters,
    index::{Answer, Index, Progress, Ticket},
    logs::Logs,
    payload,
    query::{Bounds, Found, Query},
    store::{Store, StoreHandle},
    threaded::ThreadedIndex,
    wal::{BLOCKS_IN_FLIGHT_MAX, NoPlace, Wal, WalConfig},
    writer::{BlockWriter, FatalError, Wake, WriteFinished, WriteRequest},
};

/// A block takes no further write once its payload has this size.
const BLOCK_BYTES_TARGET: usize = 1 << 20;
/// Blocks that may be acknowledged and not yet in the index; further ones wait.
const BLOCKS_UNINDEXED_MAX: u64 = 32;

/// What a shard is made of.
pub struct ShardParts<W, I> {
    /// Whose log it writes, and its sizes.
    pub wal: WalConfig,
    /// Writes the blocks.
    pub writer: W,
    /// Takes over durable blocks and answers queries.
    pub index: I,
    /// Called when the owner should poll.
    pub wake: Wake,
}

impl<W, I> fmt::Debug for ShardParts<W, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardParts").field("wal", &self.wal).finish_non_exhaustive()
    }
}

/// One shard of the embedded store; owns the partitions `p` with `p % shards == shard`.
pub struct EmbeddedShard<W = Writer, I = ThreadedIndex> {
    wal_config: WalConfig,
    wal: Wal,
    writer: W,
    index: I,
    wake: Wake,
    woken: bool,
    logs: Logs,
    /// Blocks that are not placed yet; the last one takes further writes.
    pending: VecDeque<OpenBlock>,
    in_flight: VecDeque<InFlight>,
    ready: Vec<Completion>,
    sealed: bool,
    flush_asked: u64,
    failed: Option<FatalError>,
    counters: Counters,
    durable: Arc<AtomicU64>,
    finished: Vec<WriteFinished>,
    answers: Vec<Answer>,
    store: Option<Arc<Store>>,
}

impl<W, I> fmt::Debug for EmbeddedShard<W, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedShard").field("wal", &self.wal).finish_non_exhaustive()
    }
}

/// An operation that is answered in its place.
struct Entry {
    token: Token,
    error: Option<StoreError>,
    /// Bounds to return to if the operation is not stored after all.
    undo: Option<(LogKey, Bounds)>,
}

impl Entry {
    fn completion(self) -> Completion {
        Completion { token: self.token, result: self.error.map_or(Ok(Outcome::Done), Err) }
    }
}

struct OpenBlock {
    buffer: BytesMut,
    partitions: u64,
    entries: Vec<Entry>,
}

struct InFlight {
    payload: Bytes,
    /// Empty for a seal.
    entries: Vec<Entry>,
}

impl<W: BlockWriter, I: Index> EmbeddedShard<W, I> {
    /// A shard whose log is empty: everything older is in the index.
    pub fn new(parts: ShardParts<W, I>) -> Self {
        let ShardParts { wal: wal_config, writer, index, wake } = parts;
        let mut shard = Self {
            wal: Wal::new(wal_config),
            wal_config,
            writer,
            index,
            wake,
            woken: false,
            logs: Logs::default(),
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            ready: Vec::new(),
            sealed: true,
            flush_asked: 0,
            failed: None,
            counters: Counters::default(),
            durable: Arc::default(),
            finished: Vec::new(),
            answers: Vec::new(),
            store: None,
        };
        shard.prepare_segment();
        shard
    }

    /// What the shard has done, and how much waits.
    pub fn counters(&self) -> Counters {
        let queued = self.pending.iter().map(|block| block.entries.len() as u64).sum();
        Counters {
            writer: self.writer.counters(),
            blocks_in_flight: self.wal.in_flight() as u64,
            writes_queued: queued,
            blocks_not_indexed: self.wal.durable_upto().saturating_sub(self.index.progress().applied),
            wal_bytes: self.wal.bytes(),
            ..self.counters
        }
    }

    /// Becomes readable when the shard should be polled, like a call of its waker: the owner waits for both. There is
    /// none before the first write, and never one if a thread writes.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.writer.wait_fd()
    }

    /// Whether the log says on disk that everything was acknowledged, so that damage to any of its blocks will be noticed: a
    /// quiet moment after the last write.
    pub fn is_sealed(&self) -> bool {
        self.sealed && self.in_flight.is_empty() && self.pending.is_empty()
    }

    /// The index, for the simulator to flush or inspect.
    pub fn index_mut(&mut self) -> &mut I {
        &mut self.index
    }

    /// The writer, for the simulator to advance.
    pub fn writer_mut(&mut self) -> &mut W {
        &mut self.writer
    }

    pub(crate) fn durable_block(&self) -> Arc<AtomicU64> {
        self.durable.clone()
    }

    /// Asks to be polled, unless that was asked already.
    fn nudge(&mut self) {
        if !self.woken {
            self.woken = true;
            (self.wake)();
        }
    }

    fn submit_write(&mut self, op: Op, token: Token) {
        let key = op.log();
        let log = self.logs.entry(key, self.wal.durable_upto());
        if log.bounds.is_some() {
            return self.admit(&op, token);
        }
        log.waiting.push_back((op, token));
        if log.lookups == 0 {
            log.lookups = 1;
            self.index.query(Ticket::Bounds(key), Query::Bounds(key));
        }
    }

    fn submit_read(&mut self, op: Op, token: Token) {
        let key = op.log();
        if matches!(op, Op::Load { .. }) {
            // The owner is about to write; its load saves the lookup of the bounds.
            self.logs.entry(key, self.wal.durable_upto()).lookups += 1;
        }
        self.counters.reads += 1;
        self.counters.reads_queued += 1;
        self.index.query(Ticket::Caller { token, log: key }, Query::Op(op));
    }

    /// Puts a write, whose log's bounds are known, into the open block, or answers it in its place.
    fn admit(&mut self, op: &Op, token: Token) {
        let key = op.log();
        let next_block = self.wal.next_block() + self.pending.len() as u64;
        let Some(log) = self.logs.get(key) else { return };
        let Some(before) = log.bounds else { return };
        let admitted = match (&self.failed, self.index.degraded(key.partition())) {
            (Some(error), _) => Err(StoreError::Unavailable(error.to_string())),
            (None, Some(damage)) => Err(StoreError::Degraded(damage.to_owned())),
            (None, None) => admission::check(op, before, op_bytes_max(&self.wal_config)),
        };
        match admitted {
            Err(error) => self.answer(Entry { token, error: Some(error), undo: None }),
            Ok(Admitted::Nothing) => self.answer(Entry { token, error: None, undo: None }),
            Ok(Admitted::Write(after)) => {
                log.bounds = Some(after);
                // An upper bound: the write joins the last pending block or begins another.
                log.last_block = next_block;
                self.counters.writes += 1;
                self.counters.rows_appended += after.head - before.head;
                self.append(op, Entry { token, error: None, undo: Some((key, before)) });
            }
        }
    }

    fn append(&mut self, op: &Op, entry: Entry) {
        let target = BLOCK_BYTES_TARGET.min(self.wal_config.segment_bytes as usize / 8);
        let open = self.pending.back().is_some_and(|block| block.buffer.len() < target);
        if !open {
            let mut buffer = BytesMut::with_capacity(4096);
            buffer.resize(HEADER_BYTES, 0);
            self.pending.push_back(OpenBlock { buffer, partitions: 0, entries: Vec::new() });
        }
        if let Some(block) = self.pending.back_mut() {
            payload::encode(op, &mut block.buffer);
            block.partitions |= 1 << op.log().partition();
            block.entries.push(entry);
        }
        self.nudge();
    }

    /// Answers after everything that was accepted before.
    fn answer(&mut self, entry: Entry) {
        if let Some(block) = self.pending.back_mut() {
            block.entries.push(entry);
        } else if let Some(block) = self.in_flight.back_mut().filter(|block| !block.entries.is_empty()) {
            block.entries.push(entry);
        } else {
            self.ready.push(entry.completion());
            self.nudge();
        }
    }

    fn take_finished(&mut self) {
        let mut finished = std::mem::take(&mut self.finished);
        self.writer.poll(&mut finished);
        for finished in finished.drain(..) {
            match finished {
                WriteFinished::Allocated(segment) => self.wal.allocated(segment),
                WriteFinished::NotAllocated(_) => self.wal.not_allocated(),
                WriteFinished::Failed(error) => self.fail(error),
                WriteFinished::Written { number } if self.failed.is_none() => {
                    for _ in 0..self.wal.written(number) {
                        self.acknowledge();
                    }
                }
                WriteFinished::Written { .. } => {}
            }
        }
        self.finished = finished;
    }

    /// Hands the oldest block in flight, which is durable with all before it, to the index and its writers.
    fn acknowledge(&mut self) {
        // Blocks are numbered densely and the newest in flight is the last one that was placed.
        let number = self.wal.next_block() - self.in_flight.len() as u64;
        let Some(block) = self.in_flight.pop_front() else { return };
        self.index.apply(number, block.payload);
        self.ready.extend(block.entries.into_iter().map(Entry::completion));
    }

    fn take_answers(&mut self) {
        let mut answers = std::mem::take(&mut self.answers);
        self.index.poll(&mut answers);
        for Answer { ticket, result } in answers.drain(..) {
            match ticket {
                Ticket::Bounds(key) => self.looked_up(key, result),
                Ticket::Caller { token, log } => {
                    self.counters.reads_queued -= 1;
                    let result = match result {
                        Ok(Found::Outcome(Outcome::Loaded(loaded))) => {
                            let bounds = Bounds { floor: loaded.floor, head: loaded.head };
                            self.looked_up(log, Ok(Found::Bounds(bounds)));
                            Ok(Outcome::Loaded(loaded))
                        }
                        Ok(Found::Outcome(outcome)) => Ok(outcome),
                        Ok(Found::Bounds(_)) => Err(StoreError::Misuse("bounds are no answer to a read".into())),
                        Err(error) => Err(error),
                    };
                    self.ready.push(Completion { token, result });
                }
            }
        }
        self.answers = answers;
    }

    fn looked_up(&mut self, key: LogKey, result: Result<Found, StoreError>) {
        let Some(log) = self.logs.get(key) else { return };
        log.lookups = log.lookups.saturating_sub(1);
        let error = match result {
            Ok(Found::Bounds(bounds)) => {
                // Known bounds also count writes in flight, so they are newer.
                log.bounds.get_or_insert(bounds);
                None
            }
            Ok(Found::Outcome(_)) => None,
            Err(error) => Some(error),
        };
        if log.bounds.is_none() && log.lookups > 0 {
            return;
        }
        for (op, token) in std::mem::take(&mut log.waiting) {
            match &error {
                Some(error) => self.answer(Entry { token, error: Some(error.clone()), undo: None }),
                None => self.admit(&op, token),
            }
        }
    }

    /// Places as many pending blocks as may be in flight.
    fn start_blocks(&mut self) {
        while let Some(payload_len) = self.pending.front().map(|block| block.buffer.len() - HEADER_BYTES) {
            let blocks_max = self.writer.blocks_max().min(BLOCKS_IN_FLIGHT_MAX);
            if self.failed.is_some() || self.wal.in_flight() >= blocks_max || self.index_lags() {
                return;
            }
            let (room, request) = self.wal.make_room(payload_len);
            request.into_iter().for_each(|request| self.writer.submit(request));
            match room {
                Ok(()) => self.start_block(),
                Err(NoPlace::Preparing) => return,
                Err(NoPlace::Full) => return self.refuse_pending(),
                Err(NoPlace::TooLong) if self.make_log_shorter() => {}
                Err(NoPlace::TooLong) if self.index.progress().full => return self.refuse_pending(),
                Err(NoPlace::TooLong) => return,
            }
        }
        self.seal();
    }

    fn start_block(&mut self) {
        let Some(block) = self.pending.pop_front() else { return };
        let len = block.buffer.len();
        let Some(request) = self.wal.place(block.buffer, block.partitions) else { return };
        let payload = match &request {
            WriteRequest::Write { bytes, .. } => bytes.slice(HEADER_BYTES..len),
            _ => Bytes::new(),
        };
        self.writer.submit(request);
        self.in_flight.push_back(InFlight { payload, entries: block.entries });
        self.sealed = false;
        #[cfg(feature = "mutants")]
        if crate::mutants::acknowledges_before_sync()
            && let Some(block) = self.in_flight.back_mut()
        {
            self.index.apply(self.wal.next_block() - 1, std::mem::take(&mut block.payload));
            self.ready.extend(block.entries.drain(..).map(Entry::completion));
        }
    }

    /// Once everything is acknowledged and nothing follows, an empty block says so on disk: damage to the last blocks is
    /// then told from a torn tail. Otherwise the next block says it.
    fn seal(&mut self) {
        let idle = self.in_flight.is_empty() && self.pending.is_empty() && self.failed.is_none();
        if self.sealed || !idle || !self.writer.is_quiet() || !self.wal.has_room_for_seal() {
            return;
        }
        let mut buffer = BytesMut::with_capacity(PAGE_BYTES);
        buffer.resize(HEADER_BYTES, 0);
        let Some(request) = self.wal.place(buffer, 0) else { return };
        self.writer.submit(request);
        self.in_flight.push_back(InFlight { payload: Bytes::new(), entries: Vec::new() });
        self.sealed = true;
    }

    fn index_lags(&mut self) -> bool {
        let applied_and = |progress: Progress| progress.applied + BLOCKS_UNINDEXED_MAX;
        if self.wal.durable_upto() < applied_and(self.index.progress()) {
            return false;
        }
        self.index.want_progress();
        self.wal.durable_upto() >= applied_and(self.index.progress())
    }

    /// Asks the index to flush what the oldest segment holds; whether a segment could be released at once.
    fn make_log_shorter(&mut self) -> bool {
        self.ask_for_flush();
        self.index.want_progress();
        self.release()
    }

    fn ask_for_flush(&mut self) {
        if let Some(oldest) = self.wal.oldest_full().filter(|oldest| *oldest > self.flush_asked) {
            self.flush_asked = oldest;
            self.index.flush_through(oldest);
        }
    }

    fn release(&mut self) -> bool {
        let request = self.wal.release(self.index.progress().flushed);
        let released = request.is_some();
        request.into_iter().for_each(|request| self.writer.submit(request));
        released
    }

    fn prepare_segment(&mut self) {
        if self.failed.is_none() {
            self.wal.prepare().into_iter().for_each(|request| self.writer.submit(request));
        }
    }

    /// No space: every write that is not placed has stored nothing.
    fn refuse_pending(&mut self) {
        self.refuse_all(&StoreError::Full);
    }

    fn refuse_all(&mut self, error: &StoreError) {
        let mut entries: Vec<Entry> = self.pending.drain(..).flat_map(|block| block.entries).collect();
        for entry in entries.iter_mut().rev() {
            if let Some((key, before)) = entry.undo.take() {
                if let Some(log) = self.logs.get(key) {
                    log.bounds = Some(before);
                }
                self.counters.writes_refused_full += 1;
            }
        }
        for mut entry in entries {
            entry.error.get_or_insert_with(|| error.clone());
            self.answer(entry);
        }
    }

    /// Nothing is acknowledged from now on.
    fn fail(&mut self, error: FatalError) {
        let unknown = StoreError::Unavailable(error.to_string());
        self.failed = Some(error);
        for block in std::mem::take(&mut self.in_flight) {
            for mut entry in block.entries {
                entry.error.get_or_insert_with(|| unknown.clone());
                self.ready.push(entry.completion());
            }
        }
        self.refuse_all(&unknown);
    }
}

/// The longest write that a log with such segments takes, in bytes.
fn op_bytes_max(config: &WalConfig) -> usize {
    (Wal::payload_max(config) / 2).min(16 << 20)
}

impl<W: BlockWriter, I: Index> EventLog for EmbeddedShard<W, I> {
    fn submit(&mut self, op: Op, token: Token) {
        match op {
            Op::Append { .. }
            | Op::Rewrite { .. }
            | Op::Checkpoint { .. }
            | Op::PutRecords { .. }
            | Op::SetFloor { .. } => self.submit_write(op, token),
            _ => self.submit_read(op, token),
        }
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.woken = false;
        self.take_finished();
        self.take_answers();
        self.release();
        self.start_blocks();
        if self.wal.bytes() > self.wal_config.wal_bytes_max / 2 {
            self.ask_for_flush();
        }
        self.prepare_segment();
        self.durable.store(self.wal.durable_upto(), Ordering::Release);
        completions.append(&mut self.ready);
    }
}

impl EmbeddedShard {
    pub(crate) fn attach(&mut self, store: Arc<Store>) {
        self.store = Some(store);
    }

    /// Ends the shard after everything it acknowledged is in the index, so that the next start has little to replay.
    /// What was submitted and not acknowledged is dropped. Blocks; on a full disk it leaves the rest to the log.
    pub fn close(mut self) {
        self.index.flush_through(u64::MAX);
        self.index.wait_flushed();
    }

    /// A handle on the whole store, for backups from another thread.
    pub fn handle(&self) -> Option<StoreHandle> {
        self.store.clone().map(StoreHandle::new)
    }
}
