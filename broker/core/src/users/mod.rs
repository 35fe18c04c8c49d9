//! Owner side of users: which devices are connected, where. One connection per device; a newer one takes over.
//!
//! A session is known here once the user's inbox has admitted it (see `log::own`), so revocation, which is an event of the
//! inbox, is decided there and carried out here. Only what is connected is kept; nothing survives a restart.

mod explain;
mod following;
mod presence;
mod shared;

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{
    ConversationId, DeviceId, ErrorCode, EventKind, LogKey, Row,
    control::{self, PresenceStatus},
    frames,
};
use antiphon_storage_contract::presence::{PresenceEvent, UserKey};
use bytes::Bytes;

use following::Following;
use presence::Presences;

use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    held::Held,
    routing::ShardId,
    shard_message::{Admission, Incarnation, Registration, ShardMessage, Watch},
    time::Time,
};

/// One connected device.
#[derive(Debug, Clone)]
struct Seat {
    shard: ShardId,
    connection: ConnectionId,
    /// Gets HEAD for every conversation of the user.
    follows: bool,
    /// Does not count as the user's presence.
    is_background: bool,
    incarnation: Incarnation,
}

impl Seat {
    fn is_at(&self, shard: ShardId, connection: ConnectionId) -> bool {
        (self.shard, self.connection) == (shard, connection)
    }
}

/// A user with connected devices.
#[derive(Debug, Default)]
struct User {
    /// Few: a table costs less than a tree.
    devices: Vec<(DeviceId, Seat)>,
    /// While a device follows.
    following: Option<Following>,
}

/// The connected users whose inboxes this shard owns, by key of the inbox.
#[derive(Debug)]
pub(crate) struct Users {
    users: BTreeMap<LogKey, User>,
    presences: Presences,
}

impl Users {
    /// Nobody. `shares_presence` with other brokers, through a store.
    pub(crate) fn new(shares_presence: bool) -> Self {
        Self { users: BTreeMap::new(), presences: Presences::new(shares_presence) }
    }

    /// A session begins: evicts the device's older connection and lets the new one be welcomed.
    pub(crate) fn register(&mut self, fx: &mut Effects, admission: Admission) {
        let Admission { registration, from, not_before_ms, memberships } = admission;
        let incarnation = registration.incarnation;
        let Registration { connection, follows, is_background, .. } = *registration;
        let seat = Seat { shard: from, connection, follows, is_background, incarnation };
        let user = self.users.entry(registration.key).or_default();
        let held = user.seat(&registration.actor.device);
        if held.is_some_and(|held| seat.incarnation.is_before(&held.incarnation)) {
            let code = ErrorCode::Replaced;
            let message = "a newer connection of this client came first".into();
            fx.post(from, ShardMessage::Rejected { connection, code, message });
            return;
        }
        let (shard, was_present) = (seat.shard, user.is_present());
        if let Some(older) = user.take_seat(&registration.actor.device, seat)
            && !older.is_at(shard, connection)
        {
            fx.post(older.shard, ShardMessage::Evict { connection: older.connection });
        }
        if follows {
            user.follow(fx, &registration, memberships);
        }
        user.end_following(fx);
        if !is_background {
            self.presences.arrived(fx, registration.key, &registration.actor.user);
        } else if was_present && !user.is_present() {
            self.presences.left(fx, registration.key);
        }
        self.share(fx, &registration);
        fx.post(from, ShardMessage::Registered { registration, not_before_ms });
    }

    /// A connection is gone; a newer one of the same device stays.
    pub(crate) fn unregister(&mut self, fx: &mut Effects, from: ShardId, registration: &Registration) {
        let Some(user) = self.users.get_mut(&registration.key) else { return };
        let was_present = user.is_present();
        user.devices.retain(|(device, seat)| {
            *device != registration.actor.device || !seat.is_at(from, registration.connection)
        });
        user.end_following(fx);
        let is_present = user.is_present();
        if user.devices.is_empty() {
            self.users.remove(&registration.key);
        }
        if was_present && !is_present {
            self.presences.left(fx, registration.key);
        }
        self.share(fx, registration);
    }

    /// Lets other brokers know which devices of the session's user are here, if they are to know.
    fn share(&mut self, fx: &mut Effects, registration: &Registration) {
        let Some(shared) = self.presences.shared_mut() else { return };
        let devices = self.users.get(&registration.key).map(User::present_devices).unwrap_or_default();
        let user = UserKey { tenant: registration.actor.tenant.clone(), user: registration.actor.user.clone() };
        shared.set_devices(fx, registration.key, &user, devices);
    }

    /// The store of presence says something.
    pub(crate) fn presence_event(&mut self, fx: &mut Effects, event: PresenceEvent) {
        self.presences.event(fx, event);
    }

    /// Whether somebody is to be told something in the next turn.
    pub(crate) fn has_work(&self) -> bool {
        self.presences.has_work()
    }

    /// The user says how to be shown.
    pub(crate) fn set_presence(&mut self, fx: &mut Effects, key: LogKey, status: PresenceStatus, text: String) {
        self.presences.set(fx, key, status, text);
    }

    /// A session watches a user.
    pub(crate) fn watch(&mut self, fx: &mut Effects, watch: &Watch, is_allowed: bool) {
        self.presences.watch(fx, watch, is_allowed);
    }

    /// A session watches a user no more.
    pub(crate) fn unwatch(
        &mut self,
        fx: &mut Effects,
        from: ShardId,
        user: LogKey,
        connection: ConnectionId,
        list: u32,
    ) {
        self.presences.unwatch(fx, user, (from, connection), list);
    }

    /// Adds what is kept of users.
    pub(crate) fn add_held(&self, held: &mut Held) {
        held.users += self.users.len();
        self.presences.add_held(held);
    }

    /// When something is due next.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.presences.next_due()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, fx: &mut Effects) {
        self.presences.handle_timeout(fx);
    }

    /// Something that concerns the user's sessions became durable in the inbox.
    pub(crate) fn inbox_event(&mut self, fx: &mut Effects, key: LogKey, row: &Row) {
        if row.kind() == EventKind::BLOCK
            && let Ok(event) = frames::decode_answer::<control::Block>(&row.body())
            && event.blocked
        {
            self.presences.hide_from(fx, key, &event.user);
        }
        let Some(user) = self.users.get_mut(&key) else { return };
        match row.kind() {
            EventKind::REVOKED => user.revoke(fx, row),
            EventKind::CONVERSATION_ADDED => {
                if let Ok(event) = frames::decode_answer::<control::ConversationAdded>(&row.body())
                    && let (Some(following), Ok(id)) = (&mut user.following, event.conversation.parse())
                {
                    following.add(fx, id);
                }
            }
            EventKind::CONVERSATION_REMOVED => {
                if let Ok(event) = frames::decode_answer::<control::ConversationRemoved>(&row.body())
                    && let (Some(following), Ok(id)) = (&mut user.following, event.conversation.parse())
                {
                    following.remove(fx, &id);
                }
            }
            _ => {}
        }
    }

    /// A conversation of these users has changed.
    pub(crate) fn digest(&self, fx: &mut Effects, log: LogKey, frame: &Bytes, inboxes: &[LogKey]) {
        let users = inboxes.iter().filter_map(|inbox| self.users.get(inbox));
        for seat in users.flat_map(User::seats).filter(|seat| seat.follows) {
            let (connection, frame) = (seat.connection, frame.clone());
            fx.post(seat.shard, ShardMessage::Digested { connection, log, frame });
        }
    }
}

impl User {
    fn seats(&self) -> impl DoubleEndedIterator<Item = &Seat> {
        self.devices.iter().map(|(_, seat)| seat)
    }

    /// Whether a device is connected that counts.
    fn is_present(&self) -> bool {
        self.seats().any(|seat| !seat.is_background)
    }

    /// The devices that count.
    fn present_devices(&self) -> BTreeSet<DeviceId> {
        self.devices.iter().filter(|(_, seat)| !seat.is_background).map(|(device, _)| device.clone()).collect()
    }

    fn seat(&self, device: &DeviceId) -> Option<&Seat> {
        self.devices.iter().find(|(known, _)| known == device).map(|(_, seat)| seat)
    }

    /// Puts a device's connection in the place of its older one, which is the result.
    fn take_seat(&mut self, device: &DeviceId, seat: Seat) -> Option<Seat> {
        match self.devices.iter_mut().find(|(known, _)| known == device) {
            Some((_, held)) => Some(std::mem::replace(held, seat)),
            None => {
                self.devices.push((device.clone(), seat));
                None
            }
        }
    }

    fn follow(&mut self, fx: &mut Effects, registration: &Registration, memberships: Vec<ConversationId>) {
        let following = self.following.get_or_insert_with(|| Following {
            tenant: registration.actor.tenant.clone(),
            user: registration.actor.user.clone(),
            inbox: registration.key,
            conversations: BTreeSet::new(),
        });
        for conversation in memberships {
            following.add(fx, conversation);
        }
    }

    /// Once no device follows any more.
    fn end_following(&mut self, fx: &mut Effects) {
        if !self.seats().any(|seat| seat.follows)
            && let Some(following) = self.following.take()
        {
            following.end(fx);
        }
    }

    fn revoke(&self, fx: &mut Effects, row: &Row) {
        let Ok(event) = frames::decode_answer::<control::Revoked>(&row.body()) else { return };
        for seat in self.seats() {
            let message = ShardMessage::Revoked { connection: seat.connection, not_before_ms: event.not_before_ms };
            fx.post(seat.shard, message);
        }
    }
}
