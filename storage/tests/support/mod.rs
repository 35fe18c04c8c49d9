//! Stores for the tests of this folder.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test binary uses its own part")]

use std::{
    cell::Cell,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use antiphon_storage::{
    Completion, EventLog, Op, Token,
    conformance::Backend,
    embedded::{
        Embedded, EmbeddedConfig, EmbeddedShard, FatalError, OpenError, StoreHandle, Wake, WriterChoice,
        simulated::{SimulatedShard, SimulatedStore},
    },
    memory::MemoryLog,
};
use antiphon_sys::{
    doorbell::Doorbell,
    poller::{self, Source},
    ring,
};
use tempfile::TempDir;

/// The memory backend; a stop changes nothing.
pub struct Memory(pub MemoryLog);

impl EventLog for Memory {
    fn submit(&mut self, op: Op, token: Token) {
        self.0.submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.0.poll_completions(completions);
    }
}

impl Backend for Memory {
    fn wait(&mut self) {
        panic!("the memory backend answers at once");
    }

    fn reopen(self: Box<Self>) -> Box<dyn Backend> {
        self
    }
}

thread_local! {
    static WRITER: Cell<WriterChoice> = const { Cell::new(WriterChoice::Plain) };
}

/// Whether io_uring works in this machine's temporary folder; says so if it does not.
pub fn has_io_uring() -> bool {
    let dir = tempfile::tempdir().unwrap();
    ring::probe(dir.path()).inspect_err(|error| eprintln!("skipped for io_uring: {error}")).is_ok()
}

/// The writer of this round, for a child process.
pub fn writer_name() -> &'static str {
    if WRITER.get() == WriterChoice::IoUring { "io_uring" } else { "plain" }
}

/// Makes the parent's writer that of this process.
pub fn writer_by_name(name: &str) {
    WRITER.set(if name == "io_uring" { WriterChoice::IoUring } else { WriterChoice::Plain });
}

/// Runs a test once for each writer, which is that of every [`small`] store meanwhile.
pub fn with_each_writer(test: impl Fn()) {
    let io_uring = has_io_uring().then_some(WriterChoice::IoUring);
    for writer in [WriterChoice::Plain].into_iter().chain(io_uring) {
        eprintln!("with the writer {writer:?}");
        WRITER.set(writer);
        test();
    }
}

/// Small sizes, so that tests reach every limit, and the writer of this round.
pub fn small(shards: u16) -> EmbeddedConfig {
    EmbeddedConfig {
        segment_bytes: 128 << 10,
        wal_bytes_max: 512 << 10,
        memtable_bytes: 32 << 10,
        cache_bytes: 1 << 20,
        readers: 1,
        writer: WRITER.get(),
        ..EmbeddedConfig::new(shards, Arc::new(|error| panic!("{error}")))
    }
}

/// What the fatal hook was told.
pub type Fatal = Arc<Mutex<Vec<FatalError>>>;

/// Like [`small`], but notes fatal errors instead of failing.
pub fn noting(shards: u16) -> (EmbeddedConfig, Fatal) {
    let noted = Fatal::default();
    let hook = noted.clone();
    (EmbeddedConfig { fatal: Arc::new(move |error| hook.lock().unwrap().push(error)), ..small(shards) }, noted)
}

/// An open embedded store: all its shards behind one [`EventLog`].
pub struct Open {
    pub shards: Vec<EmbeddedShard>,
    config: EmbeddedConfig,
    dir: PathBuf,
    /// Always armed.
    bell: Doorbell,
    /// Shards of the next start.
    pub next_shards: u16,
    /// Kept for as long as the test uses the directory.
    _owned: Option<Arc<TempDir>>,
}

impl Open {
    pub fn new(dir: &Path, config: EmbeddedConfig) -> Result<Self, OpenError> {
        let bell = Doorbell::new().unwrap();
        bell.arm();
        let waker = |_| {
            let ringer = bell.ringer();
            Arc::new(move || ringer.ring()) as Wake
        };
        let shards = Embedded::open(dir, config.clone(), (0..config.shards).map(waker).collect())?;
        let next_shards = config.shards;
        Ok(Self { shards, config, dir: dir.to_owned(), bell, next_shards, _owned: None })
    }

    /// A store in a folder of its own.
    pub fn fresh(config: EmbeddedConfig) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        Self { _owned: Some(dir.clone()), ..Self::new(dir.path(), config).unwrap() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn handle(&self) -> StoreHandle {
        self.shards[0].handle().unwrap()
    }
}

impl EventLog for Open {
    fn submit(&mut self, op: Op, token: Token) {
        let shards = self.shards.len();
        self.shards[usize::from(op.log().partition()) % shards].submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.shards.iter_mut().for_each(|shard| shard.poll_completions(completions));
    }
}

impl Backend for Open {
    fn wait(&mut self) {
        let mut fds = vec![self.bell.as_fd()];
        fds.extend(self.shards.iter().filter_map(EmbeddedShard::wait_fd));
        // The bell fills the places that no shard needs.
        let sources = std::array::from_fn::<_, 65, _>(|at| Source::readable(fds.get(at).unwrap_or(&fds[0])));
        let ready = poller::wait(sources, Some(Duration::from_secs(30))).unwrap();
        assert!(ready.iter().any(|ready| ready.readable), "nothing happened for 30 seconds");
        // What rang between the two is found by the poll that follows.
        self.bell.disarm(ready[0].readable);
        self.bell.arm();
    }

    fn reopen(self: Box<Self>) -> Box<dyn Backend> {
        let Self { shards, config, dir, next_shards, _owned, .. } = *self;
        drop(shards);
        // Another number of shards each time: 1, 2 and 4 in turn.
        let config = EmbeddedConfig { shards: next_shards, ..config };
        let next_shards = [2, 4, 0, 1][usize::from(next_shards) - 1];
        Box::new(Self { _owned, next_shards, ..Self::new(&dir, config).unwrap() })
    }
}

/// A simulated store whose requests finish in the order of a seed.
pub struct Simulated {
    store: SimulatedStore,
    shards: Vec<SimulatedShard>,
    dice: antiphon_storage::dice::Dice,
}

impl Simulated {
    pub fn fresh(seed: u64) -> Self {
        Self::open(SimulatedStore::new(64 << 10), antiphon_storage::dice::Dice::new(seed))
    }

    fn open(mut store: SimulatedStore, mut dice: antiphon_storage::dice::Dice) -> Self {
        let shards = 1 + dice.below(4) as u16;
        let wake: Wake = Arc::new(|| {});
        let shards = store.open(shards, &wake).unwrap();
        Self { store, shards, dice }
    }
}

impl EventLog for Simulated {
    fn submit(&mut self, op: Op, token: Token) {
        let shards = self.shards.len();
        self.shards[usize::from(op.log().partition()) % shards].submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.shards.iter_mut().for_each(|shard| shard.poll_completions(completions));
    }
}

impl Backend for Simulated {
    fn wait(&mut self) {
        let choices: Vec<u64> = self.shards.iter().map(|_| self.dice.roll()).collect();
        for (shard, choice) in self.shards.iter_mut().zip(choices) {
            shard.writer_mut().finish_one(choice);
        }
    }

    fn reopen(self: Box<Self>) -> Box<dyn Backend> {
        let Self { mut store, mut dice, .. } = *self;
        store.crash(&mut dice);
        Box::new(Self::open(store, dice))
    }
}
