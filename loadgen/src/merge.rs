//! From conversations to groups: what the load runs in one log.
//!
//! Two-person chats become groups of N members by putting many of them into one room: every participant becomes a
//! member, and the messages are interleaved in the order of their times. A group that no whole conversation fits any
//! more is filled with members who only read, so that all groups have exactly N members.

use bytes::Bytes;

use crate::corpus::Conversation;

/// Pauses are cut to this before conversations are interleaved: what lies above it is people who left, not people who
/// think, and would otherwise decide the length of every run.
pub const PAUSE_MS_MAX: u64 = 60_000;

/// The load of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Senders are below it; each is a session of its own, whether it ever writes or not.
    pub members: u32,
    /// In the order of their times.
    pub messages: Vec<GroupMessage>,
}

/// One message of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMessage {
    /// Which member sends it, from 0.
    pub member: u32,
    /// Milliseconds since the group began, pauses cut.
    pub at_ms: u64,
    /// Its body.
    pub text: Bytes,
}

impl Group {
    /// Milliseconds from the first to the last message.
    pub fn duration_ms(&self) -> u64 {
        self.messages.last().map_or(0, |message| message.at_ms)
    }

    /// Copies that reach members when all messages are sent; the sender gets one too.
    pub fn deliveries(&self) -> u64 {
        self.messages.len() as u64 * u64::from(self.members)
    }

    fn add(&mut self, conversation: Conversation, first_member: u32) {
        let mut at_ms = 0;
        let mut before: Option<u64> = None;
        self.messages.extend(conversation.messages.into_iter().map(|message| {
            at_ms += before.map_or(0, |before| (message.at_ms - before).min(PAUSE_MS_MAX));
            before = Some(message.at_ms);
            GroupMessage { member: first_member + message.sender, at_ms, text: message.text.into() }
        }));
    }

    /// Stable, so that messages of one conversation with equal times keep their order.
    fn interleave(&mut self) {
        self.messages.sort_by_key(|message| message.at_ms);
    }
}

/// Every conversation a group of its own.
pub fn separate(conversations: impl IntoIterator<Item = Conversation>) -> Vec<Group> {
    let group = |conversation: Conversation| {
        let mut group = Group { members: conversation.participants, messages: Vec::new() };
        group.add(conversation, 0);
        group
    };
    conversations.into_iter().map(group).collect()
}

/// Groups of `members` each. A conversation of more participants than that becomes a larger group of its own.
pub fn merged(conversations: impl IntoIterator<Item = Conversation>, members: u32) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut open = Group { members, messages: Vec::new() };
    let mut taken = 0;
    for conversation in conversations {
        if conversation.participants > members {
            groups.extend(separate([conversation]));
            continue;
        }
        if taken + conversation.participants > members {
            groups.push(std::mem::replace(&mut open, Group { members, messages: Vec::new() }));
            taken = 0;
        }
        let first_member = taken;
        taken += conversation.participants;
        open.add(conversation, first_member);
    }
    if taken > 0 {
        groups.push(open);
    }
    groups.iter_mut().for_each(Group::interleave);
    groups
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::corpus::Message;

    fn conversation(participants: u32, messages: &[(u32, u64, &str)]) -> Conversation {
        let message = |&(sender, at_ms, text): &(u32, u64, &str)| Message { sender, at_ms, text: text.into() };
        Conversation { id: Uuid::nil(), participants, messages: messages.iter().map(message).collect() }
    }

    fn texts(group: &Group) -> Vec<(u32, &[u8])> {
        group.messages.iter().map(|message| (message.member, &message.text[..])).collect()
    }

    #[test]
    fn every_participant_becomes_a_member_and_times_interleave() {
        let groups =
            merged([conversation(2, &[(0, 0, "a"), (1, 30, "b")]), conversation(2, &[(0, 10, "c"), (1, 30, "d")])], 4);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].members, 4);
        assert_eq!(texts(&groups[0]), [(0, &b"a"[..]), (2, b"c"), (3, b"d"), (1, b"b")]);
        assert_eq!(groups[0].deliveries(), 16);
    }

    #[test]
    fn groups_have_exactly_the_size_asked_for() {
        let chats = (0..5).map(|_| conversation(2, &[(1, 0, "x")]));
        let groups = merged(chats, 5);
        assert_eq!(groups.iter().map(|group| group.members).collect::<Vec<_>>(), [5, 5, 5]);
        assert_eq!(groups.iter().map(|group| group.messages.len()).collect::<Vec<_>>(), [2, 2, 1]);
    }

    #[test]
    fn a_conversation_that_is_too_large_stays_alone() {
        let groups = merged([conversation(2, &[(0, 0, "x")]), conversation(7, &[(6, 0, "y")])], 4);
        assert_eq!(groups.iter().map(|group| group.members).collect::<Vec<_>>(), [7, 4]);
    }

    #[test]
    fn long_pauses_are_cut_and_short_ones_kept() {
        let groups = separate([conversation(2, &[(0, 7, "a"), (1, 1_007, "b"), (0, 999_999_999, "c")])]);
        let times: Vec<_> = groups[0].messages.iter().map(|message| message.at_ms).collect();
        assert_eq!(times, [0, 1_000, 1_000 + PAUSE_MS_MAX]);
        assert_eq!(groups[0].duration_ms(), 61_000);
    }
}
