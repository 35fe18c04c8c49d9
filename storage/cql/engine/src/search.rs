//! Finding the position of a time: the buckets say in which of them it lies, then its rows are halved.
//!
//! A bucket that holds a row says truly when its first one was: the index names it together with that row, or after the
//! row was copied, and a row keeps its time. A bucket whose first position lies beyond the head may name a row that
//! nobody has; one that begins below the floor says nothing about the rows that are left. Neither is asked.

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use crate::{
    bucket::{BucketId, Buckets},
    log::Known,
    request::Request,
    rows::Walk,
};

/// A search under way. It asks for one row at a time, all of one bucket, and for at most as many as the number of rows of
/// a bucket has bits: see [`crate::limits::SEARCH_REQUESTS_MAX`]. If a bucket is opened meanwhile that covers rows of the
/// one that is searched, the search goes on there.
#[derive(Debug)]
pub(crate) struct Search {
    at_ms: u64,
    /// Every row before this position is earlier, or gone.
    first: u64,
    /// The row here is not earlier, or does not exist.
    end: u64,
    /// The row that is being read.
    probe: Option<(u64, Walk)>,
    /// Where the last request went.
    bucket: Option<BucketId>,
}

impl Search {
    /// Looks for `at_ms`, Unix milliseconds, among the rows that are known now.
    pub(crate) fn new(at_ms: u64, known: &Known) -> Self {
        let (first, end) = known.buckets.around(at_ms, known.floor, known.head);
        Self { at_ms, first, end, probe: None, bucket: None }
    }

    /// What to ask next; nothing once the position is known.
    pub(crate) fn next(&mut self, log: LogKey, buckets: &Buckets, floor: u64) -> Option<Result<Request, StoreError>> {
        self.first = self.first.max(floor);
        // The row may have gone while it was read.
        self.probe.take_if(|(seq, _)| *seq < floor);
        if self.first >= self.end {
            return None;
        }
        let middle = self.first + (self.end - self.first) / 2;
        let (_, walk) = self.probe.get_or_insert_with(|| (middle, Walk::all(middle, middle + 1)));
        walk.next(log, buckets, floor)
    }

    /// Whether `request`, which is the next one, goes to another partition than the one before.
    pub(crate) fn changes_partition(&mut self, request: &Request) -> bool {
        let Request::ReadRows { bucket, .. } = request else { return false };
        self.bucket.replace(*bucket) != Some(*bucket)
    }

    /// Takes in the answer to [`Self::next`].
    pub(crate) fn take(&mut self, rows: Vec<(u64, Bytes)>) -> Result<(), StoreError> {
        let Some((seq, mut walk)) = self.probe.take() else { return Ok(()) };
        walk.take(rows)?;
        if walk.has_missed() {
            self.probe = Some((seq, walk));
            return Ok(());
        }
        match walk.into_rows().first().map(Row::time_ms) {
            Some(time_ms) if time_ms < self.at_ms => self.first = seq + 1,
            Some(_) => self.end = seq,
            None => {}
        }
        Ok(())
    }

    /// Whether a row was missing in the last answer.
    pub(crate) fn has_missed(&self) -> bool {
        self.probe.as_ref().is_some_and(|(_, walk)| walk.has_missed())
    }

    /// The position, once there is nothing to ask.
    pub(crate) fn found(&self) -> u64 {
        self.first
    }
}
