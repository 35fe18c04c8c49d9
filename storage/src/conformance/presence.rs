//! The presence contract as a test suite over any backend.
//!
//! A backend's own tests implement [`Store`] and call [`run_all`] and [`model::compare`]. Every check panics with what
//! it expected; the model comparison also prints its seed. Nothing is told of a statement that changes nothing, so
//! what must not be told is checked by what comes next, and [`World::until_devices`] waits for what nobody is told.

pub mod model;
mod named;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use antiphon_protocol::{DeviceId, LogKey, LogName, TenantId, UserId, control::PresenceStatus};
use antiphon_storage_contract::{
    Token,
    presence::{Answer, Look, Presence, PresenceError, PresenceEvent, PresenceOp, Question, Seat, Seen, UserKey},
};

/// What a test waits for comes by then, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An empty presence store under test, and the processes that use it.
pub trait Store {
    /// A handle of a further process. Dropped, the process is dead: it says nothing any more.
    fn process(&mut self) -> Box<dyn Presence>;

    /// Blocks until events may be ready, a short while at most.
    fn wait(&mut self);

    /// Lets seats of dead processes run out, where time is the test's to give.
    fn let_seats_expire(&mut self);
}

/// Makes empty stores.
pub type Factory<'a> = dyn FnMut() -> Box<dyn Store> + 'a;

/// A test on an empty store.
type Test = fn(&mut World);

/// Runs every named test of the contract, each on a store of its own.
pub fn run_all(fresh: &mut Factory<'_>) {
    for (name, test) in named::TESTS {
        eprintln!("presence: {name}");
        test(&mut World::new(fresh()));
    }
}

/// A process, and the events that it was told and nobody has looked at.
struct Process {
    presence: Box<dyn Presence>,
    events: VecDeque<PresenceEvent>,
}

/// Processes on one store, numbered from 0.
struct World {
    store: Box<dyn Store>,
    processes: Vec<Option<Process>>,
    next_token: u64,
}

impl World {
    fn new(store: Box<dyn Store>) -> Self {
        Self { store, processes: Vec::new(), next_token: 0 }
    }

    /// Starts a process; its number.
    fn start(&mut self) -> usize {
        let presence = self.store.process();
        self.processes.push(Some(Process { presence, events: VecDeque::new() }));
        self.processes.len() - 1
    }

    /// Kills a process and lets its seats run out.
    fn kill(&mut self, process: usize) {
        self.processes[process] = None;
        self.store.let_seats_expire();
    }

    #[track_caller]
    fn process(&mut self, process: usize) -> &mut Process {
        self.processes[process].as_mut().unwrap_or_else(|| panic!("process {process} is dead"))
    }

    #[track_caller]
    fn submit(&mut self, process: usize, op: PresenceOp) {
        self.process(process).presence.submit(op);
    }

    fn here(&mut self, process: usize, seat: Seat) {
        self.submit(process, PresenceOp::Here { seat, look: Look::default() });
    }

    fn left(&mut self, process: usize, seat: Seat) {
        self.submit(process, PresenceOp::Left(seat));
    }

    /// Watches a user and waits for the first answer.
    #[track_caller]
    fn watch(&mut self, process: usize, user: UserKey) -> Seen {
        self.submit(process, PresenceOp::Watch(user.clone()));
        self.next_seen(process, &user)
    }

    /// Takes out the first event that `pick` takes, and waits for it if need be.
    #[track_caller]
    fn next<T>(&mut self, process: usize, what: &str, pick: impl Fn(&PresenceEvent) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll(process);
            let events = &mut self.process(process).events;
            if let Some((n, found)) = events.iter().enumerate().find_map(|(n, event)| Some((n, pick(event)?))) {
                events.remove(n);
                return found;
            }
            assert!(Instant::now() < deadline, "process {process} was never told {what}; it was told {events:?}");
            self.store.wait();
        }
    }

    #[track_caller]
    fn poll(&mut self, process: usize) {
        let process = self.process(process);
        let mut events = Vec::new();
        process.presence.poll_events(&mut events);
        process.events.extend(events);
    }

    #[track_caller]
    fn next_seen(&mut self, process: usize, user: &UserKey) -> Seen {
        let what = format!("how {user:?} is");
        self.next(process, &what, |event| match event {
            PresenceEvent::Seen { user: of, seen } if of == user => Some(seen.clone()),
            _ => None,
        })
    }

    #[track_caller]
    fn ask(&mut self, process: usize, question: Question) -> Result<Answer, PresenceError> {
        self.next_token += 1;
        let token = Token(self.next_token);
        let what = format!("the answer to {question:?}");
        self.submit(process, PresenceOp::Ask { question, token });
        self.next(process, &what, |event| match event {
            PresenceEvent::Answered { token: of, result } if *of == token => Some(result.clone()),
            _ => None,
        })
    }

    /// Waits until the store counts exactly these devices.
    #[track_caller]
    fn until_devices(&mut self, process: usize, user: &UserKey, devices: &[DeviceId]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(process, Question::Devices(user.clone()));
            if matches!(&answer, Ok(Answer::Devices(counted)) if counted == devices) {
                return;
            }
            assert!(Instant::now() < deadline, "{user:?} should have {devices:?}, has {answer:?}");
            self.store.wait();
        }
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap_or_else(|_| unreachable!("a valid id"))
}

/// User number `n`.
fn user(n: u64) -> UserKey {
    user_of("tests", n)
}

fn user_of(of: &str, n: u64) -> UserKey {
    UserKey {
        tenant: tenant(of),
        user: UserId::new(&format!("user-{n}")).unwrap_or_else(|_| unreachable!("a valid id")),
    }
}

/// Device number `n`.
fn device(n: u64) -> DeviceId {
    DeviceId::new(&format!("device-{n}")).unwrap_or_else(|_| unreachable!("a valid id"))
}

/// The first connection of a user's device.
fn seat(user_number: u64, n: u64) -> Seat {
    Seat { owner: user(user_number), device: device(n), incarnation: 1 }
}

fn log(n: u64) -> LogKey {
    let name: LogName = format!("c:log-{n}").parse().unwrap_or_else(|_| unreachable!("a valid name"));
    name.key(&tenant("tests"))
}

fn online() -> Seen {
    Seen::from(&Look::default())
}

fn look(status: PresenceStatus, text: &str, set_at_ms: u64) -> Look {
    Look { status, text: text.into(), set_at_ms }
}
