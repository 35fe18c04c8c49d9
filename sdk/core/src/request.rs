//! One request with a typed answer: how it is encoded, and how its answer is read.
//!
//! Every request that has no command of its own has a constructor here or in `conversation`. The broker decides what
//! it may do; what is refused comes as [`RequestError::Refused`].

use std::fmt;

use antiphon_protocol::{ConversationId, EventRef, FrameType, LogName, UserId, control};
use bytes::Bytes;
use prost::Message;

use crate::{
    error::RequestError,
    inbox::InboxPage,
    input::{Command, CommandId},
    output::Answer,
    presence::PresenceStatus,
};

/// A request whose answer is a `T`. The same request may be made again.
#[derive(Clone)]
pub struct Request<T> {
    frame_type: FrameType,
    body: Bytes,
    read: fn(Bytes) -> Option<T>,
}

impl<T> Request<T> {
    pub(crate) fn new(frame_type: FrameType, body: &impl Message, read: fn(Bytes) -> Option<T>) -> Self {
        Self { frame_type, body: body.encode_to_vec().into(), read }
    }

    /// Type of its frame.
    pub fn frame_type(&self) -> FrameType {
        self.frame_type
    }

    /// Its encoded body.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// The command that makes it.
    pub fn command(&self, id: CommandId) -> Command {
        Command::Request { id, frame_type: self.frame_type, body: self.body() }
    }

    /// Reads the answer to it.
    pub fn read(&self, answer: Answer) -> Result<T, RequestError> {
        let body = Some(answer.body).filter(|_| answer.frame_type == FrameType::Ok);
        body.and_then(self.read).ok_or(RequestError::Answer)
    }
}

impl<T> fmt::Debug for Request<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({}, {} bytes)", self.frame_type.name(), self.body.len())
    }
}

/// How a user sees a conversation; nobody else notices. None = as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Preferences {
    /// Shown before others.
    pub pinned: Option<bool>,
    /// Without notifications.
    pub muted: Option<bool>,
}

impl Request<InboxPage> {
    /// The user's own conversations, by id: those after `after` (None = from the first one), at most `limit` (0 = as
    /// many as a page holds, which is 100).
    pub fn inbox(after: Option<&ConversationId>, limit: u32) -> Self {
        let after = after.map(ToString::to_string).unwrap_or_default();
        Self::new(FrameType::Sync, &control::Sync { after, limit }, InboxPage::decode)
    }
}

impl Request<()> {
    pub(crate) fn confirmed(frame_type: FrameType, body: &impl Message) -> Self {
        // Some of these are answered with a conversation, which whoever reads the log learns from its events.
        Self::new(frame_type, body, |_| Some(()))
    }

    /// Changes the user's own preferences of a conversation of which the user is a member.
    pub fn set_preferences(conversation: &ConversationId, preferences: Preferences) -> Self {
        let Preferences { pinned, muted } = preferences;
        let body = control::Preferences { conversation: conversation.to_string(), pinned, muted };
        Self::confirmed(FrameType::Preferences, &body)
    }

    /// Blocks another user: nothing new comes to the direct conversation with them, from either side. At most 1,000.
    pub fn block(user: &UserId) -> Self {
        Self::confirmed(FrameType::Block, &control::Block { user: user.to_string(), blocked: true })
    }

    /// Takes a block back.
    pub fn unblock(user: &UserId) -> Self {
        Self::confirmed(FrameType::Block, &control::Block { user: user.to_string(), blocked: false })
    }

    /// Hides an event from the user's own view, for good: at most 256 of a log, and 4,096 in all.
    pub fn hide(log: &LogName, event: EventRef) -> Self {
        let event_id = Bytes::copy_from_slice(event.event_id.as_bytes());
        let body = control::Hide { log: log.to_string(), event_id, seq: event.seq };
        Self::confirmed(FrameType::Hide, &body)
    }

    /// Sets how the user is shown while present, with a text of at most 128 bytes. Forgotten ten seconds after the
    /// user's last session is gone.
    pub fn set_presence(status: PresenceStatus, text: &str) -> Self {
        let status = status.encode().into();
        Self::confirmed(FrameType::PresenceSet, &control::PresenceSet { status, text: text.into() })
    }

    /// Ends all sessions of a user whose tokens were issued before now, and makes those tokens void. None = the
    /// session's own user, with this very session; others need a token with the scope `admin:write`.
    pub fn revoke(user: Option<&UserId>) -> Self {
        let user = user.map(ToString::to_string).unwrap_or_default();
        Self::confirmed(FrameType::Revoke, &control::Revoke { user })
    }
}
