//! What this process has stated and was told, without I/O: the driver performs the turns that the ledger begins, and
//! feeds back answers, news and the time.

mod bucket;
mod statements;
#[cfg(test)]
mod tests;
mod user;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use antiphon_protocol::LogKey;
use antiphon_storage::{
    Token,
    presence::{Answer, PresenceError, Question, Seat, Seen, UserKey},
};

use bucket::{Asked, Bucket, Item, Recovery, millis};

use crate::{
    config::Timing,
    counters::Counters,
    handle::Shared,
    keys::{BUCKETS, bucket_of},
    turn::{Answered, News, Outcome, Statement, UserState},
};

/// A turn to be performed and answered with [`Ledger::answered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) bucket: usize,
    pub(crate) number: u64,
    pub(crate) statements: Vec<Statement>,
}

/// What became of a log's subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Begins(LogKey),
    Ends(LogKey),
}

struct Handle {
    shared: Arc<Shared>,
    seats: BTreeSet<Seat>,
    watches: BTreeSet<UserKey>,
    subscriptions: BTreeSet<LogKey>,
}

/// See the module.
pub(crate) struct Ledger {
    timing: Timing,
    process: String,
    handles: BTreeMap<u64, Handle>,
    buckets: Vec<Bucket>,
    last_number: u64,
    subscribers: BTreeMap<LogKey, BTreeSet<u64>>,
    is_subscribed: bool,
    /// Whether answers may be wrong is read by others, who must know it no later than a handle is told.
    counters: Arc<Counters>,
}

impl Ledger {
    /// Of a process with this name, which no other process has or had.
    pub(crate) fn new(timing: Timing, process: String, now_ms: u64, counters: Arc<Counters>) -> Self {
        Self {
            timing,
            process,
            handles: BTreeMap::new(),
            buckets: (0..BUCKETS).map(|n| Bucket::new(&timing, now_ms, n, BUCKETS)).collect(),
            last_number: 0,
            subscribers: BTreeMap::new(),
            is_subscribed: false,
            counters,
        }
    }

    pub(crate) fn process(&self) -> &str {
        &self.process
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.counters.is_stale.load(Ordering::Relaxed)
    }

    fn set_stale(&self, is_stale: bool) {
        self.counters.is_stale.store(is_stale, Ordering::Relaxed);
    }

    /// A question about a user.
    pub(crate) fn ask(&mut self, id: u64, token: Token, question: Question) {
        let user = match &question {
            Question::Revoke { user, .. } | Question::NotBefore(user) | Question::Devices(user) => user,
            Question::Take(_) => unreachable!("rate limits have a script of their own"),
        };
        let bucket = bucket_of(user);
        let asked = Asked { handle: id, token, question };
        match self.is_stale() {
            true => self.give_up([asked]),
            false => self.buckets[bucket].ask(asked),
        }
    }

    pub(crate) fn answer(&self, id: u64, token: Token, result: Result<Answer, PresenceError>) {
        if let Some(handle) = self.handles.get(&id) {
            handle.shared.tell(|desk| desk.answer(token, result));
        }
    }

    fn give_up(&self, questions: impl IntoIterator<Item = Asked>) {
        for Asked { handle, token, .. } in questions {
            self.answer(handle, token, Err(PresenceError::Unavailable("it does not answer".into())));
        }
    }

    /// Whether changes are heard. Nothing is stated or read before that, and everything is said again after it: what
    /// was announced meanwhile is lost.
    pub(crate) fn set_subscribed(&mut self, is_subscribed: bool) {
        self.is_subscribed = is_subscribed;
        if is_subscribed {
            self.buckets.iter_mut().for_each(Bucket::renew);
        }
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// The next turn to perform. At most one per bucket is under way.
    pub(crate) fn begin_turn(&mut self, now_ms: u64) -> Option<Turn> {
        if !self.is_subscribed {
            return None;
        }
        let number = self.last_number + 1;
        for (n, bucket) in self.buckets.iter_mut().enumerate() {
            if let Some(turn) = bucket.begin_turn(&self.timing, now_ms, number, &self.process) {
                let turn = Turn { bucket: n, number, statements: turn.statements.clone() };
                self.last_number = number;
                return Some(turn);
            }
        }
        None
    }

    /// The answer to a turn; `None` if it failed.
    pub(crate) fn answered(&mut self, now_ms: u64, n: usize, number: u64, answer: Option<Answered>) {
        let bucket = &mut self.buckets[n];
        let Some(turn) = bucket.under_way.take_if(|turn| turn.number == number) else { return };
        let Some(Answered { life, outcomes }) = answer else {
            let unanswered = bucket.turn_failed(&self.timing, now_ms, turn.items);
            return self.give_up(unanswered);
        };
        bucket.right_at_ms = turn.sent_ms;
        if bucket.life.as_ref() != Some(&life) {
            let is_loss = bucket.life.replace(life).is_some();
            if is_loss {
                bucket.begin_life(&self.timing, now_ms);
            }
        }
        for (item, outcome) in turn.items.into_iter().zip(outcomes) {
            self.take_in(n, item, outcome);
        }
        self.buckets[n].advance_recovery();
        self.look_for_health(now_ms);
    }

    fn take_in(&mut self, n: usize, item: Item, outcome: Outcome) {
        match (item, outcome) {
            (Item::Seat(key, _) | Item::Look(key), Outcome::State { state, not_before_ms }) => {
                self.observe(n, &key, &state);
                let user = self.buckets[n].users.get(&key);
                if user.is_some_and(|user| !user.seats.is_empty()) {
                    self.revoked(&key, not_before_ms);
                }
            }
            (Item::Question(Asked { handle, token, .. }), outcome) => {
                let answer = match outcome {
                    Outcome::Devices(devices) => Answer::Devices(devices),
                    Outcome::NotBefore(not_before_ms) | Outcome::State { not_before_ms, .. } => {
                        Answer::NotBefore(not_before_ms)
                    }
                };
                self.answer(handle, token, Ok(answer));
            }
            (item, outcome) => unreachable!("{outcome:?} is parsed as the answer to {item:?}"),
        }
    }

    fn observe(&mut self, n: usize, key: &UserKey, state: &UserState) {
        let bucket = &mut self.buckets[n];
        let is_settling = bucket.is_settling();
        let Some(user) = bucket.users.get_mut(key) else { return };
        let has_news = user.observe(state, is_settling);
        // While settling, who is not there may be about to be; the answer follows.
        let first = user.seen.clone().unwrap_or(Seen::Unknown);
        for id in std::mem::take(&mut user.waiting) {
            if let Some(handle) = self.handles.get(&id) {
                handle.shared.tell(|desk| desk.watch(key.clone(), first.clone()));
            }
        }
        if has_news {
            for handle in user.watchers.iter().filter_map(|id| self.handles.get(id)) {
                handle.shared.tell(|desk| desk.see(key, &first));
            }
        }
    }

    /// A user's revocation is known to be so high. Of users without seats here only news are told, which come once.
    fn revoked(&mut self, key: &UserKey, not_before_ms: u64) {
        let user = self.buckets[bucket_of(key)].users.get_mut(key);
        if let Some(user) = user {
            if not_before_ms <= user.not_before_ms {
                return;
            }
            user.not_before_ms = not_before_ms;
        }
        for handle in self.handles.values() {
            handle.shared.tell(|desk| desk.revoked(key.clone(), not_before_ms));
        }
    }

    /// Something was announced in a bucket.
    pub(crate) fn news(&mut self, n: usize, news: News) {
        match news {
            News::Revoked { user, not_before_ms } => self.revoked(&user, not_before_ms),
            News::User { life, user, state } => {
                let bucket = &mut self.buckets[n];
                if !bucket.users.contains_key(&user) {
                    return;
                }
                if bucket.life.as_ref() == Some(&life) {
                    self.observe(n, &user, &state);
                } else {
                    // Of a life that is over, or one that no turn has told of yet: asking tells which.
                    bucket.look_at(&user);
                }
            }
        }
    }

    /// News may have been missed.
    pub(crate) fn missed_news(&mut self) {
        self.buckets.iter_mut().for_each(Bucket::renew);
    }

    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        for bucket in &mut self.buckets {
            bucket.tick(&self.timing, now_ms);
        }
        let stale_after = millis(self.timing.stale_after);
        let mut unanswered = Vec::new();
        let mut is_away = false;
        for bucket in self.buckets.iter_mut().filter(|bucket| bucket.right_at_ms + stale_after < now_ms) {
            bucket.recovery = Recovery::Away;
            unanswered.extend(bucket.give_up_questions());
            is_away = true;
        }
        self.give_up(unanswered);
        if is_away && !self.is_stale() {
            self.become_stale();
        }
        self.look_for_health(now_ms);
    }

    fn become_stale(&mut self) {
        self.set_stale(true);
        for handle in self.handles.values() {
            handle.shared.tell(|desk| desk.set_stale(true));
        }
        // They are told more before it ends.
        for (key, user) in self.buckets.iter_mut().flat_map(|bucket| &mut bucket.users) {
            for handle in std::mem::take(&mut user.waiting).iter().filter_map(|id| self.handles.get(id)) {
                handle.shared.tell(|desk| desk.watch(key.clone(), Seen::Unknown));
            }
        }
    }

    fn look_for_health(&mut self, now_ms: u64) {
        let stale_after = millis(self.timing.stale_after);
        let is_right = |bucket: &Bucket| bucket.is_whole() && bucket.right_at_ms + stale_after >= now_ms;
        if !self.is_stale() || !self.is_subscribed || !self.buckets.iter().all(is_right) {
            return;
        }
        self.set_stale(false);
        for (key, user) in self.buckets.iter().flat_map(|bucket| &bucket.users) {
            for handle in user.watchers.iter().filter_map(|id| self.handles.get(id)) {
                if let Some(seen) = &user.seen {
                    handle.shared.tell(|desk| desk.see(key, seen));
                }
            }
        }
        for handle in self.handles.values() {
            handle.shared.tell(|desk| desk.set_stale(false));
        }
    }
}
