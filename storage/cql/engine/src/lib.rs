//! The storage contract over tables of a cluster where the last write wins: one shard's logs as a sans-IO state machine.
//!
//! ```text
//! Op --submit--> log's queue --one write at a time per log--> Request --shell--> cluster
//!                                                              Reply  --answered--> completion
//! ```
//!
//! # Invariants
//!
//! - A row is acknowledged only when a majority has it and the term was held after that; whatever else is written about a
//!   log follows from rows that were acknowledged, so a late write of an owner that was overtaken is late but true.
//! - At most one append of a log is under way. An append whose outcome is unknown is the last one in its bucket: what
//!   comes next goes to a new bucket, which cuts every earlier one off at its own first position (see [`bucket`]).
//! - No write depends on a read at the moment of writing, and every write may be repeated: rows, records and buckets carry
//!   timestamps that only rise within a term and begin above every timestamp of the terms before.
//!
//! Absent: clocks, sockets, retries and the lease, which belong to the shell; and what a row means, beyond its position,
//! sender and id.

pub mod bucket;
mod cleanup;
mod duplicates;
mod engine;
mod hydration;
pub mod lease;
pub mod limits;
mod log;
mod opening;
mod reading;
pub mod request;
mod rows;
mod search;
pub mod simulated;
mod writing;

pub use engine::{Counters, Engine, Term};
pub use request::{Failure, Reply, Request, RequestId};
