//! Whether the cluster answers, as seen by the statements that were sent to it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::uptime;

/// A cluster that has been silent for so long is away, milliseconds.
const AWAY_AFTER_MS: u64 = 2_000;

/// What the last statements said. Shared by every shard.
#[derive(Debug, Default)]
pub struct Health {
    /// Since when nothing has succeeded, milliseconds of uptime; 0 = the last one has.
    silent_since: AtomicU64,
}

impl Health {
    pub(crate) fn succeeded(&self) {
        if self.silent_since.load(Ordering::Relaxed) != 0 {
            self.silent_since.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn failed(&self) {
        let now = uptime_ms().max(1);
        let _ = self.silent_since.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether nothing has succeeded for two seconds.
    pub fn is_away(&self) -> bool {
        match self.silent_since.load(Ordering::Relaxed) {
            0 => false,
            since => uptime_ms().saturating_sub(since) >= AWAY_AFTER_MS,
        }
    }
}

fn uptime_ms() -> u64 {
    uptime::now().as_millis() as u64
}
