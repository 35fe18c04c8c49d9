//! Every bound of a shard, with what happens when it is reached, related at compile time.

use std::time::Duration;

use antiphon_protocol::limits::{
    BODY_BYTES_MAX, CLOCK_SKEW_MS_MAX, ENVELOPE_BYTES_MAX, FRAME_BYTES_MAX, INLINE_BYTES_MAX, MEMBERS_MAX,
    PAGE_BYTES_MAX, PAGES_IN_FLIGHT_MAX,
};

/// Threads of one broker; six bits of a log handle.
pub const SHARDS_MAX: u16 = 64;
/// Bits of a handle that number the logs of one shard; handles are never reused within a boot.
pub const HANDLE_LOG_BITS: u32 = 26;

/// From the accepted handshake to a verified token; then the connection is closed.
pub const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// Event bytes queued for one session. Full: the subscription whose event does not fit ends with BEHIND.
pub const OUTBOX_EVENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of ATTACH, BEHIND and DETACH that may wait behind full events. Full: its requests stay unread.
pub const OUTBOX_MARK_BYTES_MAX: usize = 16 << 10;
/// Answer bytes queued for one session. Full: its requests stay unread in the transport.
pub const OUTBOX_CONTROL_BYTES_MAX: usize = 64 << 10;
/// State bytes queued for one session. Full: the oldest is dropped, the newest wins.
pub const OUTBOX_STATE_BYTES_MAX: usize = 16 << 10;
/// Event bytes queued for one trunk, all its groups and channels together. Full: the groups whose event does not fit end
/// with BEHIND.
pub const TRUNK_EVENT_BYTES_MAX: usize = 4 << 20;
/// Sessions on one trunk. Full: a further channel is closed with `overloaded`.
pub const CHANNELS_PER_TRUNK_MAX: usize = 100_000;
/// Bytes of answers, state and pages that are moved from the sessions of a trunk into its streams at a time. Full: they
/// stay with their sessions, whose own bounds count.
pub const TRUNK_FILL_BYTES: usize = 256 << 10;
/// Bytes of requests that one session of a trunk may have unread. More: the edge is at fault, `limit_exceeded`.
pub const CHANNEL_UNREAD_BYTES_MAX: usize = (256 << 10) + FRAME_BYTES_MAX;
/// The same, from which on its signals are dropped.
pub const CHANNEL_SIGNAL_BYTES_MAX: usize = 64 << 10;
/// Bytes of rows that one page aims at. A single larger row still makes a page.
pub const PAGE_BYTES_TARGET: usize = 32 << 10;

/// Requests to one log that wait while it loads or makes a change durable. Full: `overloaded`.
pub const LOG_WAITING_MAX: usize = 1_024;
/// Rows of one log that are on their way to disk. Full: further sends wait.
pub const LOG_IN_FLIGHT_ROWS_MAX: usize = 8_192;
/// Newest rows of a log kept in memory.
pub const TAIL_ROWS_MAX: usize = 256;
/// Bytes of the newest rows of a log kept in memory.
pub const TAIL_BYTES_MAX: usize = 64 << 10;
/// Bytes of rows in one append, unless one row alone is longer: a store takes only so much at once, and what waited for
/// a log to load is appended together.
pub const APPEND_BYTES_MAX: usize = 64 << 10;
/// Rows between two checkpoints of a log; bounds what a takeover reads.
pub const CHECKPOINT_ROWS: u64 = 256;
/// Bytes of message records that a checkpoint carries because they may not be written yet. More: it is not written now.
pub const CHECKPOINT_RECORD_BYTES_MAX: usize = 256 << 10;
/// Touched messages of a log whose state is kept in memory. Full: the least recently used one is read again when needed.
pub const MESSAGE_STATES_MAX: usize = 256;
/// The same in bytes.
pub const MESSAGE_STATES_BYTES_MAX: usize = 256 << 10;
/// Rows that one read for a page of messages covers.
pub const MESSAGES_READ_ROWS: u32 = 256;
/// Such reads for one page. Over it the page is what was found, and says where to continue.
pub const MESSAGES_READS_MAX: u32 = 16;
/// How long the ids of sends stay in memory, by their own time; older ones are looked up in the store.
pub const DUPLICATES_IN_MEMORY_MS: u64 = 10 * 60 * 1_000;
/// Rows that one round of a log's retention removes; the rest waits for the next round.
pub const RETENTION_BATCH_ROWS_MAX: u32 = 256;
/// The same in bytes.
pub const RETENTION_BATCH_BYTES_MAX: usize = 64 << 10;
/// Between two rounds of a log that has more to remove.
pub const RETENTION_PAUSE: Duration = Duration::from_millis(100);
/// When a round that the store could not carry out is begun again.
pub const RETENTION_RETRY_AFTER: Duration = Duration::from_secs(2);
/// Between two looks at a log whose rows grow too old one by one: a sixty-fourth of its retention, at least this ...
pub const RETENTION_INTERVAL_MIN: Duration = Duration::from_secs(10);
/// ... and at most this. A row outlives the retention by no more than that while its log is in use.
pub const RETENTION_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Logs that are woken in one turn because a moment has come that they asked for; the rest waits for the next turn.
pub const WAKES_PER_TURN: usize = 64;
/// Cursors that are read when a log is taken up.
pub const MEMBERS_LOADED_CURSORS_MAX: u32 = 10_000;
/// Logs that a shard keeps in memory. Full: the least recently used idle one is let go.
pub const LOGS_RESIDENT_MAX: usize = 100_000;
/// Connections per log whose send order is remembered. Full: the oldest is forgotten; its next send is its base.
pub const SEND_ORDERS_PER_LOG_MAX: usize = 1_024;
/// Removed users that a conversation remembers by position. Full: the oldest is answered `not_found`.
pub const REMOVED_MEMBERS_MAX: usize = 1_024;

/// Requests of one shard that wait for an answer of another. Full: the asking sessions are not read.
pub const REQUESTS_PER_PEER_MAX: usize = 4_096;
/// Live copies queued for another shard. Full: one LAGGED for that log, repaired by its readers.
pub const DELIVERIES_PER_PEER_MAX: usize = 8_192;

/// Live deliveries per turn of the loop; the rest stays queued.
pub const DELIVERIES_PER_TURN: usize = 128;

/// Logs that are brought to rest in one turn before the process ends.
pub const LOGS_RESTED_PER_TURN: usize = 64;

/// Conversations that an inbox knows. Full: the user is a member of a further one all the same, and SYNC does not name it.
pub const MEMBERSHIPS_MAX: usize = 10_000;
/// Users whom one user may block. Full: `limit_exceeded`.
pub const BLOCKED_MAX: usize = 1_000;
/// Events of one log that one user may hide. Full: `limit_exceeded`.
pub const HIDDEN_PER_LOG_MAX: usize = 256;
/// Events of all logs that one user may hide. Full: `limit_exceeded`.
pub const HIDDEN_MAX: usize = 4_096;
/// Consequences of one log's events that are on their way to other logs at a time; the rest waits.
pub const EFFECTS_IN_FLIGHT_MAX: usize = 64;
/// Logs to which one log may owe consequences. Full: changes that would add to them are `overloaded`.
pub const EFFECTS_OWED_MAX: usize = MEMBERS_MAX;
/// Conversations in one answer to SYNC.
pub const SYNC_ENTRIES_MAX: usize = 100;
/// Owners of conversations that one SYNC asks at a time; the rest waits.
pub const SUMMARIES_IN_FLIGHT_MAX: usize = 16;
/// How often a conversation tells those who follow it that it has changed, at most.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(1);
/// Users whose presence one session watches. More: `limit_exceeded`.
pub const PRESENCE_WATCHED_MAX: usize = 64;
/// Sessions that watch one user. Full: a further one is told how the user is now, and no transitions.
pub const PRESENCE_WATCHERS_MAX: usize = 10_000;
/// Watchers who are told in one turn that presence is unknown, or known again; the rest follows in later turns.
pub const PRESENCES_RETOLD_PER_TURN: usize = 1_024;
/// Longest text of a presence, in bytes.
pub const PRESENCE_TEXT_BYTES_MAX: usize = 128;
/// From the end of a user's last session until others see it: a reconnect is no transition.
pub const PRESENCE_GRACE: Duration = Duration::from_secs(10);
/// When a consequence that a log could not take is sent again.
pub const RETRY_EFFECTS_AFTER: Duration = Duration::from_secs(2);

/// Typing and other signals without a TTL of their own live this long.
pub const SIGNAL_TTL: Duration = Duration::from_secs(6);
/// Over how long clients spread their reconnects.
pub const RECONNECT_JITTER_MS: u32 = 2_000;

const _: () = {
    assert!(INLINE_BYTES_MAX * 2 <= OUTBOX_EVENT_BYTES_MAX, "a hand-over fits an idle outbox twice");
    assert!(PAGE_BYTES_TARGET + BODY_BYTES_MAX + ENVELOPE_BYTES_MAX + 1_024 <= PAGE_BYTES_MAX);
    assert!(
        OUTBOX_EVENT_BYTES_MAX
            + OUTBOX_MARK_BYTES_MAX
            + OUTBOX_CONTROL_BYTES_MAX
            + OUTBOX_STATE_BYTES_MAX
            + PAGES_IN_FLIGHT_MAX.saturating_sub(1) * PAGE_BYTES_TARGET
            <= 256 << 10,
        "a stalled reader of ordinary rows stays within 256 KiB"
    );
    assert!(CHECKPOINT_ROWS as usize <= TAIL_ROWS_MAX, "what follows a checkpoint fits the tail");
    assert!(DUPLICATES_IN_MEMORY_MS > CLOCK_SKEW_MS_MAX);
    assert!(1 << (32 - HANDLE_LOG_BITS) == SHARDS_MAX as u32);
};
