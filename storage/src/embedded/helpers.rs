//! The threads that all shards of a store share: readers, and one that flushes and compacts.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use antiphon_storage_contract::StoreError;

use super::{
    index::{Answer, Ticket},
    partitions::Partitions,
    query::{self, Query},
    segments::FilesGate,
    table::TableError,
    threaded::{Message, SharedProgress},
    writer::{FatalError, FatalHook, Wake},
};

/// How long a flush that found no space waits before it tries again.
const FULL_RETRY_DELAY: Duration = Duration::from_millis(200);

/// A query on its way to a reader.
pub(crate) struct ReadJob {
    pub(crate) ticket: Ticket,
    pub(crate) query: Query,
    pub(crate) answers: Sender<Answer>,
    pub(crate) wake: Wake,
}

/// Work for the shared threads.
pub(crate) enum Job {
    Read(ReadJob),
    /// Make the sealed writes of a partition durable.
    Flush {
        partition: u8,
        done: Sender<Message>,
        progress: Arc<SharedProgress>,
    },
    /// Tidy up a partition when nothing else is to be done.
    Compact {
        partition: u8,
        done: Sender<Message>,
    },
}

/// Where to send work.
#[derive(Clone)]
pub(crate) struct Helpers {
    reads: Sender<ReadJob>,
    upkeep: Sender<Job>,
}

/// What the shared threads need.
pub(crate) struct HelperParts {
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) readers: usize,
    pub(crate) epoch: u32,
    pub(crate) gate: FilesGate,
    pub(crate) fatal: FatalHook,
}

impl Helpers {
    /// Starts the threads; they end when the last clone of the answer is gone.
    pub(crate) fn start(parts: HelperParts) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (reads, read_jobs) = mpsc::channel();
        let (upkeep, upkeep_jobs) = mpsc::channel();
        let read_jobs = Arc::new(Mutex::new(read_jobs));
        let mut threads = Vec::new();
        for _ in 0..parts.readers.max(1) {
            let reader = Reader { jobs: read_jobs.clone(), partitions: parts.partitions.clone(), epoch: parts.epoch };
            threads.push(std::thread::Builder::new().name("read".into()).spawn(move || reader.run())?);
        }
        let flusher = Flusher {
            partitions: parts.partitions,
            gate: parts.gate,
            fatal: parts.fatal,
            unflushed: VecDeque::new(),
            compactable: BTreeMap::new(),
        };
        threads.push(std::thread::Builder::new().name("flush".into()).spawn(move || flusher.run(&upkeep_jobs))?);
        Ok((Self { reads, upkeep }, threads))
    }

    /// Hands out a job. The threads outlive every sender, so it arrives.
    pub(crate) fn send(&self, job: Job) {
        match job {
            Job::Read(job) => {
                let _ = self.reads.send(job);
            }
            upkeep => {
                let _ = self.upkeep.send(upkeep);
            }
        }
    }
}

struct Reader {
    jobs: Arc<Mutex<Receiver<ReadJob>>>,
    partitions: Arc<Partitions>,
    epoch: u32,
}

impl Reader {
    fn run(self) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(ReadJob { ticket, query, answers, wake }) = job else { return };
            let result = self.answer(&query);
            // The shard is gone when nobody listens.
            let _ = answers.send(Answer { ticket, result });
            wake();
        }
    }

    fn answer(&self, query: &Query) -> Result<query::Found, StoreError> {
        let partition = query.log().partition();
        let Some(table) = self.partitions.table(partition) else {
            let reason = self.partitions.damage(partition).unwrap_or("the partition could not be opened");
            return Err(StoreError::Degraded(reason.to_owned()));
        };
        // A damaged file must not end the process; where panics unwind, one in the table counts as damage.
        let result = catch_unwind(AssertUnwindSafe(|| query::run(query, &*table.view(), self.epoch)))
            .unwrap_or_else(|_| Err(StoreError::Degraded("the index cannot be read".into())));
        if let Err(StoreError::Degraded(reason)) = &result {
            self.partitions.degrade(partition, reason);
        }
        result
    }
}

struct Flusher {
    partitions: Arc<Partitions>,
    gate: FilesGate,
    fatal: FatalHook,
    /// Flushes that found no space, in the order in which they are tried again.
    unflushed: VecDeque<FlushJob>,
    /// Partitions to look at for compaction, and whom to tell.
    compactable: BTreeMap<u8, Sender<Message>>,
}

/// A flush that is to be made, and whose it is.
struct FlushJob {
    partition: u8,
    done: Sender<Message>,
    progress: Arc<SharedProgress>,
}

impl Flusher {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            // Flushing frees the write-ahead log, so it comes before tidying up.
            let job = match (self.unflushed.is_empty(), self.compactable.is_empty()) {
                (false, _) => jobs.recv_timeout(FULL_RETRY_DELAY),
                (true, false) => jobs.recv_timeout(Duration::ZERO),
                (true, true) => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match job {
                Ok(Job::Flush { partition, done, progress }) => _ = self.flush(FlushJob { partition, done, progress }),
                Ok(Job::Compact { partition, done }) => _ = self.compactable.insert(partition, done),
                Ok(Job::Read(_)) => {}
                Err(RecvTimeoutError::Timeout) if self.unflushed.is_empty() => self.compact_one(),
                Err(RecvTimeoutError::Timeout) => self.flush_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Tries what found no space, until something finds none again.
    fn flush_again(&mut self) {
        for _ in 0..self.unflushed.len() {
            let Some(job) = self.unflushed.pop_front() else { return };
            if !self.flush(job) {
                return;
            }
        }
    }

    /// Whether there was space. A flush that found none waits apart from the others: they may be of other shards, which
    /// must either go on or hear for themselves that the disk is full.
    fn flush(&mut self, job: FlushJob) -> bool {
        let FlushJob { partition, done, progress } = &job;
        let Some(table) = self.partitions.table(*partition) else { return true };
        let flushed = {
            let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
            table.flush()
        };
        match flushed {
            Ok(()) => {
                let waits = self.unflushed.iter().any(|other| Arc::ptr_eq(&other.progress, progress));
                progress.full.store(waits, Ordering::SeqCst);
                // The shard is gone when nobody listens.
                let _ = done.send(Message::Flushed(*partition));
                true
            }
            Err(TableError::Full) => {
                progress.full.store(true, Ordering::SeqCst);
                // Tells the indexing thread to report, and this one when the shard is gone.
                if done.send(Message::FlushThrough(0)).is_ok() {
                    self.unflushed.push_back(job);
                }
                false
            }
            Err(error) => {
                (self.fatal)(FatalError(format!("a flush of the index failed: {error}")));
                true
            }
        }
    }

    fn compact_one(&mut self) {
        let Some((partition, done)) = self.compactable.pop_first() else { return };
        let Some(table) = self.partitions.table(partition) else { return };
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match table.compact() {
            Ok(()) => _ = done.send(Message::Compacted(partition)),
            // The next flush of the partition brings it here again.
            Err(TableError::Full) => tracing::warn!(partition, "no space to compact the index"),
            Err(TableError::Damaged(reason)) => self.partitions.degrade(partition, &reason),
            Err(TableError::Io(error)) => tracing::error!(partition, %error, "the index cannot be compacted"),
        }
    }
}
