//! A bug on purpose, for the simulator to find. Compiled only with the feature `mutants`, which nothing but the
//! simulator asks for, and off until it is switched on.

use std::sync::atomic::{AtomicBool, Ordering};

static RESUME_OFF_BY_ONE: AtomicBool = AtomicBool::new(false);

/// A subscription that takes hold again goes on one event too late.
pub fn set_resume_off_by_one(on: bool) {
    RESUME_OFF_BY_ONE.store(on, Ordering::Relaxed);
}

pub(crate) fn resumes_off_by_one() -> bool {
    RESUME_OFF_BY_ONE.load(Ordering::Relaxed)
}
