//! A bug on purpose, for the simulator to find. Compiled only with the feature `mutants`, which nothing but the
//! simulator asks for, and off until it is switched on.

use std::sync::atomic::{AtomicBool, Ordering};

static FORGET_DUPLICATES: AtomicBool = AtomicBool::new(false);

/// A log that is taken up knows nothing of the sends that it holds already.
pub fn set_forget_duplicates(on: bool) {
    FORGET_DUPLICATES.store(on, Ordering::Relaxed);
}

pub(crate) fn forgets_duplicates() -> bool {
    FORGET_DUPLICATES.load(Ordering::Relaxed)
}
