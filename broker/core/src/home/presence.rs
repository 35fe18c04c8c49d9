//! PRESENCE_SUBSCRIBE: which users a session watches. A new list takes the place of the one before.

use antiphon_protocol::{ErrorCode, LogKey, LogName, UserId, control};
use bytes::Bytes;

use super::{Connection, Home};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::PRESENCE_WATCHED_MAX,
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Operation, ShardMessage},
};

impl Home {
    /// Notes the session's new list and ends what it does not name. What it names is asked through the user's inbox.
    pub(super) fn watch(
        &mut self,
        fx: &mut Effects,
        id: ConnectionId,
        subscribe: &control::PresenceSubscribe,
    ) -> Result<Operation, Refusal> {
        if subscribe.users.len() > PRESENCE_WATCHED_MAX {
            let message = format!("a session watches at most {PRESENCE_WATCHED_MAX} users");
            return Err(Refusal::field(ErrorCode::LimitExceeded, "users", message));
        }
        let parse = |user: &String| user.parse::<UserId>();
        let parsed: Result<Vec<UserId>, _> = subscribe.users.iter().map(parse).collect();
        let users = parsed.map_err(|error| Refusal::field(ErrorCode::InvalidField, "users", error.to_string()))?;
        let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) else {
            return Err(Refusal::new(ErrorCode::Closed, "the session has ended"));
        };
        let tenant = session.actor.tenant.clone();
        let keys = users.iter().map(|user| LogName::Inbox(user.clone()).key(&tenant)).collect();
        let before = std::mem::replace(&mut session.watching, keys);
        let list = session.watch_list;
        session.watch_list += 1;
        for key in before.difference(&session.watching) {
            fx.post(fx.routing.owner(*key), ShardMessage::Unwatch { user: *key, connection: id, list });
        }
        Ok(Operation::Watch { users, list: session.watch_list })
    }

    /// News of a user, who may be watched no more.
    pub(super) fn presence_told(
        &mut self,
        fx: &mut Effects,
        from: ShardId,
        id: ConnectionId,
        user: LogKey,
        frame: Bytes,
    ) {
        let session = self.connections.get(id).and_then(Connection::session);
        let list = session.map_or(u32::MAX, |session| session.watch_list);
        if !session.is_some_and(|session| session.watching.contains(&user)) {
            fx.post(from, ShardMessage::Unwatch { user, connection: id, list });
        } else {
            fx.counters.state_dropped += self.connections.push_state(id, frame) as u64;
        }
    }
}
