//! Rows of a conversation, as its owner would make them.

use antiphon_protocol::{ContentType, EventKind, NewRow, UserId};
use uuid::Uuid;

/// The body of a usual message.
pub(crate) const BODY: &[u8] = &[b'x'; 200];

/// The author of every row.
pub(crate) fn sender() -> UserId {
    // Invariant: a constant that is a valid name.
    #[expect(clippy::unwrap_used, reason = "a valid constant")]
    UserId::new("user17").unwrap()
}

/// A message of 200 bytes at position `seq`.
pub(crate) fn row(seq: u64, sender: &UserId) -> NewRow<'_> {
    NewRow {
        seq,
        msgno: seq,
        time_ms: 1_800_000_000_000 + seq,
        event_id: Uuid::from_u128(u128::from(seq)),
        client_message_id: Uuid::from_u128(u128::from(seq) << 64),
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        sender,
        via: None,
        envelope: &[],
        body: BODY,
    }
}
