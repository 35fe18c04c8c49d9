//! The connections of a shard, by slot.

use antiphon_protocol::Class;
use bytes::Bytes;

use super::connection::Connection;
use crate::connection_id::ConnectionId;

/// A dense table: slots are small numbers that the node reuses.
#[derive(Debug, Default)]
pub(super) struct Connections {
    slots: Vec<Option<Box<Connection>>>,
    /// Connections whose outbox has gained something since the shell last asked.
    writable: Vec<ConnectionId>,
}

impl Connections {
    pub(super) fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Box::new(connection));
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.take_if(|connection| connection.id == id)
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.slots.get(id.slot as usize)?.as_deref().filter(|connection| connection.id == id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.slots.get_mut(id.slot as usize)?.as_deref_mut().filter(|connection| connection.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.slots.iter().flatten().map(|connection| &**connection)
    }

    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        self.slots.iter().flatten().map(|connection| connection.id).collect()
    }

    /// Notes that the connection has something to write.
    pub(super) fn list_writable(&mut self, id: ConnectionId) {
        if let Some(connection) = self.get_mut(id)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.writable.push(id);
        }
    }

    /// A connection with something to write; each is named once until it gains something again.
    pub(super) fn pop_writable(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.writable.pop()?;
            if let Some(connection) = self.get_mut(id) {
                connection.is_listed = false;
                return Some(id);
            }
        }
    }

    /// Adds a frame that always fits to a connection's outbox.
    pub(super) fn push(&mut self, id: ConnectionId, class: Class, frame: Bytes) {
        if let Some(connection) = self.get_mut(id) {
            match class {
                Class::Events => connection.outbox.push_mark(frame),
                Class::Backfill => connection.outbox.push_page(frame),
                Class::Control | Class::State | Class::Tokens => connection.outbox.push_control(frame),
            }
            self.list_writable(id);
        }
    }
}
