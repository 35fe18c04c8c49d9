//! Who is there: transitions only, to those who asked. In memory only: a restart begins with everybody offline.
//!
//! A user is present from the first session until ten seconds after the last one is gone, so that a reconnect is no
//! transition. What the user set (a status, a text) is shown while present and forgotten with the presence. Who may
//! watch whom is decided by the target's inbox before a watcher gets here (see `log::watch`).

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{
    FrameType, LogKey, UserId,
    control::{self, PresenceStatus},
    frames,
};
use bytes::Bytes;

use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    held::Held,
    limits::{PRESENCE_GRACE, PRESENCE_WATCHERS_MAX},
    routing::ShardId,
    shard_message::{ShardMessage, Watch},
    time::Time,
};

type Shown = (PresenceStatus, String);

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
}

/// The presences of the users whose inboxes this shard owns.
#[derive(Debug, Default)]
pub(super) struct Presences {
    users: BTreeMap<LogKey, (UserId, Presence)>,
    grace: BTreeSet<(Time, LogKey)>,
}

impl Presences {
    fn entry(&mut self, key: LogKey, user: &UserId) -> &mut Presence {
        &mut self.users.entry(key).or_insert_with(|| (user.clone(), Presence::default())).1
    }

    /// Adds who is shown, and to how many.
    pub(super) fn add_held(&self, held: &mut Held) {
        held.users += self.users.len();
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
            self.show(fx, key);
            self.forget(key);
        }
    }

    /// The user says how to be shown.
    pub(super) fn set(&mut self, fx: &mut Effects, key: LogKey, status: PresenceStatus, text: String) {
        let Some((_, presence)) = self.users.get_mut(&key) else { return };
        presence.set = Some((status, text));
        self.show(fx, key);
    }

    /// Somebody watches a user, or is told that the user is offline without a right to know more.
    pub(super) fn watch(&mut self, fx: &mut Effects, watch: &Watch, is_allowed: bool) {
        if !is_allowed {
            return tell(fx, watch.seat, watch.key, frame(&watch.target, &Shown::default()));
        }
        let presence = self.entry(watch.key, &watch.target);
        let shown = frame(&watch.target, &presence.shown);
        if presence.watchers.len() < PRESENCE_WATCHERS_MAX || presence.watchers.contains_key(&watch.seat) {
            presence.watchers.insert(watch.seat, Watcher { list: watch.list, user: watch.watcher.clone() });
        }
        tell(fx, watch.seat, watch.key, shown);
    }

    /// A session does not watch the user any more, as of this list of it.
    pub(super) fn unwatch(&mut self, key: LogKey, seat: (ShardId, ConnectionId), list: u32) {
        let Some((_, presence)) = self.users.get_mut(&key) else { return };
        if presence.watchers.get(&seat).is_some_and(|watcher| watcher.list <= list) {
            presence.watchers.remove(&seat);
        }
        self.forget(key);
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
        self.forget(key);
    }

    /// Tells the watchers if anything has changed.
    fn show(&mut self, fx: &mut Effects, key: LogKey) {
        let Some((user, presence)) = self.users.get_mut(&key) else { return };
        let current = presence.current();
        if current != presence.shown {
            let frame = frame(user, &current);
            presence.shown = current;
            for seat in presence.watchers.keys() {
                tell(fx, *seat, key, frame.clone());
            }
        }
    }

    /// Keeps nothing of a user who is neither present nor watched.
    fn forget(&mut self, key: LogKey) {
        if self.users.get(&key).is_some_and(|(_, presence)| !presence.is_present && presence.watchers.is_empty()) {
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
