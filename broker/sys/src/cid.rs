//! Which shard a datagram belongs to, read from its connection id.
//!
//! A connection id made by a shard begins with a byte that is congruent to the shard's number modulo the number of
//! shards. A short header carries that byte at offset 1; a long header at offset 6, behind flags, version and length.
//! The first packets of a connection carry an id the client drew at random: they reach some shard by the same rule,
//! all of them the same one. The kernel's filter in `steering` computes exactly this function.

/// Offset of the first connection id byte in a packet with a long header.
pub(crate) const LONG_HEADER_BYTE: usize = 6;
/// Offset of the first connection id byte in a packet with a short header.
pub(crate) const SHORT_HEADER_BYTE: usize = 1;
/// The bit of the first byte that marks a long header.
pub(crate) const LONG_HEADER_FLAG: u8 = 0x80;

/// The most shards that one byte of a connection id can tell apart.
pub const MAX_SHARDS: usize = 256;

/// The shard that owns `datagram` among `shards`.
///
/// `None` if the datagram is too short to name one (or `shards` is 0); such a datagram is no QUIC packet, and whoever
/// got it may drop it. The kernel's filter leaves it with shard 0.
pub fn shard_of_datagram(datagram: &[u8], shards: usize) -> Option<usize> {
    let long = datagram.first()? & LONG_HEADER_FLAG != 0;
    let offset = if long { LONG_HEADER_BYTE } else { SHORT_HEADER_BYTE };
    usize::from(*datagram.get(offset)?).checked_rem(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_headers_are_read_at_byte_six_and_short_ones_at_byte_one() {
        assert_eq!(shard_of_datagram(&[0xc0, 1, 2, 3, 4, 5, 9, 7], 7), Some(2));
        assert_eq!(shard_of_datagram(&[0x40, 8, 2, 3, 4, 5, 9, 7], 7), Some(1));
    }

    #[test]
    fn a_datagram_without_the_byte_belongs_to_nobody() {
        assert_eq!(shard_of_datagram(&[], 2), None);
        assert_eq!(shard_of_datagram(&[0x40], 2), None);
        assert_eq!(shard_of_datagram(&[0xc0, 0, 0, 0, 1, 8], 2), None);
        assert_eq!(shard_of_datagram(&[0x40, 3], 0), None);
    }
}
