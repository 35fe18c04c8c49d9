//! How long the disk takes, counted in buckets: recording costs two additions, and differences of two states are
//! distributions again.

/// Upper bounds of all buckets but the last, in microseconds; each is twice the one before it.
pub const BOUNDS_US: [u64; 15] = {
    let mut bounds = [64; 15];
    let mut at = 1;
    while at < bounds.len() {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
};

/// Durations by bucket. The last bucket holds what took more than a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies {
    /// How many, not cumulated.
    pub counts: [u64; BOUNDS_US.len() + 1],
    /// Sum of all, microseconds.
    pub sum_us: u64,
}

impl Latencies {
    /// Counts one.
    pub(crate) fn record(&mut self, took: std::time::Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[BOUNDS_US.partition_point(|bound| *bound < us)] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    /// Adds those of another disk or time.
    pub fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(count, more)| *count += more);
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Those since an earlier state.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = *self;
        since.counts.iter_mut().zip(earlier.counts).for_each(|(count, less)| *count = count.saturating_sub(less));
        since.sum_us = since.sum_us.saturating_sub(earlier.sum_us);
        since
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What so many in a hundred do not exceed, in microseconds, as if each bucket were filled evenly; of the last
    /// bucket its lower bound. `None` without any.
    pub fn percentile_us(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        // The rank of the one that is looked for, from 1.
        let rank = (count * percent.min(100)).div_ceil(100).max(1);
        let mut before = 0;
        for (at, inside) in self.counts.iter().enumerate() {
            if *inside > 0 && before + inside >= rank {
                let low = at.checked_sub(1).map_or(0, |below| BOUNDS_US[below]);
                let width = BOUNDS_US.get(at).map_or(0, |high| high - low);
                return Some(low + width * (rank - before) / inside);
            }
            before += inside;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(us: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        us.iter().for_each(|us| latencies.record(Duration::from_micros(*us)));
        latencies
    }

    #[test]
    fn a_percentile_lies_in_the_bucket_of_its_duration() {
        assert_eq!(of(&[]).percentile_us(50), None);
        for us in [0, 1, 64, 65, 128, 1_000, 8_192, 1_048_576] {
            let (found, at) = (of(&[us]).percentile_us(99).unwrap(), BOUNDS_US.partition_point(|bound| *bound < us));
            assert_eq!(found, BOUNDS_US[at], "{us}");
        }
        assert_eq!(of(&[5_000_000]).percentile_us(50), Some(1_048_576), "at least that");
        let mixed = of(&[[100; 99].as_slice(), &[30_000]].concat());
        assert!((64..=128).contains(&mixed.percentile_us(50).unwrap()));
        assert_eq!((mixed.percentile_us(99), mixed.percentile_us(100)), (Some(128), Some(32_768)));
    }

    #[test]
    fn a_difference_is_what_came_between() {
        let (before, mut after) = (of(&[100, 200]), of(&[100, 200, 3_000]));
        assert_eq!(after.since(&before), of(&[3_000]));
        after.add(&of(&[7]));
        assert_eq!((after.count(), after.sum_us), (4, 3_307));
    }
}
