//! Conversations and their members: what applications see, and the requests that change it.

use antiphon_protocol::{ConversationId, FrameType, LogName, UserId, control};
use bytes::Bytes;
use prost::Message;

use crate::request::Request;

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

/// What a member may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum History {
    /// Everything.
    #[default]
    Full,
    /// What came since the member's own joining.
    Joined,
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
    /// How long events are kept, in seconds; 0 = for ever, otherwise at least 60.
    pub retention_s: u32,
    /// What members may read.
    pub history: History,
}

/// Properties of a conversation to be changed; what is None stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConversationChanges {
    /// Shown to people.
    pub title: Option<String>,
    /// Who may come in.
    pub join_policy: Option<JoinPolicy>,
    /// How long events are kept, in seconds; 0 = for ever, otherwise at least 60. What is gone stays gone.
    pub retention_s: Option<u32>,
    /// What members may read from now on.
    pub history: Option<History>,
}

impl ConversationChanges {
    fn encode(self, id: &ConversationId) -> control::ConversationUpdate {
        control::ConversationUpdate {
            conversation: id.to_string(),
            title: self.title,
            join_policy: self.join_policy.map(|policy| policy.encode().into()),
            retention_s: self.retention_s,
            history: self.history.map(|history| history.encode().into()),
        }
    }
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

    fn encode(self) -> control::ConversationCreate {
        control::ConversationCreate {
            conversation: self.id.map(|id| id.to_string()).unwrap_or_default(),
            kind: match self.kind {
                ConversationKind::Group => control::ConversationKind::Group,
                ConversationKind::Direct => control::ConversationKind::Direct,
                ConversationKind::Channel => control::ConversationKind::Channel,
            }
            .into(),
            title: self.title,
            members: self.members.into_iter().map(Member::encode_new).collect(),
            join_policy: self.join_policy.encode().into(),
            act_as: self.act_as.map(|user| user.to_string()).unwrap_or_default(),
            retention_s: self.retention_s,
            history: self.history.encode().into(),
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
    /// How long events are kept, in seconds; 0 = for ever.
    pub retention_s: u32,
    /// What members may read.
    pub history: History,
}

impl Conversation {
    /// The log of its events.
    pub fn log(&self) -> LogName {
        LogName::Conversation(self.id.clone())
    }

    fn decode(body: Bytes) -> Option<Self> {
        let answer = control::Conversation::decode(body).ok()?;
        Some(Self {
            id: answer.conversation.parse().ok()?,
            kind: ConversationKind::from_wire(answer.kind()),
            join_policy: JoinPolicy::from_wire(answer.join_policy()),
            history: History::from_wire(answer.history()),
            title: answer.title,
            members: answer.members.into_iter().map(Member::from_wire).collect::<Option<_>>()?,
            head: answer.head,
            head_msgno: answer.head_msgno,
            created: answer.created,
            deleted: answer.deleted,
            retention_s: answer.retention_s,
        })
    }
}

impl ConversationKind {
    pub(crate) fn from_wire(kind: control::ConversationKind) -> Self {
        match kind {
            control::ConversationKind::Group => Self::Group,
            control::ConversationKind::Direct => Self::Direct,
            control::ConversationKind::Channel => Self::Channel,
        }
    }
}

impl JoinPolicy {
    fn encode(self) -> control::JoinPolicy {
        match self {
            Self::Invite => control::JoinPolicy::Invite,
            Self::Open => control::JoinPolicy::Open,
        }
    }

    pub(crate) fn from_wire(policy: control::JoinPolicy) -> Self {
        match policy {
            control::JoinPolicy::Invite => Self::Invite,
            control::JoinPolicy::Open => Self::Open,
        }
    }
}

impl History {
    fn encode(self) -> control::History {
        match self {
            Self::Full => control::History::Full,
            Self::Joined => control::History::Joined,
        }
    }

    fn from_wire(history: control::History) -> Self {
        match history {
            control::History::Full => Self::Full,
            control::History::Joined => Self::Joined,
        }
    }
}

impl Role {
    fn encode(self) -> control::Role {
        match self {
            Self::Member => control::Role::Member,
            Self::Admin => control::Role::Admin,
            Self::Owner => control::Role::Owner,
        }
    }

    fn from_wire(role: control::Role) -> Self {
        match role {
            control::Role::Member => Self::Member,
            control::Role::Admin => Self::Admin,
            control::Role::Owner => Self::Owner,
        }
    }
}

impl Member {
    fn encode_new((user, role): (UserId, Role)) -> control::Member {
        control::Member { user: user.to_string(), role: role.encode().into(), joined_seq: 0 }
    }

    pub(crate) fn from_wire(member: control::Member) -> Option<Self> {
        let role = Role::from_wire(member.role());
        Some(Self { user: member.user.parse().ok()?, role, joined_seq: member.joined_seq })
    }
}

impl Request<Conversation> {
    /// Creates a conversation, or finds it if it is direct.
    pub fn create_conversation(conversation: NewConversation) -> Self {
        Self::new(FrameType::ConversationCreate, &conversation.encode(), Conversation::decode)
    }

    /// Reads a conversation and its members.
    pub fn conversation(id: &ConversationId) -> Self {
        let get = control::ConversationGet { conversation: id.to_string() };
        Self::new(FrameType::ConversationGet, &get, Conversation::decode)
    }
}

impl Request<()> {
    /// Changes properties. A title has at most 256 bytes.
    pub fn update_conversation(id: &ConversationId, changes: ConversationChanges) -> Self {
        Self::confirmed(FrameType::ConversationUpdate, &changes.encode(id))
    }

    /// Deletes a conversation.
    pub fn delete_conversation(id: &ConversationId) -> Self {
        Self::confirmed(FrameType::ConversationDelete, &control::ConversationDelete { conversation: id.to_string() })
    }

    /// Adds members, at most 256 at a time, as members or admins. A service names the user for whom it acts.
    pub fn add_members(
        id: &ConversationId,
        members: impl IntoIterator<Item = (UserId, Role)>,
        act_as: Option<&UserId>,
    ) -> Self {
        let members = members.into_iter().map(Member::encode_new).collect();
        let act_as = act_as.map(ToString::to_string).unwrap_or_default();
        Self::confirmed(FrameType::MemberAdd, &control::MemberAdd { conversation: id.to_string(), members, act_as })
    }

    /// Removes a member, who gets the event that says so and nothing after it.
    pub fn remove_member(id: &ConversationId, user: &UserId) -> Self {
        let remove = control::MemberRemove { conversation: id.to_string(), user: user.to_string() };
        Self::confirmed(FrameType::MemberRemove, &remove)
    }

    /// Changes what a member may do. The last owner stays one.
    pub fn set_role(id: &ConversationId, user: &UserId, role: Role) -> Self {
        let (conversation, user, role) = (id.to_string(), user.to_string(), role.encode().into());
        Self::confirmed(FrameType::MemberSetRole, &control::MemberSetRole { conversation, user, role })
    }

    /// Joins an open conversation.
    pub fn join(id: &ConversationId) -> Self {
        Self::confirmed(FrameType::Join, &control::Join { conversation: id.to_string() })
    }

    /// Leaves a conversation.
    pub fn leave(id: &ConversationId) -> Self {
        Self::confirmed(FrameType::Leave, &control::Leave { conversation: id.to_string() })
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
            retention_s: 60,
            history: control::History::Joined.into(),
            ..Default::default()
        };
        let conversation = Conversation::decode(answer.encode_to_vec().into()).unwrap();
        assert_eq!((conversation.retention_s, conversation.history), (60, History::Joined));
        assert_eq!(conversation.log().to_string(), "c:lobby");
        assert_eq!((conversation.kind, conversation.join_policy), (ConversationKind::Channel, JoinPolicy::Open));
        assert_eq!((conversation.members[0].user.as_str(), conversation.members[0].role), ("ann", Role::Owner));
    }

    #[test]
    fn changes_say_only_what_changes() {
        let id = "lobby".parse().unwrap();
        let update = ConversationChanges { retention_s: Some(0), ..Default::default() }.encode(&id);
        assert_eq!((update.title, update.join_policy, update.retention_s), (None, None, Some(0)));
    }

    #[test]
    fn an_answer_with_an_impossible_id_is_an_error() {
        let answer = control::Conversation { conversation: "no good".into(), ..Default::default() };
        assert_eq!(Conversation::decode(answer.encode_to_vec().into()), None);
    }
}
