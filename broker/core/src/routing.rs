//! Which shard owns a log.

use antiphon_protocol::LogKey;

/// One of the broker's threads; numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// How the partitions are divided among the shards of this boot: partition modulo shards.
#[derive(Debug, Clone, Copy)]
pub struct Routing {
    shards: u16,
}

impl Routing {
    /// For a broker of `shards` threads, at least one.
    pub fn new(shards: u16) -> Self {
        Self { shards: shards.max(1) }
    }

    /// How many shards there are.
    pub fn shards(self) -> u16 {
        self.shards
    }

    /// The only shard that orders this log.
    pub fn owner(self, log: LogKey) -> ShardId {
        ShardId(u16::from(log.partition()) % self.shards)
    }
}
