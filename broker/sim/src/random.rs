//! The one source of chance in a run: a seed, and streams derived from it by name.
//!
//! Each part of the world draws from a stream of its own, so that a further draw in one part does not change what
//! happens in the others.

use std::time::Duration;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// A stream of chance.
#[derive(Debug, Clone)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream `name` of the run `seed`.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let name = name.as_bytes();
        // Names are short constants of this crate; a longer one would only share its stream with another.
        let len = name.len().min(24);
        key[8..8 + len].copy_from_slice(&name[..len]);
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Any number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`; 0 if there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product is uniform enough: the bias is below bound / 2^64.
        ((u128::from(self.number()) * u128::from(bound)) >> 64) as u64
    }

    /// An index into something of this length, which is not 0.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True so many times in a thousand.
    pub(crate) fn per_mille(&mut self, times: u32) -> bool {
        self.below(1_000) < u64::from(times)
    }

    /// A duration from `min` to `max`.
    pub(crate) fn duration(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_nanos() as u64;
        min + Duration::from_nanos(self.below(span + 1))
    }

    /// A seed for something that has its own generator.
    pub(crate) fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }

    /// Random bytes.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, name| Random::new(seed, name).number();
        assert_eq!(draw(1, "network"), draw(1, "network"));
        assert_ne!(draw(1, "network"), draw(1, "disk"));
        assert_ne!(draw(1, "network"), draw(2, "network"));
    }

    #[test]
    fn draws_stay_in_their_bounds_and_reach_them() {
        let mut random = Random::new(7, "test");
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| random.below(3)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(random.below(0), 0);
        let (min, max) = (Duration::from_nanos(5), Duration::from_nanos(6));
        assert!((0..100).all(|_| (min..=max).contains(&random.duration(min, max))));
        assert!(!random.per_mille(0) && random.per_mille(1_000));
    }
}
