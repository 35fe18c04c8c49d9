//! What a store promises the broker, as types: the port between `broker/core` and every storage backend.
//!
//! A shard submits an [`Op`] with a [`Token`] and later receives one [`Completion`] with the same token. This crate
//! has no I/O and no backend; `antiphon-storage` implements it and runs its conformance suite over every backend.
//!
//! # Contract
//!
//! 1. **Order.** Operations on one log take effect in the order of submission. Completions of *writes* on one log come
//!    in that order. Nothing is promised across logs.
//! 2. **Durability.** A write completes with `Ok` only when it would survive the loss of power.
//! 3. **Density.** Rows of one log are appended with consecutive `seq`, from 1; the owner numbers them, the store
//!    refuses anything else with [`StoreError::Misuse`] and stores nothing of that operation.
//! 4. **Reads see completed writes only**, and every write that completed before the read was submitted.
//! 5. **Refusal is clean.** A write that fails with [`StoreError::Full`] or [`StoreError::Degraded`] has stored nothing.
//!    A write that fails with [`StoreError::Unavailable`] may or may not have been stored; submitting the same rows
//!    again is idempotent.
//! 6. **Records** are small values next to a log, last write wins. **Checkpoints** are one record per log that also
//!    names the row up to which it describes the log.
//! 7. **The duplicate index** is derived from rows: it finds the row that a sender stored under a client message id,
//!    and lives exactly as long as that row.
//! 8. **A time is found by position.** The owner gives rows times that do not fall, except to rows that it takes over
//!    from another system. The store does not check that, and [`Op::FindTime`] rests on it: where times fall, of the
//!    positions at which they pass the one that is looked for, the store answers with any.
//!
//! Every backend bounds what it holds in flight; the shard bounds what it submits.
//!
//! Who is there, which nobody needs to keep, has a port of its own: [`presence`].

pub mod presence;

use antiphon_protocol::{LogKey, Row, UserId};
use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;

/// Names an operation in flight; chosen by the submitter, opaque to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// Which way a read walks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From `from` upwards.
    Forward,
    /// From the row before `to` downwards; rows come newest first.
    Backward,
}

/// A bounded read of consecutive rows `from <= seq < to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRows {
    /// First position of the range.
    pub from: u64,
    /// Position after the last of the range.
    pub to: u64,
    /// Where to begin and which way to walk.
    pub direction: Direction,
    /// At most this many rows.
    pub rows_max: u32,
    /// At most this many bytes of rows, but always at least one row.
    pub bytes_max: usize,
}

/// Longest key of a record, in bytes. A longer one is a [`StoreError::Misuse`].
pub const RECORD_KEY_BYTES_MAX: usize = 256;

/// One record to write or, without a value, to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordWrite {
    /// Key within the log, at most [`RECORD_KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// New value; `None` deletes.
    pub value: Option<Bytes>,
}

/// What a shard may ask of its store. Every operation concerns one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Add rows at the end. Answer: [`Outcome::Done`].
    Append { log: LogKey, rows: Vec<Row> },
    /// Replace the stored bytes of an existing row in place (a redaction). Answer: [`Outcome::Done`].
    Rewrite { log: LogKey, row: Row },
    /// Write the log's checkpoint, which describes it through row `through`. Answer: [`Outcome::Done`].
    Checkpoint { log: LogKey, through: u64, value: Bytes },
    /// Write records next to the log. Answer: [`Outcome::Done`].
    PutRecords { log: LogKey, records: Vec<RecordWrite> },
    /// Raise the log's floor: rows below it are gone for readers at once and from disk eventually. It may lie at most one
    /// after the head, except that a log which never had a row may begin anywhere: then the floor's row is the next one.
    /// Answer: [`Outcome::Done`].
    SetFloor { log: LogKey, floor: u64 },
    /// Everything an owner needs to take the log up. Answer: [`Outcome::Loaded`].
    Load { log: LogKey },
    /// Answer: [`Outcome::Rows`].
    Read { log: LogKey, range: ReadRows },
    /// Where the time `at_ms`, Unix milliseconds, lies among the rows. Answer: [`Outcome::Position`].
    FindTime { log: LogKey, at_ms: u64 },
    /// The row that `sender` stored under `client_message_id`. Answer: [`Outcome::Row`].
    FindDuplicate { log: LogKey, sender: UserId, client_message_id: Uuid },
    /// One record. Answer: [`Outcome::Record`].
    GetRecord { log: LogKey, key: Bytes },
    /// Records whose key begins with `prefix` and is greater than `after`, in key order. Answer: [`Outcome::Records`].
    ScanRecords { log: LogKey, prefix: Bytes, after: Option<Bytes>, records_max: u32 },
}

impl Op {
    /// The log that the operation concerns; decides its partition and its order.
    pub fn log(&self) -> LogKey {
        match self {
            Self::Append { log, .. }
            | Self::Rewrite { log, .. }
            | Self::Checkpoint { log, .. }
            | Self::PutRecords { log, .. }
            | Self::SetFloor { log, .. }
            | Self::Load { log }
            | Self::Read { log, .. }
            | Self::FindTime { log, .. }
            | Self::FindDuplicate { log, .. }
            | Self::GetRecord { log, .. }
            | Self::ScanRecords { log, .. } => *log,
        }
    }
}

/// A log as found in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// History generation; see [`antiphon_protocol::Position`].
    pub epoch: u32,
    /// First row that still exists; 1 for a log without retention.
    pub floor: u64,
    /// `seq` of the last row; `floor - 1` for a log without rows.
    pub head: u64,
    /// The newest checkpoint and the row through which it describes the log.
    pub checkpoint: Option<(u64, Bytes)>,
    /// Every row after the checkpoint, oldest first. The owner bounds it by writing checkpoints.
    pub tail: Vec<Row>,
}

/// The answer to an operation that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The write is durable.
    Done,
    /// Answer to [`Op::Load`].
    Loaded(Loaded),
    /// Answer to [`Op::Read`], in the direction of the read. Fewer rows than asked for without reaching a bound means
    /// that the range holds no more.
    Rows(Vec<Row>),
    /// Answer to [`Op::FindTime`]: a position from the floor to the one after the head. The row there, if there is one,
    /// is not earlier than the time; the row before it, if it lies at or above the floor, is earlier. Among rows whose
    /// times do not fall that is the first row at or after the time, or the position after the head.
    Position(u64),
    /// Answer to [`Op::FindDuplicate`].
    Row(Option<Row>),
    /// Answer to [`Op::GetRecord`].
    Record(Option<Bytes>),
    /// Answer to [`Op::ScanRecords`]: keys and values in key order.
    Records(Vec<(Bytes, Bytes)>),
}

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// No space is left. Reads go on; writes succeed again when space returns.
    #[error("the store is full")]
    Full,
    /// Damage was found in this log's partition: it is served read-only.
    #[error("this partition of the store is damaged and read-only: {0}")]
    Degraded(String),
    /// The store cannot answer now; whether a write took effect is unknown.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The caller broke the contract; our bug, never a client's fault.
    #[error("the store's contract was broken: {0}")]
    Misuse(String),
}

/// The answer to one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The token that the operation was submitted with.
    pub token: Token,
    /// What came of it.
    pub result: Result<Outcome, StoreError>,
}

/// One shard's part of a store. Not shared: each shard thread owns its own.
///
/// An implementation never blocks in either method beyond copying memory.
pub trait EventLog {
    /// Begins `op`. Its completion carries `token`.
    fn submit(&mut self, op: Op, token: Token);

    /// Moves the completions that are ready into `completions`, oldest first.
    fn poll_completions(&mut self, completions: &mut Vec<Completion>);
}

/// Halves the positions `first..end` until one place is left before which rows are earlier than some time: the search that
/// [`Op::FindTime`] stands for, and where times fall, one of its answers. `is_earlier` is asked about at most as many rows
/// as their number has bits; its error ends the search.
pub fn find_time<E>(first: u64, end: u64, mut is_earlier: impl FnMut(u64) -> Result<bool, E>) -> Result<u64, E> {
    let (mut first, mut end) = (first, end);
    while first < end {
        let middle = first + (end - first) / 2;
        match is_earlier(middle)? {
            true => first = middle + 1,
            false => end = middle,
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_found_by_halving() {
        for rows in 0..70_u64 {
            for earlier in 0..=rows {
                let mut asked = 0;
                let found = find_time(10, 10 + rows, |seq| {
                    asked += 1;
                    Ok::<bool, StoreError>(seq < 10 + earlier)
                });
                assert_eq!(found, Ok(10 + earlier));
                assert!(asked <= u64::BITS - rows.leading_zeros(), "{asked} of {rows} rows");
            }
        }
        assert_eq!(find_time(9, 3, |_| Ok::<bool, StoreError>(true)), Ok(9));
        assert_eq!(find_time(1, 9, |_| Err(StoreError::Full)), Err(StoreError::Full));
    }
}
