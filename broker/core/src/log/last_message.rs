//! The newest message of a log as it stands: what lists of conversations show. A fold, so a checkpoint holds it.

use antiphon_protocol::{
    ContentType, Envelope, EventKind, Row, control::LastMessage, limits::REPLY_PREVIEW_BYTES_MAX as PREVIEW_BYTES_MAX,
};
use bytes::Bytes;

/// The newest message, if there was one.
#[derive(Debug, Default)]
pub(super) enum Newest {
    #[default]
    None,
    /// As it was sent. What is shown of it is cut out when it is asked for.
    Sent(Row),
    /// As a checkpoint held it, or as later events changed it.
    Shown(Box<LastMessage>),
}

impl Newest {
    /// As a checkpoint holds it.
    pub(super) fn restored(message: Option<LastMessage>) -> Self {
        message.map_or(Self::None, |message| Self::Shown(Box::new(message)))
    }

    /// Folds one durable row in: a message takes the place of the one before, an edit or a redaction changes it.
    pub(super) fn apply(&mut self, row: &Row) {
        match row.kind() {
            EventKind::MESSAGE => *self = Self::Sent(row.clone()),
            EventKind::EDIT | EventKind::REDACT if !row.is_unchanged() => self.change(row),
            _ => {}
        }
    }

    fn change(&mut self, row: &Row) {
        let envelope = row.envelope();
        let relation = Envelope::trusted(&envelope).ok().and_then(|envelope| envelope.relates_to());
        let Some(seq) = relation.map(|relation| relation.target.seq) else { return };
        let Some(mut message) = self.to_control().filter(|message| message.seq == seq) else { return };
        message.redacted |= row.kind() == EventKind::REDACT;
        message.content_type = if message.redacted { 0 } else { row.content_type() as u32 };
        message.body = if message.redacted { Bytes::new() } else { beginning(row) };
        *self = Self::Shown(Box::new(message));
    }

    /// Forgets the message if it lies below `floor`.
    pub(super) fn forget_below(&mut self, floor: u64) {
        let seq = match self {
            Self::None => return,
            Self::Sent(row) => row.seq(),
            Self::Shown(message) => message.seq,
        };
        if seq < floor {
            *self = Self::None;
        }
    }

    /// What is shown of it.
    pub(super) fn to_control(&self) -> Option<LastMessage> {
        match self {
            Self::None => None,
            Self::Sent(row) => Some(of(row)),
            Self::Shown(message) => Some(LastMessage::clone(message)),
        }
    }
}

fn of(row: &Row) -> LastMessage {
    LastMessage {
        seq: row.seq(),
        time_ms: row.time_ms(),
        sender: row.sender().to_owned(),
        content_type: row.content_type() as u32,
        body: beginning(row),
        redacted: row.is_redacted(),
        imported: row.is_imported(),
    }
}

/// The first bytes of a body, in a buffer of their own; text is cut between characters.
fn beginning(row: &Row) -> Bytes {
    let body = row.body();
    let mut end = body.len().min(PREVIEW_BYTES_MAX);
    // A byte 0b10xx_xxxx continues a character.
    while row.content_type() == ContentType::Text && end < body.len() && body[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    Bytes::copy_from_slice(&body[..end])
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{EventRef, NewEnvelope, NewRow, Rel, Relation};
    use uuid::Uuid;

    use super::*;

    fn row(seq: u64, kind: EventKind, envelope: &[u8], body: &str) -> Row {
        let new = NewRow {
            seq,
            msgno: 0,
            time_ms: 5,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id: Uuid::nil(),
            kind,
            content_type: ContentType::Text,
            sender: &"ann".parse().unwrap(),
            via: None,
            envelope,
            body: body.as_bytes(),
        };
        new.to_row()
    }

    fn relating(rel: Rel, seq: u64) -> Vec<u8> {
        let target = EventRef { event_id: Uuid::from_u128(seq.into()), seq };
        let relates_to = Some(Relation { rel, target, key: None, remove: false });
        NewEnvelope { relates_to, ..Default::default() }.to_bytes()
    }

    fn shown(newest: &Newest) -> LastMessage {
        newest.to_control().unwrap()
    }

    #[test]
    fn edits_and_redactions_of_the_newest_message_change_it_and_those_of_others_do_not() {
        let mut newest = Newest::default();
        newest.apply(&row(1, EventKind::MESSAGE, b"", "one"));
        newest.apply(&row(2, EventKind::MESSAGE, b"", "two"));
        newest.apply(&row(3, EventKind::EDIT, &relating(Rel::EDIT, 1), "ONE"));
        assert_eq!(shown(&newest).body, "two");
        newest.apply(&row(4, EventKind::EDIT, &relating(Rel::EDIT, 2), "TWO"));
        assert_eq!((shown(&newest).seq, &shown(&newest).body[..]), (2, &b"TWO"[..]));
        newest.apply(&row(5, EventKind::REDACT, &relating(Rel::REDACT, 2), ""));
        assert!(shown(&newest).redacted && shown(&newest).body.is_empty());
        let restored = Newest::restored(newest.to_control());
        assert_eq!(shown(&restored), shown(&newest));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut newest = Newest::default();
        let text = format!("x{}", "\u{e9}".repeat(PREVIEW_BYTES_MAX));
        newest.apply(&row(1, EventKind::MESSAGE, b"", &text));
        let body = shown(&newest).body;
        assert_eq!(body.len(), PREVIEW_BYTES_MAX - 1);
        assert!(std::str::from_utf8(&body).is_ok());
    }
}
