//! The write-ahead log of one shard as a state machine: where each block goes, which are durable, which segments may
//! go. It does no I/O; the shard passes its requests to a [`super::writer::BlockWriter`].
//!
//! ```text
//! place -> Write in flight -> Written (any order) -> durable prefix grows -> segments released once flushed
//! ```
//!
//! A block goes into the current segment if it leaves room for one seal there, else into the prepared one. Every start
//! of the process begins a log of its own, so nothing that was acknowledged is ever written over.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::{
    block::{self, BlockHeader, PAGE_BYTES},
    disk::SegmentName,
    writer::WriteRequest,
};

/// Blocks that may be submitted and not yet durable. Recovery relies on `number - durable_upto` never being larger.
pub const BLOCKS_IN_FLIGHT_MAX: usize = 8;

/// Whose log it is, and its sizes.
#[derive(Debug, Clone, Copy)]
pub struct WalConfig {
    /// Counts the starts of the process on this directory.
    pub boot: u64,
    /// The shard that writes it.
    pub shard: u16,
    /// How many shards there are.
    pub shards: u16,
    /// Length of every segment.
    pub segment_bytes: u64,
    /// The log grows to this size, then writes wait until the index has flushed.
    pub wal_bytes_max: u64,
}

/// Why a block cannot be placed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// A segment is being prepared.
    Preparing,
    /// There is no space on the disk for another segment.
    Full,
    /// The log has its full size; the index must flush first.
    TooLong,
}

#[derive(Debug, Clone, Copy)]
struct Current {
    number: u64,
    offset: u64,
    first_block: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spare {
    None,
    /// `demanded`: a block waits for it.
    Preparing {
        number: u64,
        demanded: bool,
    },
    Ready {
        number: u64,
    },
    /// The last attempt found no space; the next block that needs one tries again.
    Failed {
        reported: bool,
    },
}

/// Positions and segments of one log.
#[derive(Debug)]
pub(crate) struct Wal {
    config: WalConfig,
    current: Option<Current>,
    spare: Spare,
    next_segment: u64,
    next_block: u64,
    /// Blocks in flight, oldest first, and whether each has been written.
    in_flight: VecDeque<bool>,
    durable_upto: u64,
    /// Segments that are full, oldest first, with their last block.
    full: VecDeque<(u64, u64)>,
}

impl Wal {
    pub(crate) fn new(config: WalConfig) -> Self {
        Self {
            config,
            current: None,
            spare: Spare::None,
            next_segment: 1,
            next_block: 1,
            in_flight: VecDeque::new(),
            durable_upto: 0,
            full: VecDeque::new(),
        }
    }

    /// Number of the next block.
    pub(crate) fn next_block(&self) -> u64 {
        self.next_block
    }

    /// The last block that is durable with all before it.
    pub(crate) fn durable_upto(&self) -> u64 {
        self.durable_upto
    }

    /// Blocks submitted and not in the durable prefix.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of segments that a restart would read.
    pub(crate) fn bytes(&self) -> u64 {
        (self.full.len() as u64 + u64::from(self.current.is_some())) * self.config.segment_bytes
    }

    /// The last block of the oldest full segment.
    pub(crate) fn oldest_full(&self) -> Option<u64> {
        self.full.front().map(|(_, last_block)| *last_block)
    }

    /// Length limit of one block's payload, so that block and seal fit an empty segment.
    pub(crate) fn payload_max(config: &WalConfig) -> usize {
        config.segment_bytes as usize - 2 * PAGE_BYTES
    }

    /// A request for the next segment, if one should be prepared now.
    pub(crate) fn prepare(&mut self) -> Option<WriteRequest> {
        if self.spare != Spare::None || self.bytes() >= self.config.wal_bytes_max {
            return None;
        }
        Some(self.allocate(false))
    }

    /// Notes that a segment is ready.
    pub(crate) fn allocated(&mut self, segment: SegmentName) {
        if matches!(self.spare, Spare::Preparing { number, .. } if number == segment.number) {
            self.spare = Spare::Ready { number: segment.number };
        }
    }

    /// Notes that there was no space for a segment.
    pub(crate) fn not_allocated(&mut self) {
        if let Spare::Preparing { demanded, .. } = self.spare {
            self.spare = Spare::Failed { reported: !demanded };
        }
    }

    /// Makes room for a block with this much payload. Also returns a request to pass on, if any.
    pub(crate) fn make_room(&mut self, payload_len: usize) -> (Result<(), NoPlace>, Option<WriteRequest>) {
        let needed = (block::padded_len(payload_len) + PAGE_BYTES) as u64;
        if self.current.is_some_and(|current| current.offset + needed <= self.config.segment_bytes) {
            return (Ok(()), None);
        }
        match self.spare {
            Spare::Ready { number } => {
                self.begin_segment(number);
                (Ok(()), None)
            }
            Spare::Preparing { number, .. } => {
                self.spare = Spare::Preparing { number, demanded: true };
                (Err(NoPlace::Preparing), None)
            }
            Spare::Failed { reported: false } => {
                self.spare = Spare::Failed { reported: true };
                (Err(NoPlace::Full), None)
            }
            Spare::None if self.bytes() >= self.config.wal_bytes_max => (Err(NoPlace::TooLong), None),
            Spare::None | Spare::Failed { reported: true } => {
                let request = self.allocate(true);
                (Err(NoPlace::Preparing), Some(request))
            }
        }
    }

    /// Room for a seal, which every placed block leaves behind itself.
    pub(crate) fn has_room_for_seal(&self) -> bool {
        self.current.is_some_and(|current| current.offset + PAGE_BYTES as u64 <= self.config.segment_bytes)
    }

    /// Completes the next block, for which there is room, and returns the request that writes it. `buffer` holds
    /// [`block::HEADER_BYTES`] bytes of room and the payload.
    pub(crate) fn place(&mut self, mut buffer: BytesMut, partitions: u64) -> Option<WriteRequest> {
        let current = self.current.as_mut()?;
        let segment = SegmentName { boot: self.config.boot, shard: self.config.shard, number: current.number };
        let header = BlockHeader {
            segment,
            offset: current.offset,
            shards: self.config.shards,
            number: self.next_block,
            durable_upto: self.durable_upto,
            segment_first: current.first_block,
            partitions,
        };
        block::finish(&mut buffer, &header);
        let bytes: Bytes = buffer.freeze();
        current.offset += bytes.len() as u64;
        self.next_block += 1;
        self.in_flight.push_back(false);
        Some(WriteRequest::Write { number: header.number, segment, offset: header.offset, bytes })
    }

    /// Notes that a block was written and returns how many blocks the durable prefix grew by.
    pub(crate) fn written(&mut self, number: u64) -> usize {
        let at = number.checked_sub(self.durable_upto + 1).and_then(|at| self.in_flight.get_mut(at as usize));
        if let Some(written) = at {
            *written = true;
        }
        let grown = self.in_flight.iter().take_while(|written| **written).count();
        self.in_flight.drain(..grown);
        self.durable_upto += grown as u64;
        grown
    }

    /// Takes out the full segments whose blocks, up to `flushed`, need not be replayed.
    pub(crate) fn release(&mut self, flushed: u64) -> Option<WriteRequest> {
        let count = self.full.iter().take_while(|(_, last_block)| *last_block <= flushed).count();
        if count == 0 {
            return None;
        }
        let WalConfig { boot, shard, segment_bytes, .. } = self.config;
        let segments = self.full.drain(..count).map(|(number, _)| SegmentName { boot, shard, number }).collect();
        Some(WriteRequest::Release { segments, len: segment_bytes })
    }

    fn allocate(&mut self, demanded: bool) -> WriteRequest {
        let number = self.next_segment;
        self.next_segment += 1;
        self.spare = Spare::Preparing { number, demanded };
        let WalConfig { boot, shard, segment_bytes, .. } = self.config;
        WriteRequest::Allocate { segment: SegmentName { boot, shard, number }, len: segment_bytes }
    }

    fn begin_segment(&mut self, number: u64) {
        if let Some(full) = self.current {
            self.full.push_back((full.number, self.next_block - 1));
        }
        self.current = Some(Current { number, offset: 0, first_block: self.next_block });
        self.spare = Spare::None;
    }
}
