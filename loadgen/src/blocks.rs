//! Sessions in blocks: those of one block are the members of the same conversations, and follow all of them.

use std::{error::Error, ops::Range};

use antiphon_protocol::{ConversationId, InvalidId, LogName, UserId};
use antiphon_sdk::{Client, NewConversation, Role};

/// Members of a conversation, unless another number is asked for.
pub(crate) const MEMBERS: usize = 100;
/// Members that one request names.
const MEMBERS_PER_REQUEST: usize = 200;

/// Sessions and conversations, by number.
#[derive(Debug, Clone)]
pub(crate) struct Blocks {
    /// Unlike that of any other run against the same broker.
    pub(crate) run: String,
    /// Conversations of each block.
    pub(crate) subscriptions: usize,
    /// Sessions of each block.
    pub(crate) members: usize,
}

impl Blocks {
    /// The user of a session.
    pub(crate) fn user(&self, session: usize) -> String {
        format!("{}.{session}", self.run)
    }

    /// Numbers of the conversations of a session.
    pub(crate) fn rooms(&self, session: usize) -> Range<usize> {
        rooms_of(session, self.members, self.subscriptions)
    }

    /// The conversation of this number.
    pub(crate) fn log(&self, room: usize) -> Result<LogName, InvalidId> {
        Ok(LogName::Conversation(self.conversation(room)?))
    }

    fn conversation(&self, room: usize) -> Result<ConversationId, InvalidId> {
        format!("{}.{}.{}", self.run, room / self.subscriptions, room % self.subscriptions).parse()
    }

    /// Makes the conversations of a block; `writer`, if there is one, is a further member of all of them.
    pub(crate) async fn make(
        &self,
        service: &Client,
        block: usize,
        writer: Option<&UserId>,
    ) -> Result<(), Box<dyn Error>> {
        let sessions = block * self.members..(block + 1) * self.members;
        let users: Result<Vec<UserId>, _> = sessions.map(|session| self.user(session).parse()).collect();
        let users = writer.cloned().into_iter().chain(users?).collect::<Vec<_>>();
        let (creator, others) = users.split_first().ok_or("a conversation needs a member")?;
        for room in self.rooms(block * self.members) {
            let id = self.conversation(room)?;
            let mut requests = others.chunks(MEMBERS_PER_REQUEST);
            let first = requests.next().unwrap_or_default().iter().cloned();
            let new = NewConversation { act_as: Some(creator.clone()), ..NewConversation::group(id.clone(), first) };
            service.create_conversation(new).await?;
            for more in requests {
                service.add_members(&id, more.iter().map(|user| (user.clone(), Role::Member))).await?;
            }
        }
        Ok(())
    }
}

/// Numbers of the conversations of a session, where each block has so many sessions and conversations.
pub(crate) fn rooms_of(session: usize, members: usize, subscriptions: usize) -> Range<usize> {
    let first = session / members * subscriptions;
    first..first + subscriptions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_shares_its_conversations_and_no_other_has_them() {
        let blocks = Blocks { run: "r1".into(), subscriptions: 10, members: 100 };
        assert_eq!((blocks.rooms(0), blocks.rooms(99), blocks.rooms(100)), (0..10, 0..10, 10..20));
        assert_eq!(blocks.log(13).unwrap().to_string(), "c:r1.1.3");
        assert_eq!(blocks.user(100), "r1.100");
    }
}
