//! What a shard has done since its boot; read by the shell for its metrics.

use crate::refusals::Refusals;

/// Plain numbers: totals since the boot unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections open now.
    pub connections: u64,
    /// Authenticated sessions now.
    pub sessions: u64,
    /// Logs in memory now.
    pub logs_resident: u64,
    /// Handshakes that ended in a session.
    pub sessions_established: u64,
    /// Handshakes that did not.
    pub sessions_refused: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Rows made durable.
    pub appends: u64,
    /// Sends answered from the duplicate index.
    pub duplicates: u64,
    /// Duplicate lookups that went to the store.
    pub duplicate_lookups: u64,
    /// Events put into outboxes.
    pub deliveries: u64,
    /// Of those, events that came from another shard.
    pub deliveries_crossed: u64,
    /// Subscriptions ended with BEHIND.
    pub behind: u64,
    /// State frames dropped for newer ones.
    pub state_dropped: u64,
    /// Pages answered.
    pub pages: u64,
    /// Requests refused, and connections closed for an error.
    pub refusals: Refusals,
}
