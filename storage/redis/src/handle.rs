//! A shard's way to the driver: an inbox in which statements of the same thing merge, and a desk with its events.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_protocol::LogKey;
use antiphon_storage::{
    Token,
    presence::{
        Answer, Desk, Look, Presence, PresenceError, PresenceEvent, PresenceOp, Question, SEATS_MAX, SIGNALS_MAX,
        SUBSCRIPTIONS_MAX, Seat, UserKey, WATCHES_MAX,
    },
};
use bytes::Bytes;
use tokio::sync::Notify;

/// Called when a handle has events, by the driver's thread.
pub(crate) type Wake = Arc<dyn Fn() + Send + Sync>;

/// What a handle has said and the driver has not seen. Bounded by what a handle may state.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    /// With a look, the seat is there.
    pub(crate) seats: BTreeMap<Seat, Option<Look>>,
    pub(crate) watches: BTreeMap<UserKey, bool>,
    pub(crate) subscriptions: BTreeMap<LogKey, bool>,
    pub(crate) signals: VecDeque<(LogKey, Bytes)>,
    pub(crate) signals_dropped: u64,
    pub(crate) questions: Vec<(Token, Question)>,
    pub(crate) is_detached: bool,
}

/// What handle and driver share.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    desk: Mutex<Desk>,
    wake: Wake,
    driver: Arc<Notify>,
}

impl Shared {
    pub(crate) fn new(wake: Wake, driver: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { inbox: Mutex::default(), desk: Mutex::default(), wake, driver })
    }

    /// Everything that was said.
    pub(crate) fn take_inbox(&self) -> Inbox {
        std::mem::take(&mut *lock(&self.inbox))
    }

    /// Puts something on the desk, and wakes the handle if that is news to it.
    pub(crate) fn tell(&self, tell: impl FnOnce(&mut Desk)) {
        let mut desk = lock(&self.desk);
        let had_news = !desk.is_empty();
        tell(&mut desk);
        let has_news = !desk.is_empty();
        drop(desk);
        if has_news && !had_news {
            (self.wake)();
        }
    }

    #[cfg(test)]
    pub(crate) fn take_events(&self) -> Vec<PresenceEvent> {
        let mut events = Vec::new();
        lock(&self.desk).take(&mut events);
        events
    }
}

/// A panic elsewhere leaves nothing half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle to the presence that processes share. Dropped, its seats are stated no more and run out: who stops and
/// starts soon enough makes nobody go away.
pub struct RedisHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for RedisHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisHandle").finish_non_exhaustive()
    }
}

impl RedisHandle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn ask(&self, token: Token, question: Question) {
        let checked = match &question {
            Question::Take(take) => take.check(),
            _ => Ok(()),
        };
        let mut desk = lock(&self.shared.desk);
        let unseen = match (checked, desk.accepts_question(), &question) {
            (Ok(()), true, _) => None,
            (Err(misuse), ..) => Some(Err(misuse)),
            (_, false, Question::Take(_)) => Some(Ok(Answer::Verdict { retry_after_ms: None, is_local: true })),
            (_, false, _) => Some(Err(PresenceError::Busy)),
        };
        match unseen {
            Some(result) => desk.answer(token, result),
            None => {
                drop(desk);
                lock(&self.shared.inbox).questions.push((token, question));
            }
        }
    }
}

impl Inbox {
    /// Takes in a statement, or says which bound keeps it from that.
    fn state(&mut self, op: PresenceOp) -> Result<(), (PresenceOp, usize)> {
        match op {
            PresenceOp::Here { seat, look } => put(&mut self.seats, SEATS_MAX, seat, Some(look))
                .map_err(|(seat, look)| (PresenceOp::Here { seat, look: look.unwrap_or_default() }, SEATS_MAX)),
            PresenceOp::Left(seat) => put(&mut self.seats, SEATS_MAX * 2, seat, None)
                .map_err(|(seat, _)| (PresenceOp::Left(seat), SEATS_MAX * 2)),
            PresenceOp::Watch(user) => put(&mut self.watches, WATCHES_MAX, user, true)
                .map_err(|(user, _)| (PresenceOp::Watch(user), WATCHES_MAX)),
            PresenceOp::Unwatch(user) => put(&mut self.watches, WATCHES_MAX * 2, user, false)
                .map_err(|(user, _)| (PresenceOp::Unwatch(user), WATCHES_MAX * 2)),
            PresenceOp::Subscribe(log) => put(&mut self.subscriptions, SUBSCRIPTIONS_MAX, log, true)
                .map_err(|(log, _)| (PresenceOp::Subscribe(log), SUBSCRIPTIONS_MAX)),
            PresenceOp::Unsubscribe(log) => put(&mut self.subscriptions, SUBSCRIPTIONS_MAX * 2, log, false)
                .map_err(|(log, _)| (PresenceOp::Unsubscribe(log), SUBSCRIPTIONS_MAX * 2)),
            PresenceOp::Publish { log, payload } => {
                if self.signals.len() >= SIGNALS_MAX {
                    self.signals.pop_front();
                    self.signals_dropped += 1;
                }
                self.signals.push_back((log, payload));
                Ok(())
            }
            PresenceOp::Ask { .. } => unreachable!("a question is no statement"),
        }
    }
}

/// The newest statement about a thing counts. There is room for taking back everything that may have been stated.
fn put<K: Ord, V>(said: &mut BTreeMap<K, V>, bound: usize, key: K, value: V) -> Result<(), (K, V)> {
    if said.len() >= bound && !said.contains_key(&key) {
        return Err((key, value));
    }
    said.insert(key, value);
    Ok(())
}

impl Presence for RedisHandle {
    fn submit(&mut self, op: PresenceOp) {
        match op {
            PresenceOp::Ask { question, token } => self.ask(token, question),
            statement => {
                if let PresenceOp::Unwatch(user) = &statement {
                    // At once, whenever the driver gets to know it.
                    lock(&self.shared.desk).unwatch(user);
                }
                let stated = lock(&self.shared.inbox).state(statement);
                if let Err((op, bound)) = stated {
                    lock(&self.shared.desk).refuse(op, PresenceError::Full(bound));
                }
            }
        }
        self.shared.driver.notify_one();
    }

    fn poll_events(&mut self, events: &mut Vec<PresenceEvent>) {
        lock(&self.shared.desk).take(events);
    }
}

impl Drop for RedisHandle {
    fn drop(&mut self) {
        lock(&self.shared.inbox).is_detached = true;
        self.shared.driver.notify_one();
    }
}
