//! What presence on Redis costs: how long a number of seats takes to be stated, how late another process hears of one,
//! and how long a rate limit takes.
//!
//! ```text
//! redis-server --save '' --port 6390 &
//! cargo run --release -p antiphon-storage-redis --example seats -- redis://127.0.0.1:6390 100000
//! ```
#![allow(clippy::unwrap_used, reason = "a measurement that fails says where")]

use std::{
    env,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use antiphon_storage::{
    Token,
    presence::{Answer, Look, Payer, Presence, PresenceEvent, PresenceOp, Question, Seat, Take, UserKey},
};
use antiphon_storage_redis::{RedisConfig, RedisHandle, RedisPresence};

const SAMPLES: u32 = 2_000;

struct Process {
    handle: RedisHandle,
    bell: Arc<(Mutex<bool>, Condvar)>,
    _presence: RedisPresence,
}

impl Process {
    fn start(url: &str) -> Self {
        let presence = RedisPresence::start(&RedisConfig::single(url)).unwrap();
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let ring = bell.clone();
        let handle = presence.handle(Arc::new(move || {
            *ring.0.lock().unwrap() = true;
            ring.1.notify_all();
        }));
        Self { handle, bell, _presence: presence }
    }

    /// Until so many events came that are wanted.
    fn until(&mut self, count: usize, is_it: impl Fn(&PresenceEvent) -> bool) {
        let (mut events, mut came) = (Vec::new(), 0);
        while came < count {
            self.handle.poll_events(&mut events);
            came += events.drain(..).filter(|event| is_it(event)).count();
            if came < count {
                let rung = self.bell.0.lock().unwrap();
                let wait = Duration::from_millis(100);
                *self.bell.1.wait_timeout_while(rung, wait, |rung| !*rung).unwrap().0 = false;
            }
        }
    }

    fn until_seen(&mut self, count: usize) {
        self.until(count, |event| matches!(event, PresenceEvent::Seen { .. }));
    }
}

fn user(n: u32) -> UserKey {
    UserKey { tenant: "t".parse().unwrap(), user: format!("user-{n}").parse().unwrap() }
}

fn seat(n: u32) -> Seat {
    Seat { owner: user(n), device: "phone".parse().unwrap(), incarnation: 1 }
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[times.len() * part / 100].as_micros();
    format!("p50 {} us, p99 {} us", at(50), at(99))
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let (url, seats) = (&arguments[1], arguments[2].parse::<u32>().unwrap());
    let (mut here, mut there) = (Process::start(url), Process::start(url));
    (0..seats).for_each(|n| there.handle.submit(PresenceOp::Watch(user(n))));
    there.until_seen(seats as usize);
    let begun = Instant::now();
    (0..seats).for_each(|n| here.handle.submit(PresenceOp::Here { seat: seat(n), look: Look::default() }));
    there.until_seen(seats as usize);
    println!("{seats} seats stated, and told to another process: {} ms", begun.elapsed().as_millis());
    let mut times = Vec::new();
    for n in 0..SAMPLES {
        let begun = Instant::now();
        let op = match n % 2 {
            0 => PresenceOp::Left(seat(n / 2)),
            _ => PresenceOp::Here { seat: seat(n / 2), look: Look::default() },
        };
        here.handle.submit(op);
        there.until_seen(1);
        times.push(begun.elapsed());
    }
    println!("a transition, at another process: {}", percentiles(times));
    let mut times = Vec::new();
    for n in 0..SAMPLES {
        let begun = Instant::now();
        let payer = Payer::User(user(n));
        let take = Take { payer, kind: "send", cost: 1, per_second: 10, burst: 100 };
        here.handle.submit(PresenceOp::Ask { question: Question::Take(take), token: Token(n.into()) });
        here.until(1, |event| {
            matches!(event, PresenceEvent::Answered { result: Ok(Answer::Verdict { is_local: false, .. }), .. })
        });
        times.push(begun.elapsed());
    }
    println!("a rate limit: {}", percentiles(times));
}
