//! Hands live events to the sessions that follow their log, a bounded number per turn.
//!
//! A fan-out to thousands is spread over turns; the next event of any log waits behind it, so that each session sees
//! one order.

use std::ops::Bound;

use antiphon_protocol::{
    Class, FrameType, LogKey,
    control::{self, detach::Reason},
    frames,
};
use bytes::Bytes;

use super::{Connection, Home};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::HANDLE_LOG_BITS,
    routing::ShardId,
    shard_message::{Audience, ShardMessage},
};

impl Home {
    /// Hands out at most `budget` copies.
    pub(crate) fn fan_out(&mut self, fx: &mut Effects, mut budget: usize) {
        while budget > 0 {
            let Some((message, mut last)) = self.delivering.take().or_else(|| Some((self.fanout.pop()?, None))) else {
                return;
            };
            let ids = self.next_subscribers(&message, last, budget);
            let is_finished = ids.len() < budget;
            for id in ids {
                self.hand(fx, &message, id);
                last = Some(id);
                budget -= 1;
            }
            // Looking for subscribers costs something too, also where there are none.
            budget = budget.saturating_sub(usize::from(is_finished));
            if !is_finished {
                self.delivering = Some((message, last));
            }
        }
    }

    /// Whether copies wait for the next turn.
    pub(crate) fn has_deliveries(&self) -> bool {
        self.delivering.is_some() || !self.fanout.is_empty()
    }

    fn next_subscribers(&self, message: &ShardMessage, last: Option<ConnectionId>, budget: usize) -> Vec<ConnectionId> {
        let Some(followed) = handle(message).and_then(|handle| self.followed.get(&handle)) else { return Vec::new() };
        let after = last.map_or(Bound::Unbounded, Bound::Excluded);
        followed.subscribers.range((after, Bound::Unbounded)).take(budget).map(|(id, _)| *id).collect()
    }

    fn hand(&mut self, fx: &mut Effects, message: &ShardMessage, id: ConnectionId) {
        match message {
            ShardMessage::Deliver { handle, seq, frame } => self.deliver(fx, *handle, *seq, frame, id),
            ShardMessage::Lagged { handle } => self.behind(fx, *handle, id),
            ShardMessage::Detach { handle, audience, reason, seq } => {
                let subscriber = self.followed.get(handle).and_then(|followed| followed.subscribers.get(&id));
                let is_meant = subscriber.is_some_and(|subscriber| match audience {
                    Audience::All => true,
                    Audience::User(user) => subscriber.user == *user && subscriber.live_from <= *seq + 1,
                });
                if is_meant {
                    self.detach(fx, *handle, id, *reason, *seq);
                }
            }
            ShardMessage::State { except, frame, .. } => self.tell(fx, *except, frame, id),
            _ => {}
        }
    }

    fn deliver(&mut self, fx: &mut Effects, handle: u32, seq: u64, frame: &Bytes, id: ConnectionId) {
        let subscriber = self.followed.get(&handle).and_then(|followed| followed.subscribers.get(&id));
        if subscriber.is_none_or(|subscriber| seq < subscriber.live_from) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else { return };
        match connection.outbox.push_event(frame) {
            Ok(()) => {
                fx.counters.deliveries += 1;
                // The upper bits of a handle name the log's owner.
                fx.counters.deliveries_crossed += u64::from(handle >> HANDLE_LOG_BITS != u32::from(fx.shard.0));
                self.connections.list_writable(id);
            }
            Err(crate::outbox::Overflow) => self.behind(fx, handle, id),
        }
    }

    /// Ends a subscription that cannot keep up. The client subscribes again from its position when it has read so far.
    fn behind(&mut self, fx: &mut Effects, handle: u32, id: ConnectionId) {
        if self.unfollow(fx, handle, id) {
            fx.counters.behind += 1;
            self.connections.push(id, Class::Events, frames::raw(FrameType::Behind, handle, &[]));
        }
    }

    /// Ends a subscription for good.
    pub(super) fn detach(&mut self, fx: &mut Effects, handle: u32, id: ConnectionId, reason: Reason, seq: u64) -> bool {
        let was_followed = self.unfollow(fx, handle, id);
        if was_followed {
            let detach = control::Detach { reason: reason.into(), seq };
            self.connections.push(id, Class::Events, frames::control(FrameType::Detach, handle, &detach));
        }
        was_followed
    }

    /// A conversation that the session follows has changed. Whoever subscribes to it has the event.
    pub(super) fn digested(&mut self, fx: &mut Effects, id: ConnectionId, log: LogKey, frame: Bytes) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let is_subscribed = |connection: &Connection| {
            connection.session().is_none_or(|s| s.subscriptions.values().any(|key| *key == log))
        };
        if !is_subscribed(connection) {
            fx.counters.state_dropped += connection.outbox.push_state(frame) as u64;
            self.connections.list_writable(id);
        }
    }

    fn tell(&mut self, fx: &mut Effects, except: (ShardId, ConnectionId), frame: &Bytes, id: ConnectionId) {
        if except == (fx.shard, id) {
            return;
        }
        if let Some(connection) =
            self.connections.get_mut(id).filter(|connection| Connection::session(connection).is_some())
        {
            fx.counters.state_dropped += connection.outbox.push_state(frame.clone()) as u64;
            self.connections.list_writable(id);
        }
    }
}

fn handle(message: &ShardMessage) -> Option<u32> {
    match message {
        ShardMessage::Deliver { handle, .. }
        | ShardMessage::Lagged { handle }
        | ShardMessage::Detach { handle, .. }
        | ShardMessage::State { handle, .. } => Some(*handle),
        _ => None,
    }
}
