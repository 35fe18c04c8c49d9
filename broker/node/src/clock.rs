//! Two ways to tell the time: quinn-proto's `Instant`, and the core's microseconds since the Unix epoch.

use std::time::{Duration, Instant};

use antiphon_core::Time;

/// Ties one instant to the wall clock, so that the core's time never goes back while the process runs.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    instant: Instant,
    unix: Duration,
}

impl Clock {
    /// `instant` is the moment `unix` after the Unix epoch.
    pub fn new(instant: Instant, unix: Duration) -> Self {
        Self { instant, unix }
    }

    /// The instant that it was made with.
    pub fn beginning(&self) -> Instant {
        self.instant
    }

    /// The core's name for a moment.
    pub fn time(&self, now: Instant) -> Time {
        Time::default() + (self.unix + now.saturating_duration_since(self.instant))
    }

    /// The instant of a moment; moments before the clock's beginning are its beginning.
    pub fn instant(&self, time: Time) -> Instant {
        self.instant + Duration::from_micros(time.0).saturating_sub(self.unix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an instant can be made in no other way")]
    fn instants_and_times_map_both_ways() {
        let start = Instant::now();
        let clock = Clock::new(start, Duration::from_secs(1_000));
        let later = start + Duration::from_micros(1_500);
        assert_eq!(clock.time(later), Time(1_000_001_500));
        assert_eq!(clock.instant(Time(1_000_001_500)), later);
        assert_eq!(clock.instant(Time(5)), start);
    }
}
