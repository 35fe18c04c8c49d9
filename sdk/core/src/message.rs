//! Messages as they stand, as applications see them: a page of them, kept current by the events behind it.

use std::fmt;

use antiphon_protocol::{
    ContentType, EventRef, Position, Row,
    control::{self, MessageState, MessageView, MessagesPage},
    fold,
};
use bytes::Bytes;
use uuid::Uuid;

use crate::event::Event;

/// A page of messages.
#[derive(Debug, Clone, PartialEq)]
pub struct Messages {
    /// In the direction of the read. May be empty although there are more.
    pub messages: Vec<Message>,
    /// Where to continue; None when the range is exhausted.
    pub next: Option<u64>,
    /// Last position of the log when the page was read; later events apply on top.
    pub head: Position,
    /// First position that still exists.
    pub floor: u64,
}

/// A message and what later events made of it.
#[derive(Clone, PartialEq)]
pub struct Message {
    event: Event,
    view: MessageView,
}

/// The latest edit of a message. Its mentions, attachments and properties take the place of the message's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Position of the edit.
    pub seq: u64,
    /// When it was stored, by the broker's clock, Unix milliseconds.
    pub time_ms: u64,
    /// How to read the body.
    pub content_type: ContentType,
    /// Attributes beside the body, as the sender encoded them; mostly empty.
    pub envelope: Bytes,
    /// The content.
    pub body: Bytes,
}

/// Who did something to a message, when, and with which event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark<'a> {
    /// Position of the event.
    pub seq: u64,
    /// When it was stored, by the broker's clock, Unix milliseconds.
    pub time_ms: u64,
    /// Who did it.
    pub user: &'a str,
}

/// All reactions to a message with one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reactions<'a> {
    /// Mostly an emoji.
    pub key: &'a str,
    /// How many users.
    pub count: u32,
    /// The reader is among them.
    pub mine: bool,
    /// Some of them, at most 8.
    pub users: &'a [String],
}

/// The beginning of the message that another one answers, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyPreview<'a> {
    /// Which message.
    pub message: EventRef,
    /// Who sent it.
    pub sender: &'a str,
    /// How to read the body.
    pub content_type: ContentType,
    /// The first 128 bytes of its content at most; text is cut between characters.
    pub body: Bytes,
    /// There is more of it.
    pub cut: bool,
    /// Its content was removed for everyone.
    pub redacted: bool,
}

impl Messages {
    /// None if one of the messages cannot be read, which is the broker's fault.
    pub(crate) fn from_wire(page: MessagesPage) -> Option<Self> {
        let messages = page.messages.into_iter().map(|view| Message::new(page.epoch, view)).collect::<Option<_>>()?;
        let head = Position { epoch: page.epoch, seq: page.head };
        Some(Self { messages, next: (page.next > 0).then_some(page.next), head, floor: page.floor })
    }

    /// Applies an event of the log to the messages that are here. Events up to [`head`](Self::head) are in them already
    /// and change nothing. `reader` is the session's user.
    pub fn apply(&mut self, event: &Event, reader: &str) {
        self.messages.iter_mut().for_each(|message| message.apply(event, reader));
        self.head.seq = self.head.seq.max(event.seq());
    }
}

impl Message {
    fn new(epoch: u32, view: MessageView) -> Option<Self> {
        Some(Self { event: Event::new(epoch, Row::new(view.row.clone()).ok()?), view })
    }

    /// A message that has just come, of which nothing more is known.
    pub fn of(event: Event) -> Self {
        Self { view: MessageView { row: event.row().bytes().clone(), ..MessageView::default() }, event }
    }

    /// Applies an event of the message's log, whatever it is about. `reader` is the session's user.
    pub fn apply(&mut self, event: &Event, reader: &str) {
        fold::view(&mut self.view, event.row(), reader);
        if self.view.row != *self.event.row().bytes()
            && let Ok(row) = Row::new(self.view.row.clone())
        {
            self.event = Event::new(self.event.position().epoch, row);
        }
    }

    /// The event of the message itself, with its original content.
    pub fn event(&self) -> &Event {
        &self.event
    }

    fn state(&self) -> Option<&MessageState> {
        self.view.state.as_ref()
    }

    /// The latest edit.
    pub fn edit(&self) -> Option<Edit> {
        let control::LatestEdit { seq, time_ms, content_type, envelope, body } = self.state()?.edit.clone()?;
        Some(Edit { seq, time_ms, content_type: known(content_type), envelope, body })
    }

    /// Positions of all edits, oldest first.
    pub fn edits(&self) -> &[u64] {
        self.state().map_or(&[], |state| &state.edits)
    }

    /// The content as it stands; empty if it was redacted.
    pub fn body(&self) -> Bytes {
        self.edit().map_or_else(|| self.event.body(), |edit| edit.body)
    }

    /// How to read [`body`](Self::body).
    pub fn content_type(&self) -> ContentType {
        self.edit().map_or_else(|| self.event.content_type(), |edit| edit.content_type)
    }

    /// The content as text, if it is text.
    pub fn text(&self) -> Option<String> {
        (self.content_type() == ContentType::Text).then(|| String::from_utf8(self.body().into()).ok()).flatten()
    }

    /// Whether the content was removed for everyone; by whom is in [`redacted_by`](Self::redacted_by).
    pub fn is_redacted(&self) -> bool {
        self.event.is_redacted()
    }

    /// Who removed the content, when, and with which event.
    pub fn redacted_by(&self) -> Option<Mark<'_>> {
        self.state()?.redacted.as_ref().map(mark)
    }

    /// Who pinned it, when, and with which event.
    pub fn pinned(&self) -> Option<Mark<'_>> {
        self.state()?.pinned.as_ref().map(mark)
    }

    /// Reactions by key, in the order in which the keys appeared.
    pub fn reactions(&self) -> Vec<Reactions<'_>> {
        let reactions = self.state().map_or(&[][..], |state| &state.reactions);
        reactions.iter().map(|r| Reactions { key: &r.key, count: r.count, mine: r.mine, users: &r.users }).collect()
    }

    /// The beginning of the message that this one answers, as it stands.
    pub fn reply(&self) -> Option<ReplyPreview<'_>> {
        let reply = self.view.reply.as_ref()?;
        Some(ReplyPreview {
            message: EventRef { event_id: Uuid::from_slice(&reply.event_id).ok()?, seq: reply.seq },
            sender: &reply.sender,
            content_type: known(reply.content_type),
            body: reply.body.clone(),
            cut: reply.cut,
            redacted: reply.redacted,
        })
    }
}

/// A type of a later version is read as bytes, as in rows.
pub(crate) fn known(content_type: u32) -> ContentType {
    u8::try_from(content_type).ok().and_then(ContentType::from_number).unwrap_or(ContentType::Octets)
}

fn mark(mark: &control::Mark) -> Mark<'_> {
    Mark { seq: mark.seq, time_ms: mark.time_ms, user: &mark.user }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("event", &self.event)
            .field("edits", &self.edits().len())
            .field("reactions", &self.reactions().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{EventKind, NewRow, Rel, Relation, UserId, envelope::EventRef, envelope::NewEnvelope};
    use uuid::Uuid;

    use super::*;

    fn row(seq: u64, kind: EventKind, body: &str) -> Row {
        let target = EventRef { event_id: Uuid::from_u128(1), seq: 1 };
        let key = (kind == EventKind::REACTION).then_some("+1");
        let relates_to = Rel::of(kind).map(|rel| Relation { rel, target, key, remove: false });
        NewRow {
            seq,
            msgno: 1,
            time_ms: seq,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id: Uuid::nil(),
            kind,
            content_type: ContentType::Text,
            sender: &UserId::new("ann").unwrap(),
            via: None,
            envelope: &NewEnvelope { relates_to, ..Default::default() }.to_bytes(),
            body: body.as_bytes(),
        }
        .to_row()
    }

    #[test]
    fn a_page_is_kept_current_by_the_events_behind_it() {
        let view = MessageView { row: row(1, EventKind::MESSAGE, "tea").bytes().clone(), ..Default::default() };
        let page = MessagesPage { head: 1, floor: 1, epoch: 1, messages: vec![view], ..Default::default() };
        let mut page = Messages::from_wire(page).unwrap();
        let apply = |page: &mut Messages, row| page.apply(&Event::new(1, row), "ann");
        apply(&mut page, row(2, EventKind::EDIT, "coffee"));
        apply(&mut page, row(3, EventKind::REACTION, ""));
        apply(&mut page, row(3, EventKind::REACTION, ""));
        let message = &page.messages[0];
        assert_eq!((message.text().as_deref(), message.edits()), (Some("coffee"), &[2][..]));
        assert_eq!((message.reactions()[0].count, message.reactions()[0].mine), (1, true));
        assert_eq!(message.event().text().as_deref(), Some("tea"));
        assert_eq!(page.head.seq, 3);
        apply(&mut page, row(4, EventKind::REDACT, ""));
        let message = &page.messages[0];
        assert!(message.is_redacted() && message.body().is_empty() && message.reactions().is_empty());
        assert_eq!(message.redacted_by().map(|mark| mark.user), Some("ann"));
    }

    #[test]
    fn a_page_with_a_broken_row_is_no_page() {
        let view = MessageView { row: Bytes::from_static(b"?"), ..Default::default() };
        assert_eq!(Messages::from_wire(MessagesPage { messages: vec![view], ..Default::default() }), None);
    }
}
