//! Random operations on a store and on the reference at once, from several processes; every process must be told the
//! same of every user, in the same order, and get the same answers.
//!
//! Operations come in bursts. In one burst each user is concerned once, so that what watchers must be told does not
//! depend on which process was quicker; after it, the store is asked until it has taken everything in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_protocol::control::PresenceStatus;
use antiphon_storage_contract::presence::{
    Answer, Look, Presence, PresenceEvent, PresenceOp, Question, SEAT_TTL, Seat, Seen, UserKey,
};

use super::{Factory, Store, World, device, look, user};
use crate::{dice::Dice, presence::ProcessPresence};

/// How much to try.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Names the whole run.
    pub seed: u64,
    /// Bursts of operations.
    pub bursts: u64,
    /// A process dies, and another one starts, once in this many bursts.
    pub death_once_in: u64,
}

/// Processes that are alive.
const PROCESSES: u64 = 3;
/// Users that they know.
const USERS: u64 = 24;
/// Devices of a user at one process. Those of different processes have different numbers.
const DEVICES: u64 = 3;

/// The reference, whose time is the test's.
struct Reference {
    presence: ProcessPresence,
    clock_ms: Arc<AtomicU64>,
}

impl Reference {
    fn new() -> Self {
        let clock_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        let clock = clock_ms.clone();
        let presence = ProcessPresence::new(Arc::new(move || clock.load(Ordering::Relaxed)), Arc::new(|| {}));
        Self { presence, clock_ms }
    }
}

impl Store for Reference {
    fn process(&mut self) -> Box<dyn Presence> {
        Box::new(self.presence.another(Arc::new(|| {})))
    }

    fn wait(&mut self) {
        panic!("the reference answers at once");
    }

    fn let_seats_expire(&mut self) {
        self.clock_ms.fetch_add(SEAT_TTL.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Makes stores that are the reference itself.
pub fn reference() -> Box<dyn Store> {
    Box::new(Reference::new())
}

/// Compares a store from `fresh` with the reference. Panics at the first difference and names the seed. Returns the
/// number of operations compared.
pub fn compare(fresh: &mut Factory<'_>, plan: Plan) -> u64 {
    let (tried, expected) = (World::new(fresh()), World::new(Box::new(Reference::new())));
    let mut run = Run {
        seed: plan.seed,
        dice: Dice::new(plan.seed),
        tried,
        expected,
        alive: Vec::new(),
        seats: BTreeMap::new(),
        watched: BTreeSet::new(),
        compared: 0,
    };
    for _ in 0..PROCESSES {
        run.start();
    }
    for _ in 0..plan.bursts {
        run.burst();
        if run.dice.once_in(plan.death_once_in) {
            run.death();
        }
    }
    run.compared
}

struct Run {
    seed: u64,
    dice: Dice,
    tried: World,
    expected: World,
    /// Numbers of the processes that are alive.
    alive: Vec<usize>,
    /// The seats of a process.
    seats: BTreeMap<usize, BTreeSet<Seat>>,
    watched: BTreeSet<(usize, UserKey)>,
    compared: u64,
}

impl Run {
    fn start(&mut self) {
        let process = self.tried.start();
        assert_eq!(process, self.expected.start());
        self.alive.push(process);
    }

    /// Every user may be concerned, by one process.
    fn burst(&mut self) {
        let mut touched = Vec::new();
        for n in 0..USERS {
            if self.dice.once_in(2) {
                let process = self.alive[self.dice.below(PROCESSES) as usize];
                let op = self.op(process, n);
                self.tried.submit(process, op.clone());
                self.expected.submit(process, op);
                touched.push(user(n));
                self.compared += 1;
            }
        }
        self.until_same(&touched);
    }

    fn op(&mut self, process: usize, n: u64) -> PresenceOp {
        let seats = self.seats.entry(process).or_default();
        let number = process as u64 * DEVICES + self.dice.below(DEVICES);
        let seat = Seat { owner: user(n), device: device(number), incarnation: self.dice.below(2) };
        match self.dice.below(10) {
            0..=3 => {
                seats.insert(seat.clone());
                PresenceOp::Here { seat, look: self.look() }
            }
            4..=6 => {
                let known = seats.iter().find(|seat| seat.owner == user(n)).cloned();
                let seat = known.unwrap_or(seat);
                seats.remove(&seat);
                PresenceOp::Left(seat)
            }
            7 | 8 => {
                self.watched.insert((process, user(n)));
                PresenceOp::Watch(user(n))
            }
            _ => {
                self.watched.remove(&(process, user(n)));
                PresenceOp::Unwatch(user(n))
            }
        }
    }

    /// Looks of the same moment are the same, and of two moments never: else it would depend on which process was
    /// quicker what counts.
    fn look(&mut self) -> Look {
        const STATUSES: [PresenceStatus; 4] =
            [PresenceStatus::Offline, PresenceStatus::Online, PresenceStatus::Away, PresenceStatus::Busy];
        if self.dice.once_in(2) {
            return Look::default();
        }
        let set_at_ms = 1 + self.dice.below(1_000_000);
        look(STATUSES[set_at_ms as usize % 4], &format!("a\n b|c \u{1f375} {set_at_ms}"), set_at_ms)
    }

    /// A process dies; what it stated runs out.
    fn death(&mut self) {
        let process = self.alive.remove(self.dice.below(PROCESSES) as usize);
        self.tried.kill(process);
        self.expected.kill(process);
        self.watched.retain(|(of, _)| *of != process);
        let seats = self.seats.remove(&process).unwrap_or_default();
        self.start();
        let touched: BTreeSet<UserKey> = seats.into_iter().map(|seat| seat.owner).collect();
        self.compared += 1;
        self.until_same(&touched.into_iter().collect::<Vec<_>>());
    }

    fn until_same(&mut self, touched: &[UserKey]) {
        for process in self.alive.clone() {
            self.same_told(process);
        }
        let process = self.alive[0];
        for key in touched {
            let revoke = Question::Revoke { user: key.clone(), not_before_ms: self.dice.below(1_000_000) };
            for question in [revoke, Question::NotBefore(key.clone())] {
                let expected = self.expected.ask(process, question.clone());
                let tried = self.tried.ask(process, question.clone());
                assert_eq!(tried, expected, "seed {}: {question:?}", self.seed);
                self.compared += 1;
            }
            let devices = self.expected.ask(process, Question::Devices(key.clone()));
            let Ok(Answer::Devices(devices)) = devices else { panic!("the reference knows devices: {devices:?}") };
            self.tried.until_devices(process, key, &devices);
            self.compared += 1;
        }
    }

    /// Takes from both what a process must be told, and from the one under trial until it is as much.
    fn same_told(&mut self, process: usize) {
        self.expected.poll(process);
        let expected = told(self.expected.process(process).events.drain(..));
        for (user, expected) in expected {
            for (n, seen) in expected.iter().enumerate() {
                let told = self.tried.next_seen(process, &user);
                let seed = self.seed;
                assert_eq!(told, *seen, "seed {seed}: process {process} is told {user:?}, {n} of {expected:?}");
            }
        }
        let events = &mut self.tried.process(process).events;
        let more = told(events.drain(..));
        assert!(more.is_empty(), "seed {}: process {process} is told more: {more:?}", self.seed);
    }
}

/// What was told of each user.
fn told(events: impl Iterator<Item = PresenceEvent>) -> BTreeMap<UserKey, Vec<Seen>> {
    let mut told: BTreeMap<UserKey, Vec<Seen>> = BTreeMap::new();
    for event in events {
        match event {
            PresenceEvent::Seen { user, seen } => told.entry(user).or_default().push(seen),
            PresenceEvent::Revoked { .. } => {}
            other => panic!("nobody caused {other:?}"),
        }
    }
    told
}
