//! What is told, as answers, losses and absences come.

use std::collections::BTreeMap;

use antiphon_protocol::control::PresenceStatus;
use antiphon_storage::presence::{Look, PresenceEvent};
use tokio::sync::Notify;

use super::*;
use crate::turn::SeatName;

/// A ledger with one handle, and a store that holds what the test says.
struct Rig {
    ledger: Ledger,
    shared: Arc<Shared>,
    now_ms: u64,
    life: String,
    /// Versions of users who are there, and of those who were. Of others there is nothing.
    users: BTreeMap<UserKey, (u64, bool)>,
    /// What was stated, by word.
    stated: Vec<Statement>,
}

const HANDLE: u64 = 1;

impl Rig {
    fn new() -> Self {
        let mut ledger = Ledger::new(Timing::default(), "p".into(), 0, Arc::default());
        let shared = Shared::new(Arc::new(|| {}), Arc::new(Notify::new()));
        ledger.attach(HANDLE, shared.clone());
        ledger.set_subscribed(true);
        Self { ledger, shared, now_ms: 0, life: "a".into(), users: BTreeMap::new(), stated: Vec::new() }
    }

    /// Lets time pass, with a store that answers or does not.
    fn pass(&mut self, ms: u64, is_there: bool) {
        for _ in 0..ms / 100 {
            self.now_ms += 100;
            self.ledger.tick(self.now_ms);
            self.turns(is_there);
        }
    }

    fn turns(&mut self, is_there: bool) {
        while let Some(Turn { bucket, number, statements }) = self.ledger.begin_turn(self.now_ms) {
            let answer = is_there.then(|| Answered {
                life: self.life.clone(),
                outcomes: statements.iter().map(|statement| self.outcome(statement)).collect(),
            });
            self.stated.extend(statements);
            self.ledger.answered(self.now_ms, bucket, number, answer);
        }
    }

    fn outcome(&self, statement: &Statement) -> Outcome {
        match statement {
            Statement::Here { seat: SeatName { user, .. }, .. }
            | Statement::Left(SeatName { user, .. })
            | Statement::Look(user) => {
                let (version, is_here) = self.users.get(user).copied().unwrap_or((self.now_ms + 1, false));
                Outcome::State { state: state(version, is_here), not_before_ms: 0 }
            }
            Statement::Devices(_) => Outcome::Devices(Vec::new()),
            Statement::Revoke { not_before_ms, .. } => Outcome::NotBefore(*not_before_ms),
        }
    }

    fn set(&mut self, user: &UserKey, version: u64, is_here: bool) {
        self.users.insert(user.clone(), (version, is_here));
    }

    /// What the store announces of a user.
    fn announce(&mut self, user: &UserKey, version: u64, is_here: bool) {
        let news = News::User { life: self.life.clone(), user: user.clone(), state: state(version, is_here) };
        self.ledger.news(bucket_of(user), news);
    }

    fn told(&mut self) -> Vec<PresenceEvent> {
        self.shared.take_events()
    }
}

fn state(version: u64, is_here: bool) -> UserState {
    UserState { version, is_here, look: Look::default() }
}

fn user(n: u32) -> UserKey {
    UserKey { tenant: "t".parse().unwrap(), user: format!("u{n}").parse().unwrap() }
}

fn seat(n: u32) -> Seat {
    Seat { owner: user(n), device: "d".parse().unwrap(), incarnation: 1 }
}

fn seen(n: u32, is_here: bool) -> PresenceEvent {
    let status = if is_here { PresenceStatus::Online } else { PresenceStatus::Offline };
    PresenceEvent::Seen { user: user(n), seen: Seen::Known { status, text: String::new() } }
}

#[test]
fn news_before_the_answer_count_and_older_answers_do_not() {
    let mut rig = Rig::new();
    rig.set(&user(1), 10, false);
    rig.ledger.watch(HANDLE, user(1));
    rig.turns(true);
    assert_eq!(rig.told(), [seen(1, false)]);
    rig.announce(&user(1), 12, true);
    rig.announce(&user(1), 11, false);
    rig.announce(&user(1), 12, true);
    assert_eq!(rig.told(), [seen(1, true)]);
    rig.pass(60_000, true);
    assert_eq!(rig.told(), [], "what is read again is older than what was announced");
}

#[test]
fn nobody_is_told_of_a_loss_that_is_made_good() {
    let mut rig = Rig::new();
    rig.set(&user(1), 10, true);
    rig.set(&user(2), 10, true);
    for n in [1, 2] {
        rig.ledger.watch(HANDLE, user(n));
    }
    rig.turns(true);
    assert_eq!(rig.told(), [seen(1, true), seen(2, true)]);
    // Everything is gone; one of them is stated again by their process, the other's process is dead.
    rig.life = "b".into();
    rig.users.clear();
    rig.pass(3_000, true);
    rig.set(&user(1), 5, true);
    rig.announce(&user(1), 5, true);
    rig.pass(5_000, true);
    assert_eq!(rig.told(), []);
    rig.pass(3_000, true);
    assert_eq!(rig.told(), [seen(2, false)], "once everybody had time to say that they are there");
}

#[test]
fn every_seat_is_stated_again_after_a_loss_and_each_refresh() {
    let mut rig = Rig::new();
    rig.ledger.state(HANDLE, seat(1), Some(Look::default()));
    rig.turns(true);
    let here = |rig: &mut Rig| {
        let stated = std::mem::take(&mut rig.stated);
        stated.iter().filter(|statement| matches!(statement, Statement::Here { .. })).count()
    };
    assert_eq!(here(&mut rig), 1);
    rig.pass(30_000, true);
    assert_eq!(here(&mut rig), 2);
    rig.life = "b".into();
    rig.pass(2_000, true);
    assert!((1..=2).contains(&here(&mut rig)), "at once, whenever the next refresh is");
}

#[test]
fn what_a_failed_turn_stated_is_stated_again_as_it_is_then() {
    let mut rig = Rig::new();
    rig.ledger.state(HANDLE, seat(1), Some(Look::default()));
    rig.turns(false);
    rig.ledger.state(HANDLE, seat(1), None);
    rig.stated.clear();
    rig.pass(2_000, true);
    assert!(matches!(rig.stated.as_slice(), [Statement::Left(left)] if left.user == user(1)), "{:?}", rig.stated);
}

#[test]
fn an_absent_store_says_so_and_everything_is_right_when_it_is_fresh() {
    let mut rig = Rig::new();
    rig.set(&user(1), 10, true);
    rig.set(&user(2), 10, true);
    rig.ledger.watch(HANDLE, user(1));
    rig.ledger.watch(HANDLE, user(2));
    rig.turns(true);
    rig.told();
    rig.pass(5_000, false);
    assert_eq!(rig.told(), [PresenceEvent::Stale]);
    rig.ledger.watch(HANDLE, user(3));
    rig.ledger.ask(HANDLE, Token(7), Question::NotBefore(user(1)));
    rig.pass(1_000, false);
    let [PresenceEvent::Seen { seen: Seen::Unknown, .. }, PresenceEvent::Answered { result: Err(_), .. }] =
        &rig.told()[..]
    else {
        panic!("a new watch is unknown, a question is refused")
    };
    rig.set(&user(1), 11, false);
    rig.pass(5_000, true);
    let told = rig.told();
    let (last, changes) = told.split_last().unwrap();
    assert_eq!(*last, PresenceEvent::Fresh);
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes.contains(&seen(1, false)) && changes.contains(&seen(3, false)));
}

#[test]
fn an_absence_with_a_loss_is_over_when_the_loss_is_made_good() {
    let mut rig = Rig::new();
    rig.set(&user(1), 10, true);
    rig.ledger.watch(HANDLE, user(1));
    rig.turns(true);
    rig.told();
    rig.pass(5_000, false);
    rig.life = "b".into();
    rig.users.clear();
    rig.pass(8_000, true);
    assert_eq!(rig.told(), [PresenceEvent::Stale]);
    rig.set(&user(1), 99, true);
    rig.pass(6_000, true);
    assert_eq!(rig.told(), [PresenceEvent::Fresh], "the same as before");
}

#[test]
fn a_watch_without_an_answer_is_unknown_once_the_store_is_away() {
    let mut rig = Rig::new();
    rig.ledger.watch(HANDLE, user(1));
    rig.pass(5_000, false);
    let told = rig.told();
    assert_eq!(told, [PresenceEvent::Stale, PresenceEvent::Seen { user: user(1), seen: Seen::Unknown }]);
}

#[test]
fn a_handle_that_is_gone_states_nothing() {
    let mut rig = Rig::new();
    rig.ledger.state(HANDLE, seat(1), Some(Look::default()));
    rig.ledger.watch(HANDLE, user(2));
    rig.turns(true);
    rig.ledger.detach(HANDLE);
    rig.stated.clear();
    rig.pass(60_000, true);
    assert_eq!(rig.stated, []);
}
