//! The store of one process: exact, immediate, never away.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::presence::{
    Answer, Presence, PresenceError, PresenceEvent, PresenceOp, Question, REVOCATION_TTL, SEAT_TTL, SEATS_MAX,
    SUBSCRIPTIONS_MAX, Seat, UserKey, WATCHES_MAX,
};

use super::{
    Buckets, Desk,
    user::{SeatKey, User},
};

/// Milliseconds since the Unix epoch; time is the owner's to give.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;
/// Called when a handle has events that it does not know of.
type Wake = Arc<dyn Fn() + Send + Sync>;

/// A handle to the presence of this process. Dropped, its seats count for [`SEAT_TTL`] longer: who stops and starts
/// soon enough makes nobody go away.
pub struct ProcessPresence {
    id: u64,
    hub: Arc<Mutex<Hub>>,
}

impl fmt::Debug for ProcessPresence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPresence").field("id", &self.id).finish_non_exhaustive()
    }
}

impl ProcessPresence {
    /// The first handle of a store without anybody. `wake` is called when other handles have caused events for it.
    pub fn new(clock: Clock, wake: Wake) -> Self {
        let hub = Hub {
            clock,
            handles: BTreeMap::new(),
            handles_made: 0,
            users: BTreeMap::new(),
            due: BTreeSet::new(),
            buckets: Buckets::default(),
        };
        Self::attach(Arc::new(Mutex::new(hub)), wake)
    }

    /// Another handle to the same store, for another shard.
    pub fn another(&self, wake: Wake) -> Self {
        Self::attach(self.hub.clone(), wake)
    }

    /// When [`Presence::poll_events`] has something to do by the clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        lock(&self.hub).due.first().map(|(due, _)| *due)
    }

    fn attach(hub: Arc<Mutex<Hub>>, wake: Wake) -> Self {
        let mut locked = lock(&hub);
        locked.handles_made += 1;
        let id = locked.handles_made;
        let handle = Handle { desk: Desk::default(), wake, seats: BTreeSet::new(), subscriptions: BTreeSet::new() };
        locked.handles.insert(id, handle);
        drop(locked);
        Self { id, hub }
    }
}

impl Presence for ProcessPresence {
    fn submit(&mut self, op: PresenceOp) {
        let mut hub = lock(&self.hub);
        hub.expire();
        hub.submit(self.id, op);
    }

    fn poll_events(&mut self, events: &mut Vec<PresenceEvent>) {
        let mut hub = lock(&self.hub);
        hub.expire();
        hub.handle(self.id).desk.take(events);
    }
}

impl Drop for ProcessPresence {
    fn drop(&mut self) {
        lock(&self.hub).detach(self.id);
    }
}

/// A panic elsewhere leaves no statement half made that would matter: presence is rebuilt anyway.
fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Handle {
    desk: Desk,
    wake: Wake,
    seats: BTreeSet<Seat>,
    subscriptions: BTreeSet<LogKey>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Seat(UserKey, SeatKey),
    Revocation(UserKey),
}

struct Hub {
    clock: Clock,
    handles: BTreeMap<u64, Handle>,
    handles_made: u64,
    users: BTreeMap<UserKey, User>,
    due: BTreeSet<(u64, Due)>,
    buckets: Buckets,
}

impl Hub {
    fn handle(&mut self, id: u64) -> &mut Handle {
        self.handles.get_mut(&id).unwrap_or_else(|| unreachable!("a handle is attached until it is dropped"))
    }

    fn submit(&mut self, id: u64, op: PresenceOp) {
        if let Some(bound) = self.bound_reached(id, &op) {
            return self.handle(id).desk.refuse(op, PresenceError::Full(bound));
        }
        match op {
            PresenceOp::Here { seat, look } => {
                self.handle(id).seats.insert(seat.clone());
                let Seat { owner, device, incarnation } = seat;
                self.change(id, owner, |user| user.here((id, device, incarnation), look));
            }
            PresenceOp::Left(seat) => {
                self.handle(id).seats.remove(&seat);
                let Seat { owner, device, incarnation } = seat;
                self.change(id, owner, |user| user.left(&(id, device, incarnation)));
            }
            PresenceOp::Watch(user) => {
                let seen = self.users.get(&user).map_or_else(|| User::default().seen(), User::seen);
                self.handle(id).desk.watch(user, seen);
            }
            PresenceOp::Unwatch(user) => self.handle(id).desk.unwatch(&user),
            PresenceOp::Publish { log, payload } => {
                self.tell_all(id, |handle| {
                    if handle.subscriptions.contains(&log) {
                        handle.desk.signal(log, payload.clone());
                    }
                });
            }
            PresenceOp::Subscribe(log) => {
                self.handle(id).subscriptions.insert(log);
            }
            PresenceOp::Unsubscribe(log) => {
                self.handle(id).subscriptions.remove(&log);
            }
            PresenceOp::Ask { question, token } => {
                let result = match self.handle(id).desk.accepts_question() {
                    true => self.answer(id, question),
                    false => unseen(&question),
                };
                self.handle(id).desk.answer(token, result);
            }
        }
    }

    /// The bound that keeps an operation from being carried out.
    fn bound_reached(&mut self, id: u64, op: &PresenceOp) -> Option<usize> {
        let handle = self.handle(id);
        let (held, bound, is_known) = match op {
            PresenceOp::Here { seat, .. } => (handle.seats.len(), SEATS_MAX, handle.seats.contains(seat)),
            PresenceOp::Watch(_) => (handle.desk.watches(), WATCHES_MAX, false),
            PresenceOp::Subscribe(log) => {
                (handle.subscriptions.len(), SUBSCRIPTIONS_MAX, handle.subscriptions.contains(log))
            }
            _ => return None,
        };
        (held >= bound && !is_known).then_some(bound)
    }

    fn answer(&mut self, id: u64, question: Question) -> Result<Answer, PresenceError> {
        match question {
            Question::Take(take) => {
                take.check()?;
                let retry_after_ms = self.buckets.take((self.clock)(), &take);
                Ok(Answer::Verdict { retry_after_ms, is_local: false })
            }
            Question::Revoke { user, not_before_ms } => Ok(Answer::NotBefore(self.revoke(id, user, not_before_ms))),
            Question::NotBefore(user) => {
                let revocation = self.users.get(&user).and_then(|user| user.revocation);
                Ok(Answer::NotBefore(revocation.map_or(0, |(not_before_ms, _)| not_before_ms)))
            }
            Question::Devices(user) => {
                Ok(Answer::Devices(self.users.get(&user).map(User::devices).unwrap_or_default()))
            }
        }
    }

    fn revoke(&mut self, id: u64, user: UserKey, not_before_ms: u64) -> u64 {
        let now = (self.clock)();
        let known = self.users.entry(user.clone()).or_default();
        let before = known.revocation.map_or(0, |(not_before_ms, _)| not_before_ms);
        if not_before_ms > before {
            known.revocation = Some((not_before_ms, now));
            self.due.insert((now + millis(REVOCATION_TTL), Due::Revocation(user.clone())));
            self.tell_all(id, |handle| handle.desk.revoked(user.clone(), not_before_ms));
        }
        self.forget(&user);
        before.max(not_before_ms)
    }

    /// Changes a user and tells watchers what follows.
    fn change(&mut self, id: u64, key: UserKey, change: impl FnOnce(&mut User)) {
        let user = self.users.entry(key.clone()).or_default();
        let before = user.seen();
        change(user);
        let now = user.seen();
        if now != before {
            self.tell_all(id, |handle| handle.desk.see(&key, &now));
        }
        self.forget(&key);
    }

    /// Tells every handle, and wakes those that have news, except the one that knows.
    fn tell_all(&mut self, by: u64, tell: impl Fn(&mut Handle)) {
        for (id, handle) in &mut self.handles {
            let had_news = !handle.desk.is_empty();
            tell(handle);
            if *id != by && !had_news && !handle.desk.is_empty() {
                (handle.wake)();
            }
        }
    }

    fn forget(&mut self, key: &UserKey) {
        if self.users.get(key).is_some_and(User::is_nobody) {
            self.users.remove(key);
        }
    }

    /// The handle is gone, and its seats have their time to come back elsewhere.
    fn detach(&mut self, id: u64) {
        let Some(handle) = self.handles.remove(&id) else { return };
        let due = (self.clock)() + millis(SEAT_TTL);
        for Seat { owner, device, incarnation } in handle.seats {
            let seat = (id, device, incarnation);
            self.due.insert((due, Due::Seat(owner, seat)));
        }
    }

    fn expire(&mut self) {
        if self.due.is_empty() {
            return;
        }
        let now = (self.clock)();
        while let Some((at, due)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            self.due.remove(&(at, due.clone()));
            match due {
                Due::Seat(owner, seat) => self.change(0, owner, |user| user.left(&seat)),
                Due::Revocation(key) => {
                    if let Some(user) = self.users.get_mut(&key) {
                        let is_over = |(_, made): &(u64, u64)| made + millis(REVOCATION_TTL) <= now;
                        user.revocation = user.revocation.filter(|revocation| !is_over(revocation));
                    }
                    self.forget(&key);
                }
            }
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The answer to a question for which there is no room: what the bounds' table says.
fn unseen(question: &Question) -> Result<Answer, PresenceError> {
    match question {
        Question::Take(_) => Ok(Answer::Verdict { retry_after_ms: None, is_local: true }),
        _ => Err(PresenceError::Busy),
    }
}
