//! What a user's inbox says: memberships with their preferences, blocked users, hidden events, since when tokens count. A
//! pure fold over the inbox's events, as [`super::Conversation`] is over a conversation's.
//!
//! Invariant: the state is the fold of durable rows only, so a restart folds to the same state.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{ConversationId, EventKind, LogName, Row, UserId, control, frames};

use crate::{ids::Ids, limits::MEMBERSHIPS_MAX};

/// A conversation as one of its members sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mine {
    /// Position, in the conversation, of the event that made the user a member.
    pub joined_seq: u64,
    /// The user pinned it.
    pub pinned: bool,
    /// The user muted it.
    pub muted: bool,
}

/// A user's state as of some row of the inbox.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inbox {
    memberships: BTreeMap<ConversationId, Mine>,
    blocked: BTreeSet<UserId>,
    hidden: BTreeMap<LogName, BTreeSet<u64>>,
    not_before_ms: u64,
}

impl Inbox {
    /// How the user stands to a conversation, if a member.
    pub fn membership(&self, conversation: &ConversationId) -> Option<Mine> {
        self.memberships.get(conversation).copied()
    }

    /// The conversations of which the user is a member, by id, after `after`.
    pub fn memberships(&self, after: Option<&ConversationId>) -> impl Iterator<Item = (&ConversationId, &Mine)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.memberships.range::<ConversationId, _>((from, std::ops::Bound::Unbounded))
    }

    /// Users whom this one blocked.
    pub fn blocked(&self) -> &BTreeSet<UserId> {
        &self.blocked
    }

    /// Positions of a log that the user hid.
    pub fn hidden(&self, log: &LogName) -> impl Iterator<Item = u64> {
        self.hidden.get(log).into_iter().flatten().copied()
    }

    /// Events that the user hid, of all logs.
    pub fn hidden_count(&self) -> usize {
        self.hidden.values().map(BTreeSet::len).sum()
    }

    /// Whether the user hid this event.
    pub fn is_hidden(&self, log: &LogName, seq: u64) -> bool {
        self.hidden.get(log).is_some_and(|hidden| hidden.contains(&seq))
    }

    /// Tokens issued before this are void; Unix milliseconds.
    pub fn not_before_ms(&self) -> u64 {
        self.not_before_ms
    }

    /// Folds one durable row in. Rows of other kinds change nothing; a body that cannot be read, which the broker never
    /// writes, changes nothing either.
    pub fn apply(&mut self, row: &Row) {
        let _ = match row.kind() {
            EventKind::CONVERSATION_ADDED => read(row).map(|event| self.add(&event)),
            EventKind::CONVERSATION_REMOVED => read(row).map(|event| self.remove(&event)),
            EventKind::PREFERENCES => read(row).map(|event| self.prefer(&event)),
            EventKind::BLOCK => read(row).map(|event| self.block(&event)),
            EventKind::HIDE => read(row).map(|event| self.hide(&event)),
            EventKind::REVOKED => read(row).map(|event: control::Revoked| {
                self.not_before_ms = self.not_before_ms.max(event.not_before_ms);
            }),
            _ => None,
        };
    }

    fn add(&mut self, event: &control::ConversationAdded) {
        let Ok(conversation) = event.conversation.parse() else { return };
        if self.memberships.len() < MEMBERSHIPS_MAX || self.memberships.contains_key(&conversation) {
            let mine = self.memberships.entry(conversation).or_default();
            mine.joined_seq = mine.joined_seq.max(event.joined_seq);
        }
    }

    /// A removal that is older than the membership belongs to an earlier interval.
    fn remove(&mut self, event: &control::ConversationRemoved) {
        let Ok(conversation) = event.conversation.parse() else { return };
        if self.membership(&conversation).is_some_and(|mine| mine.joined_seq < event.seq) {
            self.memberships.remove(&conversation);
            self.hidden.remove(&LogName::Conversation(conversation));
        }
    }

    fn prefer(&mut self, event: &control::Preferences) {
        let mine = event.conversation.parse().ok().and_then(|id: ConversationId| self.memberships.get_mut(&id));
        if let Some(mine) = mine {
            mine.pinned = event.pinned.unwrap_or(mine.pinned);
            mine.muted = event.muted.unwrap_or(mine.muted);
        }
    }

    fn block(&mut self, event: &control::Block) {
        let Ok(user) = event.user.parse() else { return };
        if event.blocked {
            self.blocked.insert(user);
        } else {
            self.blocked.remove(&user);
        }
    }

    fn hide(&mut self, event: &control::Hide) {
        if let Ok(log) = event.log.parse() {
            self.hidden.entry(log).or_default().insert(event.seq);
        }
    }

    /// The state as its checkpoint holds it.
    pub(super) fn to_state(&self) -> State {
        let membership = |(id, mine): (&ConversationId, &Mine)| MembershipState {
            conversation: id.to_string(),
            joined_seq: mine.joined_seq,
            pinned: mine.pinned,
            muted: mine.muted,
        };
        let hidden = |(log, seqs): (&LogName, &BTreeSet<u64>)| HiddenState {
            log: log.to_string(),
            seqs: seqs.iter().copied().collect(),
        };
        State {
            memberships: self.memberships.iter().map(membership).collect(),
            blocked: self.blocked.iter().map(UserId::to_string).collect(),
            hidden: self.hidden.iter().map(hidden).collect(),
            not_before_ms: self.not_before_ms,
        }
    }

    /// The state that a checkpoint holds.
    pub(super) fn from_state(state: &State, ids: &mut Ids) -> Self {
        let membership = |state: &MembershipState| {
            let mine = Mine { joined_seq: state.joined_seq, pinned: state.pinned, muted: state.muted };
            Some((ids.conversations.read(&state.conversation)?, mine))
        };
        let hidden = |state: &HiddenState| Some((state.log.parse().ok()?, state.seqs.iter().copied().collect()));
        Self {
            memberships: state.memberships.iter().filter_map(membership).collect(),
            blocked: state.blocked.iter().filter_map(|user| ids.users.read(user)).collect(),
            hidden: state.hidden.iter().filter_map(hidden).collect(),
            not_before_ms: state.not_before_ms,
        }
    }
}

fn read<M: prost::Message + Default>(row: &Row) -> Option<M> {
    frames::decode_answer(&row.body()).ok()
}

/// An inbox inside a checkpoint. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct State {
    #[prost(message, repeated, tag = "1")]
    memberships: Vec<MembershipState>,
    #[prost(string, repeated, tag = "2")]
    blocked: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    hidden: Vec<HiddenState>,
    #[prost(uint64, tag = "4")]
    not_before_ms: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct MembershipState {
    #[prost(string, tag = "1")]
    conversation: String,
    #[prost(uint64, tag = "2")]
    joined_seq: u64,
    #[prost(bool, tag = "3")]
    pinned: bool,
    #[prost(bool, tag = "4")]
    muted: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HiddenState {
    #[prost(string, tag = "1")]
    log: String,
    #[prost(uint64, repeated, tag = "2")]
    seqs: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, NewRow};
    use prost::Message;
    use uuid::Uuid;

    use super::*;

    fn apply(inbox: &mut Inbox, kind: EventKind, body: &impl Message) {
        let row = NewRow {
            seq: 1,
            msgno: 0,
            time_ms: 0,
            event_id: Uuid::nil(),
            client_message_id: Uuid::nil(),
            kind,
            content_type: ContentType::Control,
            sender: &"ann".parse().unwrap(),
            via: None,
            envelope: b"",
            body: &body.encode_to_vec(),
        };
        inbox.apply(&row.to_row());
    }

    fn added(conversation: &str, joined_seq: u64) -> control::ConversationAdded {
        control::ConversationAdded { conversation: conversation.into(), joined_seq, kind: 0 }
    }

    fn removed(conversation: &str, seq: u64) -> control::ConversationRemoved {
        control::ConversationRemoved { conversation: conversation.into(), seq, reason: 0 }
    }

    fn full() -> Inbox {
        let mut inbox = Inbox::default();
        apply(&mut inbox, EventKind::CONVERSATION_ADDED, &added("tea", 5));
        let pinned = control::Preferences { conversation: "tea".into(), pinned: Some(true), muted: None };
        apply(&mut inbox, EventKind::PREFERENCES, &pinned);
        apply(&mut inbox, EventKind::BLOCK, &control::Block { user: "bob".into(), blocked: true });
        let hide = control::Hide { log: "c:tea".into(), event_id: bytes::Bytes::new(), seq: 9 };
        apply(&mut inbox, EventKind::HIDE, &hide);
        apply(&mut inbox, EventKind::REVOKED, &control::Revoked { not_before_ms: 77 });
        inbox
    }

    #[test]
    fn preferences_change_what_they_name() {
        let mut inbox = full();
        let muted = control::Preferences { conversation: "tea".into(), pinned: None, muted: Some(true) };
        apply(&mut inbox, EventKind::PREFERENCES, &muted);
        let mine = Mine { joined_seq: 5, pinned: true, muted: true };
        assert_eq!(inbox.membership(&"tea".parse().unwrap()), Some(mine));
    }

    #[test]
    fn a_removal_ends_the_membership_before_it_and_no_later_one() {
        let mut inbox = full();
        apply(&mut inbox, EventKind::CONVERSATION_REMOVED, &removed("tea", 4));
        assert!(inbox.membership(&"tea".parse().unwrap()).is_some(), "that was an earlier interval");
        apply(&mut inbox, EventKind::CONVERSATION_REMOVED, &removed("tea", 8));
        assert_eq!(inbox.membership(&"tea".parse().unwrap()), None);
        assert!(!inbox.is_hidden(&"c:tea".parse().unwrap(), 9));
    }

    #[test]
    fn a_revocation_never_moves_back() {
        let mut inbox = full();
        apply(&mut inbox, EventKind::REVOKED, &control::Revoked { not_before_ms: 70 });
        assert_eq!(inbox.not_before_ms(), 77);
    }

    #[test]
    fn memberships_are_bounded() {
        let mut inbox = Inbox::default();
        for n in 0..MEMBERSHIPS_MAX + 1 {
            apply(&mut inbox, EventKind::CONVERSATION_ADDED, &added(&format!("c{n}"), 1));
        }
        assert_eq!(inbox.memberships(None).count(), MEMBERSHIPS_MAX);
    }

    #[test]
    fn a_checkpoint_holds_the_whole_state() {
        let inbox = full();
        let bytes = inbox.to_state().encode_to_vec();
        assert_eq!(Inbox::from_state(&State::decode(&bytes[..]).unwrap(), &mut Ids::default()), inbox);
    }
}
