//! The connections of a shard and the sessions on its trunks, by slot; what waits to be written, on the way to it.

use std::collections::BTreeMap;

use antiphon_protocol::{Class, trunk::Prefix};
use bytes::Bytes;

use super::{
    connection::{Carrier, Connection},
    trunk::Trunk,
};
use crate::{
    connection_id::ConnectionId,
    limits::{OUTBOX_EVENT_BYTES_MAX, OUTBOX_MARK_BYTES_MAX, TRUNK_EVENT_BYTES_MAX},
    outbox::{Outbox, Overflow},
};

/// Dense tables: slots are small numbers that are reused.
#[derive(Debug, Default)]
pub(super) struct Connections {
    /// By the node's slot.
    own: Vec<Option<Box<Connection>>>,
    /// Sessions on trunks.
    channels: Vec<ChannelSlot>,
    free_channels: Vec<u32>,
    trunks: BTreeMap<ConnectionId, Trunk>,
    /// Connections and trunks whose outbox has gained something since the shell last asked.
    writable: Vec<ConnectionId>,
}

#[derive(Debug, Default)]
struct ChannelSlot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Connections {
    /// A connection of the node.
    pub(super) fn insert(&mut self, id: ConnectionId) {
        let slot = id.slot as usize;
        if self.own.len() <= slot {
            self.own.resize_with(slot + 1, || None);
        }
        self.own[slot] = Some(Box::new(Connection::new(id, Carrier::Own)));
    }

    /// A connection of the node that is a trunk.
    pub(super) fn insert_trunk(&mut self, id: ConnectionId) {
        self.trunks.insert(id, Trunk::new(id));
    }

    /// A session on a trunk.
    pub(super) fn insert_channel(&mut self, trunk: ConnectionId, channel: u32) -> Option<ConnectionId> {
        let owner = self.trunks.get_mut(&trunk)?;
        let index = self.free_channels.pop().unwrap_or_else(|| {
            self.channels.push(ChannelSlot::default());
            // Invariant: far fewer than 2^31 sessions fit the memory of a machine.
            self.channels.len() as u32 - 1
        });
        let slot = self.channels.get_mut(index as usize)?;
        slot.generation = slot.generation.wrapping_add(1);
        let id = ConnectionId::of_channel(index, slot.generation);
        slot.connection = Some(Box::new(Connection::new(id, Carrier::Trunk { trunk, channel })));
        owner.channels.insert(channel, id);
        Some(id)
    }

    /// Forgets a connection or a session on a trunk.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let Some(index) = id.channel_index() else {
            return self.own.get_mut(id.slot as usize)?.take_if(|connection| connection.id == id);
        };
        let slot = self.channels.get_mut(index)?;
        let removed = slot.connection.take_if(|connection| connection.id == id)?;
        self.free_channels.push(index as u32);
        if let Carrier::Trunk { trunk, channel } = removed.carrier
            && let Some(trunk) = self.trunks.get_mut(&trunk)
        {
            trunk.channels.remove(&channel);
        }
        Some(removed)
    }

    /// Forgets a trunk. Its sessions have to be ended before.
    pub(super) fn remove_trunk(&mut self, id: ConnectionId) {
        self.trunks.remove(&id);
    }

    pub(super) fn trunk(&self, id: ConnectionId) -> Option<&Trunk> {
        self.trunks.get(&id)
    }

    pub(super) fn trunk_mut(&mut self, id: ConnectionId) -> Option<&mut Trunk> {
        self.trunks.get_mut(&id)
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let slot = match id.channel_index() {
            Some(index) => &self.channels.get(index)?.connection,
            None => self.own.get(id.slot as usize)?,
        };
        slot.as_deref().filter(|connection| connection.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = match id.channel_index() {
            Some(index) => &mut self.channels.get_mut(index)?.connection,
            None => self.own.get_mut(id.slot as usize)?,
        };
        slot.as_deref_mut().filter(|connection| connection.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        let channels = self.channels.iter().filter_map(|slot| slot.connection.as_deref());
        self.own.iter().flatten().map(|connection| &**connection).chain(channels)
    }

    pub(super) fn trunks(&self) -> impl Iterator<Item = &Trunk> {
        self.trunks.values()
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.iter().map(|connection| connection.id).collect()
    }

    /// The trunk that carries a session, and its number there.
    pub(super) fn channel_of(&self, id: ConnectionId) -> Option<(ConnectionId, u32)> {
        id.channel_index()?;
        match self.get(id)?.carrier {
            Carrier::Trunk { trunk, channel } => Some((trunk, channel)),
            Carrier::Own => None,
        }
    }

    /// Notes that the connection has something to write.
    pub(super) fn list_writable(&mut self, id: ConnectionId) {
        let Some(connection) = self.get_mut(id).filter(|connection| !connection.is_listed) else { return };
        connection.is_listed = true;
        match connection.carrier {
            Carrier::Own => self.writable.push(id),
            Carrier::Trunk { trunk, .. } => {
                if let Some(trunk) = self.trunks.get_mut(&trunk) {
                    trunk.ready.push_back(id);
                    trunk.list(&mut self.writable);
                }
            }
        }
    }

    /// Notes that a trunk has something to write by itself.
    pub(super) fn list_trunk(&mut self, id: ConnectionId) {
        if let Some(trunk) = self.trunks.get_mut(&id) {
            trunk.list(&mut self.writable);
        }
    }

    /// A connection or trunk with something to write; each is named once until it gains something again.
    pub(super) fn pop_writable(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.writable.pop()?;
            if let Some(connection) = self.get_mut(id) {
                connection.is_listed = false;
                return Some(id);
            }
            if self.trunks.contains_key(&id) {
                self.fill(id);
                if let Some(trunk) = self.trunks.get_mut(&id) {
                    trunk.is_listed = false;
                }
                return Some(id);
            }
        }
    }

    /// Moves what the sessions of a trunk have to write into its own outbox, as far as that has room. One after the
    /// other, so that none waits for long.
    fn fill(&mut self, id: ConnectionId) {
        loop {
            let Some(trunk) = self.trunks.get_mut(&id).filter(|trunk| trunk.has_room()) else { return };
            let Some(next) = trunk.ready.pop_front() else { return };
            let Some(connection) = self.get_mut(next) else { continue };
            connection.is_listed = false;
            let mut outbox = std::mem::take(&mut connection.outbox);
            let Carrier::Trunk { channel, .. } = connection.carrier else { continue };
            if let Some(trunk) = self.trunks.get_mut(&id) {
                trunk.take(channel, next, &mut outbox);
            }
            let is_empty = outbox.is_empty();
            if let Some(connection) = self.get_mut(next) {
                connection.outbox = outbox;
            }
            if !is_empty {
                self.list_writable(next);
            }
        }
    }

    /// What was written of a trunk has made room: names it again if its sessions have more. Answers with the sessions
    /// whose frames it took.
    pub(super) fn taken(&mut self, id: ConnectionId) -> Vec<ConnectionId> {
        let Some(trunk) = self.trunks.get_mut(&id) else { return Vec::new() };
        if !trunk.ready.is_empty() && trunk.has_room() {
            trunk.list(&mut self.writable);
        }
        std::mem::take(&mut trunk.taken)
    }

    pub(super) fn outbox_mut(&mut self, id: ConnectionId) -> Option<&mut Outbox> {
        if self.trunks.contains_key(&id) {
            return self.trunks.get_mut(&id).map(|trunk| &mut trunk.outbox);
        }
        self.get_mut(id).map(|connection| &mut connection.outbox)
    }

    /// Adds a frame that always fits to a connection's outbox.
    pub(super) fn push(&mut self, id: ConnectionId, class: Class, frame: Bytes) {
        if class == Class::Events
            && let Some((trunk, channel)) = self.channel_of(id)
        {
            return self.push_on_trunk(trunk, Prefix::channel(channel), frame);
        }
        if let Some(connection) = self.get_mut(id) {
            match class {
                Class::Events => connection.outbox.push_mark(frame),
                Class::Backfill => connection.outbox.push_page(frame),
                Class::Control | Class::State | Class::Tokens => connection.outbox.push_control(frame),
            }
            self.list_writable(id);
        }
    }

    /// Adds a live event to a connection of the node. Returns how many copies that makes: none if it is gone.
    pub(super) fn push_event(&mut self, id: ConnectionId, frame: &Bytes) -> Result<u64, Overflow> {
        let Some(connection) = self.get_mut(id) else { return Ok(0) };
        connection.outbox.push_event(frame)?;
        if !std::mem::replace(&mut connection.is_listed, true) {
            self.writable.push(id);
        }
        Ok(1)
    }

    /// Adds a live event for a group of a trunk's sessions.
    pub(super) fn push_group_event(&mut self, trunk: ConnectionId, frame: &Bytes) -> Result<(), Overflow> {
        self.trunks.get(&trunk).filter(|trunk| trunk.has_room_for_event(frame.len())).ok_or(Overflow)?;
        self.push_on_trunk(trunk, Prefix::GROUP, frame.clone());
        Ok(())
    }

    /// Adds a frame to the events of a trunk.
    pub(super) fn push_on_trunk(&mut self, trunk: ConnectionId, prefix: Prefix, frame: Bytes) {
        if let Some(trunk) = self.trunks.get_mut(&trunk) {
            trunk.push_event(prefix, frame);
            trunk.list(&mut self.writable);
        }
    }

    /// Adds state to a connection's outbox. Returns how many older frames gave way.
    pub(super) fn push_state(&mut self, id: ConnectionId, frame: Bytes) -> usize {
        let dropped = self.get_mut(id).map_or(0, |connection| connection.outbox.push_state(frame));
        self.list_writable(id);
        dropped
    }

    /// Bytes of rows that may go out with a hand-over to this session.
    pub(super) fn room_to_inline(&self, id: ConnectionId) -> usize {
        match self.channel_of(id).and_then(|(trunk, _)| self.trunks.get(&trunk)) {
            Some(trunk) => TRUNK_EVENT_BYTES_MAX.saturating_sub(trunk.events_bytes()).min(OUTBOX_EVENT_BYTES_MAX),
            None => {
                let events = self.get(id).map_or(0, |connection| connection.outbox.lane(Class::Events).bytes());
                OUTBOX_EVENT_BYTES_MAX.saturating_sub(events)
            }
        }
    }

    /// Whether the session's next frame may be looked at now. If its trunk is why not, it is looked at again when that
    /// has written something.
    pub(super) fn is_ready_for_frame(&mut self, id: ConnectionId) -> bool {
        if !self.get(id).is_some_and(Connection::is_ready_for_frame) {
            return false;
        }
        let Some((trunk, _)) = self.channel_of(id) else { return true };
        let is_full = |trunk: &Trunk| trunk.events_bytes() >= TRUNK_EVENT_BYTES_MAX + OUTBOX_MARK_BYTES_MAX;
        if !self.trunks.get(&trunk).is_some_and(is_full) {
            return true;
        }
        if let Some(connection) = self.get_mut(id).filter(|connection| !connection.awaits_trunk) {
            connection.awaits_trunk = true;
            if let Some(trunk) = self.trunks.get_mut(&trunk) {
                trunk.taken.push(id);
            }
        }
        false
    }
}
