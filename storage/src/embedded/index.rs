//! The seam between a shard and its index, and the index that works at once on the caller's thread.
//!
//! The index takes over durable blocks in their order. A query sees every block handed over before it. A block is
//! flushed once all its writes are durable in the tables; then a restart need not replay it.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{StoreError, Token};
use bytes::Bytes;

use super::{
    payload,
    query::{self, Found, Query},
    table::Table,
};

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticket {
    /// A read that the shard's owner submitted.
    Caller { token: Token, log: LogKey },
    /// The shard itself, before it accepts its first write to a log.
    Bounds(LogKey),
}

/// The answer to one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whom it is for.
    pub ticket: Ticket,
    /// What was found.
    pub result: Result<Found, StoreError>,
}

/// How far the index is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last block that queries see.
    pub applied: u64,
    /// The last block that a restart need not replay.
    pub flushed: u64,
    /// Whether a flush waits for space on the disk.
    pub full: bool,
}

/// The index of one shard.
pub trait Index {
    /// Takes over the writes of a durable block; blocks come in order.
    fn apply(&mut self, number: u64, payload: Bytes);

    /// Begins a query.
    fn query(&mut self, ticket: Ticket, query: Query);

    /// Moves the answers that are ready into `answers`.
    fn poll(&mut self, answers: &mut Vec<Answer>);

    /// How far it is.
    fn progress(&self) -> Progress;

    /// Asks to be woken by the next progress, for an index that works on its own.
    fn want_progress(&mut self) {}

    /// Asks for every block up to `number` to be flushed.
    fn flush_through(&mut self, number: u64);

    /// Why a partition is read-only, if it is.
    fn degraded(&self, partition: u8) -> Option<&str>;
}

/// Which blocks are not flushed yet, per partition.
#[derive(Debug, Default)]
pub(crate) struct FlushTracker {
    partitions: BTreeMap<u8, Unflushed>,
    applied: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Unflushed {
    /// First block with writes that are not sealed.
    open_since: Option<u64>,
    /// First block with writes that are sealed and not flushed.
    sealed_since: Option<u64>,
}

impl FlushTracker {
    /// Notes that the writes of a block are in the tables.
    pub(crate) fn applied(&mut self, number: u64) {
        self.applied = number;
    }

    /// The last block whose writes are in the tables.
    pub(crate) fn applied_through(&self) -> u64 {
        self.applied
    }

    /// Notes that a block being applied writes to `partition`.
    pub(crate) fn touched(&mut self, partition: u8, number: u64) {
        self.partitions.entry(partition).or_default().open_since.get_or_insert(number);
    }

    /// Whether `partition` may be sealed now: one flush of a partition at a time.
    pub(crate) fn may_seal(&self, partition: u8) -> bool {
        self.partitions.get(&partition).is_some_and(|p| p.sealed_since.is_none() && p.open_since.is_some())
    }

    /// Notes that what `partition` holds was sealed.
    pub(crate) fn sealed(&mut self, partition: u8) {
        let state = self.partitions.entry(partition).or_default();
        state.sealed_since = state.open_since.take();
    }

    /// Notes that what was sealed of `partition` is durable.
    pub(crate) fn flushed(&mut self, partition: u8) {
        let state = self.partitions.entry(partition).or_default();
        state.sealed_since = None;
        if state.open_since.is_none() {
            self.partitions.remove(&partition);
        }
    }

    /// Partitions with unsealed writes of block `number` or before.
    pub(crate) fn open_through(&self, number: u64) -> Vec<u8> {
        let open = |state: &Unflushed| state.open_since.is_some_and(|since| since <= number);
        self.partitions.iter().filter(|(_, state)| open(state)).map(|(partition, _)| *partition).collect()
    }

    /// The last block whose writes are all durable in the tables.
    pub(crate) fn flushed_through(&self) -> u64 {
        let oldest = |state: &Unflushed| state.sealed_since.or(state.open_since);
        self.partitions.values().filter_map(oldest).min().map_or(self.applied, |oldest| oldest - 1)
    }
}

/// Hands each write of a block to the table of its partition.
pub(crate) fn apply_block<'a>(
    mut payload: Bytes,
    scratch: &mut Vec<u8>,
    mut table_of: impl FnMut(u8) -> Option<&'a dyn Table>,
) -> Result<(), payload::InvalidPayload> {
    while let Some(op) = payload::decode(&mut payload)? {
        if let Some(table) = table_of(op.log().partition()) {
            query::apply(&op, table, scratch);
        }
    }
    Ok(())
}

/// An index without threads: everything is done when the call returns. For the simulator and for tests.
#[derive(Debug)]
pub struct InlineIndex<T> {
    tables: Arc<Vec<Arc<T>>>,
    epoch: u32,
    tracker: FlushTracker,
    answers: Vec<Answer>,
    scratch: Vec<u8>,
}

impl<T: Table> InlineIndex<T> {
    /// An index over one table for each of the 64 partitions. `epoch` is the directory's.
    pub fn new(tables: Arc<Vec<Arc<T>>>, epoch: u32) -> Self {
        Self { tables, epoch, tracker: FlushTracker::default(), answers: Vec::new(), scratch: Vec::new() }
    }
}

impl<T: Table> Index for InlineIndex<T> {
    fn apply(&mut self, number: u64, payload: Bytes) {
        let (tables, tracker) = (&self.tables, &mut self.tracker);
        let applied = apply_block(payload, &mut self.scratch, |partition| {
            tracker.touched(partition, number);
            tables.get(usize::from(partition)).map(|table| &**table as &dyn Table)
        });
        // The shard encoded the payload itself a moment ago.
        debug_assert_eq!(applied, Ok(()));
        self.tracker.applied(number);
    }

    fn query(&mut self, ticket: Ticket, query: Query) {
        let table = &self.tables[usize::from(query.log().partition())];
        let result = query::run(&query, &*table.view(), self.epoch);
        self.answers.push(Answer { ticket, result });
    }

    fn poll(&mut self, answers: &mut Vec<Answer>) {
        answers.append(&mut self.answers);
    }

    fn progress(&self) -> Progress {
        Progress { applied: self.tracker.applied, flushed: self.tracker.flushed_through(), full: false }
    }

    fn flush_through(&mut self, number: u64) {
        for partition in self.tracker.open_through(number) {
            let table = &self.tables[usize::from(partition)];
            table.seal();
            self.tracker.sealed(partition);
            // A table that cannot be flushed stays sealed; asking again flushes it.
            if table.flush().is_ok() {
                self.tracker.flushed(partition);
            }
        }
    }

    fn degraded(&self, _: u8) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_flushed_once_every_partition_it_touched_is() {
        let mut tracker = FlushTracker::default();
        for (number, partitions) in [(1, &[3][..]), (2, &[3, 5]), (3, &[])] {
            partitions.iter().for_each(|p| tracker.touched(*p, number));
            tracker.applied(number);
        }
        assert_eq!(tracker.flushed_through(), 0);
        tracker.sealed(3);
        tracker.touched(3, 4);
        tracker.applied(4);
        assert!(!tracker.may_seal(3));
        assert_eq!(tracker.flushed_through(), 0);
        tracker.flushed(3);
        assert_eq!(tracker.flushed_through(), 1);
        assert_eq!(tracker.open_through(3), [5]);
        tracker.sealed(5);
        tracker.flushed(5);
        assert_eq!(tracker.flushed_through(), 3);
        tracker.sealed(3);
        tracker.flushed(3);
        assert_eq!(tracker.flushed_through(), 4);
    }
}
