//! Owner side of users: which devices are connected, where. One connection per device; a newer one takes over.
//!
//! A session is known here once the user's inbox has admitted it (see `log::own`), so revocation, which is an event of the
//! inbox, is decided there and carried out here. Only what is connected is kept; nothing survives a restart.

use std::collections::BTreeMap;

use antiphon_protocol::{DeviceId, EventKind, LogKey, Row, control, frames};

use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    routing::ShardId,
    shard_message::{Admission, Registration, ShardMessage},
};

/// One connected device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    shard: ShardId,
    connection: ConnectionId,
}

/// A user with connected devices.
#[derive(Debug, Default)]
struct User {
    devices: BTreeMap<DeviceId, Seat>,
}

/// The connected users whose inboxes this shard owns, by key of the inbox.
#[derive(Debug, Default)]
pub(crate) struct Users {
    users: BTreeMap<LogKey, User>,
}

impl Users {
    /// A session begins: evicts the device's older connection and lets the new one be welcomed.
    pub(crate) fn register(&mut self, fx: &mut Effects, admission: Admission) {
        let Admission { registration, from, not_before_ms } = admission;
        let seat = Seat { shard: from, connection: registration.connection };
        let user = self.users.entry(registration.key).or_default();
        if let Some(older) = user.devices.insert(registration.actor.device.clone(), seat)
            && older != seat
        {
            fx.post(older.shard, ShardMessage::Evict { connection: older.connection });
        }
        fx.post(from, ShardMessage::Registered { registration, not_before_ms });
    }

    /// A connection is gone; a newer one of the same device stays.
    pub(crate) fn unregister(&mut self, from: ShardId, registration: &Registration) {
        let Some(user) = self.users.get_mut(&registration.key) else { return };
        let seat = Seat { shard: from, connection: registration.connection };
        if user.devices.get(&registration.actor.device) == Some(&seat) {
            user.devices.remove(&registration.actor.device);
        }
        if user.devices.is_empty() {
            self.users.remove(&registration.key);
        }
    }

    /// Something that concerns the user's sessions became durable in the inbox.
    pub(crate) fn inbox_event(&mut self, fx: &mut Effects, key: LogKey, row: &Row) {
        let Some(user) = self.users.get_mut(&key) else { return };
        if row.kind() == EventKind::REVOKED
            && let Ok(event) = frames::decode_answer::<control::Revoked>(&row.body())
        {
            for seat in user.devices.values() {
                let message = ShardMessage::Revoked { connection: seat.connection, not_before_ms: event.not_before_ms };
                fx.post(seat.shard, message);
            }
        }
    }
}
