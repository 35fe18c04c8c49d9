//! Who of this shard follows a log.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Bound,
    sync::Arc,
};

use antiphon_protocol::LogKey;

use crate::{actor::Actor, connection_id::ConnectionId};

/// A log that sessions of this shard follow.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) key: LogKey,
    pub(super) receivers: BTreeMap<ConnectionId, Receiver>,
}

/// A connection that gets a copy of each event.
#[derive(Debug)]
#[expect(
    clippy::box_collection,
    reason = "the box is smaller than the map, and there are many sessions for each trunk"
)]
pub(super) enum Receiver {
    /// For its own session.
    Session(Subscriber),
    /// For these channels of a trunk.
    Group(Box<BTreeMap<u32, Subscriber>>),
}

#[derive(Debug)]
pub(super) struct Subscriber {
    /// With whose rights it subscribed.
    pub(super) actor: Arc<Actor>,
    pub(super) live_from: u64,
}

impl Followed {
    pub(super) fn new(key: LogKey) -> Self {
        Self { key, receivers: BTreeMap::new() }
    }

    /// Adds a session, on its own connection or as a channel of a trunk. Returns whether it was there before.
    pub(super) fn insert(
        &mut self,
        id: ConnectionId,
        channel: Option<(ConnectionId, u32)>,
        subscriber: Subscriber,
    ) -> bool {
        let Some((trunk, channel)) = channel else {
            return self.receivers.insert(id, Receiver::Session(subscriber)).is_some();
        };
        match self.receivers.entry(trunk).or_insert_with(|| Receiver::Group(Box::default())) {
            Receiver::Group(group) => group.insert(channel, subscriber).is_some(),
            Receiver::Session(_) => false,
        }
    }

    /// Takes a session out. Returns whether it was there.
    pub(super) fn remove(&mut self, id: ConnectionId, channel: Option<(ConnectionId, u32)>) -> bool {
        let Some((trunk, channel)) = channel else { return self.receivers.remove(&id).is_some() };
        let Entry::Occupied(mut entry) = self.receivers.entry(trunk) else { return false };
        let Receiver::Group(group) = entry.get_mut() else { return false };
        let was_there = group.remove(&channel).is_some();
        if group.is_empty() {
            entry.remove();
        }
        was_there
    }

    /// The receivers, or those behind `after`, in their order.
    pub(super) fn receivers_after(
        &self,
        after: Option<ConnectionId>,
    ) -> impl Iterator<Item = (&ConnectionId, &Receiver)> {
        self.receivers.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// A session that follows.
    pub(super) fn subscriber(&self, id: ConnectionId, channel: Option<(ConnectionId, u32)>) -> Option<&Subscriber> {
        match (self.receivers.get(&channel.map_or(id, |(trunk, _)| trunk))?, channel) {
            (Receiver::Session(subscriber), None) => Some(subscriber),
            (Receiver::Group(group), Some((_, channel))) => group.get(&channel),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// Sessions that follow.
    pub(super) fn len(&self) -> usize {
        let sessions = |receiver: &Receiver| match receiver {
            Receiver::Session(_) => 1,
            Receiver::Group(group) => group.len(),
        };
        self.receivers.values().map(sessions).sum()
    }
}
