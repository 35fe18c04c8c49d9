//! FETCH: rows come from the log's owner at once. For messages, the user's inbox is asked first what the user has hidden, so
//! that the owner leaves it out and counts without it.

use antiphon_protocol::{
    Class, ErrorCode, LogName,
    control::{self, fetch::View},
};

use super::{
    Connection, Home,
    requests::{Parsed, known, log_name},
};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::REQUESTS_PER_PEER_MAX,
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Operation, Origin, Request, ShardMessage},
};

impl Home {
    pub(super) fn parse_fetch(&self, id: ConnectionId, fetch: control::Fetch) -> Result<Parsed, Refusal> {
        let log = log_name(&fetch.log)?;
        let session = self.connections.get(id).and_then(Connection::session);
        Ok(match (known::<View>("view", fetch.view)?, &log, session) {
            (View::Events, ..) => Parsed::Owner(log, Operation::Fetch(fetch)),
            (View::Messages, LogName::Conversation(_), Some(session)) => {
                Parsed::Owner(LogName::Inbox(session.actor.user.clone()), Operation::FindHidden(fetch))
            }
            (View::Messages, ..) => Parsed::Owner(log, Operation::FetchMessages { fetch, hidden: Vec::new() }),
        })
    }

    /// The inbox has answered: asks the log's owner. The request keeps its slots meanwhile.
    pub(super) fn hidden_found(
        &mut self,
        fx: &mut Effects,
        from: ShardId,
        origin: Origin,
        fetch: control::Fetch,
        hidden: Vec<u64>,
    ) {
        self.slot_answered(fx, from);
        let Some(session) = self.connections.get(origin.connection).and_then(Connection::session) else { return };
        // Invariant: the name was read when the request came.
        let Ok(log) = fetch.log.parse::<LogName>() else { return };
        let (actor, key) = (session.actor.clone(), log.key(&session.actor.tenant));
        let owner = fx.routing.owner(key);
        if owner != fx.shard {
            let outstanding = &mut self.outstanding[usize::from(owner.0)];
            if *outstanding >= REQUESTS_PER_PEER_MAX {
                let refusal = Refusal::new(ErrorCode::Overloaded, "too many requests wait for the owner of this log");
                fx.refused(refusal.code);
                self.connections.push(origin.connection, Class::Control, refusal.to_frame(origin.request_id));
                return self.answered(fx, fx.shard, origin);
            }
            *outstanding += 1;
        }
        let operation = Operation::FetchMessages { fetch, hidden };
        fx.post(owner, ShardMessage::Request(Box::new(Request { origin, actor, log, key, operation })));
    }
}
