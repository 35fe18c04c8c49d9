//! What the store did.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the store did, for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whether answers may be wrong now.
    pub is_stale: AtomicBool,
    /// Turns that were answered.
    pub turns: AtomicU64,
    /// Turns that failed; what they stated is stated again.
    pub turns_failed: AtomicU64,
    /// Connections that were made again.
    pub reconnects: AtomicU64,
    /// Signals that were not sent.
    pub signals_dropped: AtomicU64,
    /// Rate limits that this process decided alone.
    pub takes_local: AtomicU64,
    /// Times that news came faster than they were looked at.
    pub news_missed: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}
