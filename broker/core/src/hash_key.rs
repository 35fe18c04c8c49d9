//! Hashing under a secret of the shard, so that nobody outside can make keys that collide (SipHash-1-3, Aumasson and
//! Bernstein 2012).

use std::hash::BuildHasher;

use rand_chacha::rand_core::RngCore;
use siphasher::sip::SipHasher13;

/// The secret.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HashKey(u64, u64);

impl HashKey {
    pub(crate) fn new(rng: &mut impl RngCore) -> Self {
        Self(rng.next_u64(), rng.next_u64())
    }
}

impl BuildHasher for HashKey {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

#[cfg(test)]
impl HashKey {
    pub(crate) fn fixed() -> Self {
        Self(1, 2)
    }
}
