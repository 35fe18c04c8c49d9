//! What handles state: seats, watches, subscriptions.

use std::sync::Arc;

use antiphon_protocol::LogKey;
use antiphon_storage::presence::{
    Look, PresenceError, PresenceOp, SEATS_MAX, SUBSCRIPTIONS_MAX, Seat, Seen, UserKey, WATCHES_MAX,
};
use bytes::Bytes;

use super::{Change, Handle, Ledger, user::SeatKey};
use crate::{handle::Shared, keys::bucket_of};

impl Ledger {
    pub(crate) fn attach(&mut self, id: u64, shared: Arc<Shared>) {
        let is_stale = self.is_stale();
        shared.tell(|desk| desk.set_stale(is_stale));
        let (seats, watches, subscriptions) = Default::default();
        self.handles.insert(id, Handle { shared, seats, watches, subscriptions });
    }

    /// A handle is gone: its seats are stated no more and run out.
    pub(crate) fn detach(&mut self, id: u64) -> Vec<Change> {
        let Some(handle) = self.handles.remove(&id) else { return Vec::new() };
        for Seat { owner, device, incarnation } in handle.seats {
            let bucket = &mut self.buckets[bucket_of(&owner)];
            if let Some(user) = bucket.users.get_mut(&owner) {
                user.seats.remove(&(id, device, incarnation));
            }
            bucket.forget(&owner);
        }
        for key in handle.watches {
            self.unwatch(id, &key);
        }
        handle.subscriptions.into_iter().filter_map(|log| self.unsubscribe(id, log)).collect()
    }

    /// A seat is there, or gone.
    pub(crate) fn state(&mut self, id: u64, seat: Seat, look: Option<Look>) {
        let Some(handle) = self.handles.get_mut(&id) else { return };
        let key: SeatKey = (id, seat.device.clone(), seat.incarnation);
        let bucket = &mut self.buckets[bucket_of(&seat.owner)];
        match look {
            Some(look) if handle.seats.len() >= SEATS_MAX && !handle.seats.contains(&seat) => {
                let (op, error) = (PresenceOp::Here { seat, look }, PresenceError::Full(SEATS_MAX));
                return handle.shared.tell(|desk| desk.refuse(op, error));
            }
            Some(look) => {
                let user = bucket.users.entry(seat.owner.clone()).or_default();
                if user.seats.is_empty() || look.set_at_ms > user.look.set_at_ms {
                    user.look = look;
                }
                user.seats.insert(key.clone());
                handle.seats.insert(seat.clone());
            }
            None => {
                if let Some(user) = bucket.users.get_mut(&seat.owner) {
                    user.seats.remove(&key);
                }
                handle.seats.remove(&seat);
                bucket.forget(&seat.owner);
            }
        }
        bucket.state_seat(&seat.owner, key);
    }

    pub(crate) fn watch(&mut self, id: u64, key: UserKey) {
        let is_stale = self.is_stale();
        let Some(handle) = self.handles.get_mut(&id) else { return };
        if handle.watches.len() >= WATCHES_MAX && !handle.watches.contains(&key) {
            let (op, error) = (PresenceOp::Watch(key), PresenceError::Full(WATCHES_MAX));
            return handle.shared.tell(|desk| desk.refuse(op, error));
        }
        handle.watches.insert(key.clone());
        let bucket = &mut self.buckets[bucket_of(&key)];
        let user = bucket.users.entry(key.clone()).or_default();
        user.watchers.insert(id);
        match &user.seen {
            _ if is_stale => handle.shared.tell(|desk| desk.watch(key.clone(), Seen::Unknown)),
            Some(seen) => return handle.shared.tell(|desk| desk.watch(key, seen.clone())),
            None => {
                user.waiting.insert(id);
            }
        }
        bucket.look_at(&key);
    }

    pub(crate) fn unwatch(&mut self, id: u64, key: &UserKey) {
        let bucket = &mut self.buckets[bucket_of(key)];
        if let Some(user) = bucket.users.get_mut(key) {
            user.watchers.remove(&id);
            user.waiting.remove(&id);
            if user.watchers.is_empty() {
                // Nobody keeps it up to date from now on.
                user.seen = None;
                user.begin_life();
            }
        }
        bucket.forget(key);
        if let Some(handle) = self.handles.get_mut(&id) {
            handle.watches.remove(key);
            handle.shared.tell(|desk| desk.unwatch(key));
        }
    }

    pub(crate) fn subscribe(&mut self, id: u64, log: LogKey) -> Option<Change> {
        let handle = self.handles.get_mut(&id)?;
        if handle.subscriptions.len() >= SUBSCRIPTIONS_MAX && !handle.subscriptions.contains(&log) {
            let (op, error) = (PresenceOp::Subscribe(log), PresenceError::Full(SUBSCRIPTIONS_MAX));
            handle.shared.tell(|desk| desk.refuse(op, error));
            return None;
        }
        handle.subscriptions.insert(log);
        let subscribers = self.subscribers.entry(log).or_default();
        subscribers.insert(id);
        (subscribers.len() == 1).then_some(Change::Begins(log))
    }

    pub(crate) fn unsubscribe(&mut self, id: u64, log: LogKey) -> Option<Change> {
        if let Some(handle) = self.handles.get_mut(&id) {
            handle.subscriptions.remove(&log);
        }
        let subscribers = self.subscribers.get_mut(&log)?;
        subscribers.remove(&id);
        if !subscribers.is_empty() {
            return None;
        }
        self.subscribers.remove(&log);
        Some(Change::Ends(log))
    }

    /// Logs with subscribers.
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = LogKey> {
        self.subscribers.keys().copied()
    }

    /// A signal has come. One that nobody wants shows a subscription that should have ended.
    pub(crate) fn signal(&mut self, log: LogKey, payload: &Bytes) -> Option<Change> {
        let Some(subscribers) = self.subscribers.get(&log) else { return Some(Change::Ends(log)) };
        for handle in subscribers.iter().filter_map(|id| self.handles.get(id)) {
            handle.shared.tell(|desk| desk.signal(log, payload.clone()));
        }
        None
    }
}
