//! Names of a run on the broker, and back from a name or an id to its number: every delivery needs that.
//!
//! Conversations are `<run>.<group>`, users `<run>.<group>.<member>`. The run's own prefix keeps runs against one
//! broker apart. A message's `client_message_id` is a UUIDv7 that carries the message's number in its last bytes.

use antiphon_checker::User;
use antiphon_sdk::{ConversationId, InvalidId, UserId};
use uuid::Uuid;

use crate::merge::Group;

/// Number of a message within the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageNumber(pub u32);

/// One member of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// Index of the group.
    pub group: u32,
    /// Index of the member within it.
    pub member: u32,
}

/// A sender who is no member of this run.
pub const STRANGER: User = User(u32::MAX);

/// Names and numbers of a run.
#[derive(Debug, Clone)]
pub struct Names {
    run: String,
    /// Of each group: its size and how many members all groups before it have.
    members: Vec<(u32, u32)>,
    /// How many messages all groups before each have.
    messages: Vec<u32>,
}

impl Names {
    /// Names for `groups`; `run` must be unlike that of any other run against the same broker.
    pub fn new(run: String, groups: &[Group]) -> Self {
        let (mut users, mut sent) = (0, 0);
        let (mut members, mut messages) = (Vec::new(), Vec::new());
        for group in groups {
            members.push((group.members, users));
            messages.push(sent);
            users += group.members;
            sent += group.messages.len() as u32;
        }
        Self { run, members, messages }
    }

    /// The conversation of a group.
    pub fn conversation(&self, group: u32) -> Result<ConversationId, InvalidId> {
        format!("{}.{group}", self.run).parse()
    }

    /// The user of a seat.
    pub fn user(&self, seat: Seat) -> Result<UserId, InvalidId> {
        format!("{}.{}.{}", self.run, seat.group, seat.member).parse()
    }

    /// The name of the service that makes the conversations.
    pub fn service(&self) -> String {
        format!("{}.service", self.run)
    }

    /// The user's number in the checker's books.
    pub fn number(&self, seat: Seat) -> User {
        self.members
            .get(seat.group as usize)
            .filter(|(size, _)| seat.member < *size)
            .map_or(STRANGER, |(_, before)| User(before + seat.member))
    }

    /// The number of the user of this name; [`STRANGER`] if it is not of this run.
    pub fn number_of(&self, user: &str) -> User {
        let seat = || {
            let (group, member) = user.strip_prefix(&*self.run)?.strip_prefix('.')?.split_once('.')?;
            Some(Seat { group: group.parse().ok()?, member: member.parse().ok()? })
        };
        seat().map_or(STRANGER, |seat| self.number(seat))
    }

    /// The number of a group's message.
    pub fn message(&self, group: u32, message: u32) -> MessageNumber {
        MessageNumber(self.messages[group as usize] + message)
    }
}

/// The id under which a message is sent at `unix_ms`.
pub fn message_id(number: MessageNumber, unix_ms: u64) -> Uuid {
    let mut random = [0; 10];
    random[6..].copy_from_slice(&number.0.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid()
}

/// The number of the message of this id.
pub fn message_number(id: Uuid) -> MessageNumber {
    let [.., a, b, c, d] = *id.as_bytes();
    MessageNumber(u32::from_be_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let group = |members| Group { members, messages: Vec::new() };
        Names::new("r1".into(), &[group(2), group(5), group(3)])
    }

    #[test]
    fn a_user_is_found_by_name() {
        let names = names();
        let seat = Seat { group: 1, member: 4 };
        assert_eq!(names.number_of(names.user(seat).unwrap().as_str()), User(6));
        assert_eq!(names.number(seat), User(6));
        for stranger in ["r1.1.5", "r1.3.0", "r2.1.1", "r1.service", "r1", "r11.1.1", "r1.1.-1"] {
            assert_eq!(names.number_of(stranger), STRANGER, "{stranger}");
        }
        assert_eq!(names.conversation(2).unwrap().as_str(), "r1.2");
    }

    #[test]
    fn a_message_id_carries_its_number() {
        let id = message_id(MessageNumber(0xfedc_ba98), 1_700_000_000_000);
        assert_eq!(message_number(id), MessageNumber(0xfedc_ba98));
        assert_eq!(id.get_version_num(), 7);
        assert_ne!(id, message_id(MessageNumber(1), 1_700_000_000_000));
    }
}
