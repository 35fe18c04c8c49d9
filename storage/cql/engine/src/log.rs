//! What the engine knows of one log, and what waits for it.

use std::collections::VecDeque;

use antiphon_protocol::Row;
use antiphon_storage_contract::{Op, Token};
use bytes::Bytes;

use crate::{bucket::Buckets, duplicates::Waiting, hydration::Hydration, writing::Active};

/// One log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) state: State,
    /// Writes in the order of submission; the one under way is no more among them.
    pub(crate) writes: VecDeque<(Op, Token)>,
    /// Reads that wait until the log is known.
    pub(crate) reads: VecDeque<(Op, Token)>,
    pub(crate) active: Option<Active>,
    /// Whether it stands in the queue of logs with something to do.
    pub(crate) is_queued: bool,
    pub(crate) is_recently_used: bool,
}

impl Log {
    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_quiet(&self) -> bool {
        !matches!(self.state, State::Loading(_))
            && self.active.is_none()
            && self.writes.is_empty()
            && self.reads.is_empty()
    }

    /// The log, if reads may be answered from it now.
    pub(crate) fn readable(&self) -> Option<&Known> {
        match &self.state {
            State::Known(known) if known.unsettled.is_empty() => Some(known),
            _ => None,
        }
    }
}

/// How much is known.
#[derive(Debug, Default)]
pub(crate) enum State {
    /// Nothing.
    #[default]
    Unknown,
    /// It is being taken up.
    Loading(Box<Hydration>),
    /// Everything.
    Known(Box<Known>),
}

/// A log that was taken up in this term.
#[derive(Debug)]
pub(crate) struct Known {
    /// First row that still exists.
    pub(crate) floor: u64,
    /// Last row that is durable.
    pub(crate) head: u64,
    pub(crate) buckets: Buckets,
    /// Bytes of rows in the newest bucket, roughly: what was there before it was taken up is estimated.
    pub(crate) newest_bytes: u64,
    /// Whether an earlier owner, or an append of unknown outcome, may still write to the newest bucket.
    pub(crate) is_in_doubt: bool,
    /// Rows that were found and may lack a majority. Until they are copied nobody reads the log.
    pub(crate) unsettled: Vec<Row>,
    /// Ids that are not in the duplicate index yet.
    pub(crate) duplicates: Waiting,
    /// What was read to take the log up, for the first one who asks for just that. Gone with the next write.
    pub(crate) fresh: Option<Fresh>,
}

/// A checkpoint and the rows after it.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) checkpoint: Option<(u64, Bytes)>,
    pub(crate) tail: Vec<Row>,
}

/// Bytes that a row is taken to have when it was not seen.
const ROW_BYTES_ESTIMATE: u64 = 256;

impl Known {
    /// Roughly the bytes in a bucket whose last `seen` rows were read.
    pub(crate) fn estimate_bytes(first_seq: u64, head: u64, seen: &[Row]) -> u64 {
        let unseen = (head + 1).saturating_sub(first_seq).saturating_sub(seen.len() as u64);
        unseen * ROW_BYTES_ESTIMATE + seen.iter().map(|row| row.bytes().len() as u64).sum::<u64>()
    }
}
