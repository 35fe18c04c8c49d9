//! Which connection of a shard.

/// A connection of one shard, or a session on a trunk: a slot that is reused, and how often it has been reused, so that a
/// late message for an old one never reaches a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Index of the slot; small and dense.
    pub slot: u32,
    /// Reuse of the slot, from 0.
    pub generation: u32,
}

/// Set in the slots of sessions on trunks, which the shard gives out itself.
const CHANNEL: u32 = 1 << 31;

impl ConnectionId {
    /// A session on a trunk, by its place in the shard's table of those.
    pub(crate) fn of_channel(index: u32, generation: u32) -> Self {
        Self { slot: index | CHANNEL, generation }
    }

    /// The place in the table of sessions on trunks; `None` for a connection of the node.
    pub(crate) fn channel_index(self) -> Option<usize> {
        (self.slot & CHANNEL != 0).then_some((self.slot & !CHANNEL) as usize)
    }
}
