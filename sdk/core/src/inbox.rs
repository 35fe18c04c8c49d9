//! The list of one's own conversations, for whoever shows many of them without following each one.
//!
//! ```text
//! list them page by page -> follow one's inbox (`u:<user>`) from its head -> HEADs move the entries on
//! ```

use antiphon_protocol::{ContentType, ConversationId, ErrorCode, LogName, Position, UserId, control};
use bytes::Bytes;
use prost::Message as _;

use crate::{
    conversation::ConversationKind,
    error::{Outcome, Refusal},
    message,
    output::Digest,
};

/// A part of the list, by conversation id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxPage {
    /// The conversations; the list knows 10,000 of them.
    pub entries: Vec<InboxEntry>,
    /// Where to go on: the next page begins after this one. None = that was all.
    pub next: Option<ConversationId>,
    /// Users whom this one blocked; in the first page only.
    pub blocked: Vec<UserId>,
}

/// One of the user's conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// Which.
    pub id: ConversationId,
    /// Shown before others, as the user wished.
    pub pinned: bool,
    /// Without notifications, as the user wished.
    pub muted: bool,
    /// Positions that the user hid.
    pub hidden: Vec<u64>,
    /// What the conversation was like when the list was made, or why that could not be said; then ask again later.
    pub overview: Result<Overview, Refusal>,
}

/// A conversation at a glance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overview {
    /// What it is.
    pub kind: ConversationKind,
    /// Shown to people.
    pub title: String,
    /// It has been deleted.
    pub deleted: bool,
    /// Its newest event.
    pub head: Position,
    /// Countable messages up to the head.
    pub head_msgno: u64,
    /// When the newest event was stored, by the broker's clock, Unix milliseconds.
    pub time_ms: u64,
    /// The newest message as it stands; None if there is none.
    pub last: Option<LastMessage>,
    /// Everything up to here has arrived at one of the user's devices.
    pub delivered: u64,
    /// Everything up to here has been read by the user.
    pub read: u64,
    /// Countable messages up to `read`.
    pub read_msgno: u64,
}

/// The beginning of the newest message of a log, as edits and redactions have left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastMessage {
    /// Its place in the log.
    pub seq: u64,
    /// When it was stored, by the broker's clock, Unix milliseconds.
    pub time_ms: u64,
    /// Who sent it.
    pub sender: String,
    /// How to read the body.
    pub content_type: ContentType,
    /// The first 128 bytes of its content at most; text is cut between characters.
    pub body: Bytes,
    /// Its content was removed for everyone.
    pub redacted: bool,
    /// It was brought in from another system, where it was sent at `time_ms`: nobody is notified of it.
    pub imported: bool,
}

impl InboxPage {
    pub(crate) fn decode(body: Bytes) -> Option<Self> {
        let control::Synced { entries, next, blocked } = control::Synced::decode(body).ok()?;
        Some(Self {
            entries: entries.into_iter().map(InboxEntry::from_wire).collect::<Option<_>>()?,
            next: if next.is_empty() { None } else { Some(next.parse().ok()?) },
            blocked: blocked.iter().map(|user| user.parse().ok()).collect::<Option<_>>()?,
        })
    }
}

impl InboxEntry {
    fn from_wire(entry: control::SyncedLog) -> Option<Self> {
        let Ok(LogName::Conversation(id)) = entry.log.parse() else { return None };
        let kind = ConversationKind::from_wire(entry.kind());
        let control::SyncedLog { pinned, muted, hidden, error, .. } = entry;
        let overview = if error != 0 {
            Err(kept_back(error))
        } else {
            Ok(Overview {
                kind,
                title: entry.title,
                deleted: entry.deleted,
                head: Position { epoch: entry.epoch, seq: entry.head },
                head_msgno: entry.head_msgno,
                time_ms: entry.time_ms,
                last: entry.last.map(LastMessage::from_wire),
                delivered: entry.delivered,
                read: entry.read,
                read_msgno: entry.read_msgno,
            })
        };
        Some(Self { id, pinned, muted, hidden, overview })
    }

    /// The log of its events.
    pub fn log(&self) -> LogName {
        LogName::Conversation(self.id.clone())
    }

    /// Messages that the user has not read; None while the conversation's state is not known.
    pub fn unread(&self) -> Option<u64> {
        self.overview.as_ref().ok().map(Overview::unread)
    }
}

impl Overview {
    /// Messages that the user has not read.
    pub fn unread(&self) -> u64 {
        self.head_msgno.saturating_sub(self.read_msgno)
    }

    /// Takes up newer state of the same conversation; older state changes nothing. `reader` is the session's user, who
    /// has read what they sent themselves.
    pub fn apply(&mut self, digest: &Digest, reader: &str) {
        if digest.head < self.head {
            return;
        }
        (self.head, self.head_msgno) = (digest.head, digest.head_msgno);
        self.last = digest.last.clone();
        let Some(last) = &self.last else { return };
        self.time_ms = self.time_ms.max(last.time_ms);
        if last.sender == reader && last.seq > self.read {
            self.delivered = self.delivered.max(last.seq);
            // No message is newer than this one, so the count at the head is also the count here.
            (self.read, self.read_msgno) = (last.seq, digest.head_msgno);
        }
    }
}

impl LastMessage {
    pub(crate) fn from_wire(last: control::LastMessage) -> Self {
        let control::LastMessage { seq, time_ms, sender, content_type, body, redacted, imported } = last;
        Self { seq, time_ms, sender, content_type: message::known(content_type), body, redacted, imported }
    }

    /// The beginning of the content as text, if it is text.
    pub fn text(&self) -> Option<String> {
        (self.content_type == ContentType::Text).then(|| String::from_utf8(self.body.to_vec()).ok()).flatten()
    }
}

/// A reason that came as its number alone.
fn kept_back(number: u32) -> Refusal {
    Refusal {
        number,
        code: ErrorCode::from_number(number).map_or("unknown", ErrorCode::code).to_owned(),
        outcome: Outcome::NotApplied,
        retry_after: None,
        field: None,
        message: String::new(),
        removed_at: None,
    }
}
