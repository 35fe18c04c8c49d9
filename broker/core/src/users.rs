//! Owner side of users: which devices are connected, where. One connection per device; a newer one takes over.

use std::collections::BTreeMap;

use antiphon_protocol::{DeviceId, LogKey};

use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    routing::ShardId,
    shard_message::{Registration, ShardMessage},
};

type Device = (LogKey, DeviceId);

/// The connected devices of the users that this shard owns.
#[derive(Debug, Default)]
pub(crate) struct Users {
    devices: BTreeMap<Device, (ShardId, ConnectionId)>,
}

impl Users {
    /// A session begins: evicts the device's older connection and lets the new one be welcomed.
    pub(crate) fn register(&mut self, fx: &mut Effects, from: ShardId, registration: &Registration) {
        let device = (registration.key, registration.actor.device.clone());
        let connection = registration.connection;
        if let Some((shard, older)) = self.devices.insert(device, (from, connection))
            && (shard, older) != (from, connection)
        {
            fx.post(shard, ShardMessage::Evict { connection: older });
        }
        fx.post(from, ShardMessage::Registered { connection });
    }

    /// A connection is gone; a newer one of the same device stays.
    pub(crate) fn unregister(&mut self, from: ShardId, registration: &Registration) {
        let device = (registration.key, registration.actor.device.clone());
        if self.devices.get(&device) == Some(&(from, registration.connection)) {
            self.devices.remove(&device);
        }
    }
}
