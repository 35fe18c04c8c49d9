//! What a write-ahead log holds after a stop of any kind: pure reading over a [`Disk`].
//!
//! Blocks are numbered densely and each says how far the log was durable when it was submitted. Walking them in order,
//! the first that is missing or damaged is either
//!
//! - the **torn tail**: no block found anywhere in this log says that it had been durable. Nothing from it on was ever
//!   acknowledged; it is cut, simply by not being read;
//! - **damage**: some block of this log says that it had been durable. It is reported with the partitions it concerns,
//!   and reading goes on behind it.
//!
//! The writer never lets more than [`super::wal::BLOCKS_IN_FLIGHT_MAX`] blocks be in flight, so any block that far
//! behind a valid one is below its `durable_upto` and needs no rule of its own.

use std::io;

use bytes::Bytes;

use super::{
    block::{self, BlockHeader, Found, PAGE_BYTES},
    disk::{Disk, SegmentName},
};

/// One intact block of a log, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredBlock {
    /// Its number.
    pub number: u64,
    /// Its writes; empty for a seal.
    pub payload: Bytes,
    /// Partitions that the writes concern.
    pub partitions: u64,
    /// Partitions for which an earlier block of this log is damaged: a write of theirs may be missing before this one.
    pub after_damage: u64,
}

/// An acknowledged block that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Number of the first block that it hit.
    pub number: u64,
    /// Bit `p` is set if it may have held writes of index partition `p`.
    pub partitions: u64,
}

/// What was found in one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Intact blocks that hold writes.
    pub blocks: u64,
    /// Damage, if any; empty after every ordinary stop, crash or loss of power.
    pub damage: Vec<Damage>,
    /// Whether an unacknowledged tail was cut.
    pub torn: bool,
}

/// Reads the log whose segments are `segments` (one boot and shard, in order) and hands every intact block up to the
/// torn tail to `visit`.
pub fn recover(
    disk: &mut impl Disk,
    segments: &[SegmentName],
    mut visit: impl FnMut(RecoveredBlock) -> io::Result<()>,
) -> io::Result<Recovered> {
    let entries = find_blocks(disk, segments)?;
    let plan = Plan::of(&entries, segments.first().is_some_and(|first| first.number == 1));
    let mut open: Option<(SegmentName, Bytes)> = None;
    for (entry, after_damage) in plan.read {
        let segment = entry.header.segment;
        let bytes = match &open {
            Some((name, bytes)) if *name == segment => bytes.clone(),
            _ => disk.read(segment)?,
        };
        open = Some((segment, bytes.clone()));
        let Found::Block(header, payload) = block::find(&bytes, segment, entry.header.offset) else {
            return Err(io::Error::other("a block of the write-ahead log changed while it was read"));
        };
        visit(RecoveredBlock { number: header.number, payload, partitions: header.partitions, after_damage })?;
    }
    Ok(plan.recovered)
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    header: BlockHeader,
    intact: bool,
    empty: bool,
}

/// Every header in the log, in the order of their places. Steps page by page wherever no intact block stands.
fn find_blocks(disk: &mut impl Disk, segments: &[SegmentName]) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for &segment in segments {
        let bytes = disk.read(segment)?;
        let mut offset = 0;
        while offset < bytes.len() {
            offset += match block::find(&bytes, segment, offset as u64) {
                Found::Nothing => PAGE_BYTES,
                Found::DamagedPayload(header) => {
                    entries.push(Entry { header, intact: false, empty: false });
                    PAGE_BYTES
                }
                Found::Block(header, payload) => {
                    entries.push(Entry { header, intact: true, empty: payload.is_empty() });
                    block::padded_len(payload.len())
                }
            };
        }
    }
    Ok(entries)
}

/// Which blocks to read, and what is wrong with the rest.
#[derive(Debug, Default)]
struct Plan {
    read: Vec<(Entry, u64)>,
    recovered: Recovered,
}

impl Plan {
    fn of(entries: &[Entry], from_the_beginning: bool) -> Self {
        let mut plan = Self::default();
        let Some(first) = entries.first() else { return plan };
        let durable = entries.iter().map(|entry| entry.header.durable_upto).max().unwrap_or(0);
        let mut expected = if from_the_beginning { 1 } else { first.header.segment_first };
        let mut damaged_partitions = 0;
        for entry in entries {
            let number = entry.header.number;
            if number < expected {
                continue;
            }
            if number > expected || !entry.intact {
                if expected > durable {
                    plan.recovered.torn = true;
                    return plan;
                }
                damaged_partitions |= plan.note_damage(entry, expected);
            }
            if entry.intact {
                plan.recovered.blocks += u64::from(!entry.empty);
                plan.read.push((*entry, damaged_partitions));
            }
            expected = number + 1;
        }
        plan
    }

    /// Notes that `expected` is missing, or that `entry` is it and has a damaged payload, or both in turn.
    fn note_damage(&mut self, entry: &Entry, expected: u64) -> u64 {
        let header = &entry.header;
        let missing = if header.number > expected { shard_partitions(header) } else { 0 };
        let damaged = if entry.intact { 0 } else { header.partitions };
        let partitions = missing | damaged;
        self.recovered.damage.push(Damage { number: expected, partitions });
        partitions
    }
}

/// The partitions that the shard owned which wrote a block.
fn shard_partitions(header: &BlockHeader) -> u64 {
    let shards = u64::from(header.shards.max(1));
    (0..64).filter(|p| p % shards == u64::from(header.segment.shard)).fold(0, |mask, p| mask | 1 << p)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, durable_upto: u64) -> Entry {
        let segment = SegmentName { boot: 1, shard: 1, number: 1 };
        let header = BlockHeader {
            segment,
            offset: number * 4096,
            shards: 2,
            number,
            durable_upto,
            segment_first: 1,
            partitions: 0b10,
        };
        Entry { header, intact: true, empty: false }
    }

    fn damaged(number: u64, durable_upto: u64) -> Entry {
        Entry { intact: false, ..entry(number, durable_upto) }
    }

    fn read_numbers(plan: &Plan) -> Vec<u64> {
        plan.read.iter().map(|(entry, _)| entry.header.number).collect()
    }

    #[test]
    fn an_unacknowledged_block_is_the_torn_tail() {
        let plan = Plan::of(&[entry(1, 0), damaged(2, 0), entry(3, 1)], true);
        assert_eq!(read_numbers(&plan), [1]);
        assert!(plan.recovered.torn && plan.recovered.damage.is_empty());
        let plan = Plan::of(&[entry(1, 0), entry(3, 1)], true);
        assert_eq!(read_numbers(&plan), [1]);
        assert!(plan.recovered.torn && plan.recovered.damage.is_empty());
    }

    #[test]
    fn a_bad_block_that_was_durable_is_damage() {
        let plan = Plan::of(&[entry(1, 0), damaged(2, 0), entry(3, 2)], true);
        assert_eq!(read_numbers(&plan), [1, 3]);
        assert_eq!(plan.recovered.damage, [Damage { number: 2, partitions: 0b10 }]);
        assert_eq!(plan.read[1].1, 0b10);
    }

    #[test]
    fn a_lost_header_concerns_every_partition_of_its_shard() {
        let plan = Plan::of(&[entry(1, 0), entry(3, 2)], true);
        let odd = 0xaaaa_aaaa_aaaa_aaaa;
        assert_eq!(plan.recovered.damage, [Damage { number: 2, partitions: odd }]);
        let plan = Plan::of(&[entry(2, 1)], true);
        assert_eq!(plan.recovered.damage, [Damage { number: 1, partitions: odd }]);
    }

    #[test]
    fn a_log_whose_first_segments_were_released_begins_at_its_first_block() {
        let mut first = entry(41, 40);
        first.header.segment_first = 41;
        let plan = Plan::of(&[first], false);
        assert_eq!(read_numbers(&plan), [41]);
        assert_eq!(plan.recovered, Recovered { blocks: 1, damage: vec![], torn: false });
    }
}
