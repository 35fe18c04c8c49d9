//! Which connection of a shard.

/// A connection of one shard: a slot that the node reuses, and how often it has been reused, so that a late message
/// for an old connection never reaches a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Index of the slot; small and dense.
    pub slot: u32,
    /// Reuse of the slot, from 0.
    pub generation: u32,
}
