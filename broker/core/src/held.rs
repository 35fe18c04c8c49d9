//! What a shard holds now on behalf of connections: read by tests that prove that it all goes when they go.

/// Sizes at this moment. Unlike [`crate::Counters`] they are counted when they are asked for, so they cost something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Connections.
    pub connections: usize,
    /// Bytes in their outboxes.
    pub outbox_bytes: usize,
    /// Bytes that they sent and nobody has looked at.
    pub unread_bytes: usize,
    /// Places of sessions in the fan-out of logs.
    pub subscriptions: usize,
    /// Requests without an answer: of other shards, of the store, or put together from several.
    pub requests: usize,
    /// Tokens that are being verified.
    pub verifications: usize,
    /// Moments at which a session or a connection has something due.
    pub timers: usize,
    /// Messages for shards, and live copies for sessions of this one.
    pub mail: usize,
    /// Users with connected devices, and users who are shown or watched.
    pub users: usize,
    /// Sessions that watch them.
    pub watchers: usize,
    /// Logs whose changes somebody follows.
    pub followed: usize,
    /// Logs in memory. They stay when nobody uses them any more, up to [`crate::limits::LOGS_RESIDENT_MAX`].
    pub logs: usize,
}
