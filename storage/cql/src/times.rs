//! How long the cluster takes, by kind of request, counted in buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Upper bounds of all buckets but the last, in microseconds, 0.5 ms to 8 s; each is twice the one before it.
pub const BOUNDS_US: [u64; 15] = {
    let mut bounds = [512; 15];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// What is asked of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows and records are read.
    Read,
    /// Rows and records are written.
    Write,
    /// The lease is read or changed.
    Lease,
}

impl Kind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Lease];

    /// As metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Lease => "lease",
        }
    }
}

/// How long requests have taken since the start, answered or not; one that is repeated counts each time.
#[derive(Debug, Default)]
pub struct Times([Histogram; Kind::ALL.len()]);

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// The times of one kind of request at some moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many in each bucket, not cumulated. The last bucket holds what took longer than every bound.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// Sum of all, microseconds.
    pub sum_us: u64,
}

impl Times {
    /// Those of one kind.
    pub fn of(&self, kind: Kind) -> Spread {
        let Histogram { counts, sum_us } = &self.0[kind as usize];
        Spread {
            counts: std::array::from_fn(|at| counts[at].load(Ordering::Relaxed)),
            sum_us: sum_us.load(Ordering::Relaxed),
        }
    }

    /// Counts how long a request takes.
    pub(crate) async fn measure<T>(&self, kind: Kind, request: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = request.await;
        self.record(kind, began.elapsed());
        result
    }

    fn record(&self, kind: Kind, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let histogram = &self.0[kind as usize];
        histogram.counts[BOUNDS_US.partition_point(|bound| *bound < us)].fetch_add(1, Ordering::Relaxed);
        histogram.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_bucket_of_its_kind_that_bounds_it() {
        let times = Times::default();
        for us in [1, 512, 513, 9_000_000] {
            times.record(Kind::Write, Duration::from_micros(us));
        }
        let mut expected = Spread { sum_us: 9_001_026, ..Spread::default() };
        (expected.counts[0], expected.counts[1], expected.counts[15]) = (2, 1, 1);
        assert_eq!(times.of(Kind::Write), expected);
        assert_eq!(times.of(Kind::Read), Spread::default());
    }
}
