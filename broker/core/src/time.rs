//! Time as the core knows it: an input.

use std::{ops::Add, time::Duration};

/// Microseconds since the Unix epoch. The shell feeds values that never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// Whole milliseconds since the Unix epoch.
    pub fn unix_ms(self) -> u64 {
        self.0 / 1_000
    }

    /// The moment `ms` milliseconds after the Unix epoch.
    pub fn from_unix_ms(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}
