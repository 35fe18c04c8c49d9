//! Every bound of the wire, in one place, related at compile time.

/// Longest tenant, user, device or conversation id, in bytes.
pub const ID_BYTES_MAX: usize = 64;
/// Longest log name: kind, colon, id.
pub const LOG_NAME_BYTES_MAX: usize = 2 + ID_BYTES_MAX;
/// Virtual shards a log hashes to; fixed for ever, so that any number of threads or brokers can divide them.
pub const VIRTUAL_SHARDS: u16 = 4_096;
/// Index partitions of a data directory.
pub const PARTITIONS: u16 = 64;
/// Virtual shards in one partition.
pub const VIRTUAL_SHARDS_PER_PARTITION: u16 = VIRTUAL_SHARDS / PARTITIONS;

/// Longest frame, header included, in bytes.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes a peer may send before it is authenticated.
pub const PRE_AUTH_BYTES_MAX: usize = 16 << 10;
/// Longest access token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// Longest message body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Longest envelope (reply, mentions, attachments, properties), in bytes.
pub const ENVELOPE_BYTES_MAX: usize = 16 << 10;
/// Records in one batch send.
pub const BATCH_RECORDS_MAX: usize = 100;
/// Most bytes of rows in one page.
pub const PAGE_BYTES_MAX: usize = 128 << 10;
/// Most rows in one page.
pub const PAGE_ROWS_MAX: u32 = 1_000;
/// Most messages in one page of messages.
pub const PAGE_MESSAGES_MAX: u32 = 100;
/// Most rows that a hand-over inlines; a larger deficit is pulled.
pub const INLINE_ROWS_MAX: u64 = 64;
/// Most bytes of rows that a hand-over inlines.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// Live subscriptions of one session.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Requests of one session that may wait for their answer; further ones stay unread in the transport.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// Page requests of one session that may wait for their answer; one more is refused.
pub const PAGES_IN_FLIGHT_MAX: usize = 4;
/// How far ahead of the broker's clock the time inside a `client_message_id` may lie, in milliseconds.
pub const CLOCK_SKEW_MS_MAX: u64 = 60_000;
/// Members that one request may name.
pub const MEMBERS_PER_REQUEST_MAX: usize = 256;
/// Members of one conversation.
pub const MEMBERS_MAX: usize = 10_000;
/// Conversations up to this size carry their members' cursors at a hand-over.
pub const CURSORS_AT_HANDOVER_MEMBERS_MAX: usize = 1_000;
/// Conversations up to this size push receipts.
pub const RECEIPTS_MEMBERS_MAX: usize = 100;
/// Shortest retention of a conversation that does not keep its events for ever, in seconds.
pub const RETENTION_MIN_S: u32 = 60;
/// Bytes of a signal's data.
pub const SIGNAL_BYTES_MAX: usize = 1_024;

const _: () = {
    assert!(BODY_BYTES_MAX + ENVELOPE_BYTES_MAX + 1_024 <= PAGE_BYTES_MAX, "any one row fits a page");
    assert!(PAGE_BYTES_MAX + 1_024 <= FRAME_BYTES_MAX, "any page fits a frame");
    assert!(TOKEN_BYTES_MAX + 1_024 <= PRE_AUTH_BYTES_MAX, "a HELLO with the longest token fits before authentication");
    assert!(INLINE_BYTES_MAX <= PAGE_BYTES_MAX);
    assert!(VIRTUAL_SHARDS == PARTITIONS * VIRTUAL_SHARDS_PER_PARTITION);
    assert!(
        RETENTION_MIN_S as u64 * 1_000 >= CLOCK_SKEW_MS_MAX,
        "the id of a row that is removed lies in the past, so no send that is made now is expired"
    );
};

/// Largest `seq`, `msgno`, time or size: what a number in JSON holds exactly.
pub const COUNTER_MAX: u64 = (1 << 53) - 1;
/// Users whom one message may mention.
pub const MENTIONS_MAX: usize = 64;
/// Attachments of one message.
pub const ATTACHMENTS_MAX: usize = 16;
/// Longest URL of an attachment or its thumbnail, in bytes.
pub const ATTACHMENT_URL_BYTES_MAX: usize = 2_048;
/// Longest file name of an attachment, in bytes.
pub const ATTACHMENT_NAME_BYTES_MAX: usize = 255;
/// Longest media type of an attachment, in bytes.
pub const ATTACHMENT_MIME_BYTES_MAX: usize = 255;
/// Properties of one event.
pub const PROPERTIES_MAX: usize = 32;
/// Longest key of a property, in bytes.
pub const PROPERTY_KEY_BYTES_MAX: usize = 64;
/// Longest value of a property, in bytes.
pub const PROPERTY_VALUE_BYTES_MAX: usize = 1_024;
/// Longest key of a reaction, in bytes.
pub const REACTION_KEY_BYTES_MAX: usize = 64;
/// Different reactions to one message.
pub const REACTION_KEYS_MAX: usize = 64;
/// Reactions to one message, of all users.
pub const REACTIONS_MAX: u32 = 5_000;
/// Users whom a message's state names for each reaction.
pub const REACTION_USERS_SHOWN_MAX: usize = 8;
/// Edits of one message.
pub const EDITS_MAX: usize = 500;
/// Bytes of a message that the preview in its replies shows.
pub const REPLY_PREVIEW_BYTES_MAX: usize = 128;

const _: () = {
    // A text takes its bytes, a length, an end mark, padding and an offset: at most 12 more.
    assert!(MENTIONS_MAX * (ID_BYTES_MAX + 12) <= ENVELOPE_BYTES_MAX, "as many mentions as allowed fit an envelope");
    assert!(ENVELOPE_BYTES_MAX <= u16::MAX as usize, "an envelope's length fits its field in the row");
    let content = BODY_BYTES_MAX + ENVELOPE_BYTES_MAX + 1_024;
    let reactions = REACTION_KEYS_MAX * (REACTION_KEY_BYTES_MAX + REACTION_USERS_SHOWN_MAX * (ID_BYTES_MAX + 4) + 16);
    assert!(
        2 * content + reactions + 9 * EDITS_MAX + 1_024 <= FRAME_BYTES_MAX / 2,
        "any one message fits a page twice"
    );
};
