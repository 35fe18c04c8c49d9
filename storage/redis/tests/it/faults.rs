//! Random comings and goings at two processes while Redis is emptied, cut off, killed and started: after each fault both
//! processes are told how everybody is, and nobody is told of somebody who was there all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_protocol::control::PresenceStatus;
use antiphon_storage::{
    dice::Dice,
    presence::{Look, Presence, PresenceEvent, PresenceOp, Seat, Seen, UserKey},
};
use antiphon_storage_redis::RedisConfig;

use crate::support::{
    Bell, Process, quick,
    server::{self, Server},
};

const USERS: u64 = 40;
/// Users below this number keep a seat all the time.
const ANCHORED: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn user(n: u64) -> UserKey {
    UserKey { tenant: "t".parse().unwrap(), user: format!("{n}").parse().unwrap() }
}

struct World {
    servers: Vec<Server>,
    bell: Arc<Bell>,
    processes: Vec<Process>,
    /// Seats: user, process, number.
    here: BTreeSet<(u64, usize, u64)>,
    /// What each process was told last of each user.
    told: Vec<BTreeMap<u64, bool>>,
    stale: [bool; 2],
    dice: Dice,
}

impl World {
    fn new(servers: Vec<Server>, is_cluster: bool, seed: u64) -> Self {
        let urls = servers.iter().map(Server::url).collect();
        let config = RedisConfig { urls, is_cluster, timing: quick(), ..RedisConfig::single("") };
        let bell = Arc::new(Bell::default());
        let processes: Vec<Process> = (0..2).map(|_| Process::start(&config, &bell)).collect();
        let (told, stale) = (vec![BTreeMap::new(); 2], [false; 2]);
        let mut world = Self { servers, bell, processes, here: BTreeSet::new(), told, stale, dice: Dice::new(seed) };
        for n in 0..USERS {
            world.processes.iter_mut().for_each(|process| process.submit(PresenceOp::Watch(user(n))));
        }
        (0..ANCHORED).for_each(|n| world.flip(n, n as usize % 2, 0));
        world.until_right("the beginning");
        world
    }

    /// A seat comes, or goes.
    fn flip(&mut self, n: u64, process: usize, number: u64) {
        let seat = Seat { owner: user(n), device: format!("d{number}").parse().unwrap(), incarnation: 0 };
        let op = match self.here.remove(&(n, process, number)) {
            true => PresenceOp::Left(seat),
            false => {
                self.here.insert((n, process, number));
                PresenceOp::Here { seat, look: Look::default() }
            }
        };
        self.processes[process].submit(op);
    }

    fn churn(&mut self, operations: u64) {
        for _ in 0..operations {
            let (n, process) = (self.dice.below(USERS), self.dice.below(2) as usize);
            let number = 1 + self.dice.below(2);
            self.flip(n, process, number);
        }
    }

    fn poll(&mut self, what: &str) {
        for (process, (told, stale)) in self.processes.iter_mut().zip(self.told.iter_mut().zip(&mut self.stale)) {
            let mut events = Vec::new();
            process.poll_events(&mut events);
            for event in events {
                match event {
                    PresenceEvent::Seen { user, seen: Seen::Known { status, .. } } => {
                        let (n, is_here) = (user.user.as_str().parse().unwrap(), status != PresenceStatus::Offline);
                        assert!(
                            is_here || n >= ANCHORED || !told.contains_key(&n),
                            "{what}: {n} was there all the time"
                        );
                        assert_ne!(told.insert(n, is_here), Some(is_here), "{what}: {n} was so already");
                    }
                    PresenceEvent::Stale => *stale = true,
                    PresenceEvent::Fresh => *stale = false,
                    other => panic!("{what}: {other:?}"),
                }
            }
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.poll(what);
            if holds(self) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {}", self.differences());
            self.bell.wait();
        }
    }

    fn differences(&self) -> String {
        let expected = self.expected();
        let of = |told: &BTreeMap<u64, bool>| {
            let differ = expected.iter().filter(|(n, is_here)| told.get(n) != Some(is_here));
            differ.map(|(n, is_here)| format!("{n} is here: {is_here}")).collect::<Vec<_>>()
        };
        let differences: Vec<_> = self.told.iter().map(of).collect();
        let counters: Vec<_> = self.processes.iter().map(|process| process.presence.counters()).collect();
        format!("{differences:?}, stale {:?}, {counters:?}", self.stale)
    }

    fn expected(&self) -> BTreeMap<u64, bool> {
        (0..USERS).map(|n| (n, self.here.range((n, 0, 0)..(n + 1, 0, 0)).next().is_some())).collect()
    }

    /// Until both processes were told how everybody is, and the store is there.
    fn until_right(&mut self, what: &str) {
        let expected = self.expected();
        self.until(what, |world| world.stale == [false; 2] && world.told.iter().all(|told| *told == expected));
    }

    fn fault(&mut self) -> String {
        let at = self.dice.below(self.servers.len() as u64) as usize;
        let fault = self.dice.below(6);
        match fault {
            0 => drop(self.servers[at].command("FLUSHALL")),
            1 => drop(self.servers[at].command("SCRIPT FLUSH")),
            2 => drop(self.servers[at].command("CLIENT KILL TYPE PUBSUB")),
            3 => drop(self.servers[at].command("CLIENT KILL TYPE NORMAL")),
            4 => {
                self.servers[at].kill();
                self.servers[at].restart();
            }
            _ => {
                self.servers[at].kill();
                self.until("a dead store is stale", |world| world.stale == [true; 2]);
                self.churn(20);
                self.servers[at].restart();
            }
        }
        format!("fault {fault} at {at}")
    }

    fn rounds(&mut self, rounds: u32) {
        for round in 0..rounds {
            self.churn(20);
            let fault = self.fault();
            self.churn(20);
            self.until_right(&format!("round {round}, {fault}"));
        }
    }
}

#[test]
fn whatever_becomes_of_a_server_presence_is_right_afterwards() {
    World::new(vec![Server::start()], false, 1).rounds(20);
}

#[test]
fn whatever_becomes_of_a_node_presence_is_right_afterwards() {
    World::new(server::cluster(), true, 2).rounds(12);
}
