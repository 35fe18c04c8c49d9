//! A data directory in use: what its shards share, and how it is opened.

use std::{
    fmt,
    fs::{self, File},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use super::{
    choice::{ChosenWriter, Writer, WriterChoice, WriterKind},
    copying,
    disk::{Disk as _, RealDisk, SegmentName},
    format::{FORMAT_VERSION, Format, Layout, OpenError},
    helpers::{HelperParts, Helpers},
    partitions::Partitions,
    replay,
    segments::{AnyDisk, FilesGate, SegmentKeeper},
    shard::{EmbeddedShard, ShardParts},
    threaded::{IndexParts, ThreadedIndex},
    uring::UringWriter,
    wal::WalConfig,
    writer::{FatalHook, PlainWriter, Wake},
};

/// Settings of an embedded store.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Shards to divide the 64 partitions among, 1 to 64. A directory may be opened with another number each time.
    pub shards: u16,
    /// Length of a segment of the write-ahead log, in bytes, at least 64 KiB. One write may take half of it, up to
    /// 16 MiB.
    pub segment_bytes: u64,
    /// Write-ahead log of one shard, in bytes, at least two segments. A start replays at most this much per shard.
    pub wal_bytes_max: u64,
    /// Writes that a partition collects in memory before they are flushed, in bytes.
    pub memtable_bytes: u64,
    /// Cache of index blocks, for the whole store, in bytes.
    pub cache_bytes: u64,
    /// Threads that answer reads, for the whole store.
    pub readers: usize,
    /// What writes the logs; a directory may be opened with another writer each time. All but the plain one ask their
    /// owner to heed [`EmbeddedShard::wait_fd`].
    pub writer: WriterChoice,
    /// Called once when the store cannot go on; must log and end the process. Nothing is acknowledged after it.
    pub fatal: FatalHook,
}

impl EmbeddedConfig {
    /// The usual settings for `shards` shards, with the writer that asks nothing more of its owner than the wakers.
    pub fn new(shards: u16, fatal: FatalHook) -> Self {
        Self {
            shards,
            segment_bytes: 32 << 20,
            wal_bytes_max: 128 << 20,
            memtable_bytes: 4 << 20,
            cache_bytes: 64 << 20,
            readers: 2,
            writer: WriterChoice::Plain,
            fatal,
        }
    }

    /// The same with segments of another length: the log and the flushes of the index follow in proportion.
    #[must_use]
    pub fn scaled(self, segment_bytes: u64) -> Self {
        let of = |bytes: u64| bytes.saturating_mul(segment_bytes) / self.segment_bytes;
        Self { wal_bytes_max: of(self.wal_bytes_max), memtable_bytes: of(self.memtable_bytes), segment_bytes, ..self }
    }

    fn check(&self, wakers: usize) -> Result<(), OpenError> {
        let checks = [
            ((1..=64).contains(&self.shards), "shards must be 1 to 64"),
            (wakers == usize::from(self.shards), "there must be one waker for each shard"),
            (self.segment_bytes >= 64 << 10, "segment_bytes must be at least 65536"),
            (self.segment_bytes <= 1 << 30, "segment_bytes must be at most 1073741824"),
            (self.segment_bytes.is_multiple_of(4096), "segment_bytes must be a multiple of 4096"),
            (self.wal_bytes_max >= 2 * self.segment_bytes, "wal_bytes_max must be at least two segments"),
        ];
        checks.into_iter().find(|(ok, _)| !ok).map_or(Ok(()), |(_, why)| Err(OpenError::Config(why)))
    }
}

impl fmt::Debug for EmbeddedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfig")
            .field("shards", &self.shards)
            .field("segment_bytes", &self.segment_bytes)
            .field("wal_bytes_max", &self.wal_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Opens data directories.
#[derive(Debug)]
pub struct Embedded;

impl Embedded {
    /// Opens `dir`, or makes it, brings older writes into the index and starts the store's threads.
    ///
    /// `wakers[i]` is called, from any thread, when shard `i` should be polled; so it should when its
    /// [`EmbeddedShard::wait_fd`], if it has one, is readable. Each shard answers for the partitions
    /// `p` with `p % shards == i` and may be moved to its own thread before its first operation. The directory stays locked until every shard and
    /// every [`StoreHandle`] is dropped.
    pub fn open(dir: &Path, config: EmbeddedConfig, wakers: Vec<Wake>) -> Result<Vec<EmbeddedShard>, OpenError> {
        fs::create_dir_all(dir)?;
        let layout = Layout::new(dir);
        let lock = layout.lock()?;
        copying::refuse_unfinished(&layout)?;
        let format = match layout.format()? {
            Some(format) => format,
            None => make(&layout, FIRST_EPOCH)?,
        };
        Self::start(layout, lock, format, config, wakers)
    }

    /// Opens a directory that this process has locked.
    pub(super) fn start(
        layout: Layout,
        lock: File,
        format: Format,
        config: EmbeddedConfig,
        wakers: Vec<Wake>,
    ) -> Result<Vec<EmbeddedShard>, OpenError> {
        config.check(wakers.len())?;
        let config = EmbeddedConfig { fatal: at_most_once(config.fatal), ..config };
        for folder in [layout.wal(), layout.index()] {
            fs::create_dir_all(folder)?;
        }
        let newest_log = RealDisk::new(&layout.wal()).list()?.iter().map(|segment| segment.boot).max().unwrap_or(0);
        let partitions = Arc::new(replay::open_partitions(&layout, config.cache_bytes)?);
        replay::replay(&layout, &partitions, config.memtable_bytes)?;
        let writer = ChosenWriter::choose(config.writer, &layout.wal())?;
        let boot = layout.next_boot(newest_log)?;
        Opened { layout, lock, format, boot, partitions, writer, config }.start(wakers)
    }
}

/// Several threads may fail at once; the first one speaks.
fn at_most_once(fatal: FatalHook) -> FatalHook {
    let told = AtomicBool::new(false);
    Arc::new(move |error| {
        if !told.swap(true, Ordering::SeqCst) {
            fatal(error);
        }
    })
}

/// Of a directory whose positions were never given out.
const FIRST_EPOCH: u32 = 1;

/// Makes a directory into a data directory.
pub(super) fn make(layout: &Layout, epoch: u32) -> Result<Format, OpenError> {
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let format = Format { version: FORMAT_VERSION, epoch, created };
    layout.write_format(&format)?;
    Ok(format)
}

/// A directory whose older logs are in the index.
struct Opened {
    layout: Layout,
    lock: File,
    format: Format,
    boot: u64,
    partitions: Arc<Partitions>,
    writer: ChosenWriter,
    config: EmbeddedConfig,
}

impl Opened {
    fn start(self, wakers: Vec<Wake>) -> Result<Vec<EmbeddedShard>, OpenError> {
        let Self { layout, lock, format, boot, partitions, writer: chosen, config } = self;
        let gate: FilesGate = Arc::new(RwLock::new(()));
        let (helpers, mut threads) = Helpers::start(HelperParts {
            partitions: partitions.clone(),
            readers: config.readers,
            epoch: format.epoch,
            gate: gate.clone(),
            fatal: config.fatal.clone(),
        })?;
        let (keeper, thread) = SegmentKeeper::start(wal_disk(&layout), gate.clone(), config.fatal.clone())?;
        threads.push(thread);
        let mut shards = Vec::with_capacity(wakers.len());
        for (shard, wake) in (0..config.shards).zip(wakers) {
            let (waker, fatal) = (wake.clone(), config.fatal.clone());
            let writer = match chosen.kind {
                WriterKind::Plain => Writer::Plain(PlainWriter::start(wal_disk(&layout), &keeper, waker, fatal)?),
                WriterKind::IoUring => Writer::IoUring(Box::new(UringWriter::new(layout.wal(), &keeper, waker, fatal))),
            };
            let index = ThreadedIndex::start(IndexParts {
                partitions: partitions.clone(),
                helpers: helpers.clone(),
                memtable_bytes: config.memtable_bytes,
                wake: wake.clone(),
                fatal: config.fatal.clone(),
            })?;
            let wal = WalConfig {
                boot,
                shard,
                shards: config.shards,
                segment_bytes: config.segment_bytes,
                wal_bytes_max: config.wal_bytes_max,
            };
            shards.push(EmbeddedShard::new(ShardParts { wal, writer, index, wake }));
        }
        let durable = shards.iter().map(EmbeddedShard::durable_block).collect();
        let threads = Mutex::new(threads);
        let store = Arc::new(Store {
            layout,
            format,
            boot,
            partitions,
            writer: chosen,
            gate,
            durable,
            senders: Mutex::new(Some((helpers, keeper))),
            threads,
            lock,
        });
        shards.iter_mut().for_each(|shard| shard.attach(store.clone()));
        Ok(shards)
    }
}

fn wal_disk(layout: &Layout) -> AnyDisk {
    Box::new(RealDisk::new(&layout.wal()))
}

/// What the shards of one directory share.
pub(crate) struct Store {
    pub(crate) layout: Layout,
    pub(crate) format: Format,
    pub(crate) boot: u64,
    pub(crate) partitions: Arc<Partitions>,
    writer: ChosenWriter,
    pub(crate) gate: FilesGate,
    /// Each shard's last durable block.
    pub(crate) durable: Vec<Arc<AtomicU64>>,
    senders: Mutex<Option<(Helpers, SegmentKeeper)>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Released last, when no thread can touch the directory any more.
    pub(super) lock: File,
}

impl Drop for Store {
    fn drop(&mut self) {
        // The shared threads end when their last sender is gone; every shard dropped its own before.
        *self.senders.lock().unwrap_or_else(PoisonError::into_inner) = None;
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Store {
    /// The log of one shard in this start.
    pub(crate) fn is_current(&self, segment: SegmentName) -> bool {
        segment.boot == self.boot
    }
}

/// A handle on a running store for other threads than its shards'. Keeps the directory locked.
#[derive(Clone)]
pub struct StoreHandle(pub(super) Arc<Store>);

impl fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreHandle").field("dir", &self.0.layout.dir()).finish_non_exhaustive()
    }
}

impl StoreHandle {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self(store)
    }

    /// History generation of every log in the directory.
    pub fn epoch(&self) -> u32 {
        self.0.format.epoch
    }

    /// What writes the logs, and why.
    pub fn writer(&self) -> &ChosenWriter {
        &self.0.writer
    }

    /// Partitions that are read-only because damage was found, and why.
    pub fn degraded(&self) -> Vec<(u8, String)> {
        self.0.partitions.degraded()
    }
}
