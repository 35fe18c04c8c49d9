//! One user: the seats that count, the look that counts, and what follows for watchers.

use std::collections::BTreeSet;

use antiphon_protocol::DeviceId;
use antiphon_storage_contract::presence::{Look, Seen};

/// A seat as one user's table knows it: stated by which handle, of which device, which connection.
pub(super) type SeatKey = (u64, DeviceId, u64);

/// What is known of a user.
#[derive(Debug, Clone, Default)]
pub(super) struct User {
    seats: BTreeSet<SeatKey>,
    look: Look,
    /// The revocation, and when it was made.
    pub(super) revocation: Option<(u64, u64)>,
}

impl User {
    pub(super) fn seen(&self) -> Seen {
        if self.seats.is_empty() { Seen::offline() } else { Seen::from(&self.look) }
    }

    pub(super) fn here(&mut self, seat: SeatKey, look: Look) {
        if self.seats.is_empty() || look.set_at_ms > self.look.set_at_ms {
            self.look = look;
        }
        self.seats.insert(seat);
    }

    pub(super) fn left(&mut self, seat: &SeatKey) {
        self.seats.remove(seat);
    }

    pub(super) fn devices(&self) -> Vec<DeviceId> {
        let mut devices: Vec<DeviceId> = self.seats.iter().map(|(_, device, _)| device.clone()).collect();
        devices.sort();
        devices.dedup();
        devices
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_nobody(&self) -> bool {
        self.seats.is_empty() && self.revocation.is_none()
    }
}
