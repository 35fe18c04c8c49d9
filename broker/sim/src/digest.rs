//! A fast keyed digest: finds accidents and tells runs apart; no defence against anybody.

const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
const OTHER: u64 = 0xd1b5_4a32_d192_ed03;

/// Sixteen bytes that depend on the key and on each part with its length.
pub(crate) fn digest(key: u64, parts: &[&[u8]]) -> [u8; 16] {
    let mut state = fold(key ^ ODD, OTHER);
    for part in parts {
        state = absorb(state, part);
    }
    let mut out = [0; 16];
    out[..8].copy_from_slice(&state.to_le_bytes());
    out[8..].copy_from_slice(&fold(state ^ OTHER, ODD).to_le_bytes());
    out
}

/// A digest of everything that happens, as it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Running(u64);

impl Running {
    /// Adds bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0 = absorb(self.0, bytes);
    }

    /// What came in so far, as one number.
    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

fn absorb(state: u64, part: &[u8]) -> u64 {
    let (words, rest) = part.as_chunks::<8>();
    let step = |state: u64, word: u64| fold(state ^ word, ODD).wrapping_add(OTHER);
    let state = words.iter().fold(state, |state, word| step(state, u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    step(step(state, u64::from_le_bytes(last)), part.len() as u64)
}

/// Both halves of the product.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_of_key_and_parts_counts() {
        let bytes = [7_u8; 21];
        let whole = digest(1, &[&bytes]);
        assert_ne!(digest(2, &[&bytes]), whole);
        assert_ne!(digest(1, &[&bytes[..20], &bytes[20..]]), whole);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(1, &[&damaged]), whole, "bit {bit}");
        }
    }
}
