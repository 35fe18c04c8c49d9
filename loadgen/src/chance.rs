//! Seeded randomness: the same seed gives the same corpus, groups and schedule on every machine.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// A reproducible source of the few distributions that load needs.
#[derive(Debug, Clone)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// All draws follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `0..bound`, which must not be 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // Invariant: below 2^32 the bias of the product is less than 2^-32, and the product fits.
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Whether something of probability `p` happens.
    pub fn happens(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// Log-normal with the given median and the standard deviation `sigma` of the logarithm.
    pub fn log_normal(&mut self, median: f64, sigma: f64) -> f64 {
        // Box-Muller; 1 - unit is never 0.
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }

    /// Uniform in the logarithm between `low` and `high`.
    pub fn log_uniform(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.unit())
    }

    /// Sixteen random bytes.
    pub fn bytes(&mut self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Draws from `0..len` by Zipf's law: the nth is chosen as often as the first one, divided by n.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// How often each or one before it is chosen, as a multiple of the first one.
    up_to: Vec<f64>,
}

impl Zipf {
    /// Of so many, at least one.
    pub fn new(len: usize) -> Self {
        let mut sum = 0.0;
        let up_to = (1..=len.max(1)).map(|nth| {
            sum += 1.0 / nth as f64;
            sum
        });
        Self { up_to: up_to.collect() }
    }

    /// The next one.
    pub fn draw(&self, chance: &mut Chance) -> usize {
        let last = self.up_to.len() - 1;
        let at = chance.unit() * self.up_to[last];
        self.up_to.partition_point(|up_to| *up_to <= at).min(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_is_drawn_an_nth_as_often() {
        let (zipf, mut chance, mut drawn) = (Zipf::new(10), Chance::new(3), [0_u32; 10]);
        (0..100_000).for_each(|_| drawn[zipf.draw(&mut chance)] += 1);
        for (n, count) in (1..).zip(drawn) {
            let wanted = f64::from(drawn[0]) / f64::from(n);
            assert!((f64::from(count) / wanted - 1.0).abs() < 0.1, "{n}: {count} of {wanted}");
        }
        assert_eq!(Zipf::new(1).draw(&mut chance), 0);
    }

    #[test]
    fn equal_seeds_draw_alike() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (chance.bytes(), chance.below(1_000), chance.log_normal(5.0, 1.0).to_bits())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u32> = (0..100).collect();
        Chance::new(1).shuffle(&mut items);
        assert!(!items.is_sorted());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
