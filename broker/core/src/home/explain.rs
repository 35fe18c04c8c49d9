//! What a session's shard knows about its subscription to a log, for [`crate::explain`].

use antiphon_protocol::{Class, LogKey};

use super::{Home, connection::Carrier};
use crate::{
    claims::Ability,
    connection_id::ConnectionId,
    effects::Effects,
    explain::{AtSession, Explaining, Question},
};

impl Home {
    /// Writes down what is known of one session, unless it is gone, and sends the question on.
    pub(crate) fn explain(&self, fx: &mut Effects, id: ConnectionId, mut explaining: Explaining) {
        let question = &explaining.explanation.question;
        let session = self.at_session(fx, id, question);
        explaining.explanation.sessions.extend(session);
        explaining.travel_on(fx);
    }

    fn at_session(&self, fx: &Effects, id: ConnectionId, question: &Question) -> Option<AtSession> {
        let connection = self.connections.get(id)?;
        let session = connection.session()?;
        let key = question.log.key(&question.tenant);
        let own = connection.outbox.lane(Class::Events).bytes();
        let waiting_bytes = match connection.carrier {
            Carrier::Own => own,
            Carrier::Trunk { trunk, .. } => {
                own + self.connections.trunk(trunk).map_or(0, |trunk| trunk.outbox.lane(Class::Events).bytes())
            }
        };
        Some(AtSession {
            shard: fx.shard,
            device: session.actor.device.clone(),
            session_id: session.session_id,
            is_on_trunk: matches!(connection.carrier, Carrier::Trunk { .. }),
            follows: session.follows,
            is_granted: session.actor.is_granted(&question.log, Ability::Read),
            live_from: self.live_from(id, key),
            waiting_bytes,
            has_undelivered: self.has_deliveries(),
        })
    }

    /// First position that the session gets live of this log, if it subscribes to it.
    fn live_from(&self, id: ConnectionId, key: LogKey) -> Option<u64> {
        let session = self.connections.get(id)?.session()?;
        let (handle, _) = session.subscriptions.iter().find(|(_, followed)| **followed == key)?;
        let subscriber = self.followed.get(handle)?.subscriber(id, self.connections.channel_of(id))?;
        Some(subscriber.live_from)
    }
}
