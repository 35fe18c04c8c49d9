//! Who is there: transitions only, to those who asked. In memory only: a restart begins with everybody offline, unless
//! presence is shared, which outlives a broker for a while (see [`super::shared`]).
//!
//! A user is present from the first session until ten seconds after the last one is gone, so that a reconnect is no
//! transition. What the user set (a status, a text) is shown while present and forgotten with the presence. Who may
//! watch whom is decided by the target's inbox before a watcher gets here (see `log::watch`).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use antiphon_protocol::{
    FrameType, LogKey, UserId,
    control::{self, PresenceStatus},
    frames,
};
use antiphon_storage_contract::presence::{PresenceEvent, UserKey};
use bytes::Bytes;

use super::shared::{News, Shared};
use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    held::Held,
    limits::{PRESENCE_GRACE, PRESENCE_WATCHERS_MAX, PRESENCES_RETOLD_PER_TURN},
    routing::ShardId,
    shard_message::{ShardMessage, Watch},
    time::Time,
};

pub(super) type Shown = (PresenceStatus, String);

#[derive(Debug)]
struct Watcher {
    /// Which of the session's lists named the user; a later list may have dropped it.
    list: u32,
    user: UserId,
}

/// What is shown of one user, and to whom.
#[derive(Debug, Default)]
struct Presence {
    is_present: bool,
    /// When the user stops being present.
    grace_ends: Option<Time>,
    set: Option<Shown>,
    shown: Shown,
    watchers: BTreeMap<(ShardId, ConnectionId), Watcher>,
}

impl Presence {
    fn current(&self) -> Shown {
        match (&self.set, self.is_present) {
            (_, false) => (PresenceStatus::Offline, String::new()),
            (Some(set), true) => set.clone(),
            (None, true) => (PresenceStatus::Online, String::new()),
        }
    }

    /// Tells the watchers that the user is shown like this from now on.
    fn show(&mut self, fx: &mut Effects, key: LogKey, user: &UserId, shown: Shown) {
        let frame = frame(user, &shown);
        self.shown = shown;
        for seat in self.watchers.keys() {
            tell(fx, *seat, key, frame.clone());
        }
    }
}

/// The presences of the users whose inboxes this shard owns.
#[derive(Debug)]
pub(super) struct Presences {
    users: BTreeMap<LogKey, (UserId, Presence)>,
    grace: BTreeSet<(Time, LogKey)>,
    /// If other brokers have a say.
    shared: Option<Shared>,
    /// Everybody may be shown in another way than before; those up to this one have been looked at.
    retelling: Option<Bound<LogKey>>,
}

impl Presences {
    pub(super) fn new(is_shared: bool) -> Self {
        let shared = is_shared.then(Shared::default);
        Self { users: BTreeMap::new(), grace: BTreeSet::new(), shared, retelling: None }
    }

    pub(super) fn shared_mut(&mut self) -> Option<&mut Shared> {
        self.shared.as_mut()
    }

    pub(super) fn has_work(&self) -> bool {
        self.retelling.is_some()
    }

    fn entry(&mut self, key: LogKey, user: &UserId) -> &mut Presence {
        &mut self.users.entry(key).or_insert_with(|| (user.clone(), Presence::default())).1
    }

    /// Adds who is shown, and to how many.
    pub(super) fn add_held(&self, held: &mut Held) {
        held.users += self.users.len() + self.shared.as_ref().map_or(0, Shared::len);
        held.timers += self.grace.len();
        held.watchers += self.users.values().map(|(_, presence)| presence.watchers.len()).sum::<usize>();
    }

    /// A session of the user begins.
    pub(super) fn arrived(&mut self, fx: &mut Effects, key: LogKey, user: &UserId) {
        let presence = self.entry(key, user);
        presence.is_present = true;
        if let Some(ends) = presence.grace_ends.take() {
            self.grace.remove(&(ends, key));
        }
        self.show(fx, key);
    }

    /// The last session of the user is gone.
    pub(super) fn left(&mut self, fx: &mut Effects, key: LogKey) {
        let Some((_, presence)) = self.users.get_mut(&key) else { return };
        if presence.grace_ends.is_none() {
            let ends = fx.now + PRESENCE_GRACE;
            presence.grace_ends = Some(ends);
            self.grace.insert((ends, key));
        }
    }

    /// When somebody stops being present next.
    pub(super) fn next_due(&self) -> Option<Time> {
        self.grace.first().map(|(time, _)| *time)
    }

    /// Shows as offline who has been away for long enough.
    pub(super) fn handle_timeout(&mut self, fx: &mut Effects) {
        while let Some((_, key)) = self.grace.first().copied().filter(|(time, _)| *time <= fx.now) {
            self.grace.pop_first();
            if let Some((_, presence)) = self.users.get_mut(&key) {
                (presence.is_present, presence.grace_ends, presence.set) = (false, None, None);
            }
            if let Some(shared) = &mut self.shared {
                shared.gone(fx, key);
            }
            self.show(fx, key);
            self.forget(fx, key);
        }
        self.retell(fx);
    }

    /// The store of presence says something.
    pub(super) fn event(&mut self, fx: &mut Effects, event: PresenceEvent) {
        let news = self.shared.as_mut().map_or(News::Nothing, |shared| shared.event(event));
        match news {
            News::Nothing => {}
            News::OfAll => self.retelling = Some(Bound::Unbounded),
            News::Of { key, is_first: false } => self.show(fx, key),
            News::Of { key, is_first: true } => {
                // Watchers wait for it, whatever it is.
                if let (Some(shown), Some((user, presence))) = (self.shown(key), self.users.get_mut(&key)) {
                    presence.show(fx, key, user, shown);
                }
            }
        }
    }

    /// Tells watchers, a bounded number in a turn, how those are shown whom they watch, if it is not as before.
    fn retell(&mut self, fx: &mut Effects) {
        let Some(mut after) = self.retelling else { return };
        let mut told = 0;
        while told < PRESENCES_RETOLD_PER_TURN {
            let next = self.users.range((after, Bound::Unbounded)).next();
            let Some((key, watchers)) = next.map(|(key, (_, presence))| (*key, presence.watchers.len())) else {
                self.retelling = None;
                return;
            };
            self.show(fx, key);
            told += 1 + watchers;
            after = Bound::Excluded(key);
        }
        self.retelling = Some(after);
    }

    /// The user says how to be shown.
    pub(super) fn set(&mut self, fx: &mut Effects, key: LogKey, status: PresenceStatus, text: String) {
        let Some((_, presence)) = self.users.get_mut(&key) else { return };
        presence.set = Some((status, text.clone()));
        if let Some(shared) = &mut self.shared {
            shared.set_look(fx, key, status, text);
        }
        self.show(fx, key);
    }

    /// Somebody watches a user, or is told that the user is offline without a right to know more.
    pub(super) fn watch(&mut self, fx: &mut Effects, watch: &Watch, is_allowed: bool) {
        if !is_allowed {
            return tell(fx, watch.seat, watch.key, frame(&watch.target, &Shown::default()));
        }
        self.entry(watch.key, &watch.target);
        if let Some(shared) = &mut self.shared {
            let user = UserKey { tenant: watch.tenant.clone(), user: watch.target.clone() };
            shared.watch(fx, watch.key, &user);
            // A store that is away makes what was shown before void.
            self.show(fx, watch.key);
        }
        let is_known = self.shared.is_none() || self.shown(watch.key).is_some();
        let presence = self.entry(watch.key, &watch.target);
        if presence.watchers.len() < PRESENCE_WATCHERS_MAX || presence.watchers.contains_key(&watch.seat) {
            presence.watchers.insert(watch.seat, Watcher { list: watch.list, user: watch.watcher.clone() });
        }
        // Before the store has answered there is nothing to say; its answer goes to all watchers.
        if is_known {
            let shown = frame(&watch.target, &presence.shown);
            tell(fx, watch.seat, watch.key, shown);
        }
    }

    /// A session does not watch the user any more, as of this list of it.
    pub(super) fn unwatch(&mut self, fx: &mut Effects, key: LogKey, seat: (ShardId, ConnectionId), list: u32) {
        let Some((_, presence)) = self.users.get_mut(&key) else { return };
        if presence.watchers.get(&seat).is_some_and(|watcher| watcher.list <= list) {
            presence.watchers.remove(&seat);
        }
        self.forget(fx, key);
    }

    /// The user blocked somebody, who is shown nothing any more.
    pub(super) fn hide_from(&mut self, fx: &mut Effects, key: LogKey, blocked: &str) {
        let Some((user, presence)) = self.users.get_mut(&key) else { return };
        let offline = frame(user, &Shown::default());
        presence.watchers.retain(|seat, watcher| {
            let stays = watcher.user.as_str() != blocked;
            if !stays {
                tell(fx, *seat, key, offline.clone());
            }
            stays
        });
        self.forget(fx, key);
    }

    /// How the user is to be shown now; `None` while nobody knows.
    fn shown(&self, key: LogKey) -> Option<Shown> {
        match &self.shared {
            Some(shared) => shared.shown(key),
            None => self.users.get(&key).map(|(_, presence)| presence.current()),
        }
    }

    /// Tells the watchers if anything has changed.
    fn show(&mut self, fx: &mut Effects, key: LogKey) {
        let Some(current) = self.shown(key) else { return };
        if let Some((user, presence)) = self.users.get_mut(&key)
            && current != presence.shown
        {
            presence.show(fx, key, user, current);
        }
    }

    /// Keeps nothing of a user who is neither present nor watched.
    fn forget(&mut self, fx: &mut Effects, key: LogKey) {
        let Some((_, presence)) = self.users.get(&key).filter(|(_, presence)| presence.watchers.is_empty()) else {
            return;
        };
        let is_present = presence.is_present;
        if let Some(shared) = &mut self.shared {
            shared.unwatch(fx, key);
        }
        if !is_present {
            self.users.remove(&key);
        }
    }
}

fn frame(user: &UserId, (status, text): &Shown) -> Bytes {
    let presence = control::Presence { user: user.to_string(), status: (*status).into(), text: text.clone() };
    frames::control(FrameType::Presence, 0, &presence)
}

fn tell(fx: &mut Effects, (shard, connection): (ShardId, ConnectionId), user: LogKey, frame: Bytes) {
    fx.post(shard, ShardMessage::PresenceTold { connection, user, frame });
}
