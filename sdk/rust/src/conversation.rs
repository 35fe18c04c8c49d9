//! Conversations and their members: what applications see, and its encoding.

use antiphon_protocol::{ConversationId, LogName, UserId, control};

use crate::{Error, Result};

/// What a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConversationKind {
    /// Several people.
    #[default]
    Group,
    /// Exactly two; found or created.
    Direct,
    /// Belongs to a workspace; mostly open.
    Channel,
}

/// Who may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JoinPolicy {
    /// Whom an admin adds.
    #[default]
    Invite,
    /// Anybody.
    Open,
}

/// What a member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Role {
    /// Read, send, signal.
    #[default]
    Member,
    /// And manage members and properties.
    Admin,
    /// And change roles, and delete.
    Owner,
}

/// A member of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub user: UserId,
    /// What the member may do.
    pub role: Role,
    /// Position of the event that made the user a member.
    pub joined_seq: u64,
}

/// A conversation to be made.
#[derive(Debug, Clone, Default)]
pub struct NewConversation {
    /// Its id; None = made by the broker, as always for direct ones.
    pub id: Option<ConversationId>,
    /// What it is.
    pub kind: ConversationKind,
    /// Shown to people.
    pub title: String,
    /// Besides the creator.
    pub members: Vec<(UserId, Role)>,
    /// Who may come in.
    pub join_policy: JoinPolicy,
    /// Services: the user who creates it.
    pub act_as: Option<UserId>,
}

impl NewConversation {
    /// A group with this id and these members.
    pub fn group(id: ConversationId, members: impl IntoIterator<Item = UserId>) -> Self {
        let members = members.into_iter().map(|user| (user, Role::Member)).collect();
        Self { id: Some(id), members, ..Self::default() }
    }

    /// The direct conversation with `other`.
    pub fn direct(other: UserId) -> Self {
        Self { kind: ConversationKind::Direct, members: vec![(other, Role::Member)], ..Self::default() }
    }

    pub(crate) fn encode(self) -> control::ConversationCreate {
        control::ConversationCreate {
            conversation: self.id.map(|id| id.to_string()).unwrap_or_default(),
            kind: match self.kind {
                ConversationKind::Group => control::ConversationKind::Group,
                ConversationKind::Direct => control::ConversationKind::Direct,
                ConversationKind::Channel => control::ConversationKind::Channel,
            }
            .into(),
            title: self.title,
            members: encode_members(self.members),
            join_policy: encode_policy(self.join_policy).into(),
            act_as: self.act_as.map(|user| user.to_string()).unwrap_or_default(),
        }
    }
}

/// A conversation as the broker knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Its id.
    pub id: ConversationId,
    /// What it is.
    pub kind: ConversationKind,
    /// Shown to people.
    pub title: String,
    /// Who may come in.
    pub join_policy: JoinPolicy,
    /// Its members.
    pub members: Vec<Member>,
    /// Position of the newest event.
    pub head: u64,
    /// Countable messages up to the head.
    pub head_msgno: u64,
    /// In the answer to a creation: it did not exist before.
    pub created: bool,
    /// It has been deleted.
    pub deleted: bool,
}

impl Conversation {
    /// The log of its events.
    pub fn log(&self) -> LogName {
        LogName::Conversation(self.id.clone())
    }

    pub(crate) fn decode(answer: control::Conversation) -> Result<Self> {
        let malformed = |_| Error::Answer("a request for a conversation");
        let member = |member: control::Member| {
            Ok(Member {
                user: member.user.parse().map_err(malformed)?,
                role: decode_role(member.role()),
                joined_seq: member.joined_seq,
            })
        };
        Ok(Self {
            id: answer.conversation.parse().map_err(malformed)?,
            kind: match answer.kind() {
                control::ConversationKind::Group => ConversationKind::Group,
                control::ConversationKind::Direct => ConversationKind::Direct,
                control::ConversationKind::Channel => ConversationKind::Channel,
            },
            join_policy: match answer.join_policy() {
                control::JoinPolicy::Invite => JoinPolicy::Invite,
                control::JoinPolicy::Open => JoinPolicy::Open,
            },
            title: answer.title,
            members: answer.members.into_iter().map(member).collect::<Result<_>>()?,
            head: answer.head,
            head_msgno: answer.head_msgno,
            created: answer.created,
            deleted: answer.deleted,
        })
    }
}

pub(crate) fn encode_members(members: Vec<(UserId, Role)>) -> Vec<control::Member> {
    let encode = |(user, role): (UserId, Role)| control::Member {
        user: user.to_string(),
        role: encode_role(role).into(),
        joined_seq: 0,
    };
    members.into_iter().map(encode).collect()
}

pub(crate) fn encode_role(role: Role) -> control::Role {
    match role {
        Role::Member => control::Role::Member,
        Role::Admin => control::Role::Admin,
        Role::Owner => control::Role::Owner,
    }
}

pub(crate) fn encode_policy(policy: JoinPolicy) -> control::JoinPolicy {
    match policy {
        JoinPolicy::Invite => control::JoinPolicy::Invite,
        JoinPolicy::Open => control::JoinPolicy::Open,
    }
}

fn decode_role(role: control::Role) -> Role {
    match role {
        control::Role::Member => Role::Member,
        control::Role::Admin => Role::Admin,
        control::Role::Owner => Role::Owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_back_with_its_members() {
        let answer = control::Conversation {
            conversation: "lobby".into(),
            kind: control::ConversationKind::Channel.into(),
            join_policy: control::JoinPolicy::Open.into(),
            members: vec![control::Member { user: "ann".into(), role: control::Role::Owner.into(), joined_seq: 1 }],
            created: true,
            ..Default::default()
        };
        let conversation = Conversation::decode(answer).unwrap();
        assert_eq!(conversation.log().to_string(), "c:lobby");
        assert_eq!((conversation.kind, conversation.join_policy), (ConversationKind::Channel, JoinPolicy::Open));
        assert_eq!((conversation.members[0].user.as_str(), conversation.members[0].role), ("ann", Role::Owner));
    }

    #[test]
    fn an_answer_with_an_impossible_id_is_an_error() {
        let answer = control::Conversation { conversation: "no good".into(), ..Default::default() };
        assert!(Conversation::decode(answer).is_err());
    }
}
