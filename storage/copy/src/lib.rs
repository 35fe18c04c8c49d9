//! Moves a whole store to another engine: every log with its rows, checkpoint, records, floor and epoch. The duplicate index
//! follows from the rows, and is compared too.
//!
//! ```text
//! source: logs in a fixed order -> copy_log, several at once -> read back, compared -> note: how far, and what so far
//! ```
//!
//! # Invariants
//!
//! - Nobody else uses either store meanwhile: the data directory is locked, the lease of the keyspace is held.
//! - Nobody serves from the destination before the copy is whole; until then it has a note that says so.
//! - A log counts as copied once it was read back from the destination and is the same.
//! - The source is only read. A broker may serve from it afterwards as before.
//!
//! Clients notice nothing: positions, epoch and what was acknowledged are the same.

mod digest;
mod log;
mod note;
mod port;
mod run;
mod side;

pub use digest::Digest;
pub use log::LogError;
pub use note::Totals;
pub use run::{CopyError, Hooks, Progress, Report, copy};
pub use side::{Place, SideError};
