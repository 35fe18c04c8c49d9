//! Which conversations' owners were asked to tell a user's sessions of changes: all of which the user is a member.

use std::collections::BTreeSet;

use antiphon_protocol::{ConversationId, LogKey, LogName, TenantId, UserId};

use crate::{effects::Effects, shard_message::ShardMessage};

/// A user with sessions that follow.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) tenant: TenantId,
    pub(super) user: UserId,
    pub(super) inbox: LogKey,
    /// Conversations whose owners were asked.
    pub(super) conversations: BTreeSet<ConversationId>,
}

impl Following {
    /// Asks the owner of a conversation.
    pub(super) fn add(&mut self, fx: &mut Effects, conversation: ConversationId) {
        if self.conversations.insert(conversation.clone()) {
            self.post(fx, conversation, true);
        }
    }

    /// Takes it back.
    pub(super) fn remove(&mut self, fx: &mut Effects, conversation: &ConversationId) {
        if self.conversations.remove(conversation) {
            self.post(fx, conversation.clone(), false);
        }
    }

    /// Takes everything back.
    pub(super) fn end(mut self, fx: &mut Effects) {
        for conversation in std::mem::take(&mut self.conversations) {
            self.post(fx, conversation, false);
        }
    }

    fn post(&self, fx: &mut Effects, conversation: ConversationId, on: bool) {
        let log = LogName::Conversation(conversation).key(&self.tenant);
        let message = ShardMessage::Follow { log, user: self.user.clone(), inbox: self.inbox, on };
        fx.post(fx.routing.owner(log), message);
    }
}
