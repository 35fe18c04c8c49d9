//! The row: one event, the same bytes on the wire, in the store and for every reader.
//!
//! ```text
//!  0  seq u64 | 8 msgno u64 | 16 time_ms u64 | 24 event_id [16] | 40 client_message_id [16] | 56 content_hash u64
//! 64  kind u8 | 65 flags u8 | 66 content_type u8 | 67 sender_len u8 | 68 via_len u8 | 69 zero u8
//! 70  envelope_len u16 | 72 body_len u32 | 76 sender, via, envelope, body
//! ```
//!
//! All numbers are little-endian. Invariant: a [`Row`] has been checked once, so its accessors cannot fail.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::{
    ids::{UserId, check_id},
    limits::{BODY_BYTES_MAX, ENVELOPE_BYTES_MAX},
};

/// Bytes before the variable part of a row.
pub const ROW_HEADER_BYTES: usize = 76;

/// What happened. Numbers are never reused; readers carry kinds that they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventKind(pub u8);

impl EventKind {
    /// A message; the only kind that counts towards `msgno`.
    pub const MESSAGE: Self = Self(1);
    /// A new body for an earlier message.
    pub const EDIT: Self = Self(2);
    /// Removes an earlier message for everyone.
    pub const REDACT: Self = Self(3);
    /// Adds or removes a reaction to an earlier message.
    pub const REACTION: Self = Self(4);
    /// Pins or unpins an earlier message.
    pub const PIN: Self = Self(5);
    /// A change of membership; made by the broker.
    pub const MEMBER: Self = Self(16);
    /// The conversation was created, changed or deleted; made by the broker.
    pub const CONVERSATION: Self = Self(17);
    /// In an inbox: its user became a member of a conversation; made by the broker.
    pub const CONVERSATION_ADDED: Self = Self(32);
    /// In an inbox: its user is no member of a conversation any more; made by the broker.
    pub const CONVERSATION_REMOVED: Self = Self(33);
    /// In an inbox: its user pinned or muted a conversation; made by the broker.
    pub const PREFERENCES: Self = Self(34);
    /// In an inbox: its user blocked or unblocked another; made by the broker.
    pub const BLOCK: Self = Self(35);
    /// In an inbox: its user hid an event from themselves; made by the broker.
    pub const HIDE: Self = Self(36);
    /// In an inbox: its user's earlier tokens became void; made by the broker.
    pub const REVOKED: Self = Self(37);

    /// Every kind that this version knows.
    pub const ALL: [Self; 13] = [
        Self::MESSAGE,
        Self::EDIT,
        Self::REDACT,
        Self::REACTION,
        Self::PIN,
        Self::MEMBER,
        Self::CONVERSATION,
        Self::CONVERSATION_ADDED,
        Self::CONVERSATION_REMOVED,
        Self::PREFERENCES,
        Self::BLOCK,
        Self::HIDE,
        Self::REVOKED,
    ];

    /// Reads the name of a kind.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether clients may send this kind; the others are made by the broker.
    pub fn is_client_sent(self) -> bool {
        (Self::MESSAGE..=Self::PIN).contains(&self)
    }

    /// The name used in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::MESSAGE => "message",
            Self::EDIT => "message.edit",
            Self::REDACT => "message.redact",
            Self::REACTION => "reaction",
            Self::PIN => "pin",
            Self::MEMBER => "member",
            Self::CONVERSATION => "conversation",
            Self::CONVERSATION_ADDED => "conversation.added",
            Self::CONVERSATION_REMOVED => "conversation.removed",
            Self::PREFERENCES => "preferences",
            Self::BLOCK => "block",
            Self::HIDE => "hide",
            Self::REVOKED => "revoked",
            _ => "unknown",
        }
    }
}

/// How to read a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ContentType {
    /// UTF-8 text, `text/plain`.
    Text = 0,
    /// `application/json`, the author's exact bytes.
    Json = 1,
    /// `application/octet-stream`; opaque, as with end-to-end encryption.
    Octets = 2,
    /// A Protobuf message of the broker; see `proto/antiphon.proto`.
    Control = 3,
}

impl ContentType {
    /// Reads the number of a content type.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Text, Self::Json, Self::Octets, Self::Control].into_iter().find(|t| *t as u8 == number)
    }
}

/// Set on a row whose body was removed by a redaction.
pub const FLAG_REDACTED: u8 = 1;
/// Set on an event that changed nothing, such as a reaction that was there already. Only the log's owner can tell.
pub const FLAG_UNCHANGED: u8 = 2;
/// Set on an event that was brought in from another system; its `time_ms` is the time that it had there.
pub const FLAG_IMPORTED: u8 = 4;

/// Why bytes are not a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidRow {
    /// Fewer bytes than the row's own lengths say.
    #[error("the row is cut off: {needed} bytes needed, {got} found")]
    Truncated {
        /// Bytes that the row says it has.
        needed: usize,
        /// Bytes that there are.
        got: usize,
    },
    /// A field outside its range.
    #[error("the row's {0} is invalid")]
    Field(&'static str),
}

/// The fields of a row that is being made.
#[derive(Debug, Clone)]
pub struct NewRow<'a> {
    /// Dense position in the log, from 1.
    pub seq: u64,
    /// Number of countable messages up to and including this row.
    pub msgno: u64,
    /// Wall clock of the log's owner, or of the system that the event was imported from, Unix milliseconds; for display,
    /// never for order.
    pub time_ms: u64,
    /// UUIDv7 made by the broker.
    pub event_id: Uuid,
    /// The sender's own id of this send; nil for events made by the broker.
    pub client_message_id: Uuid,
    /// What happened.
    pub kind: EventKind,
    /// How to read `body`.
    pub content_type: ContentType,
    /// Who did it.
    pub sender: &'a UserId,
    /// The service that acted for `sender`, if any.
    pub via: Option<&'a UserId>,
    /// FlatBuffers `Envelope`, verified, or empty.
    pub envelope: &'a [u8],
    /// At most [`BODY_BYTES_MAX`] bytes.
    pub body: &'a [u8],
}

impl NewRow<'_> {
    /// Bytes that the row will take.
    pub fn encoded_len(&self) -> usize {
        let via = self.via.map_or(0, |via| via.as_str().len());
        ROW_HEADER_BYTES + self.sender.as_str().len() + via + self.envelope.len() + self.body.len()
    }

    /// Appends the row to `out`. Lengths must be within the limits of this crate.
    pub fn encode(&self, out: &mut BytesMut) {
        self.encode_as(0, content_hash(self.kind, self.content_type, self.envelope, self.body), out);
    }

    fn encode_as(&self, flags: u8, content_hash: u64, out: &mut BytesMut) {
        let via = self.via.map_or("", |via| via.as_str());
        debug_assert!(self.envelope.len() <= ENVELOPE_BYTES_MAX && self.body.len() <= BODY_BYTES_MAX);
        out.reserve(self.encoded_len());
        out.put_u64_le(self.seq);
        out.put_u64_le(self.msgno);
        out.put_u64_le(self.time_ms);
        out.put_slice(self.event_id.as_bytes());
        out.put_slice(self.client_message_id.as_bytes());
        out.put_u64_le(content_hash);
        out.put_u8(self.kind.0);
        out.put_u8(flags);
        out.put_u8(self.content_type as u8);
        out.put_u8(self.sender.as_str().len() as u8);
        out.put_u8(via.len() as u8);
        out.put_u8(0);
        out.put_u16_le(self.envelope.len() as u16);
        out.put_u32_le(self.body.len() as u32);
        out.put_slice(self.sender.as_str().as_bytes());
        out.put_slice(via.as_bytes());
        out.put_slice(self.envelope);
        out.put_slice(self.body);
    }

    /// The row in a buffer of its own.
    pub fn to_row(&self) -> Row {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode(&mut out);
        Row(out.freeze())
    }

    /// The row with flags and hash that it had when it was made: it comes from another form of itself.
    pub fn to_row_as(&self, flags: u8, content_hash: u64) -> Row {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_as(flags, content_hash, &mut out);
        Row(out.freeze())
    }
}

/// Hash by which a repeated send is told from a reused id: the first eight bytes of SHA-256 over kind, content type,
/// envelope length, envelope and body.
pub fn content_hash(kind: EventKind, content_type: ContentType, envelope: &[u8], body: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update([kind.0, content_type as u8]);
    hash.update((envelope.len() as u32).to_le_bytes());
    hash.update(envelope);
    hash.update(body);
    u64::from_le_bytes(array(&hash.finalize(), 0))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// One event as stored and delivered. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Row(Bytes);

impl Row {
    /// Checks that `bytes` are exactly one row.
    pub fn new(bytes: Bytes) -> Result<Self, InvalidRow> {
        let needed = Self::check(&bytes)?;
        if needed != bytes.len() {
            return Err(InvalidRow::Field("length"));
        }
        Ok(Self(bytes))
    }

    /// The row that `NewRow::encode` has just written.
    pub(crate) fn trusted(bytes: Bytes) -> Self {
        debug_assert!(Self::new(bytes.clone()).is_ok());
        Self(bytes)
    }

    /// Takes the first row off `bytes`, which may hold several.
    pub fn split_first(bytes: &mut Bytes) -> Result<Self, InvalidRow> {
        let needed = Self::check(bytes)?;
        Ok(Self(bytes.split_to(needed)))
    }

    /// Length of the row that `bytes` begin with, once every field is in its range.
    fn check(bytes: &[u8]) -> Result<usize, InvalidRow> {
        let truncated = |needed| InvalidRow::Truncated { needed, got: bytes.len() };
        if bytes.len() < ROW_HEADER_BYTES {
            return Err(truncated(ROW_HEADER_BYTES));
        }
        let envelope_len = u16::from_le_bytes(array(bytes, 70)) as usize;
        let body_len = u32::from_le_bytes(array(bytes, 72)) as usize;
        if envelope_len > ENVELOPE_BYTES_MAX {
            return Err(InvalidRow::Field("envelope_len"));
        }
        if body_len > BODY_BYTES_MAX {
            return Err(InvalidRow::Field("body_len"));
        }
        let names_len = usize::from(bytes[67]) + usize::from(bytes[68]);
        let needed = ROW_HEADER_BYTES + names_len + envelope_len + body_len;
        if bytes.len() < needed {
            return Err(truncated(needed));
        }
        if ContentType::from_number(bytes[66]).is_none() {
            return Err(InvalidRow::Field("content_type"));
        }
        Self::check_names(bytes, bytes[67], bytes[68])?;
        Ok(needed)
    }

    fn check_names(bytes: &[u8], sender_len: u8, via_len: u8) -> Result<(), InvalidRow> {
        let sender_end = ROW_HEADER_BYTES + usize::from(sender_len);
        let via_end = sender_end + usize::from(via_len);
        let is_id = |id: &[u8]| std::str::from_utf8(id).is_ok_and(|id| check_id(id).is_ok());
        if !is_id(&bytes[ROW_HEADER_BYTES..sender_end]) {
            return Err(InvalidRow::Field("sender"));
        }
        if via_len > 0 && !is_id(&bytes[sender_end..via_end]) {
            return Err(InvalidRow::Field("via"));
        }
        Ok(())
    }

    /// The row's exact bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Dense position in the log, from 1.
    pub fn seq(&self) -> u64 {
        u64::from_le_bytes(array(&self.0, 0))
    }

    /// Number of countable messages up to and including this row.
    pub fn msgno(&self) -> u64 {
        u64::from_le_bytes(array(&self.0, 8))
    }

    /// Wall clock of the log's owner, Unix milliseconds.
    pub fn time_ms(&self) -> u64 {
        u64::from_le_bytes(array(&self.0, 16))
    }

    /// UUIDv7 made by the broker.
    pub fn event_id(&self) -> Uuid {
        Uuid::from_bytes(array(&self.0, 24))
    }

    /// The sender's own id of this send; nil for events made by the broker.
    pub fn client_message_id(&self) -> Uuid {
        Uuid::from_bytes(array(&self.0, 40))
    }

    /// See [`content_hash`]; a redaction keeps it.
    pub fn content_hash(&self) -> u64 {
        u64::from_le_bytes(array(&self.0, 56))
    }

    /// What happened.
    pub fn kind(&self) -> EventKind {
        EventKind(self.0[64])
    }

    /// Whether the event was brought in from another system.
    pub fn is_imported(&self) -> bool {
        self.0[65] & FLAG_IMPORTED != 0
    }

    /// Whether a redaction removed the body.
    pub fn is_redacted(&self) -> bool {
        self.0[65] & FLAG_REDACTED != 0
    }

    /// Whether the event changed nothing, so that a fold passes it over.
    pub fn is_unchanged(&self) -> bool {
        self.0[65] & FLAG_UNCHANGED != 0
    }

    /// How to read the body.
    pub fn content_type(&self) -> ContentType {
        ContentType::from_number(self.0[66]).unwrap_or(ContentType::Octets)
    }

    fn offsets(&self) -> [usize; 4] {
        let sender = ROW_HEADER_BYTES + usize::from(self.0[67]);
        let via = sender + usize::from(self.0[68]);
        let envelope = via + usize::from(u16::from_le_bytes(array(&self.0, 70)));
        [sender, via, envelope, envelope + u32::from_le_bytes(array(&self.0, 72)) as usize]
    }

    fn text(&self, from: usize, to: usize) -> &str {
        // Invariant: names were checked to be ids, which are ASCII.
        std::str::from_utf8(&self.0[from..to]).unwrap_or_default()
    }

    /// Who did it.
    pub fn sender(&self) -> &str {
        self.text(ROW_HEADER_BYTES, self.offsets()[0])
    }

    /// The service that acted for the sender, if any.
    pub fn via(&self) -> Option<&str> {
        let [sender, via, ..] = self.offsets();
        (via > sender).then(|| self.text(sender, via))
    }

    /// FlatBuffers `Envelope`, or empty.
    pub fn envelope(&self) -> Bytes {
        let [_, via, envelope, _] = self.offsets();
        self.0.slice(via..envelope)
    }

    /// The body; empty once redacted.
    pub fn body(&self) -> Bytes {
        let [_, _, envelope, body] = self.offsets();
        self.0.slice(envelope..body)
    }

    /// The same event, marked as one that changed nothing.
    pub fn unchanged(&self) -> Self {
        let mut out = BytesMut::from(&self.0[..]);
        out[65] |= FLAG_UNCHANGED;
        Self(out.freeze())
    }

    /// The same event, marked as one that was brought in.
    pub fn imported(&self) -> Self {
        let mut out = BytesMut::from(&self.0[..]);
        out[65] |= FLAG_IMPORTED;
        Self(out.freeze())
    }

    /// The same event without envelope and body, as it stands after a redaction. Position, ids, sender and hash stay.
    pub fn redacted(&self) -> Self {
        let names_end = self.offsets()[1];
        let mut out = BytesMut::from(&self.0[..names_end]);
        out[65] |= FLAG_REDACTED;
        out[70..76].fill(0);
        Self(out.freeze())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({} {} by {:?}, {} bytes)", self.seq(), self.kind().name(), self.sender(), self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_row<'a>(sender: &'a UserId, via: Option<&'a UserId>) -> NewRow<'a> {
        NewRow {
            seq: 7,
            msgno: 5,
            time_ms: 1_700_000_000_000,
            event_id: Uuid::from_u128(1),
            client_message_id: Uuid::from_u128(2),
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender,
            via,
            envelope: b"env",
            body: b"hello",
        }
    }

    #[test]
    fn a_row_gives_back_what_it_was_made_of() {
        let (ann, bot) = (UserId::new("ann").unwrap(), UserId::new("bot").unwrap());
        let row = new_row(&ann, Some(&bot)).to_row();
        let row = Row::new(row.bytes().clone()).unwrap();
        assert_eq!((row.seq(), row.msgno(), row.time_ms()), (7, 5, 1_700_000_000_000));
        assert_eq!((row.event_id(), row.client_message_id()), (Uuid::from_u128(1), Uuid::from_u128(2)));
        assert_eq!((row.kind(), row.content_type()), (EventKind::MESSAGE, ContentType::Text));
        assert_eq!((row.sender(), row.via()), ("ann", Some("bot")));
        assert_eq!((&row.envelope()[..], &row.body()[..]), (&b"env"[..], &b"hello"[..]));
    }

    #[test]
    fn every_truncation_is_refused() {
        let ann = UserId::new("ann").unwrap();
        let bytes = new_row(&ann, None).to_row().bytes().clone();
        for len in 0..bytes.len() {
            assert!(matches!(Row::new(bytes.slice(..len)), Err(InvalidRow::Truncated { .. })), "{len} bytes");
        }
    }

    #[test]
    fn rows_are_split_one_by_one() {
        let ann = UserId::new("ann").unwrap();
        let row = new_row(&ann, None).to_row();
        let mut two = Bytes::from([&row.bytes()[..], &row.bytes()[..]].concat());
        assert_eq!(Row::split_first(&mut two), Ok(row.clone()));
        assert_eq!(Row::split_first(&mut two), Ok(row));
        assert!(two.is_empty());
    }

    #[test]
    fn a_redaction_keeps_identity_and_drops_content() {
        let ann = UserId::new("ann").unwrap();
        let row = new_row(&ann, None).to_row();
        let redacted = Row::new(row.redacted().bytes().clone()).unwrap();
        assert!(redacted.is_redacted() && redacted.body().is_empty() && redacted.envelope().is_empty());
        assert_eq!((redacted.seq(), redacted.event_id()), (row.seq(), row.event_id()));
        assert_eq!((redacted.sender(), redacted.content_hash()), ("ann", row.content_hash()));
    }
}
