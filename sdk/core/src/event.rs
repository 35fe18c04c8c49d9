//! One event of a log, as applications see it.

use std::fmt;

use antiphon_protocol::{ContentType, EventKind, EventRef, Position, Row};
use bytes::Bytes;
use uuid::Uuid;

use crate::output::Cursor;

/// An immutable record of a log. Cloning shares its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    epoch: u32,
    row: Row,
}

impl Event {
    pub(crate) fn new(epoch: u32, row: Row) -> Self {
        Self { epoch, row }
    }

    pub(crate) fn row(&self) -> &Row {
        &self.row
    }

    /// Its place in the log.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, seq: self.row.seq() }
    }

    /// Dense number within the log's epoch.
    pub fn seq(&self) -> u64 {
        self.row.seq()
    }

    /// Countable messages up to and including this event; unread = head's number - read one's number.
    pub fn msgno(&self) -> u64 {
        self.row.msgno()
    }

    /// The broker's clock when it was stored, or when it happened if it was imported, Unix milliseconds. For display: order
    /// is by position.
    pub fn time_ms(&self) -> u64 {
        self.row.time_ms()
    }

    /// Identity of the event, made by the broker.
    pub fn event_id(&self) -> Uuid {
        self.row.event_id()
    }

    /// The sender's own id of the send: how an application merges the echo of what it sent itself. None for events
    /// made by the broker.
    pub fn client_message_id(&self) -> Option<Uuid> {
        Some(self.row.client_message_id()).filter(|id| !id.is_nil())
    }

    /// What happened.
    pub fn kind(&self) -> EventKind {
        self.row.kind()
    }

    /// How to read the body.
    pub fn content_type(&self) -> ContentType {
        self.row.content_type()
    }

    /// Id of the user who did it.
    pub fn sender(&self) -> &str {
        self.row.sender()
    }

    /// Id of the service that acted for the sender, if any.
    pub fn via(&self) -> Option<&str> {
        self.row.via()
    }

    /// The cursor that its sender has with it. Whoever sends a message has read up to it, and no
    /// [`Item::Cursor`](crate::Item::Cursor) says so; None for events that say nothing about what their sender has read.
    pub fn cursor(&self) -> Option<Cursor> {
        let seq = self.seq();
        moves_cursor(&self.row).then(|| Cursor {
            user: self.sender().to_owned(),
            delivered: seq,
            read: seq,
            read_msgno: self.msgno(),
        })
    }

    /// What names it to the requests and messages that are about it.
    pub fn reference(&self) -> EventRef {
        EventRef { event_id: self.event_id(), seq: self.seq() }
    }

    /// Whether it was brought in from another system, where it happened at [`Self::time_ms`]: nobody is notified of it.
    pub fn is_imported(&self) -> bool {
        self.row.is_imported()
    }

    /// Whether the body was removed for everyone.
    pub fn is_redacted(&self) -> bool {
        self.row.is_redacted()
    }

    /// Attributes beside the body, as the sender encoded them; mostly empty.
    pub fn envelope(&self) -> Bytes {
        self.row.envelope()
    }

    /// The content.
    pub fn body(&self) -> Bytes {
        self.row.body()
    }

    /// The body as text, if it is text.
    pub fn text(&self) -> Option<String> {
        (self.content_type() == ContentType::Text).then(|| String::from_utf8(self.body().into()).ok()).flatten()
    }
}

/// Whether the sender of a row has read up to it: a service says nothing about the user for whom it sends.
pub(crate) fn moves_cursor(row: &Row) -> bool {
    row.kind() == EventKind::MESSAGE && row.via().is_none()
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("position", &format_args!("{}", self.position()))
            .field("kind", &self.kind().name())
            .field("sender", &self.sender())
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}
