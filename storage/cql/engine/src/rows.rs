//! Reading consecutive rows over the buckets of a log.

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::{Direction, ReadRows, StoreError};
use bytes::Bytes;

use crate::{bucket::Buckets, limits::READ_ROWS_MAX, request::Request};

/// A walk over rows that all exist: the owner numbered them and a majority has them. One that is missing in an answer is
/// looked for once more, at every replica.
#[derive(Debug)]
pub(crate) struct Walk {
    from: u64,
    to: u64,
    direction: Direction,
    rows_max: usize,
    bytes_max: usize,
    rows: Vec<Row>,
    bytes: usize,
    is_full: bool,
    misses: u32,
}

/// How often a row may be missing: a majority of replicas, then all of them.
const MISSES_MAX: u32 = 2;

impl Walk {
    /// Reads what lies between `floor` and `head` of a range.
    pub(crate) fn new(range: ReadRows, floor: u64, head: u64) -> Self {
        Self {
            from: range.from.max(floor),
            to: range.to.min(head + 1),
            direction: range.direction,
            rows_max: range.rows_max as usize,
            bytes_max: range.bytes_max,
            rows: Vec::new(),
            bytes: 0,
            is_full: false,
            misses: 0,
        }
    }

    /// Every row `from <= seq < to`.
    pub(crate) fn all(from: u64, to: u64) -> Self {
        let range = ReadRows { from, to, direction: Direction::Forward, rows_max: u32::MAX, bytes_max: usize::MAX };
        Self::new(range, from, to.saturating_sub(1))
    }

    /// What to ask next; nothing when the walk is over. Rows below `floor` have gone meanwhile.
    pub(crate) fn next(&mut self, log: LogKey, buckets: &Buckets, floor: u64) -> Option<Result<Request, StoreError>> {
        self.from = self.from.max(floor);
        if self.is_full || self.rows.len() >= self.rows_max || self.from >= self.to {
            return None;
        }
        let edge = match self.direction {
            Direction::Forward => self.from,
            Direction::Backward => self.to - 1,
        };
        let Some((bucket, end)) = buckets.holding(edge) else { return Some(Err(missing(edge))) };
        let rows_max = READ_ROWS_MAX.min(u32::try_from(self.rows_max - self.rows.len()).unwrap_or(u32::MAX));
        Some(Ok(Request::ReadRows {
            log,
            bucket: bucket.id,
            from: self.from.max(bucket.first_seq),
            to: self.to.min(end),
            direction: self.direction,
            rows_max,
            is_thorough: self.misses > 0,
        }))
    }

    /// Takes in the answer to [`Self::next`].
    pub(crate) fn take(&mut self, rows: Vec<(u64, Bytes)>) -> Result<(), StoreError> {
        let before = (self.from, self.to);
        for (seq, bytes) in rows {
            let expected = match self.direction {
                Direction::Forward => self.from,
                Direction::Backward => self.to - 1,
            };
            if seq != expected {
                break;
            }
            self.bytes += bytes.len();
            if !self.rows.is_empty() && self.bytes > self.bytes_max {
                self.is_full = true;
                return Ok(());
            }
            self.rows.push(parse(seq, bytes)?);
            match self.direction {
                Direction::Forward => self.from += 1,
                Direction::Backward => self.to -= 1,
            }
        }
        if (self.from, self.to) != before {
            self.misses = 0;
            return Ok(());
        }
        self.misses += 1;
        if self.misses < MISSES_MAX { Ok(()) } else { Err(missing(self.from)) }
    }

    /// Whether a row was missing in the last answer.
    pub(crate) fn has_missed(&self) -> bool {
        self.misses > 0
    }

    /// What was read.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

/// A row that must be there is not.
pub(crate) fn missing(seq: u64) -> StoreError {
    StoreError::Degraded(format!("row {seq} is missing"))
}

/// A row as it was stored at its position.
pub(crate) fn parse(seq: u64, bytes: Bytes) -> Result<Row, StoreError> {
    match Row::new(bytes) {
        Ok(row) if row.seq() == seq => Ok(row),
        Ok(row) => Err(StoreError::Degraded(format!("row {} stands in the place of row {seq}", row.seq()))),
        Err(error) => Err(StoreError::Degraded(format!("row {seq} cannot be read: {error}"))),
    }
}
