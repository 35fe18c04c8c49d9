//! Whether the cluster answers, as seen by the statements that were sent to it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::uptime;

/// What the last statements said. Shared by every shard.
#[derive(Debug, Default)]
pub struct Health {
    /// Since when nothing has succeeded, milliseconds of uptime; 0 = the last one has.
    away_since: AtomicU64,
    /// Statements that took longer than a slow one should.
    slow: AtomicU64,
    retries: AtomicU64,
}

/// From here on a statement counts as slow, in milliseconds.
pub(crate) const SLOW_MS: u64 = 500;

impl Health {
    pub(crate) fn succeeded(&self, took_ms: u64) {
        if self.away_since.load(Ordering::Relaxed) != 0 {
            self.away_since.store(0, Ordering::Relaxed);
        }
        if took_ms >= SLOW_MS {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        let now = (uptime::now().as_millis() as u64).max(1);
        let _ = self.away_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// For how long nothing has succeeded, in milliseconds; nothing while statements succeed.
    pub fn away_ms(&self) -> Option<u64> {
        match self.away_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some((uptime::now().as_millis() as u64).saturating_sub(since)),
        }
    }

    /// Statements that were repeated so far.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Statements that took longer than half a second so far.
    pub fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }
}
