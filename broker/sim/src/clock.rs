//! Virtual time, and its translation for the parts that know other clocks.
//!
//! The world counts nanoseconds from its beginning. The shard and the client want microseconds since the Unix epoch,
//! `quinn-proto` wants [`Instant`]. All three are the same moment here, so nothing can drift.

use std::{
    ops::Add,
    time::{Duration, Instant},
};

/// Where the world's calendar begins: 2026-01-01T00:00:00Z, in microseconds since the Unix epoch.
const UNIX_BEGINNING_US: u64 = 1_767_225_600_000_000;

/// Nanoseconds since the beginning of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    /// Microseconds since the Unix epoch, rounded down.
    pub(crate) fn unix_us(self) -> u64 {
        UNIX_BEGINNING_US + self.0 / 1_000
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Translates between [`Moment`] and [`Instant`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    beginning: Instant,
}

impl Clock {
    /// A clock whose beginning is an arbitrary instant.
    // An `Instant` can be had in no other way than from the system's clock. Only differences to this one are ever
    // used, and `quinn-proto` looks at nothing but differences either, so its value cannot change a run.
    #[expect(clippy::disallowed_methods, reason = "the only source of an Instant; only differences to it are used")]
    pub(crate) fn start() -> Self {
        Self { beginning: Instant::now() }
    }

    /// The instant of a moment.
    pub(crate) fn instant(self, moment: Moment) -> Instant {
        self.beginning + Duration::from_nanos(moment.0)
    }

    /// The moment of an instant.
    pub(crate) fn moment(self, instant: Instant) -> Moment {
        Moment::default() + instant.saturating_duration_since(self.beginning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_translated_there_and_back_exactly() {
        let clock = Clock::start();
        for moment in [Moment(0), Moment(1), Moment(999_999_999_999)] {
            assert_eq!(clock.moment(clock.instant(moment)), moment);
        }
    }

    #[test]
    fn the_calendar_counts_microseconds_from_its_beginning() {
        assert_eq!(Moment(1_999).unix_us(), UNIX_BEGINNING_US + 1);
        assert_eq!(Moment(1) + Duration::from_micros(2), Moment(2_001));
    }
}
