//! The users of one bucket at this process, and its turns.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_storage::{
    Token,
    presence::{Question, UserKey},
};

use super::user::{SeatKey, User};
use crate::{
    config::Timing,
    turn::{SeatName, Statement},
};

/// Statements about seats in one turn, so that a turn takes Redis less than a millisecond.
const SEATS_PER_TURN: usize = 64;
/// Questions in one turn.
const QUESTIONS_PER_TURN: usize = 32;
/// Users read in one turn.
const LOOKS_PER_TURN: usize = 64;

/// What a part of a turn was about.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Seat(UserKey, SeatKey),
    Look(UserKey),
    Question(Asked),
}

/// A question and who asked it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) handle: u64,
    pub(super) token: Token,
    pub(super) question: Question,
}

/// A turn under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) number: u64,
    pub(super) sent_ms: u64,
    pub(super) items: Vec<Item>,
    pub(super) statements: Vec<Statement>,
}

/// Where a bucket stands after the store was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Nothing is missing.
    Whole,
    /// Nothing has been answered yet.
    Away,
    /// Everything is being stated and read again.
    Restating,
}

#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) users: BTreeMap<UserKey, User>,
    dirty_seats: BTreeSet<(UserKey, SeatKey)>,
    dirty_looks: BTreeSet<UserKey>,
    questions: VecDeque<Asked>,
    pub(super) under_way: Option<UnderWay>,
    /// The bucket's id.
    pub(super) life: Option<String>,
    settles_at_ms: Option<u64>,
    pub(super) recovery: Recovery,
    /// When the last right answer was true.
    pub(super) right_at_ms: u64,
    /// No turn before this moment: the last one failed.
    wait_until_ms: u64,
    next_beat_ms: u64,
    next_refresh_ms: u64,
    next_reread_ms: u64,
}

impl Bucket {
    /// Bucket number `n` of `of`: what is periodic is spread over its period.
    pub(super) fn new(timing: &Timing, now_ms: u64, n: usize, of: usize) -> Self {
        let part = |period: std::time::Duration| now_ms + millis(period) * n as u64 / of as u64;
        Self {
            users: BTreeMap::new(),
            dirty_seats: BTreeSet::new(),
            dirty_looks: BTreeSet::new(),
            questions: VecDeque::new(),
            under_way: None,
            life: None,
            settles_at_ms: None,
            recovery: Recovery::Whole,
            right_at_ms: now_ms,
            wait_until_ms: 0,
            next_beat_ms: part(timing.beat),
            next_refresh_ms: part(timing.refresh),
            next_reread_ms: part(timing.reread),
        }
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settles_at_ms.is_some()
    }

    /// Whether what watchers were told is right.
    pub(super) fn is_whole(&self) -> bool {
        self.recovery == Recovery::Whole && !self.is_settling()
    }

    pub(super) fn state_seat(&mut self, user: &UserKey, seat: SeatKey) {
        self.dirty_seats.insert((user.clone(), seat));
    }

    pub(super) fn look_at(&mut self, user: &UserKey) {
        self.dirty_looks.insert(user.clone());
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        self.questions.push_back(asked);
    }

    /// Questions that will not be answered.
    pub(super) fn give_up_questions(&mut self) -> impl Iterator<Item = Asked> + use<> {
        std::mem::take(&mut self.questions).into_iter()
    }

    /// States all seats again.
    fn restate(&mut self) {
        for (key, user) in &self.users {
            self.dirty_seats.extend(user.seats.iter().map(|seat| (key.clone(), seat.clone())));
        }
    }

    /// Reads all users again that are watched.
    fn reread(&mut self) {
        let watched = self.users.iter().filter(|(_, user)| !user.watchers.is_empty());
        self.dirty_looks.extend(watched.map(|(key, _)| key.clone()));
    }

    /// States and reads everything again.
    pub(super) fn renew(&mut self) {
        self.restate();
        self.reread();
    }

    /// The store has lost everything that it knew, and every process is about to say it again.
    pub(super) fn begin_life(&mut self, timing: &Timing, now_ms: u64) {
        self.settles_at_ms = Some(now_ms + millis(timing.settle));
        self.users.values_mut().for_each(User::begin_life);
        self.renew();
    }

    /// Does what is due by the clock.
    pub(super) fn tick(&mut self, timing: &Timing, now_ms: u64) {
        if self.next_refresh_ms <= now_ms {
            self.next_refresh_ms = now_ms + millis(timing.refresh);
            self.restate();
        }
        if self.next_reread_ms <= now_ms {
            self.next_reread_ms = now_ms + millis(timing.reread);
            self.reread();
        }
        if self.settles_at_ms.is_some_and(|at| at <= now_ms) {
            self.settles_at_ms = None;
            let held = self.users.iter().filter(|(_, user)| user.is_held);
            self.dirty_looks.extend(held.map(|(key, _)| key.clone()));
        }
    }

    /// The next turn, if one may and should begin.
    pub(super) fn begin_turn(&mut self, timing: &Timing, now_ms: u64, number: u64, process: &str) -> Option<&UnderWay> {
        let has_news = !(self.dirty_seats.is_empty() && self.dirty_looks.is_empty() && self.questions.is_empty());
        let is_due = now_ms >= self.wait_until_ms && (has_news || now_ms >= self.next_beat_ms);
        if self.under_way.is_some() || !is_due {
            return None;
        }
        self.next_beat_ms = now_ms + millis(timing.beat);
        let mut items = Vec::new();
        for _ in 0..SEATS_PER_TURN {
            items.extend(self.dirty_seats.pop_first().map(|(user, seat)| Item::Seat(user, seat)));
        }
        items.extend(self.questions.drain(..self.questions.len().min(QUESTIONS_PER_TURN)).map(Item::Question));
        for _ in 0..LOOKS_PER_TURN {
            items.extend(self.dirty_looks.pop_first().map(Item::Look));
        }
        let statements = items.iter().map(|item| self.statement(item, process)).collect();
        Some(self.under_way.insert(UnderWay { number, sent_ms: now_ms, items, statements }))
    }

    /// What an item says, as things are now.
    fn statement(&self, item: &Item, process: &str) -> Statement {
        match item {
            Item::Look(user) => Statement::Look(user.clone()),
            Item::Seat(key, seat) => {
                let (handle, device, incarnation) = seat;
                let name = SeatName { user: key.clone(), name: format!("{process}.{handle}/{device}/{incarnation}") };
                match self.users.get(key).filter(|user| user.seats.contains(seat)) {
                    Some(user) => {
                        let (look, not_before_ms) = (user.look.clone(), user.not_before_ms);
                        Statement::Here { seat: name, look, not_before_ms }
                    }
                    None => Statement::Left(name),
                }
            }
            Item::Question(Asked { question, .. }) => match question {
                Question::Revoke { user, not_before_ms } => {
                    Statement::Revoke { user: user.clone(), not_before_ms: *not_before_ms }
                }
                Question::Devices(user) => Statement::Devices(user.clone()),
                // Answered by the look's other half. A bucket of tokens is no question of a turn.
                Question::NotBefore(user) => Statement::Look(user.clone()),
                Question::Take(_) => unreachable!("rate limits have a script of their own"),
            },
        }
    }

    /// A turn failed: what it stated is stated again. The questions are returned.
    pub(super) fn turn_failed(&mut self, timing: &Timing, now_ms: u64, items: Vec<Item>) -> Vec<Asked> {
        self.wait_until_ms = now_ms + millis(timing.beat);
        let mut unanswered = Vec::new();
        for item in items {
            match item {
                Item::Seat(user, seat) => self.state_seat(&user, seat),
                Item::Look(user) => self.look_at(&user),
                Item::Question(asked) => unanswered.push(asked),
            }
        }
        unanswered
    }

    /// A turn was answered: after an absence everything is said again, and then nothing is missing.
    pub(super) fn advance_recovery(&mut self) {
        match self.recovery {
            Recovery::Whole => {}
            Recovery::Away => {
                self.recovery = Recovery::Restating;
                self.renew();
            }
            Recovery::Restating => {
                let is_held = self.is_settling() || self.users.values().any(|user| user.is_held);
                if !is_held && self.dirty_seats.is_empty() && self.dirty_looks.is_empty() {
                    self.recovery = Recovery::Whole;
                }
            }
        }
    }

    /// Keeps nothing of a user who is neither here nor watched.
    pub(super) fn forget(&mut self, key: &UserKey) {
        if self.users.get(key).is_some_and(User::is_nobody) {
            self.users.remove(key);
            self.dirty_looks.remove(key);
        }
    }
}

pub(super) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
