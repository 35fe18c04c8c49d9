//! Events that the broker makes: changes of a conversation in its log, and of what is a user's own in their inbox.

use antiphon_protocol::{ConversationId, EventKind, EventRef, LogName, UserId, control};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use crate::{
    conversation::{ConversationKind, JoinPolicy, Member},
    event::Event,
    request::Preferences,
};

/// What an event of the broker says. Whose doing it was is the event's sender.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// In a conversation: members came, went, or got another role.
    Members {
        /// What happened to them.
        change: MemberChange,
        /// To whom, with the role after it.
        members: Vec<Member>,
    },
    /// In a conversation: it was created, changed or deleted.
    Conversation {
        /// What happened.
        change: ConversationChange,
        /// What it is.
        kind: ConversationKind,
        /// Its title after it.
        title: String,
        /// Who may come in after it.
        join_policy: JoinPolicy,
        /// With its creation: the first members.
        members: Vec<Member>,
    },
    /// In an inbox: the user became a member.
    Added {
        /// Of which conversation.
        conversation: ConversationId,
        /// What it is.
        kind: ConversationKind,
        /// Position, in the conversation, of the event that did it.
        joined_seq: u64,
    },
    /// In an inbox: the user is a member no more.
    Removed {
        /// Of which conversation.
        conversation: ConversationId,
        /// Position, in the conversation, of the event that did it.
        seq: u64,
        /// Why.
        reason: RemovalReason,
    },
    /// In an inbox: the user pinned or muted a conversation, or took that back.
    Preferences {
        /// Which conversation.
        conversation: ConversationId,
        /// What changed; None = as it was.
        preferences: Preferences,
    },
    /// In an inbox: the user blocked another one, or took that back.
    Block {
        /// The other one.
        user: UserId,
        /// Whether they are blocked now.
        blocked: bool,
    },
    /// In an inbox: the user hid an event from their own view.
    Hide {
        /// Of which log.
        log: LogName,
        /// Which event.
        event: EventRef,
    },
    /// In an inbox: the user's older tokens are void.
    Revoked {
        /// Tokens issued before this are, Unix milliseconds.
        not_before_ms: u64,
    },
}

/// What happened to members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MemberChange {
    /// Somebody added them.
    Added,
    /// They joined an open conversation.
    Joined,
    /// Somebody removed them.
    Removed,
    /// They left.
    Left,
    /// They may do something else now.
    Role,
}

/// What happened to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConversationChange {
    /// It is new.
    Created,
    /// Its title or join policy changed.
    Updated,
    /// It was deleted.
    Deleted,
}

/// Why a user is a member no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RemovalReason {
    /// Somebody removed them.
    Removed,
    /// They left.
    Left,
    /// The conversation was deleted.
    Deleted,
}

impl Event {
    /// What the broker says with this event; None for events of clients, and for those of a later version.
    pub fn notice(&self) -> Option<Notice> {
        let body = self.body();
        match self.kind() {
            EventKind::MEMBER => members(body),
            EventKind::CONVERSATION => conversation(body),
            EventKind::CONVERSATION_ADDED => added(body),
            EventKind::CONVERSATION_REMOVED => removed(body),
            EventKind::PREFERENCES => preferences(body),
            EventKind::BLOCK => {
                let control::Block { user, blocked } = Message::decode(body).ok()?;
                Some(Notice::Block { user: user.parse().ok()?, blocked })
            }
            EventKind::HIDE => {
                let control::Hide { log, event_id, seq } = Message::decode(body).ok()?;
                let event_id = Uuid::from_slice(&event_id).ok()?;
                Some(Notice::Hide { log: log.parse().ok()?, event: EventRef { event_id, seq } })
            }
            EventKind::REVOKED => {
                let control::Revoked { not_before_ms } = Message::decode(body).ok()?;
                Some(Notice::Revoked { not_before_ms })
            }
            _ => None,
        }
    }
}

fn members(body: Bytes) -> Option<Notice> {
    use control::member_event::Change;
    let event = control::MemberEvent::decode(body).ok()?;
    let change = match Change::try_from(event.change).ok()? {
        Change::Added => MemberChange::Added,
        Change::Joined => MemberChange::Joined,
        Change::Removed => MemberChange::Removed,
        Change::Left => MemberChange::Left,
        Change::Role => MemberChange::Role,
    };
    Some(Notice::Members { change, members: read_members(event.members)? })
}

fn conversation(body: Bytes) -> Option<Notice> {
    use control::conversation_event::Change;
    let event = control::ConversationEvent::decode(body).ok()?;
    let change = match Change::try_from(event.change).ok()? {
        Change::Created => ConversationChange::Created,
        Change::Updated => ConversationChange::Updated,
        Change::Deleted => ConversationChange::Deleted,
    };
    Some(Notice::Conversation {
        change,
        kind: ConversationKind::from_wire(event.kind()),
        join_policy: JoinPolicy::from_wire(event.join_policy()),
        title: event.title,
        members: read_members(event.members)?,
    })
}

fn added(body: Bytes) -> Option<Notice> {
    let event = control::ConversationAdded::decode(body).ok()?;
    let kind = ConversationKind::from_wire(event.kind());
    Some(Notice::Added { conversation: event.conversation.parse().ok()?, kind, joined_seq: event.joined_seq })
}

fn removed(body: Bytes) -> Option<Notice> {
    use control::conversation_removed::Reason;
    let event = control::ConversationRemoved::decode(body).ok()?;
    let reason = match event.reason() {
        Reason::Removed => RemovalReason::Removed,
        Reason::Left => RemovalReason::Left,
        Reason::Deleted => RemovalReason::Deleted,
    };
    Some(Notice::Removed { conversation: event.conversation.parse().ok()?, seq: event.seq, reason })
}

fn preferences(body: Bytes) -> Option<Notice> {
    let control::Preferences { conversation, pinned, muted } = Message::decode(body).ok()?;
    let preferences = Preferences { pinned, muted };
    Some(Notice::Preferences { conversation: conversation.parse().ok()?, preferences })
}

fn read_members(members: Vec<control::Member>) -> Option<Vec<Member>> {
    members.into_iter().map(Member::from_wire).collect()
}
