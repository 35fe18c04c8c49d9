//! Durable writes to files, several under way at once, without a thread: io_uring for the log of a shard.
//!
//! ```text
//! buffer -> fill -> submit(file, offset, buffer, context) -> ... -> reap: (context, result), the buffer is used again
//! ```
//!
//! A [`DurableFile`] bypasses the page cache and syncs with every write, so a write that succeeded is durable; a
//! linked write and fsync would need a kernel thread for the sync and is slower. Writes may finish in any order. The
//! ring is a descriptor that becomes readable when something has finished, for [`crate::poller`].
//!
//! Invariants: the kernel only ever sees memory that the ring owns and nobody else can reach until the write is
//! finished; a dropped ring waits for its writes, and leaks their memory if it cannot. A write either wrote all of its
//! bytes or is an error. After a failed submission a ring takes no further write.
//!
//! A ring belongs to the thread that made it; moved to another one, it refuses writes. [`probe`] says beforehand
//! whether kernel and file system can do all this, [`writes_through`] whether the disk makes it worthwhile; outside
//! Linux the answer is always no.

#[cfg_attr(not(target_os = "linux"), path = "ring/absent.rs")]
#[cfg_attr(target_os = "linux", path = "ring/kernel.rs")]
mod kernel;
mod page_buffer;
mod probe;

pub use kernel::{DurableFile, WriteRing};
pub use page_buffer::{PAGE_BYTES, PageBuffer};
pub use probe::{Unusable, probe, writes_through};
