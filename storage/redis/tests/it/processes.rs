//! A thousand sessions of 300 users at two processes on one Redis: what watchers are told is exact, whatever becomes of
//! Redis and of processes.
//!
//! The processes are this test's own program, which runs [`worker`] when its environment says so. They are told what to
//! state by lines, and answer with a line for each event.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use antiphon_protocol::control::PresenceStatus;
use antiphon_storage::{
    dice::Dice,
    presence::{FRESH_WITHIN, Look, Presence, PresenceEvent, PresenceOp, SEAT_TTL, Seat, Seen, UserKey},
};
use antiphon_storage_redis::RedisConfig;
use rustix::process::Signal;

use crate::support::{Bell, Process, server::Server};

const USERS: u32 = 300;
const SESSIONS: u32 = 1_000;
/// Users below this number keep a session all the time.
const ANCHORED: u32 = 200;
/// Names Redis to a worker.
const WORKER: &str = "ANTIPHON_PRESENCE_WORKER";
/// What comes at all comes by then.
const PATIENCE: Duration = Duration::from_secs(90);

fn user(n: u32) -> UserKey {
    UserKey { tenant: "t".parse().unwrap(), user: format!("{n}").parse().unwrap() }
}

/// Not a test: what the other tests of this file start as a process of its own.
#[test]
fn worker() {
    let Ok(url) = env::var(WORKER) else { return };
    let bell = Arc::new(Bell::default());
    let mut process = Process::start(&RedisConfig::single(&url), &bell);
    let (lines, orders) = mpsc::channel();
    let awake = bell.clone();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            lines.send(line.unwrap()).unwrap();
            awake.ring();
        }
        // Nobody needs this process any more.
        std::process::exit(0);
    });
    loop {
        orders.try_iter().for_each(|order| process.submit(parse(&order)));
        let mut events = Vec::new();
        process.poll_events(&mut events);
        let mut said = String::new();
        for event in events {
            match event {
                PresenceEvent::Seen { user, seen: Seen::Known { status, .. } } => {
                    said += &format!(
                        "@ {} {}\n",
                        user.user,
                        if status == PresenceStatus::Offline { "gone" } else { "here" }
                    );
                }
                PresenceEvent::Stale => said += "@ stale\n",
                PresenceEvent::Fresh => said += "@ fresh\n",
                other => said += &format!("@ unexpected {other:?}\n"),
            }
        }
        std::io::stdout().write_all(said.as_bytes()).unwrap();
        bell.wait();
    }
}

fn parse(order: &str) -> PresenceOp {
    let words: Vec<&str> = order.split(' ').collect();
    let owner = user(words[1].parse().unwrap());
    let seat = || Seat { owner: owner.clone(), device: words[2].parse().unwrap(), incarnation: 1 };
    match words[0] {
        "here" => PresenceOp::Here { seat: seat(), look: Look::default() },
        "left" => PresenceOp::Left(seat()),
        "watch" => PresenceOp::Watch(owner),
        other => panic!("{other}?"),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Told {
    User(u32, bool),
    Stale,
    Fresh,
}

/// A worker, and what it was told and nobody has looked at.
struct Worker {
    child: Child,
    orders: ChildStdin,
    told: Receiver<Told>,
}

impl Worker {
    fn start(server: &Server) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "processes::worker", "--nocapture"]).env(WORKER, server.url());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (said, told) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some(words) = line.strip_prefix("@ ") else { continue };
                let event = match words {
                    "stale" => Told::Stale,
                    "fresh" => Told::Fresh,
                    other => {
                        let (n, state) = other.split_once(' ').unwrap();
                        let n = n.parse().unwrap_or_else(|_| panic!("a worker was told {other}"));
                        Told::User(n, state == "here")
                    }
                };
                if said.send(event).is_err() {
                    break;
                }
            }
        });
        Self { orders: child.stdin.take().unwrap(), child, told }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn next(&self, what: &str) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("a worker was not told {what}"))
    }

    /// Exactly these users changed, each once, in any order, before whatever follows.
    fn expect(&self, what: &str, mut expected: BTreeMap<u32, bool>) {
        while !expected.is_empty() {
            match self.next(&format!("{what}: {expected:?}")) {
                Told::User(n, is_here) if expected.get(&n) == Some(&is_here) => expected.remove(&n),
                other => panic!("{what}: told {other:?} while waiting for {expected:?}"),
            };
        }
    }

    fn expect_one(&self, what: &str, expected: &Told) {
        assert_eq!(self.next(what), *expected, "{what}");
    }

    /// Nothing is told until `end`.
    fn expect_silence(&self, what: &str, end: Instant) {
        match self.told.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) => {}
            told => panic!("{what}: {told:?}"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Session number `n`: its user, and the worker that it is at. A third of the users are at the second worker only.
fn session(n: u32) -> (u32, usize) {
    let user = n % USERS;
    (user, if user % 3 == 2 { 1 } else { (n / USERS + n) as usize % 2 })
}

/// Two workers that watch everybody, and who has which sessions.
struct World {
    server: Server,
    workers: Vec<Worker>,
    here: BTreeSet<u32>,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        let mut workers = vec![Worker::start(&server), Worker::start(&server)];
        for worker in &mut workers {
            (0..USERS).for_each(|n| worker.order(&format!("watch {n} -")));
        }
        let world = Self { server, workers, here: BTreeSet::new() };
        world.expect("nobody is there", (0..USERS).map(|n| (n, false)).collect());
        world
    }

    fn expect(&self, what: &str, expected: BTreeMap<u32, bool>) {
        self.workers.iter().for_each(|worker| worker.expect(what, expected.clone()));
    }

    fn comes(&mut self, n: u32) {
        let (user, worker) = session(n);
        self.here.insert(n);
        self.workers[worker].order(&format!("here {user} {n}"));
    }

    fn goes(&mut self, n: u32) {
        let (user, worker) = session(n);
        self.here.remove(&n);
        self.workers[worker].order(&format!("left {user} {n}"));
    }

    /// Everybody comes.
    fn fill(&mut self) {
        (0..SESSIONS).for_each(|n| self.comes(n));
        self.expect("everybody came once", (0..USERS).map(|n| (n, true)).collect());
    }

    /// All sessions of a user end.
    fn leaves(&mut self, user: u32) {
        let sessions: Vec<u32> = self.here.iter().copied().filter(|n| session(*n).0 == user).collect();
        sessions.into_iter().for_each(|n| self.goes(n));
    }

    fn expect_each(&self, what: &str, expected: &Told) {
        self.workers.iter().for_each(|worker| worker.expect_one(what, expected));
    }
}

#[test]
fn the_first_and_the_last_session_are_told_once_by_whichever_process() {
    let mut world = World::new();
    world.fill();
    // Anchored users keep their first session; all others come and go at both processes at once.
    let mut dice = Dice::new(7);
    for _ in 0..5_000 {
        let n = USERS + dice.below(u64::from(SESSIONS - USERS)) as u32;
        if world.here.contains(&n) { world.goes(n) } else { world.comes(n) }
    }
    for n in ANCHORED..USERS {
        world.leaves(n);
    }
    // Of the others, presence came and went in some order; the last that is told of each is that they are gone.
    for worker in &world.workers {
        let mut gone = BTreeSet::new();
        while gone.len() < (USERS - ANCHORED) as usize {
            match worker.next("that the last session ended") {
                Told::User(n, false) => assert!(n >= ANCHORED && gone.insert(n), "user {n} is gone"),
                Told::User(n, true) => assert!(gone.remove(&n), "user {n} was there already"),
                other => panic!("told {other:?}"),
            }
        }
    }
    for n in 0..ANCHORED {
        world.leaves(n);
    }
    world.expect("everybody went once", (0..ANCHORED).map(|n| (n, false)).collect());
}

#[test]
fn what_redis_forgets_is_stated_again_and_nobody_is_told() {
    let mut world = World::new();
    world.fill();
    let begun = Instant::now();
    world.server.command("FLUSHALL");
    // One goes for good while the store is being filled again: that alone is told.
    world.leaves(7);
    world.expect("the one who went", BTreeMap::from([(7, false)]));
    eprintln!("told {} ms after FLUSHALL", begun.elapsed().as_millis());
    assert!(begun.elapsed() < FRESH_WITHIN);
    (1..=3).for_each(|n| world.leaves(n));
    world.expect("the last sessions", (1..=3).map(|n| (n, false)).collect());
}

#[test]
fn a_redis_that_was_killed_is_stale_and_then_right_again() {
    let mut world = World::new();
    world.fill();
    let begun = Instant::now();
    world.server.kill();
    world.expect_each("that the store is away", &Told::Stale);
    eprintln!("stale {} ms after kill -9", begun.elapsed().as_millis());
    (10..20).for_each(|n| world.leaves(n));
    let begun = Instant::now();
    world.server.restart();
    world.expect("those who went meanwhile", (10..20).map(|n| (n, false)).collect());
    world.expect_each("that all is right again", &Told::Fresh);
    eprintln!("fresh {} ms after the start", begun.elapsed().as_millis());
    assert!(begun.elapsed() < FRESH_WITHIN);
    (20..30).for_each(|n| world.leaves(n));
    world.expect("those who go afterwards", (20..30).map(|n| (n, false)).collect());
}

#[test]
fn a_redis_that_stood_still_is_stale_and_then_right_again() {
    let mut world = World::new();
    world.fill();
    let begun = Instant::now();
    world.server.signal(Signal::STOP);
    world.expect_each("that the store is away", &Told::Stale);
    eprintln!("stale {} ms after SIGSTOP", begun.elapsed().as_millis());
    for worker in &world.workers {
        worker.expect_silence("while it stands still", begun + Duration::from_secs(5));
    }
    let begun = Instant::now();
    world.server.signal(Signal::CONT);
    world.expect_each("that all is right again", &Told::Fresh);
    eprintln!("fresh {} ms after SIGCONT", begun.elapsed().as_millis());
    assert!(begun.elapsed() < FRESH_WITHIN);
    world.leaves(5);
    world.expect("the one who went", BTreeMap::from([(5, false)]));
}

#[test]
fn the_sessions_of_a_killed_process_run_out_and_are_told_once() {
    let mut world = World::new();
    world.fill();
    let begun = Instant::now();
    let lost = world.workers.pop().unwrap();
    drop(lost);
    world.here.retain(|n| session(*n).1 == 0);
    let at_the_other: BTreeSet<u32> = world.here.iter().map(|n| session(*n).0).collect();
    let alone = |n: &u32| !at_the_other.contains(n);
    let expected: BTreeMap<u32, bool> = (0..USERS).filter(alone).map(|n| (n, false)).collect();
    world.expect("who was at the dead process alone", expected);
    eprintln!("run out {} ms after kill -9", begun.elapsed().as_millis());
    assert!(begun.elapsed() < SEAT_TTL + FRESH_WITHIN);
    // A process that comes later is told the same, and the other one nothing new.
    let mut late = Worker::start(&world.server);
    (0..USERS).for_each(|n| late.order(&format!("watch {n} -")));
    late.expect("how it is", (0..USERS).map(|n| (n, !alone(&n))).collect());
    let here = *at_the_other.first().unwrap();
    world.leaves(here);
    world.expect("the one who went", BTreeMap::from([(here, false)]));
}
