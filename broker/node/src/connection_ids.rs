//! Connection ids that name their shard, so that the kernel can steer a datagram to the shard that owns its connection.
//!
//! ```text
//! 0 shard modulo shards | 1 nonce [3] | 4 HMAC-SHA256(key, first four bytes) [4]
//! ```
//!
//! [`ConnectionIdGenerator::validate`] refuses ids of other shards. Without that, a misdirected datagram would make this
//! shard answer with a valid stateless reset, because all shards share the reset key, and kill a live connection.

use std::time::Duration;

use antiphon_core::ShardId;
use hmac::{Hmac, KeyInit, Mac};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use sha2::Sha256;

/// Bytes of a connection id.
pub const CONNECTION_ID_BYTES: usize = 8;

const CHECKED_BYTES: usize = 4;

/// Makes and checks the connection ids of one shard.
#[derive(Clone)]
pub struct ConnectionIds {
    shard: u8,
    shards: u8,
    key: [u8; 32],
    rng: ChaCha8Rng,
}

impl std::fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ConnectionIds({} of {})", self.shard, self.shards)
    }
}

impl ConnectionIds {
    /// `shards` is 1 to 64; `key` is the same for all shards and boots; `seed` is random per shard and boot.
    pub fn new(shard: ShardId, shards: u16, key: [u8; 32], seed: [u8; 32]) -> Self {
        let shards = shards.clamp(1, antiphon_core::limits::SHARDS_MAX) as u8;
        Self { shard: shard.0 as u8 % shards, shards, key, rng: ChaCha8Rng::from_seed(seed) }
    }

    fn check(&self, checked: &[u8]) -> [u8; 4] {
        let mut out = [0; 4];
        // Invariant: HMAC takes keys of any length.
        if let Ok(mut mac) = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.key) {
            mac.update(checked);
            out.copy_from_slice(&mac.finalize().into_bytes()[..4]);
        }
        out
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        self.rng.fill_bytes(&mut bytes[..CHECKED_BYTES]);
        // The largest multiple that keeps the sum within a byte, so that every residue is as likely as any other.
        let strides = 256 / u16::from(self.shards);
        let stride = u16::from(bytes[0]) % strides;
        bytes[0] = (stride * u16::from(self.shards) + u16::from(self.shard)) as u8;
        let check = self.check(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        ConnectionId::new(&bytes)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let is_own = id.len() == CONNECTION_ID_BYTES
            && id[0] % self.shards == self.shard
            && self.check(&id[..CHECKED_BYTES]) == id[CHECKED_BYTES..];
        if is_own { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(shard: u16, shards: u16, seed: u8) -> ConnectionIds {
        ConnectionIds::new(ShardId(shard), shards, [7; 32], [seed; 32])
    }

    #[test]
    fn an_id_names_its_shard_and_only_that_shard_takes_it() {
        for shards in [1, 2, 3, 7, 64] {
            for shard in 0..shards {
                let mut own = ids(shard, shards, 1);
                for _ in 0..50 {
                    let id = own.generate_cid();
                    assert_eq!(u16::from(id[0]) % shards, shard);
                    assert!(own.validate(&id).is_ok());
                    let other = ids((shard + 1) % shards, shards, 1);
                    assert_eq!(other.validate(&id).is_ok(), shards == 1);
                }
            }
        }
    }

    #[test]
    fn an_id_of_an_earlier_boot_is_known_and_a_forged_one_is_not() {
        let id = ids(1, 2, 1).generate_cid();
        let next_boot = ids(1, 2, 2);
        assert!(next_boot.validate(&id).is_ok());
        let mut forged = [0; CONNECTION_ID_BYTES];
        forged.copy_from_slice(&id);
        forged[7] ^= 1;
        assert!(next_boot.validate(&ConnectionId::new(&forged)).is_err());
        assert!(next_boot.validate(&ConnectionId::new(&id[..7])).is_err());
    }
}
