//! The segments of every shard: a thread makes, recycles and removes them, so that zeroing never delays a block.
//!
//! Segments are made whole and zeroed, so that writing a block changes no metadata of the file system, and released
//! ones are used again under a new name.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, RwLock,
        mpsc::{self, Receiver, Sender},
    },
    thread::JoinHandle,
};

use super::{
    disk::{self, Disk, SegmentName},
    writer::{FatalError, FatalHook, Wake, WriteFinished},
};

/// A disk that a thread may own.
pub(crate) type AnyDisk = Box<dyn Disk + Send>;

/// Held shared while segments or index files are removed or renamed, and alone while a backup copies them.
pub(crate) type FilesGate = Arc<RwLock<()>>;

/// The answers of one shard's helper threads.
#[derive(Clone)]
pub(crate) struct Answers {
    finished: Sender<WriteFinished>,
    wake: Wake,
}

impl Answers {
    pub(crate) fn new(wake: Wake) -> (Self, Receiver<WriteFinished>) {
        let (finished, receiver) = mpsc::channel();
        (Self { finished, wake }, receiver)
    }

    pub(crate) fn send(&self, finished: impl IntoIterator<Item = WriteFinished>) {
        for finished in finished {
            // The shard is gone when nobody listens; then nobody waits for the answer either.
            let _ = self.finished.send(finished);
        }
        (self.wake)();
    }
}

/// One writer's way to the keeper.
pub(crate) struct Segments {
    jobs: Sender<SegmentJob>,
    answers: Answers,
}

impl Segments {
    /// Asks for a segment; the answer arrives where the writer's [`Answers`] do.
    pub(crate) fn allocate(&self, segment: SegmentName, len: u64) {
        // The thread ends only after every writer.
        let _ = self.jobs.send(SegmentJob::Allocate { segment, len, answers: self.answers.clone() });
    }

    /// Gives segments back.
    pub(crate) fn release(&self, segments: Vec<SegmentName>, len: u64) {
        let _ = self.jobs.send(SegmentJob::Release { segments, len });
    }
}

enum SegmentJob {
    Allocate { segment: SegmentName, len: u64, answers: Answers },
    Release { segments: Vec<SegmentName>, len: u64 },
}

/// The thread that makes, recycles and removes the segments of every shard.
pub(crate) struct SegmentKeeper {
    jobs: Sender<SegmentJob>,
}

/// Released segments that wait to be used again, of all shards together.
const SPARES_MAX: usize = 4;
/// Spares carry the name of a boot that never is; a start removes them.
pub(crate) const SPARE_BOOT: u64 = 0;

impl SegmentKeeper {
    /// Starts the thread. It ends when the last writer and this handle are gone.
    pub(crate) fn start(disk: AnyDisk, gate: FilesGate, fatal: FatalHook) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, requests) = mpsc::channel();
        let mut worker = Keeper { disk, gate, fatal, released: VecDeque::new(), spares: Vec::new(), spares_made: 0 };
        let thread = std::thread::Builder::new().name("segments".into()).spawn(move || {
            for job in requests {
                worker.run(job);
            }
        })?;
        Ok((Self { jobs }, thread))
    }

    /// The way here for a writer that listens to `answers`.
    pub(crate) fn segments(&self, answers: Answers) -> Segments {
        Segments { jobs: self.jobs.clone(), answers }
    }
}

struct Keeper {
    disk: AnyDisk,
    gate: FilesGate,
    fatal: FatalHook,
    /// Released, oldest first. They leave in this order, so that a log never has a hole.
    released: VecDeque<(SegmentName, u64)>,
    spares: Vec<(SegmentName, u64)>,
    spares_made: u64,
}

impl Keeper {
    fn run(&mut self, job: SegmentJob) {
        match job {
            SegmentJob::Allocate { segment, len, answers } => {
                let finished = match self.allocate(segment, len) {
                    Ok(()) => WriteFinished::Allocated(segment),
                    Err(error) if disk::is_full(&error) => WriteFinished::NotAllocated(segment),
                    Err(error) => {
                        let error = FatalError(format!("a segment of the write-ahead log cannot be made: {error}"));
                        (self.fatal)(error.clone());
                        WriteFinished::Failed(error)
                    }
                };
                answers.send([finished]);
            }
            SegmentJob::Release { segments, len } => {
                self.released.extend(segments.into_iter().map(|segment| (segment, len)));
                self.put_away();
            }
        }
    }

    fn allocate(&mut self, segment: SegmentName, len: u64) -> io::Result<()> {
        self.put_away();
        match self.spares.iter().position(|(_, spare_len)| *spare_len == len) {
            Some(at) => {
                let (spare, _) = self.spares.remove(at);
                self.disk.recycle(spare, segment)
            }
            None => self.disk.create(segment, len),
        }
    }

    /// Makes released segments spares or removes them. Leaves them alone while a backup copies files; a later call
    /// finds them again.
    fn put_away(&mut self) {
        let gate = self.gate.clone();
        let Ok(_gate) = gate.try_read() else { return };
        while let Some((segment, len)) = self.released.front().copied() {
            let done = if self.spares.len() < SPARES_MAX {
                let spare = SegmentName { boot: SPARE_BOOT, shard: 0, number: self.spares_made };
                self.disk.recycle(segment, spare).map(|()| self.spares.push((spare, len)))
            } else {
                self.disk.remove(segment)
            };
            if let Err(error) = done {
                tracing::warn!(%segment, %error, "a released segment of the write-ahead log cannot be put away");
                return;
            }
            self.spares_made += 1;
            self.released.pop_front();
        }
    }
}
