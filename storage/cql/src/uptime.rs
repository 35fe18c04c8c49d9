//! The clocks: one that also runs while the machine sleeps, and the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use antiphon_cql_engine::lease::Uptime;
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine started, sleep included.
pub(crate) fn now() -> Uptime {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The wall clock, Unix microseconds.
pub(crate) fn wall_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
