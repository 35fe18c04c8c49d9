//! SYNC: the inbox's owner names the conversations, each one's owner adds what it knows, one answer says it all.
//!
//! A bounded number of owners is asked at a time. An owner that cannot answer leaves its mark in its entry; the others do
//! not wait for it longer than for its refusal.

use antiphon_protocol::{
    Class, ErrorCode, FrameType, LogName,
    control::{Synced, SyncedLog},
    frames,
};

use super::{Connection, Home};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::{REQUESTS_PER_PEER_MAX, SUMMARIES_IN_FLIGHT_MAX},
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Listing, Operation, Origin, Request, ShardMessage},
};

/// An answer to SYNC that is being put together.
#[derive(Debug)]
pub(super) struct Gathering {
    origin: Origin,
    synced: Synced,
    /// First entry whose owner was not asked yet.
    next: usize,
    in_flight: usize,
}

impl Home {
    /// The inbox has named the conversations.
    pub(super) fn listed(&mut self, fx: &mut Effects, from: ShardId, listing: Listing) {
        let Listing { origin, synced } = listing;
        let id = origin.connection;
        self.slot_answered(fx, from);
        if self.connections.get(id).and_then(Connection::session).is_none() {
            return;
        }
        if self.gatherings.contains_key(&id) {
            let refusal = Refusal::new(ErrorCode::RateLimited, "one SYNC of a session is carried out at a time");
            fx.refused(refusal.code);
            self.connections.push(id, Class::Control, refusal.to_frame(origin.request_id));
            return self.answered(fx, fx.shard, origin);
        }
        self.gatherings.insert(id, Gathering { origin, synced, next: 0, in_flight: 0 });
        self.gather(fx, id);
    }

    /// An owner has told its part.
    pub(super) fn summarized(
        &mut self,
        fx: &mut Effects,
        from: ShardId,
        origin: Origin,
        index: usize,
        told: SyncedLog,
    ) {
        self.slot_answered(fx, from);
        let gathering = self.gatherings.get_mut(&origin.connection);
        let Some(gathering) = gathering.filter(|gathering| gathering.origin == origin) else { return };
        gathering.in_flight -= 1;
        if let Some(entry) = gathering.synced.entries.get_mut(index) {
            let own = std::mem::take(entry);
            let SyncedLog { log, pinned, muted, hidden, .. } = own;
            *entry = SyncedLog { log, pinned, muted, hidden, ..told };
        }
        self.gather(fx, origin.connection);
    }

    /// Asks further owners, or answers.
    fn gather(&mut self, fx: &mut Effects, id: ConnectionId) {
        let Some(session) = self.connections.get(id).and_then(Connection::session) else { return };
        let Some(gathering) = self.gatherings.get_mut(&id) else { return };
        while gathering.in_flight < SUMMARIES_IN_FLIGHT_MAX
            && let Some(entry) = gathering.synced.entries.get_mut(gathering.next)
        {
            let index = gathering.next;
            gathering.next += 1;
            let Ok(log) = entry.log.parse::<LogName>() else { continue };
            let (actor, key) = (session.actor.clone(), log.key(&session.actor.tenant));
            let owner = fx.routing.owner(key);
            if owner != fx.shard {
                let outstanding = &mut self.outstanding[usize::from(owner.0)];
                if *outstanding >= REQUESTS_PER_PEER_MAX {
                    entry.error = ErrorCode::Overloaded as u32;
                    continue;
                }
                *outstanding += 1;
            }
            gathering.in_flight += 1;
            let operation = Operation::Summarize { index };
            let request = Request { origin: gathering.origin, actor, log, key, operation };
            fx.post(owner, ShardMessage::Request(Box::new(request)));
        }
        if gathering.in_flight == 0
            && let Some(gathering) = self.gatherings.remove(&id)
        {
            let Gathering { origin, synced, .. } = gathering;
            self.connections.push(id, Class::Control, frames::control(FrameType::Ok, origin.request_id, &synced));
            self.answered(fx, fx.shard, origin);
        }
    }

    /// A slot at another shard is free again.
    pub(super) fn slot_answered(&mut self, fx: &mut Effects, from: ShardId) {
        if from != fx.shard {
            self.outstanding[usize::from(from.0)] -= 1;
            self.unstall(fx, from);
        }
    }
}
