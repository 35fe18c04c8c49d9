//! Where each shard leaves its numbers, once a second, for the admin thread to look at.
//!
//! A slot has one writer, its shard, and one reader, so its lock is taken twice a second and never on the way of a message.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use antiphon_core::Refusals;
use antiphon_protocol::ErrorCode;
use antiphon_storage::embedded::Latencies;

use super::metrics::ShardMetrics;

/// What one shard left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// What it counts.
    pub numbers: ShardMetrics,
    /// How long syncs have taken since the start.
    pub sync_times: Latencies,
    /// Requests refused since the start, by code.
    pub refusals: Refusals,
}

/// The last report of a shard and the one before it: what happened between the two, a shard says itself, so that it makes
/// no difference when one looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Slot {
    pub(crate) report: Report,
    /// Syncs between the last two reports.
    pub(crate) recent_syncs: Latencies,
    /// Per second, between the last two reports.
    pub(crate) rates: Rates,
    at: Option<Instant>,
}

/// Events a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Rates {
    pub(crate) appended: f64,
    pub(crate) delivered: f64,
    pub(crate) refused: f64,
    pub(crate) behind: f64,
}

impl Rates {
    pub(crate) fn add(&mut self, other: Self) {
        self.appended += other.appended;
        self.delivered += other.delivered;
        self.refused += other.refused;
        self.behind += other.behind;
    }
}

/// The slots of all shards. Clones share them.
#[derive(Debug, Clone)]
pub struct Board(Arc<[Mutex<Slot>]>);

impl Board {
    /// Empty slots.
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| Mutex::default()).collect())
    }

    /// A shard leaves its report.
    pub fn put(&self, shard: u16, report: &Report, now: Instant) {
        let Some(slot) = self.0.get(usize::from(shard)) else { return };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, numbers) = (slot.report.numbers, &report.numbers);
        if let Some(seconds) = slot.at.map(|at| now.saturating_duration_since(at).as_secs_f64()).filter(|s| *s > 0.0) {
            let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
            slot.rates = Rates {
                appended: rate(numbers.events_appended, before.events_appended),
                delivered: rate(numbers.events_delivered, before.events_delivered),
                refused: rate(numbers.requests_refused, before.requests_refused),
                behind: rate(numbers.subscribers_behind, before.subscribers_behind),
            };
            slot.recent_syncs = report.sync_times.since(&slot.report.sync_times);
        }
        (slot.report, slot.at) = (*report, Some(now));
    }

    /// Requests refused since the start by all shards: every code with its count, by number.
    pub(crate) fn refusals(&self) -> Vec<(ErrorCode, u64)> {
        let mut sum: Vec<_> = Refusals::default().iter().collect();
        for slot in self.slots() {
            sum.iter_mut().zip(slot.report.refusals.iter()).for_each(|((_, sum), (_, count))| *sum += count);
        }
        sum
    }

    /// What is there now.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.0.iter().map(|slot| *slot.lock().unwrap_or_else(PoisonError::into_inner)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_shard_that_reports_late_has_the_same_rate() {
        let (board, start) = (Board::new(2), Instant::now());
        let report = |events_appended, events_delivered| Report {
            numbers: ShardMetrics { events_appended, events_delivered, ..ShardMetrics::default() },
            ..Report::default()
        };
        board.put(1, &report(1_000, 0), start);
        assert_eq!(board.slots()[1].rates, Rates::default(), "one report tells no rate");
        board.put(1, &report(1_100, 8), start + Duration::from_secs(2));
        let slots = board.slots();
        assert_eq!((slots[1].rates.appended, slots[1].rates.delivered), (50.0, 4.0));
        assert_eq!(slots[0].rates, Rates::default());
        board.put(7, &report(1, 1), start);
    }
}
