//! Hands live events to the sessions that follow their log, a bounded number per turn.
//!
//! A fan-out to thousands is spread over turns; the next event of any log waits behind it, so that each session sees
//! one order.

use antiphon_protocol::{
    Class, FrameType, LogKey,
    control::{self, detach::Reason},
    frames,
    trunk::Prefix,
};
use bytes::Bytes;

use super::{
    Home,
    followed::{Receiver, Subscriber},
};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    limits::HANDLE_LOG_BITS,
    outbox::Overflow,
    routing::ShardId,
    shard_message::{Audience, ShardMessage},
};

impl Home {
    /// Hands out at most `budget` copies.
    pub(crate) fn fan_out(&mut self, fx: &mut Effects, mut budget: usize) {
        while budget > 0 {
            let Some((message, after)) = self.delivering.take().or_else(|| Some((self.fanout.pop()?, None))) else {
                return;
            };
            let (count, last) = match &message {
                ShardMessage::Deliver { handle, seq, frame } => self.deliver(fx, (*handle, *seq, frame), after, budget),
                other => self.hand(fx, other, after, budget),
            };
            if count == budget {
                self.delivering = Some((message, last));
            }
            // Looking for subscribers costs something too, also where there are none.
            budget = budget.saturating_sub(count + 1);
        }
    }

    /// Whether copies wait for the next turn.
    pub(crate) fn has_deliveries(&self) -> bool {
        self.delivering.is_some() || !self.fanout.is_empty()
    }

    /// Hands an event to the receivers behind `after`. Returns how many there were, and the last one.
    fn deliver(
        &mut self,
        fx: &mut Effects,
        (handle, seq, frame): (u32, u64, &Bytes),
        after: Option<ConnectionId>,
        budget: usize,
    ) -> (usize, Option<ConnectionId>) {
        let Some(followed) = self.followed.get(&handle) else { return (0, after) };
        let is_live = |subscriber: &Subscriber| seq >= subscriber.live_from;
        let (mut count, mut last, mut copies, mut overflowed) = (0, after, 0, Vec::new());
        for (id, receiver) in followed.receivers_after(after).take(budget) {
            (count, last) = (count + 1, Some(*id));
            let handed = match receiver {
                Receiver::Session(subscriber) if is_live(subscriber) => self.connections.push_event(*id, frame),
                Receiver::Group(group) if group.values().any(is_live) => {
                    self.connections.push_group_event(*id, frame).map(|()| group.len() as u64)
                }
                _ => Ok(0),
            };
            match handed {
                Ok(handed) => copies += handed,
                Err(Overflow) => overflowed.push(*id),
            }
        }
        fx.counters.deliveries += copies;
        // The upper bits of a handle name the log's owner.
        let is_crossed = handle >> HANDLE_LOG_BITS != u32::from(fx.shard.0);
        fx.counters.deliveries_crossed += if is_crossed { copies } else { 0 };
        for id in overflowed {
            for session in self.sessions(handle, id, is_live) {
                self.behind(fx, handle, session);
            }
        }
        (count, last)
    }

    /// The same with what is no event.
    fn hand(
        &mut self,
        fx: &mut Effects,
        message: &ShardMessage,
        after: Option<ConnectionId>,
        budget: usize,
    ) -> (usize, Option<ConnectionId>) {
        let Some(followed) = handle(message).and_then(|handle| self.followed.get(&handle)) else { return (0, after) };
        let ids: Vec<ConnectionId> = followed.receivers_after(after).take(budget).map(|(id, _)| *id).collect();
        for id in &ids {
            self.hand_to(fx, message, *id);
        }
        (ids.len(), ids.last().copied().or(after))
    }

    /// Hands a message to one connection: for its own session, or for a group of channels.
    fn hand_to(&mut self, fx: &mut Effects, message: &ShardMessage, id: ConnectionId) {
        match message {
            ShardMessage::Lagged { handle } => {
                for session in self.sessions(*handle, id, |_| true) {
                    self.behind(fx, *handle, session);
                }
            }
            ShardMessage::Detach { handle, audience, reason, seq } => {
                let is_meant = |subscriber: &Subscriber| match audience {
                    Audience::All => true,
                    Audience::User(user) => subscriber.actor.user == *user && subscriber.live_from <= *seq + 1,
                };
                for session in self.sessions(*handle, id, is_meant) {
                    self.detach(fx, *handle, session, *reason, *seq);
                }
            }
            ShardMessage::State { except, handle, frame } => self.tell(fx, *handle, *except, frame, id),
            _ => {}
        }
    }

    /// The sessions on a connection that follow a log and are meant.
    fn sessions(&self, handle: u32, id: ConnectionId, is_meant: impl Fn(&Subscriber) -> bool) -> Vec<ConnectionId> {
        match self.followed.get(&handle).and_then(|followed| followed.receivers.get(&id)) {
            Some(Receiver::Session(subscriber)) => is_meant(subscriber).then_some(id).into_iter().collect(),
            Some(Receiver::Group(group)) => {
                let Some(trunk) = self.connections.trunk(id) else { return Vec::new() };
                let meant = group.iter().filter(|(_, subscriber)| is_meant(subscriber));
                meant.filter_map(|(channel, _)| trunk.channels.get(channel).copied()).collect()
            }
            None => Vec::new(),
        }
    }

    /// Ends a subscription that cannot keep up. The client subscribes again from its position when it has read so far.
    pub(super) fn behind(&mut self, fx: &mut Effects, handle: u32, id: ConnectionId) {
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
        let Some(connection) = self.connections.get(id) else { return };
        if connection.session().is_some_and(|session| session.subscriptions.values().all(|key| *key != log)) {
            fx.counters.state_dropped += self.connections.push_state(id, frame) as u64;
        }
    }

    fn tell(
        &mut self,
        fx: &mut Effects,
        handle: u32,
        (shard, author): (ShardId, ConnectionId),
        frame: &Bytes,
        id: ConnectionId,
    ) {
        let author = (shard == fx.shard).then_some(author);
        match self.followed.get(&handle).and_then(|followed| followed.receivers.get(&id)) {
            Some(Receiver::Session(_)) if author != Some(id) => {
                fx.counters.state_dropped += self.connections.push_state(id, frame.clone()) as u64;
            }
            // In one order with what changes the group, so that nobody is told anything after their removal.
            Some(Receiver::Group(_)) => {
                let author = author.and_then(|author| self.connections.channel_of(author));
                let except = author.filter(|(trunk, _)| *trunk == id).map_or(0, |(_, channel)| channel);
                if self.connections.trunk(id).is_some_and(|trunk| trunk.has_room_for_event(frame.len())) {
                    self.connections.push_on_trunk(id, Prefix { channel: except, is_group: true }, frame.clone());
                } else {
                    fx.counters.state_dropped += 1;
                }
            }
            _ => {}
        }
    }
}

fn handle(message: &ShardMessage) -> Option<u32> {
    match message {
        ShardMessage::Lagged { handle } | ShardMessage::Detach { handle, .. } | ShardMessage::State { handle, .. } => {
            Some(*handle)
        }
        _ => None,
    }
}
