//! Redactions whose effect on the stored row is not durable yet.
//!
//! The event that redacts is acknowledged first; then the row is rewritten. Until that has completed, readers get the row
//! without its body from here, no checkpoint is written, so that a restart finds the redaction in the log's tail and
//! rewrites again, and a rewrite that fails is repeated.

use std::collections::BTreeMap;

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};

use super::{Log, Purpose, State};
use crate::effects::Effects;

#[derive(Debug)]
struct Rewrite {
    /// The row as it shall be; `None` until it was read.
    row: Option<Row>,
    /// Whether the store was asked and has not answered.
    is_asked: bool,
}

/// Rows of one log that have to be rewritten, by position.
#[derive(Debug, Default)]
pub(super) struct Redactions {
    rewrites: BTreeMap<u64, Rewrite>,
}

impl Redactions {
    /// The row at `seq` was redacted. `row` is what it shall be, if it is known.
    pub(super) fn add(&mut self, seq: u64, row: Option<Row>) {
        self.rewrites.insert(seq, Rewrite { row, is_asked: false });
    }

    /// Asks the store for what is not under way.
    pub(super) fn submit(&mut self, fx: &mut Effects, log: LogKey) {
        for (seq, rewrite) in self.rewrites.iter_mut().filter(|(_, rewrite)| !rewrite.is_asked) {
            rewrite.is_asked = true;
            let op = match &rewrite.row {
                Some(row) => Op::Rewrite { log, row: row.clone() },
                None => Op::Read { log, range: one_row(*seq) },
            };
            fx.store(op, Purpose::Redact { seq: *seq, is_read: rewrite.row.is_none() });
        }
    }

    /// The store has rewritten the row, or there is nothing to rewrite.
    pub(super) fn done(&mut self, seq: u64) {
        self.rewrites.remove(&seq);
    }

    /// Rows below `floor` are gone, so there is nothing to rewrite.
    pub(super) fn forget_below(&mut self, floor: u64) {
        self.rewrites = self.rewrites.split_off(&floor);
    }

    /// The store could not; it is asked again by the next `submit`.
    pub(super) fn failed(&mut self, seq: u64) {
        if let Some(rewrite) = self.rewrites.get_mut(&seq) {
            rewrite.is_asked = false;
        }
    }

    /// A row of the store as readers may see it.
    pub(super) fn apply(&self, row: Row) -> Row {
        if self.rewrites.contains_key(&row.seq()) && !row.is_redacted() { row.redacted() } else { row }
    }

    /// Whether every redaction is durable.
    pub(super) fn is_empty(&self) -> bool {
        self.rewrites.is_empty()
    }
}

impl Log {
    /// A redacted row was read or rewritten.
    pub(super) fn redacted(&mut self, fx: &mut Effects, seq: u64, is_read: bool, result: Result<Outcome, StoreError>) {
        let State::Ready(contents) = &mut self.state else { return };
        match result {
            Ok(Outcome::Rows(rows)) if is_read => match rows.into_iter().next() {
                Some(row) if !row.is_redacted() && seq >= contents.floor() => {
                    contents.redactions.add(seq, Some(row.redacted()));
                    contents.redactions.submit(fx, self.key);
                }
                _ => contents.redactions.done(seq),
            },
            Ok(_) => contents.redactions.done(seq),
            Err(_) => contents.redactions.failed(seq),
        }
    }
}

pub(super) fn one_row(seq: u64) -> ReadRows {
    ReadRows { from: seq, to: seq + 1, direction: Direction::Forward, rows_max: 1, bytes_max: 0 }
}
