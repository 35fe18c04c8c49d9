//! The embedded store: one data directory, one write-ahead log per shard, an ordered index.
//!
//! ```text
//! EmbeddedShard --blocks--> BlockWriter (io_uring, or pwrite + fdatasync) --durable--> completion, then Index (lsm-tree)
//!               --reads---> Index (reader threads) --answers--> completion
//! ```
//!
//! # Invariants
//!
//! - Only the contiguous durable prefix of a log is acknowledged, and only what is durable enters the index.
//! - A block that holds acknowledged writes is never written over; every start begins new segments.
//! - A failed write or sync of a log ends the process; nothing is acknowledged after it.
//! - A block that was durable and cannot be read makes its partitions read-only; it is never taken for a torn tail.
//!
//! The way in is [`Embedded::open`]; [`EmbeddedShard`] is generic over [`BlockWriter`] and [`Index`] so that the
//! simulator runs the same code on a simulated disk, in one thread.

mod admission;
mod backup;
pub mod block;
mod choice;
mod copying;
mod counters;
pub mod disk;
mod floors;
mod format;
mod helpers;
pub mod index;
mod keys;
mod latency;
mod logs;
mod lsm;
mod memory_table;
mod memtable;
mod partitions;
mod payload;
pub mod query;
pub mod recovery;
mod replay;
mod segments;
mod shard;
pub mod simulated;
mod store;
pub mod table;
mod threaded;
mod uring;
mod verify;
pub mod wal;
pub mod writer;

pub use backup::{BackupError, BackupReport, restore};
pub use choice::{ChosenWriter, Writer, WriterChoice, WriterKind};
pub use copying::ListError;
pub use counters::{Counters, WriterCounters};
pub use format::{FORMAT_VERSION, Format, OpenError, lock};
pub use index::{Index, InlineIndex};
pub use latency::{BOUNDS_US, Latencies};
pub use memory_table::MemoryTable;
pub use shard::{EmbeddedShard, ShardParts};
pub use store::{Embedded, EmbeddedConfig, StoreHandle};
pub use threaded::ThreadedIndex;
pub use uring::UringWriter;
pub use verify::{Finding, Report, verify};
pub use wal::WalConfig;
pub use writer::{BlockWriter, FatalError, FatalHook, Wake};
