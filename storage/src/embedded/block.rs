//! The block: what the write-ahead log writes at once.
//!
//! ```text
//!  0  magic u32 | 4 header_crc u32 over bytes 8..72 | 8 payload_crc u32 | 12 payload_len u32
//! 16  boot u64 | 24 segment u64 | 32 number u64 | 40 durable_upto u64 | 48 partitions u64
//! 56  shard u16 | 58 shards u16 | 60 page u32 | 64 segment_first u64 | 72 payload, then zeros up to 4,096
//! ```
//!
//! All numbers are little-endian; both checksums are CRC32C. A block begins and ends on a page boundary, so no two
//! blocks share a page and no write can damage a neighbour. Its own place (boot, shard, segment, page) is inside the
//! header's checksum, so bytes left over in a recycled file never look like a block of the new segment.
//! `durable_upto` is the last block that was known to be durable, with all before it, when this one was submitted.
//! `partitions` has a bit for each index partition that the payload touches; it narrows the damage of a bad payload.

use bytes::{Bytes, BytesMut};

use super::disk::SegmentName;

/// Blocks begin and end on multiples of this many bytes.
pub const PAGE_BYTES: usize = 4096;
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 72;

const MAGIC: u32 = u32::from_le_bytes(*b"APB1");

/// Everything a block says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockHeader {
    /// The segment that holds it.
    pub segment: SegmentName,
    /// Byte offset within the segment, a multiple of [`PAGE_BYTES`].
    pub offset: u64,
    /// How many shards the process ran with.
    pub shards: u16,
    /// Dense number within the log of this boot and shard, from 1.
    pub number: u64,
    /// Every block up to here was durable when this one was submitted; 0 if none was.
    pub durable_upto: u64,
    /// Number of the first block of this segment.
    pub segment_first: u64,
    /// Bit `p` is set if the payload concerns index partition `p`.
    pub partitions: u64,
}

/// What stands at one place of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No block of this segment begins here.
    Nothing,
    /// A block begins here, but its payload is damaged.
    DamagedPayload(BlockHeader),
    /// An intact block.
    Block(BlockHeader, Bytes),
}

/// Bytes that a block with this much payload takes in its segment.
pub fn padded_len(payload_len: usize) -> usize {
    (HEADER_BYTES + payload_len).next_multiple_of(PAGE_BYTES)
}

/// Completes a block whose payload already stands in `buffer` after [`HEADER_BYTES`] bytes of room.
pub fn finish(buffer: &mut BytesMut, header: &BlockHeader) {
    let payload_len = buffer.len() - HEADER_BYTES;
    let payload_crc = crc32c::crc32c(&buffer[HEADER_BYTES..]);
    buffer.resize(padded_len(payload_len), 0);
    let mut put = |at: usize, bytes: &[u8]| buffer[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC.to_le_bytes());
    put(8, &payload_crc.to_le_bytes());
    put(12, &(payload_len as u32).to_le_bytes());
    put(16, &header.segment.boot.to_le_bytes());
    put(24, &header.segment.number.to_le_bytes());
    put(32, &header.number.to_le_bytes());
    put(40, &header.durable_upto.to_le_bytes());
    put(48, &header.partitions.to_le_bytes());
    put(56, &header.segment.shard.to_le_bytes());
    put(58, &header.shards.to_le_bytes());
    put(60, &((header.offset / PAGE_BYTES as u64) as u32).to_le_bytes());
    put(64, &header.segment_first.to_le_bytes());
    let header_crc = crc32c::crc32c(&buffer[8..HEADER_BYTES]);
    buffer[4..8].copy_from_slice(&header_crc.to_le_bytes());
}

/// Looks for a block of `segment` at `offset` of that segment's bytes.
pub fn find(bytes: &Bytes, segment: SegmentName, offset: u64) -> Found {
    let at = offset as usize;
    let Some(head) = bytes.get(at..at + HEADER_BYTES) else { return Found::Nothing };
    if u32_at(head, 0) != MAGIC || crc32c::crc32c(&head[8..]) != u32_at(head, 4) {
        return Found::Nothing;
    }
    let header = read_header(head);
    if header.segment != segment || header.offset != offset {
        return Found::Nothing;
    }
    let start = at + HEADER_BYTES;
    match bytes.get(start..start + u32_at(head, 12) as usize) {
        Some(payload) if crc32c::crc32c(payload) == u32_at(head, 8) => {
            Found::Block(header, bytes.slice(start..start + payload.len()))
        }
        _ => Found::DamagedPayload(header),
    }
}

fn read_header(head: &[u8]) -> BlockHeader {
    let shard = u32_at(head, 56);
    BlockHeader {
        segment: SegmentName { boot: u64_at(head, 16), shard: shard as u16, number: u64_at(head, 24) },
        offset: u64::from(u32_at(head, 60)) * PAGE_BYTES as u64,
        shards: (shard >> 16) as u16,
        number: u64_at(head, 32),
        durable_upto: u64_at(head, 40),
        segment_first: u64_at(head, 64),
        partitions: u64_at(head, 48),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(payload: &[u8]) -> (BlockHeader, Bytes) {
        let header = BlockHeader {
            segment: SegmentName { boot: 9, shard: 1, number: 4 },
            offset: 8192,
            shards: 3,
            number: 77,
            durable_upto: 75,
            segment_first: 70,
            partitions: 0b1010,
        };
        let mut buffer = BytesMut::zeroed(HEADER_BYTES);
        buffer.extend_from_slice(payload);
        finish(&mut buffer, &header);
        (header, [&[0; 8192][..], &buffer].concat().into())
    }

    #[test]
    fn a_block_is_found_where_it_was_written() {
        let (header, bytes) = block(b"payload");
        assert_eq!(bytes.len() % PAGE_BYTES, 0);
        assert_eq!(find(&bytes, header.segment, 8192), Found::Block(header, Bytes::from_static(b"payload")));
        assert_eq!(find(&bytes, header.segment, 0), Found::Nothing);
        assert_eq!(find(&bytes, header.segment, 12_288), Found::Nothing);
    }

    #[test]
    fn a_block_of_another_segment_is_not_found() {
        let (header, bytes) = block(b"payload");
        let older = SegmentName { number: 3, ..header.segment };
        assert_eq!(find(&bytes, older, 8192), Found::Nothing);
        let moved = bytes.slice(4096..);
        assert_eq!(find(&moved, header.segment, 4096), Found::Nothing);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let (header, bytes) = block(b"payload");
        for bit in 8192 * 8..(8192 + HEADER_BYTES + 7) * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let found = find(&flipped.into(), header.segment, 8192);
            let in_payload = bit / 8 >= 8192 + HEADER_BYTES;
            assert_eq!(found, if in_payload { Found::DamagedPayload(header) } else { Found::Nothing }, "bit {bit}");
        }
    }
}
