//! What a client asks of the broker besides messages and logs: conversations, what is the user's own, presence.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{ConversationId, EventRef, FrameType, LogName, UserId};
use antiphon_sdk_core::{
    Answer, Conversation, ConversationChanges, InboxPage, NewConversation, Preferences, Presence, PresenceStatus,
    Request, RequestError, Role,
};
use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::{Client, Result, call::Call};

/// The newest presence of each watched user that is known.
pub type Presences = BTreeMap<UserId, Presence>;

/// Conversations. What changed comes as an event of the conversation's log, to be read by [`Event::notice`].
///
/// [`Event::notice`]: crate::Event::notice
impl Client {
    /// Creates a conversation, or finds it if it is direct.
    pub async fn create_conversation(&self, conversation: NewConversation) -> Result<Conversation> {
        self.ask(Request::create_conversation(conversation)).await
    }

    /// Reads a conversation and its members.
    pub async fn conversation(&self, id: &ConversationId) -> Result<Conversation> {
        self.ask(Request::conversation(id)).await
    }

    /// Changes the title, to one of at most 256 bytes.
    pub async fn set_title(&self, id: &ConversationId, title: &str) -> Result<()> {
        self.update_conversation(id, ConversationChanges { title: Some(title.to_owned()), ..Default::default() }).await
    }

    /// Changes properties.
    pub async fn update_conversation(&self, id: &ConversationId, changes: ConversationChanges) -> Result<()> {
        self.ask(Request::update_conversation(id, changes)).await
    }

    /// Deletes a conversation.
    pub async fn delete_conversation(&self, id: &ConversationId) -> Result<()> {
        self.ask(Request::delete_conversation(id)).await
    }

    /// Adds members, at most 256 at a time, as members or admins.
    pub async fn add_members(
        &self,
        id: &ConversationId,
        members: impl IntoIterator<Item = (UserId, Role)>,
    ) -> Result<()> {
        self.ask(Request::add_members(id, members, None)).await
    }

    /// Adds members as a service with the scope `act_as`, for a user whose rights decide.
    pub async fn add_members_for(
        &self,
        id: &ConversationId,
        members: impl IntoIterator<Item = (UserId, Role)>,
        act_as: &UserId,
    ) -> Result<()> {
        self.ask(Request::add_members(id, members, Some(act_as))).await
    }

    /// Removes a member, who gets the event that says so and nothing after it.
    pub async fn remove_member(&self, id: &ConversationId, user: &UserId) -> Result<()> {
        self.ask(Request::remove_member(id, user)).await
    }

    /// Changes what a member may do. The last owner stays one.
    pub async fn set_role(&self, id: &ConversationId, user: &UserId, role: Role) -> Result<()> {
        self.ask(Request::set_role(id, user, role)).await
    }

    /// Joins an open conversation.
    pub async fn join(&self, id: &ConversationId) -> Result<()> {
        self.ask(Request::join(id)).await
    }

    /// Leaves a conversation.
    pub async fn leave(&self, id: &ConversationId) -> Result<()> {
        self.ask(Request::leave(id)).await
    }
}

/// What is the user's own. All devices of the user learn of a change from the events of the inbox, `u:<user>`.
impl Client {
    /// Lists the user's conversations, by id: those after `after` (None = from the first one), at most 100. The first
    /// page also names the users whom this one blocked.
    ///
    /// One list is made at a time: a second call meanwhile is repeated until the first is answered, or fails as
    /// `rate_limited`.
    pub async fn inbox(&self, after: Option<&ConversationId>) -> Result<InboxPage> {
        self.ask(Request::inbox(after, 0)).await
    }

    /// Pins or mutes a conversation of which the user is a member, or takes that back.
    pub async fn set_preferences(&self, id: &ConversationId, preferences: Preferences) -> Result<()> {
        self.ask(Request::set_preferences(id, preferences)).await
    }

    /// Blocks another user, one of at most 1,000: nothing new comes to the direct conversation with them, from either
    /// side. In groups nothing is refused; there applications leave out what blocked users say.
    pub async fn block(&self, user: &UserId) -> Result<()> {
        self.ask(Request::block(user)).await
    }

    /// Takes a block back.
    pub async fn unblock(&self, user: &UserId) -> Result<()> {
        self.ask(Request::unblock(user)).await
    }

    /// Hides an event from the user's own view, for good: at most 256 of a log, and 4,096 in all.
    /// [`messages`](Self::messages) come without it; subscriptions and [`history`](Self::history) still have it, so that
    /// positions stay dense.
    pub async fn hide(&self, log: &LogName, event: EventRef) -> Result<()> {
        self.ask(Request::hide(log, event)).await
    }

    /// Ends all the user's sessions whose tokens were issued before this second, this one too, and makes those tokens
    /// void. The client then asks its token provider for a new one, and stops if it gets the old one again.
    pub async fn revoke_own_sessions(&self) -> Result<()> {
        self.ask(Request::revoke(None)).await
    }

    /// Does the same to any user, for services whose token has the scope `admin:write`.
    pub async fn revoke_sessions(&self, user: &UserId) -> Result<()> {
        self.ask(Request::revoke(Some(user))).await
    }
}

/// Presence.
impl Client {
    /// Sets how the user is shown while present, with a text of at most 128 bytes. The broker forgets it ten seconds
    /// after the user's last session is gone; it is not set again by itself, since another device may have set it anew.
    pub async fn set_presence(&self, status: PresenceStatus, text: &str) -> Result<()> {
        self.ask(Request::set_presence(status, text)).await
    }

    /// Watches these users, at most 64, instead of those watched before, across reconnects; none = nobody. Waits until
    /// the broker knows the list. Their presence comes by [`presences`](Self::presences).
    ///
    /// Who shares no conversation with the user is shown as offline, as is who blocked them.
    pub async fn watch_presence(&self, users: impl IntoIterator<Item = UserId>) -> Result<()> {
        let users: BTreeSet<UserId> = users.into_iter().collect();
        let (reply, answer) = oneshot::channel();
        self.call(Call::WatchPresence { users, reply }).await?;
        Ok(answer.await.map_err(|_| RequestError::Stopped(self.stop_reason()))??)
    }

    /// The newest known presence of each watched user, kept up to date. A user of whom nothing was heard yet is not in
    /// it. A slow reader misses what was in between, never the newest; without a session it is the last that was known.
    pub fn presences(&self) -> watch::Receiver<Presences> {
        self.shared.presences.clone()
    }
}

/// Requests by their frames.
impl Client {
    /// Any request by its frame type and encoded body; for frames that have no method here.
    pub async fn request(&self, frame_type: FrameType, body: Bytes) -> Result<Answer> {
        let (reply, answer) = oneshot::channel();
        self.call(Call::Request { frame_type, body, reply }).await?;
        Ok(answer.await.map_err(|_| RequestError::Stopped(self.stop_reason()))??)
    }

    async fn ask<T>(&self, request: Request<T>) -> Result<T> {
        let answer = self.request(request.frame_type(), request.body()).await?;
        Ok(request.read(answer)?)
    }
}
