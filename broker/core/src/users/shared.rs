//! Presence that brokers share: what this shard states to the store of it, and what the store said last.
//!
//! Where presence is not shared nothing of this exists, and the shard decides alone.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{DeviceId, LogKey, LogName, control::PresenceStatus};
use antiphon_storage_contract::presence::{Look, PresenceEvent, PresenceOp, Seat, Seen, UserKey};

use super::presence::Shown;
use crate::{effects::Effects, output::Output};

/// One user, as this shard has stated and was told.
#[derive(Debug)]
struct Stated {
    user: UserKey,
    /// Devices that the store was told of.
    devices: BTreeSet<DeviceId>,
    look: Look,
    is_watched: bool,
    /// `None` before the first answer.
    seen: Option<Shown>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shared {
    users: BTreeMap<LogKey, Stated>,
    is_stale: bool,
}

/// What an event of the store comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    /// The user's state may be another one; `is_first`, if watchers were told nothing yet.
    Of {
        key: LogKey,
        is_first: bool,
    },
    /// Everybody's may be.
    OfAll,
}

impl Shared {
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    fn entry(&mut self, key: LogKey, user: &UserKey) -> &mut Stated {
        self.users.entry(key).or_insert_with(|| Stated {
            user: user.clone(),
            devices: BTreeSet::new(),
            look: Look::default(),
            is_watched: false,
            seen: None,
        })
    }

    /// These devices of the user are connected. Without any, the store is told by [`Self::gone`], after the grace.
    pub(super) fn set_devices(&mut self, fx: &mut Effects, key: LogKey, user: &UserKey, devices: BTreeSet<DeviceId>) {
        if devices.is_empty() {
            return;
        }
        let stated = self.entry(key, user);
        let before = std::mem::replace(&mut stated.devices, devices);
        // First who comes, so that a device that takes the place of the last one is no absence.
        for device in stated.devices.difference(&before) {
            state(fx, stated.here(device));
        }
        for device in before.difference(&stated.devices) {
            state(fx, PresenceOp::Left(stated.seat(device)));
        }
    }

    /// The user is not present any more.
    pub(super) fn gone(&mut self, fx: &mut Effects, key: LogKey) {
        let Some(stated) = self.users.get_mut(&key) else { return };
        stated.look = Look::default();
        for device in std::mem::take(&mut stated.devices) {
            state(fx, PresenceOp::Left(stated.seat(&device)));
        }
        self.forget(key);
    }

    /// The user says how to be shown.
    pub(super) fn set_look(&mut self, fx: &mut Effects, key: LogKey, status: PresenceStatus, text: String) {
        let Some(stated) = self.users.get_mut(&key) else { return };
        // The newest counts, also within one millisecond.
        let set_at_ms = fx.now.unix_ms().max(stated.look.set_at_ms + 1);
        stated.look = Look { status, text, set_at_ms };
        if let Some(device) = stated.devices.first() {
            state(fx, stated.here(device));
        }
    }

    /// Sessions of this shard's users have an interest in the user.
    pub(super) fn watch(&mut self, fx: &mut Effects, key: LogKey, user: &UserKey) {
        let stated = self.entry(key, user);
        if !stated.is_watched {
            stated.is_watched = true;
            state(fx, PresenceOp::Watch(stated.user.clone()));
        }
    }

    /// Nobody here is interested any more.
    pub(super) fn unwatch(&mut self, fx: &mut Effects, key: LogKey) {
        if let Some(stated) = self.users.get_mut(&key).filter(|stated| stated.is_watched) {
            (stated.is_watched, stated.seen) = (false, None);
            state(fx, PresenceOp::Unwatch(stated.user.clone()));
        }
        self.forget(key);
    }

    fn forget(&mut self, key: LogKey) {
        if self.users.get(&key).is_some_and(|stated| stated.devices.is_empty() && !stated.is_watched) {
            self.users.remove(&key);
        }
    }

    /// What watchers are shown; `None` until the store has said something.
    pub(super) fn shown(&self, key: LogKey) -> Option<Shown> {
        match self.is_stale {
            true => Some((PresenceStatus::Unknown, String::new())),
            false => self.users.get(&key)?.seen.clone(),
        }
    }

    /// The store says something.
    pub(super) fn event(&mut self, event: PresenceEvent) -> News {
        match event {
            PresenceEvent::Seen { user, seen } => {
                let key = LogName::Inbox(user.user).key(&user.tenant);
                // What is told of a watch that has just ended is for nobody.
                let Some(stated) = self.users.get_mut(&key).filter(|stated| stated.is_watched) else {
                    return News::Nothing;
                };
                let shown = match seen {
                    Seen::Unknown => (PresenceStatus::Unknown, String::new()),
                    Seen::Known { status, text } => (status, text),
                };
                // While the store is away everybody has been told that nothing is known.
                let is_first = stated.seen.replace(shown).is_none() && !self.is_stale;
                News::Of { key, is_first }
            }
            PresenceEvent::Stale | PresenceEvent::Fresh => {
                self.is_stale = event == PresenceEvent::Stale;
                News::OfAll
            }
            // Revocations are events of inboxes, which each broker reads for itself; the rest was not asked for.
            PresenceEvent::Signal { .. }
            | PresenceEvent::Revoked { .. }
            | PresenceEvent::Answered { .. }
            | PresenceEvent::Refused { .. } => News::Nothing,
        }
    }
}

impl Stated {
    /// A device has one connection here at a time, so there is nothing to tell several by.
    fn seat(&self, device: &DeviceId) -> Seat {
        Seat { owner: self.user.clone(), device: device.clone(), incarnation: 0 }
    }

    fn here(&self, device: &DeviceId) -> PresenceOp {
        PresenceOp::Here { seat: self.seat(device), look: self.look.clone() }
    }
}

fn state(fx: &mut Effects, op: PresenceOp) {
    fx.outputs.push_back(Output::Presence(op));
}
