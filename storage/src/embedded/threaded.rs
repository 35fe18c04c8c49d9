//! The index of a running store: a thread per shard applies blocks, a pool of readers answers queries.
//!
//! Inserting into lsm-tree can wait for its file I/O, so the shard's own thread never does it. A query goes straight to
//! the readers when the index has caught up, and otherwise through the queue of blocks, so that it sees every block
//! before it. At most [`QUERIES_IN_FLIGHT_MAX`] of a shard's queries are with the pool; the rest wait in the shard.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;

use super::{
    helpers::{Helpers, Job, ReadJob},
    index::{self, Answer, FlushTracker, Index, Progress, Ticket},
    partitions::Partitions,
    query::Query,
    writer::{FatalError, FatalHook, Wake},
};

/// Blocks that are handed to the indexing thread at once: waking it for each costs about as much as what it then does. Fewer
/// are handed over as soon as somebody asks for what the index has or how far it is.
const BLOCKS_AT_ONCE: usize = 16;
/// The same in bytes.
const BYTES_AT_ONCE: usize = 256 << 10;
/// Queries of one shard that the reader pool may hold.
const QUERIES_IN_FLIGHT_MAX: usize = 64;

/// An [`Index`] on threads of its own.
pub struct ThreadedIndex {
    partitions: Arc<Partitions>,
    messages: Sender<Message>,
    helpers: Helpers,
    wake: Wake,
    waiting: VecDeque<(Ticket, Query)>,
    in_flight: usize,
    answers: Receiver<Answer>,
    answers_sender: Sender<Answer>,
    last_block: u64,
    /// Blocks that the indexing thread has not been given yet.
    blocks: Vec<(u64, Bytes)>,
    /// Their bytes.
    block_bytes: usize,
    progress: Arc<SharedProgress>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for ThreadedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ThreadedIndex").field("progress", &self.progress).finish_non_exhaustive()
    }
}

/// What the threads tell the shard without a message. Sequentially consistent, so that either the shard sees the
/// progress that it asks to be woken for, or the thread that makes it sees the wish.
#[derive(Debug, Default)]
pub(crate) struct SharedProgress {
    applied: AtomicU64,
    flushed: AtomicU64,
    pub(crate) full: AtomicBool,
    wanted: AtomicBool,
}

/// What the indexing thread is told.
pub(crate) enum Message {
    /// Numbers and payloads of blocks, in their order.
    Apply(Vec<(u64, Bytes)>),
    Query(ReadJob),
    FlushThrough(u64),
    /// What was sealed of the partition is durable.
    Flushed(u8),
    /// The partition was compacted.
    Compacted(u8),
    /// Answer once everything is flushed.
    Barrier(Sender<()>),
    Stop,
}

/// What the indexing thread of a shard needs.
pub(crate) struct IndexParts {
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) helpers: Helpers,
    pub(crate) memtable_bytes: u64,
    pub(crate) wake: Wake,
    pub(crate) fatal: FatalHook,
}

impl ThreadedIndex {
    /// Starts the thread.
    pub(crate) fn start(parts: IndexParts) -> io::Result<Self> {
        let (messages, inbox) = mpsc::channel();
        let (answers_sender, answers) = mpsc::channel();
        let progress = Arc::new(SharedProgress::default());
        let indexer = Indexer {
            partitions: parts.partitions.clone(),
            helpers: parts.helpers.clone(),
            messages: messages.clone(),
            memtable_bytes: parts.memtable_bytes,
            wake: parts.wake.clone(),
            fatal: parts.fatal,
            progress: progress.clone(),
            tracker: FlushTracker::default(),
            flush_target: 0,
            barriers: Vec::new(),
            scratch: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("index".into()).spawn(move || indexer.run(&inbox))?;
        Ok(Self {
            partitions: parts.partitions,
            messages,
            helpers: parts.helpers,
            wake: parts.wake,
            waiting: VecDeque::new(),
            in_flight: 0,
            answers,
            answers_sender,
            last_block: 0,
            blocks: Vec::new(),
            block_bytes: 0,
            progress,
            thread: Some(thread),
        })
    }

    /// Waits until everything that was applied is flushed, or no space is left to flush it.
    pub(crate) fn wait_flushed(&mut self) {
        self.hand_over();
        let (done, wait) = mpsc::channel();
        self.send(Message::Barrier(done));
        while wait.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) && !self.progress().full {
        }
    }

    fn hand_over(&mut self) {
        if !self.blocks.is_empty() {
            self.block_bytes = 0;
            let blocks = std::mem::replace(&mut self.blocks, Vec::with_capacity(BLOCKS_AT_ONCE));
            self.send(Message::Apply(blocks));
        }
    }

    fn send(&self, message: Message) {
        // The thread ends only after this handle.
        let _ = self.messages.send(message);
    }

    fn dispatch(&mut self) {
        while self.in_flight < QUERIES_IN_FLIGHT_MAX {
            let Some((ticket, query)) = self.waiting.pop_front() else { return };
            let job = ReadJob { ticket, query, answers: self.answers_sender.clone(), wake: self.wake.clone() };
            self.in_flight += 1;
            if self.progress.applied.load(Ordering::Acquire) >= self.last_block {
                self.helpers.send(Job::Read(job));
            } else {
                self.hand_over();
                self.send(Message::Query(job));
            }
        }
    }
}

impl Drop for ThreadedIndex {
    fn drop(&mut self) {
        self.hand_over();
        self.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Index for ThreadedIndex {
    fn apply(&mut self, number: u64, payload: Bytes) {
        self.last_block = number;
        self.block_bytes += payload.len();
        self.blocks.push((number, payload));
        if self.blocks.len() >= BLOCKS_AT_ONCE || self.block_bytes >= BYTES_AT_ONCE {
            self.hand_over();
        }
    }

    fn query(&mut self, ticket: Ticket, query: Query) {
        self.waiting.push_back((ticket, query));
        self.dispatch();
    }

    fn poll(&mut self, answers: &mut Vec<Answer>) {
        let before = answers.len();
        answers.extend(self.answers.try_iter());
        self.in_flight -= answers.len() - before;
        self.dispatch();
    }

    fn progress(&self) -> Progress {
        Progress {
            applied: self.progress.applied.load(Ordering::SeqCst),
            flushed: self.progress.flushed.load(Ordering::SeqCst),
            full: self.progress.full.load(Ordering::SeqCst),
        }
    }

    fn want_progress(&mut self) {
        self.hand_over();
        self.progress.wanted.store(true, Ordering::SeqCst);
    }

    fn flush_through(&mut self, number: u64) {
        self.hand_over();
        self.send(Message::FlushThrough(number));
    }

    fn degraded(&self, partition: u8) -> Option<&str> {
        self.partitions.damage(partition)
    }
}

/// The indexing thread: the only one that writes to the tables of its shard's partitions.
struct Indexer {
    partitions: Arc<Partitions>,
    helpers: Helpers,
    messages: Sender<Message>,
    memtable_bytes: u64,
    wake: Wake,
    fatal: FatalHook,
    progress: Arc<SharedProgress>,
    tracker: FlushTracker,
    /// Blocks up to here are to be flushed.
    flush_target: u64,
    barriers: Vec<(u64, Sender<()>)>,
    scratch: Vec<u8>,
}

impl Indexer {
    fn run(mut self, inbox: &Receiver<Message>) {
        for message in inbox {
            match message {
                Message::Apply(blocks) => blocks.into_iter().for_each(|(number, payload)| self.apply(number, payload)),
                Message::Query(job) => self.helpers.send(Job::Read(job)),
                Message::FlushThrough(number) => {
                    self.flush_target = self.flush_target.max(number);
                    self.seal_due();
                }
                Message::Flushed(partition) => {
                    self.tracker.flushed(partition);
                    self.publish(partition);
                    self.helpers.send(Job::Compact { partition, done: self.messages.clone() });
                    self.seal_due();
                }
                Message::Compacted(partition) => self.publish(partition),
                Message::Barrier(done) => self.barriers.push((self.tracker.applied_through(), done)),
                Message::Stop => return,
            }
            self.report();
        }
    }

    fn apply(&mut self, number: u64, payload: Bytes) {
        let (partitions, tracker, mut touched) = (&self.partitions, &mut self.tracker, 0_u64);
        let applied = index::apply_block(payload, &mut self.scratch, |partition| {
            let table = partitions.table(partition)?;
            tracker.touched(partition, number);
            touched |= 1 << partition;
            Some(table)
        });
        if let Err(error) = applied {
            (self.fatal)(FatalError(format!("an acknowledged block cannot be decoded: {error}")));
        }
        self.tracker.applied(number);
        for partition in (0..64).filter(|p| touched & (1 << p) != 0) {
            if self.partitions.table(partition).is_some_and(|t| t.unsealed_bytes() >= self.memtable_bytes) {
                self.seal(partition);
            }
        }
    }

    /// Lets readers go on to the table's newest state.
    fn publish(&self, partition: u8) {
        if let Some(table) = self.partitions.table(partition) {
            table.publish();
        }
    }

    fn seal_due(&mut self) {
        for partition in self.tracker.open_through(self.flush_target) {
            self.seal(partition);
        }
    }

    /// Sets a partition's writes aside and has them flushed, unless a flush of it is under way.
    fn seal(&mut self, partition: u8) {
        if !self.tracker.may_seal(partition) {
            return;
        }
        if let Some(table) = self.partitions.table(partition) {
            table.seal();
            self.tracker.sealed(partition);
            let (done, progress) = (self.messages.clone(), self.progress.clone());
            self.helpers.send(Job::Flush { partition, done, progress });
        }
    }

    fn report(&mut self) {
        let flushed = self.tracker.flushed_through();
        let moved = self.progress.flushed.swap(flushed, Ordering::SeqCst) != flushed;
        self.progress.applied.store(self.tracker.applied_through(), Ordering::SeqCst);
        self.barriers.retain(|(number, done)| {
            if flushed >= *number {
                let _ = done.send(());
            }
            flushed < *number
        });
        if moved || self.progress.wanted.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use antiphon_protocol::LogKey;
    use antiphon_storage_contract::{Op, Outcome, RecordWrite, Token};
    use bytes::BytesMut;

    use super::*;
    use crate::embedded::{
        MemoryTable,
        helpers::HelperParts,
        payload,
        query::Found,
        table::{Table, TableError, View},
    };

    /// A table on a disk that has no space for the first few flushes.
    #[derive(Debug, Default)]
    struct FullTable {
        table: MemoryTable,
        full_flushes: AtomicUsize,
    }

    impl Table for FullTable {
        fn put(&self, key: &[u8], value: &[u8]) {
            self.table.put(key, value);
        }
        fn delete(&self, key: &[u8]) {
            self.table.delete(key);
        }
        fn publish(&self) {
            self.table.publish();
        }
        fn view(&self) -> Box<dyn View + '_> {
            self.table.view()
        }
        fn unsealed_bytes(&self) -> u64 {
            self.table.unsealed_bytes()
        }
        fn seal(&self) {
            self.table.seal();
        }
        fn flush(&self) -> Result<(), TableError> {
            let left = self.full_flushes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() { Err(TableError::Full) } else { self.table.flush() }
        }
        fn compact(&self) -> Result<(), TableError> {
            Ok(())
        }
    }

    const LOG: LogKey = LogKey([0; 16]);

    fn index(full_flushes: usize) -> (ThreadedIndex, Receiver<()>) {
        let table = FullTable { full_flushes: AtomicUsize::new(full_flushes), ..FullTable::default() };
        let table: Arc<dyn Table> = Arc::new(table);
        let partitions = Arc::new(Partitions::new((0..64).map(|_| Ok(table.clone())).collect()));
        one_index(&partitions, &helpers(&partitions))
    }

    fn fatal() -> FatalHook {
        Arc::new(|error| panic!("{error}"))
    }

    fn helpers(partitions: &Arc<Partitions>) -> Helpers {
        let (partitions, gate) = (partitions.clone(), Arc::default());
        Helpers::start(HelperParts { partitions, readers: 2, epoch: 1, gate, fatal: fatal() }).unwrap().0
    }

    fn one_index(partitions: &Arc<Partitions>, helpers: &Helpers) -> (ThreadedIndex, Receiver<()>) {
        let (woken, wakes) = mpsc::channel();
        let wake: Wake = Arc::new(move || _ = woken.send(()));
        let (partitions, helpers) = (partitions.clone(), helpers.clone());
        let parts = IndexParts { partitions, helpers, memtable_bytes: 1 << 20, wake, fatal: fatal() };
        (ThreadedIndex::start(parts).unwrap(), wakes)
    }

    fn put(value: u64) -> Bytes {
        put_to(LOG, value)
    }

    fn put_to(log: LogKey, value: u64) -> Bytes {
        put_value(log, Bytes::from(value.to_string()))
    }

    fn put_value(log: LogKey, value: Bytes) -> Bytes {
        let record = RecordWrite { key: Bytes::from_static(b"k"), value: Some(value) };
        let mut out = BytesMut::new();
        payload::encode(&Op::PutRecords { log, records: vec![record] }, &mut out);
        out.freeze()
    }

    fn wait_until(index: &mut ThreadedIndex, wakes: &Receiver<()>, done: impl Fn(Progress) -> bool) {
        loop {
            index.want_progress();
            if done(index.progress()) {
                return;
            }
            wakes.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }

    #[test]
    fn a_query_sees_every_block_before_it() {
        let (mut index, wakes) = index(0);
        let mut answers = Vec::new();
        for number in 1..=500 {
            index.apply(number, put(number));
            let op = Op::GetRecord { log: LOG, key: Bytes::from_static(b"k") };
            index.query(Ticket::Caller { token: Token(number), log: LOG }, Query::Op(op));
        }
        while answers.len() < 500 {
            index.poll(&mut answers);
            if answers.len() < 500 {
                wakes.recv_timeout(Duration::from_secs(30)).unwrap();
            }
        }
        for Answer { ticket, result } in answers {
            let (Ticket::Caller { token, .. }, Ok(Found::Outcome(Outcome::Record(Some(value))))) = (ticket, result)
            else {
                panic!("a record was asked for")
            };
            let value: u64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
            assert!(value >= token.0, "the query after block {} saw block {value}", token.0);
        }
    }

    #[test]
    fn a_few_blocks_wait_until_somebody_asks() {
        let (mut index, wakes) = index(0);
        (1..BLOCKS_AT_ONCE as u64).for_each(|number| index.apply(number, put(number)));
        assert_eq!(index.blocks.len(), BLOCKS_AT_ONCE - 1);
        wait_until(&mut index, &wakes, |progress| progress.applied == BLOCKS_AT_ONCE as u64 - 1);
        assert!(index.blocks.is_empty());
        (0..BLOCKS_AT_ONCE as u64).for_each(|more| index.apply(BLOCKS_AT_ONCE as u64 + more, put(more)));
        assert!(index.blocks.is_empty(), "as many as go at once are gone");
        index.apply(100, put_value(LOG, Bytes::from(vec![0; BYTES_AT_ONCE])));
        assert!(index.blocks.is_empty() && index.block_bytes == 0);
    }

    #[test]
    fn a_flush_without_space_is_tried_again() {
        let (mut index, wakes) = index(2);
        index.apply(1, put(1));
        index.flush_through(1);
        wait_until(&mut index, &wakes, |progress| progress.full);
        assert_eq!(index.progress().flushed, 0);
        wait_until(&mut index, &wakes, |progress| progress.flushed == 1);
        assert!(!index.progress().full);
    }

    #[test]
    fn a_flush_without_space_keeps_no_other_shard_waiting() {
        let full = FullTable { full_flushes: AtomicUsize::new(usize::MAX), ..FullTable::default() };
        let (full, roomy): (Arc<dyn Table>, Arc<dyn Table>) = (Arc::new(full), Arc::new(FullTable::default()));
        let table = |partition| Ok(if partition == LOG.partition() { full.clone() } else { roomy.clone() });
        let partitions = Arc::new(Partitions::new((0..64).map(table).collect()));
        let helpers = helpers(&partitions);
        let (mut one, one_wakes) = one_index(&partitions, &helpers);
        let (mut other, other_wakes) = one_index(&partitions, &helpers);
        one.apply(1, put(1));
        one.flush_through(1);
        wait_until(&mut one, &one_wakes, |progress| progress.full);
        let elsewhere = LogKey([0xff; 16]);
        assert_ne!(elsewhere.partition(), LOG.partition());
        other.apply(1, put_to(elsewhere, 1));
        other.flush_through(1);
        wait_until(&mut other, &other_wakes, |progress| progress.flushed == 1);
        assert!(!other.progress().full && one.progress().full);
    }
}
