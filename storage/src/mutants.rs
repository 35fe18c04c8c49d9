//! A bug on purpose, for the simulator to find. Compiled only with the feature `mutants`, which nothing but the
//! simulator asks for, and off until it is switched on.

use std::sync::atomic::{AtomicBool, Ordering};

static ACKNOWLEDGE_BEFORE_SYNC: AtomicBool = AtomicBool::new(false);

/// Writes are acknowledged when they are submitted to the disk, not when they are durable.
pub fn set_acknowledge_before_sync(on: bool) {
    ACKNOWLEDGE_BEFORE_SYNC.store(on, Ordering::Relaxed);
}

pub(crate) fn acknowledges_before_sync() -> bool {
    ACKNOWLEDGE_BEFORE_SYNC.load(Ordering::Relaxed)
}
