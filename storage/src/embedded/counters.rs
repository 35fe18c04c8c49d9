//! What a shard of the store has done, for metrics.

use super::latency::Latencies;

/// Work of a block writer since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Blocks written, seals included.
    pub blocks: u64,
    /// Bytes written, padding included.
    pub bytes: u64,
    /// Times that the disk was asked to make something durable: syncs, or durable writes.
    pub syncs: u64,
    /// How long each of those took; with a simulated disk none is counted.
    pub sync_times: Latencies,
}

impl WriterCounters {
    pub(crate) fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.bytes += other.bytes;
        self.syncs += other.syncs;
        self.sync_times.add(&other.sync_times);
    }
}

/// Work and state of one shard of the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows accepted into a block since the start.
    pub rows_appended: u64,
    /// Write operations accepted into a block since the start.
    pub writes: u64,
    /// Write operations refused because no space was left.
    pub writes_refused_full: u64,
    /// Read operations submitted since the start.
    pub reads: u64,
    /// What the block writer did.
    pub writer: WriterCounters,
    /// Blocks submitted and not known to be durable, now.
    pub blocks_in_flight: u64,
    /// Write operations that wait to be submitted in a block, now.
    pub writes_queued: u64,
    /// Reads submitted and not answered, now.
    pub reads_queued: u64,
    /// Durable blocks that the index has not taken over, now.
    pub blocks_not_indexed: u64,
    /// Bytes of write-ahead log that a restart would replay, now.
    pub wal_bytes: u64,
}
