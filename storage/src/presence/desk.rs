//! What one handle is to be told: a bounded queue of events, and what its watches were told last.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{
    Token,
    presence::{Answer, EVENTS_MAX, PresenceError, PresenceEvent, PresenceOp, QUESTIONS_MAX, Seen, UserKey},
};
use bytes::Bytes;

/// Events other than answers, for which there is always room.
const UNASKED_MAX: usize = EVENTS_MAX - QUESTIONS_MAX;

#[derive(Debug, Clone)]
struct Watched {
    now: Seen,
    /// What was put into the queue last.
    told: Option<Seen>,
}

/// A handle's events.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    queue: VecDeque<PresenceEvent>,
    watched: BTreeMap<UserKey, Watched>,
    /// Watched users whose state found no room.
    owed: BTreeSet<UserKey>,
    owed_revocations: BTreeMap<UserKey, u64>,
    is_stale: bool,
    is_told_stale: bool,
    questions: usize,
    signals_dropped: u64,
}

impl Desk {
    /// Begins a watch, or tells its state again.
    pub fn watch(&mut self, user: UserKey, now: Seen) {
        self.watched.insert(user.clone(), Watched { now, told: None });
        self.tell(user);
    }

    /// Ends a watch. What is queued of it is not told.
    pub fn unwatch(&mut self, user: &UserKey) {
        self.watched.remove(user);
        self.owed.remove(user);
    }

    /// How many users are watched.
    pub fn watches(&self) -> usize {
        self.watched.len()
    }

    /// A user is so now. Nothing is told of users who are not watched, and nothing twice.
    pub fn see(&mut self, user: &UserKey, now: &Seen) {
        if let Some(watched) = self.watched.get_mut(user)
            && watched.now != *now
        {
            watched.now = now.clone();
            self.tell(user.clone());
        }
    }

    fn tell(&mut self, user: UserKey) {
        let has_room = self.has_room() && !self.owed.contains(&user);
        let Some(watched) = self.watched.get_mut(&user) else { return };
        if !has_room {
            self.owed.insert(user);
        } else if watched.told.as_ref() != Some(&watched.now) {
            watched.told = Some(watched.now.clone());
            let seen = watched.now.clone();
            self.queue.push_back(PresenceEvent::Seen { user, seen });
        }
    }

    fn has_room(&self) -> bool {
        self.queue.len() < UNASKED_MAX
    }

    /// A signal for a log with a subscription.
    pub fn signal(&mut self, log: LogKey, payload: Bytes) {
        if self.has_room() {
            self.queue.push_back(PresenceEvent::Signal { log, payload });
        } else {
            self.signals_dropped += 1;
        }
    }

    /// Signals for which there was no room.
    pub fn signals_dropped(&self) -> u64 {
        self.signals_dropped
    }

    /// A user's revocation has risen.
    pub fn revoked(&mut self, user: UserKey, not_before_ms: u64) {
        if self.has_room() && self.owed_revocations.is_empty() {
            self.queue.push_back(PresenceEvent::Revoked { user, not_before_ms });
        } else {
            let owed = self.owed_revocations.entry(user).or_default();
            *owed = not_before_ms.max(*owed);
        }
    }

    /// A statement is not carried out.
    pub fn refuse(&mut self, op: PresenceOp, error: PresenceError) {
        // Whoever goes beyond a bound so often without looking has no use for the news.
        if self.has_room() {
            self.queue.push_back(PresenceEvent::Refused { op, error });
        }
    }

    /// Notes a question, unless too many have not been answered yet.
    pub fn accepts_question(&mut self) -> bool {
        let has_room = self.questions < QUESTIONS_MAX;
        self.questions += usize::from(has_room);
        has_room
    }

    /// Answers a question that was accepted.
    pub fn answer(&mut self, token: Token, result: Result<Answer, PresenceError>) {
        self.queue.push_back(PresenceEvent::Answered { token, result });
    }

    /// Whether answers may be wrong now.
    pub fn set_stale(&mut self, is_stale: bool) {
        self.is_stale = is_stale;
        if self.has_room() && self.owed.is_empty() {
            self.tell_health();
        }
    }

    fn tell_health(&mut self) {
        if self.is_told_stale != self.is_stale {
            self.is_told_stale = self.is_stale;
            self.queue.push_back(if self.is_stale { PresenceEvent::Stale } else { PresenceEvent::Fresh });
        }
    }

    /// Whether [`Self::take`] would give anything.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Moves the events into `events`, oldest first, and then what found no room before.
    pub fn take(&mut self, events: &mut Vec<PresenceEvent>) {
        self.take_queue(events);
        for (user, not_before_ms) in std::mem::take(&mut self.owed_revocations) {
            self.revoked(user, not_before_ms);
        }
        for user in std::mem::take(&mut self.owed) {
            self.tell(user);
        }
        if self.owed.is_empty() {
            self.tell_health();
        }
        self.take_queue(events);
    }

    fn take_queue(&mut self, events: &mut Vec<PresenceEvent>) {
        for event in self.queue.drain(..) {
            match &event {
                PresenceEvent::Seen { user, .. } if !self.watched.contains_key(user) => continue,
                PresenceEvent::Answered { .. } => self.questions = self.questions.saturating_sub(1),
                _ => {}
            }
            events.push(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{TenantId, UserId, control::PresenceStatus};

    use super::*;

    fn user(n: usize) -> UserKey {
        UserKey { tenant: TenantId::new("t").unwrap(), user: UserId::new(&format!("u{n}")).unwrap() }
    }

    fn online() -> Seen {
        Seen::Known { status: PresenceStatus::Online, text: String::new() }
    }

    fn taken(desk: &mut Desk) -> Vec<PresenceEvent> {
        let mut events = Vec::new();
        desk.take(&mut events);
        events
    }

    #[test]
    fn nothing_is_told_twice_and_nothing_of_strangers() {
        let mut desk = Desk::default();
        desk.watch(user(1), Seen::offline());
        desk.see(&user(1), &Seen::offline());
        desk.see(&user(2), &online());
        desk.see(&user(1), &online());
        desk.see(&user(1), &online());
        let told = |seen| PresenceEvent::Seen { user: user(1), seen };
        assert_eq!(taken(&mut desk), [told(Seen::offline()), told(online())]);
        desk.see(&user(1), &Seen::offline());
        desk.unwatch(&user(1));
        assert_eq!(taken(&mut desk), []);
    }

    #[test]
    fn a_full_queue_merges_states_and_drops_signals() {
        let mut desk = Desk::default();
        desk.watch(user(1), Seen::offline());
        let log = antiphon_protocol::LogName::Inbox(user(1).user).key(&user(1).tenant);
        for _ in 0..UNASKED_MAX + 5 {
            desk.signal(log, Bytes::new());
        }
        assert_eq!(desk.signals_dropped(), 6);
        for _ in 0..3 {
            desk.see(&user(1), &online());
            desk.set_stale(true);
            desk.see(&user(1), &Seen::offline());
            desk.set_stale(false);
            desk.revoked(user(3), 5);
            desk.revoked(user(3), 4);
        }
        let events = taken(&mut desk);
        assert_eq!(events.len(), UNASKED_MAX + 1, "no state has changed in the end");
        assert_eq!(events[UNASKED_MAX], PresenceEvent::Revoked { user: user(3), not_before_ms: 5 });
        desk.see(&user(1), &online());
        assert_eq!(taken(&mut desk), [PresenceEvent::Seen { user: user(1), seen: online() }]);
    }

    #[test]
    fn answers_always_find_room() {
        let mut desk = Desk::default();
        for n in 0..QUESTIONS_MAX as u64 {
            assert!(desk.accepts_question());
            desk.answer(Token(n), Ok(Answer::NotBefore(n)));
        }
        assert!(!desk.accepts_question());
        assert_eq!(taken(&mut desk).len(), QUESTIONS_MAX);
        assert!(desk.accepts_question());
    }
}
