//! The newest rows of a log, in memory: hand-overs and recent pages are served from here.

use std::{collections::VecDeque, convert::Infallible};

use antiphon_protocol::Row;
use antiphon_storage_contract::find_time;

use crate::limits::{TAIL_BYTES_MAX, TAIL_ROWS_MAX};

/// Consecutive rows up to the durable head.
#[derive(Debug, Default)]
pub(super) struct Tail {
    rows: VecDeque<Row>,
    bytes: usize,
}

impl Tail {
    /// Adds the next row; the oldest give way.
    pub(super) fn push(&mut self, row: Row) {
        debug_assert!(self.rows.back().is_none_or(|last| last.seq() + 1 == row.seq()));
        self.bytes += row.bytes().len();
        self.rows.push_back(row);
        while self.rows.len() > TAIL_ROWS_MAX || (self.bytes > TAIL_BYTES_MAX && self.rows.len() > 1) {
            if let Some(oldest) = self.rows.pop_front() {
                self.bytes -= oldest.bytes().len();
            }
        }
    }

    /// Lets the rows below `floor` go.
    pub(super) fn forget_below(&mut self, floor: u64) {
        while let Some(oldest) = self.rows.pop_front_if(|oldest| oldest.seq() < floor) {
            self.bytes -= oldest.bytes().len();
        }
    }

    fn index(&self, seq: u64) -> Option<usize> {
        let index = usize::try_from(seq.checked_sub(self.rows.front()?.seq())?).ok()?;
        (index < self.rows.len()).then_some(index)
    }

    /// One row, if it is here.
    pub(super) fn get(&self, seq: u64) -> Option<&Row> {
        self.rows.get(self.index(seq)?)
    }

    /// Puts a row in the place of the one with its position.
    pub(super) fn replace(&mut self, row: Row) {
        if let Some(index) = self.index(row.seq()) {
            self.bytes = self.bytes - self.rows[index].bytes().len() + row.bytes().len();
            self.rows[index] = row;
        }
    }

    /// Where the time `at_ms` lies among the rows from `floor` on, if it does not lie before the ones that are here.
    pub(super) fn find_time(&self, at_ms: u64, floor: u64) -> Option<u64> {
        let (oldest, newest) = (self.rows.front()?, self.rows.back()?);
        if oldest.seq() > floor && oldest.time_ms() >= at_ms {
            return None;
        }
        let is_earlier = |seq| Ok(self.get(seq).is_some_and(|row| row.time_ms() < at_ms));
        let Ok::<u64, Infallible>(seq) = find_time(oldest.seq().max(floor), newest.seq() + 1, is_earlier);
        Some(seq)
    }

    /// The rows from `from` to the end, if all of them are here.
    pub(super) fn since(&self, from: u64) -> Option<impl DoubleEndedIterator<Item = &Row> + Clone> {
        Some(self.rows.range(self.index(from)?..))
    }
}
