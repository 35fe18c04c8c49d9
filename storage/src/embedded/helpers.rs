//! The threads that all shards of a store share: readers, and one that flushes and compacts.

use std::{
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
    table::TableError,
    threaded::{Message, SharedProgress},
    writer::{FatalError, FatalHook, FilesGate, Wake},
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
    Flush { partition: u8, done: Sender<Message>, progress: Arc<SharedProgress> },
}

/// A partition whose sealed writes are to be flushed.
struct FlushJob {
    partition: u8,
    done: Sender<Message>,
    progress: Arc<SharedProgress>,
}

/// Where to send work.
#[derive(Clone)]
pub(crate) struct Helpers {
    reads: Sender<ReadJob>,
    flushes: Sender<FlushJob>,
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
        let (flushes, flush_jobs) = mpsc::channel();
        let read_jobs = Arc::new(Mutex::new(read_jobs));
        let mut threads = Vec::new();
        for _ in 0..parts.readers.max(1) {
            let reader = Reader { jobs: read_jobs.clone(), partitions: parts.partitions.clone(), epoch: parts.epoch };
            threads.push(std::thread::Builder::new().name("read".into()).spawn(move || reader.run())?);
        }
        let flusher = Flusher { partitions: parts.partitions, gate: parts.gate, fatal: parts.fatal, compactable: 0 };
        threads.push(std::thread::Builder::new().name("flush".into()).spawn(move || flusher.run(&flush_jobs))?);
        Ok((Self { reads, flushes }, threads))
    }

    /// Hands out a job. The threads outlive every sender, so it arrives.
    pub(crate) fn send(&self, job: Job) {
        match job {
            Job::Read(job) => {
                let _ = self.reads.send(job);
            }
            Job::Flush { partition, done, progress } => {
                let _ = self.flushes.send(FlushJob { partition, done, progress });
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
    /// Bit `p` is set if partition `p` was flushed since it was last looked at for compaction.
    compactable: u64,
}

impl Flusher {
    fn run(mut self, jobs: &Receiver<FlushJob>) {
        loop {
            // Flushing frees the write-ahead log, so it comes before tidying up.
            let job = if self.compactable == 0 {
                jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                jobs.recv_timeout(Duration::ZERO)
            };
            match job {
                Ok(job) => self.flush(&job),
                Err(RecvTimeoutError::Timeout) => self.compact_one(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn flush(&mut self, job: &FlushJob) {
        let Some(table) = self.partitions.table(job.partition) else { return };
        loop {
            let flushed = {
                let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
                table.flush()
            };
            match flushed {
                Ok(()) => break,
                Err(TableError::Full) => job.progress.full.store(true, Ordering::Release),
                Err(error) => return (self.fatal)(FatalError(format!("a flush of the index failed: {error}"))),
            }
            // Tells the indexing thread to report, and this one when the shard is gone.
            if job.done.send(Message::FlushThrough(0)).is_err() {
                return;
            }
            std::thread::sleep(FULL_RETRY_DELAY);
        }
        job.progress.full.store(false, Ordering::Release);
        self.compactable |= 1 << job.partition;
        // The shard is gone when nobody listens.
        let _ = job.done.send(Message::Flushed(job.partition));
    }

    fn compact_one(&mut self) {
        let partition = self.compactable.trailing_zeros() as u8;
        self.compactable &= self.compactable - 1;
        let Some(table) = self.partitions.table(partition) else { return };
        let _gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        match table.compact() {
            Ok(()) => {}
            // The next flush of the partition brings it here again.
            Err(TableError::Full) => tracing::warn!(partition, "no space to compact the index"),
            Err(TableError::Damaged(reason)) => self.partitions.degrade(partition, &reason),
            Err(TableError::Io(error)) => tracing::error!(partition, %error, "the index cannot be compacted"),
        }
    }
}
