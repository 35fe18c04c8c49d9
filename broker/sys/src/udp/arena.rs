//! Owned copies of packets, cut from a shared block.

use bytes::BytesMut;

/// Bytes per block: small, because a packet that is kept keeps its whole block.
const BLOCK: usize = 32 * 1024;

/// Copies packets one behind the other into a block, and reuses the block once all its packets are gone.
#[derive(Debug, Default)]
pub struct PacketArena {
    block: BytesMut,
}

impl PacketArena {
    /// An owned, writable copy of `packet`.
    ///
    /// Allocates only when the block is used up while one of its packets is still held.
    pub fn copy(&mut self, packet: &[u8]) -> BytesMut {
        if self.block.capacity() < packet.len() && !self.block.try_reclaim(BLOCK.max(packet.len())) {
            self.block = BytesMut::with_capacity(BLOCK.max(packet.len()));
        }
        self.block.extend_from_slice(packet);
        self.block.split()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_share_bytes() {
        let mut arena = PacketArena::default();
        let mut first = arena.copy(b"first");
        let second = arena.copy(b"second");
        first[0] = b'F';
        assert_eq!((&first[..], &second[..]), (&b"First"[..], &b"second"[..]));
    }

    #[test]
    fn a_block_without_holders_is_used_again() {
        let mut arena = PacketArena::default();
        let start = arena.copy(&[0; 1200]).as_ptr();
        let mut seen_again = 0;
        for _ in 0..10_000 {
            let packet = arena.copy(&[7; 1200]);
            assert_eq!(&packet[..], &[7; 1200]);
            seen_again += usize::from(packet.as_ptr() == start);
        }
        assert_eq!(seen_again, 10_000 / (BLOCK / 1200));
    }

    #[test]
    fn a_packet_that_is_held_survives_its_block_and_larger_ones_fit() {
        let mut arena = PacketArena::default();
        let held = arena.copy(b"held");
        for _ in 0..100 {
            assert_eq!(arena.copy(&[1; 65_000]).len(), 65_000);
        }
        assert_eq!(&held[..], b"held");
    }
}
