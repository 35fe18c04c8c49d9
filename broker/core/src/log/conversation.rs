//! What a conversation's log says about it: kind, title, members. A pure fold over `conversation` and `member` events.
//!
//! Invariant: the state is the fold of durable rows only, so a restart folds to the same state.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::LazyLock,
};

use antiphon_protocol::{EventKind, Row, UserId, control, frames};

use crate::{ids::Ids, limits::REMOVED_MEMBERS_MAX, seldom::Empty};

/// A member's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// What the member may do.
    pub role: control::Role,
    /// Position of the event that made the user a member.
    pub joined_seq: u64,
}

/// A conversation as of some row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Whether a `conversation` event created it; a log without one is governed by grants alone.
    pub exists: bool,
    /// Whether it was deleted; nothing is sent to or read from it any more.
    pub deleted: bool,
    /// Group, direct or channel.
    pub kind: control::ConversationKind,
    /// Display title.
    pub title: String,
    /// Who may join without being added.
    pub join_policy: control::JoinPolicy,
    /// How long rows are kept, in seconds; 0 = for ever.
    pub retention_s: u32,
    /// What members may read.
    pub history: control::History,
    members: BTreeMap<UserId, Membership>,
    removed: VecDeque<(UserId, u64)>,
}

impl Empty for Conversation {
    fn empty() -> &'static Self {
        static EMPTY: LazyLock<Conversation> = LazyLock::new(Conversation::default);
        &EMPTY
    }
}

impl Conversation {
    /// The user's standing, if a member.
    pub fn member(&self, user: &UserId) -> Option<Membership> {
        self.members.get(user).copied()
    }

    /// First position that a membership lets the user read.
    pub fn visible_from(&self, user: &UserId) -> u64 {
        match (self.history, self.member(user)) {
            (control::History::Joined, Some(membership)) => membership.joined_seq,
            _ => 1,
        }
    }

    /// The member whose id has this text.
    pub(super) fn member_id(&self, user: &str) -> Option<&UserId> {
        self.members.get_key_value(user).map(|(id, _)| id)
    }

    /// Every member, by user id.
    pub fn members(&self) -> impl Iterator<Item = (&UserId, &Membership)> {
        self.members.iter()
    }

    /// Number of members.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Position of the event that removed the user, who has not come back since.
    pub fn removed_at(&self, user: &UserId) -> Option<u64> {
        self.removed.iter().find(|(removed, _)| removed == user).map(|(_, seq)| *seq)
    }

    /// Whether `user` is the only owner left.
    pub fn is_last_owner(&self, user: &UserId) -> bool {
        let mut owners = self.members.iter().filter(|(_, m)| m.role == control::Role::Owner);
        owners.next().is_some_and(|(owner, _)| owner == user) && owners.next().is_none()
    }

    /// Whether rows of this kind say something about a conversation.
    pub(super) fn is_told_by(kind: EventKind) -> bool {
        matches!(kind, EventKind::CONVERSATION | EventKind::MEMBER)
    }

    /// Folds one durable row in. Rows of other kinds change nothing; a body that cannot be read, which the broker never
    /// writes, changes nothing either.
    pub fn apply(&mut self, row: &Row) {
        match row.kind() {
            EventKind::CONVERSATION => {
                if let Ok(event) = frames::decode_answer::<control::ConversationEvent>(&row.body()) {
                    self.apply_conversation(&event, row.seq());
                }
            }
            EventKind::MEMBER => {
                if let Ok(event) = frames::decode_answer::<control::MemberEvent>(&row.body()) {
                    self.apply_member(&event, row.seq());
                }
            }
            _ => {}
        }
    }

    fn apply_conversation(&mut self, event: &control::ConversationEvent, seq: u64) {
        self.exists = true;
        self.kind = event.kind();
        self.title.clone_from(&event.title);
        self.join_policy = event.join_policy();
        self.retention_s = event.retention_s;
        self.history = event.history();
        self.deleted = event.change() == control::conversation_event::Change::Deleted;
        self.add(&event.members, seq);
    }

    fn apply_member(&mut self, event: &control::MemberEvent, seq: u64) {
        use control::member_event::Change;
        match event.change() {
            Change::Added | Change::Joined => self.add(&event.members, seq),
            Change::Removed | Change::Left => self.remove(&event.members, seq),
            Change::Role => {
                for member in &event.members {
                    if let Some(standing) =
                        member.user.parse().ok().and_then(|user: UserId| self.members.get_mut(&user))
                    {
                        standing.role = member.role();
                    }
                }
            }
        }
    }

    fn add(&mut self, members: &[control::Member], seq: u64) {
        for member in members {
            let Ok(user) = member.user.parse::<UserId>() else { continue };
            self.removed.retain(|(removed, _)| *removed != user);
            self.members.insert(user, Membership { role: member.role(), joined_seq: seq });
        }
    }

    fn remove(&mut self, members: &[control::Member], seq: u64) {
        for member in members {
            let Ok(user) = member.user.parse::<UserId>() else { continue };
            if self.members.remove(&user).is_some() {
                self.removed.push_back((user, seq));
            }
        }
        while self.removed.len() > REMOVED_MEMBERS_MAX {
            self.removed.pop_front();
        }
    }

    /// The state as its checkpoint holds it.
    pub(super) fn to_state(&self) -> State {
        let member = |user: &UserId, role, joined_seq| control::Member { user: user.to_string(), role, joined_seq };
        State {
            exists: self.exists,
            deleted: self.deleted,
            kind: self.kind.into(),
            title: self.title.clone(),
            join_policy: self.join_policy.into(),
            members: self.members.iter().map(|(user, m)| member(user, m.role.into(), m.joined_seq)).collect(),
            removed: self.removed.iter().map(|(user, seq)| member(user, 0, *seq)).collect(),
            retention_s: self.retention_s,
            history: self.history.into(),
        }
    }

    /// The state that a checkpoint holds.
    pub(super) fn from_state(state: &State, ids: &mut Ids) -> Self {
        let mut user = |member: &control::Member| ids.users.read(&member.user);
        Self {
            exists: state.exists,
            deleted: state.deleted,
            kind: control::ConversationKind::try_from(state.kind).unwrap_or_default(),
            title: state.title.clone(),
            join_policy: control::JoinPolicy::try_from(state.join_policy).unwrap_or_default(),
            retention_s: state.retention_s,
            history: control::History::try_from(state.history).unwrap_or_default(),
            members: state
                .members
                .iter()
                .filter_map(|m| Some((user(m)?, Membership { role: m.role(), joined_seq: m.joined_seq })))
                .collect(),
            removed: state.removed.iter().filter_map(|m| Some((user(m)?, m.joined_seq))).collect(),
        }
    }
}

/// A conversation inside a checkpoint. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct State {
    #[prost(bool, tag = "1")]
    pub(super) exists: bool,
    #[prost(bool, tag = "2")]
    pub(super) deleted: bool,
    #[prost(int32, tag = "3")]
    pub(super) kind: i32,
    #[prost(string, tag = "4")]
    pub(super) title: String,
    #[prost(int32, tag = "5")]
    pub(super) join_policy: i32,
    #[prost(message, repeated, tag = "6")]
    pub(super) members: Vec<control::Member>,
    /// Removed users; `joined_seq` holds the position of the removal.
    #[prost(message, repeated, tag = "7")]
    pub(super) removed: Vec<control::Member>,
    #[prost(uint32, tag = "8")]
    pub(super) retention_s: u32,
    #[prost(int32, tag = "9")]
    pub(super) history: i32,
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, NewRow};
    use prost::Message;
    use uuid::Uuid;

    use super::*;

    fn row(seq: u64, kind: EventKind, body: &impl Message) -> Row {
        let ann = UserId::new("ann").unwrap();
        NewRow {
            seq,
            msgno: 0,
            time_ms: 0,
            event_id: Uuid::nil(),
            client_message_id: Uuid::nil(),
            kind,
            content_type: ContentType::Control,
            sender: &ann,
            via: None,
            envelope: b"",
            body: &body.encode_to_vec(),
        }
        .to_row()
    }

    fn member(user: &str, role: control::Role) -> control::Member {
        control::Member { user: user.into(), role: role.into(), joined_seq: 0 }
    }

    fn group() -> Conversation {
        let created = control::ConversationEvent {
            title: "tea".into(),
            retention_s: 3_600,
            history: control::History::Joined.into(),
            members: vec![member("ann", control::Role::Owner), member("bob", control::Role::Member)],
            ..Default::default()
        };
        let mut conversation = Conversation::default();
        conversation.apply(&row(1, EventKind::CONVERSATION, &created));
        conversation
    }

    #[test]
    fn a_removal_is_remembered_until_the_user_comes_back() {
        let (mut group, bob) = (group(), UserId::new("bob").unwrap());
        let change = |change: control::member_event::Change| control::MemberEvent {
            change: change.into(),
            members: vec![member("bob", control::Role::Member)],
        };
        group.apply(&row(5, EventKind::MEMBER, &change(control::member_event::Change::Removed)));
        assert_eq!((group.member(&bob), group.removed_at(&bob)), (None, Some(5)));
        group.apply(&row(9, EventKind::MEMBER, &change(control::member_event::Change::Added)));
        assert_eq!(group.member(&bob).map(|m| m.joined_seq), Some(9));
        assert_eq!(group.removed_at(&bob), None);
    }

    #[test]
    fn the_last_owner_is_known() {
        let group = group();
        assert!(group.is_last_owner(&UserId::new("ann").unwrap()));
        assert!(!group.is_last_owner(&UserId::new("bob").unwrap()));
    }

    #[test]
    fn a_checkpoint_holds_the_whole_state() {
        let group = group();
        let bytes = group.to_state().encode_to_vec();
        assert_eq!(Conversation::from_state(&State::decode(&bytes[..]).unwrap(), &mut Ids::default()), group);
    }
}
