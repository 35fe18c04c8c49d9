//! Presence stores on a Redis of their own, for the tests of this folder.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "every test binary uses its own part")]

pub mod server;

use std::{
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use antiphon_storage::{
    conformance::presence::Store,
    presence::{Presence, PresenceEvent, PresenceOp},
};
use antiphon_storage_redis::{RedisConfig, RedisHandle, RedisPresence, Timing};

/// What is shorter than in production, so that what takes time is over soon.
pub fn quick() -> Timing {
    Timing {
        seat_ttl: Duration::from_secs(3),
        refresh: Duration::from_millis(500),
        beat: Duration::from_millis(200),
        reread: Duration::from_secs(2),
        command_timeout: Duration::from_secs(1),
        stale_after: Duration::from_secs(2),
        settle: Duration::from_secs(1),
        gap: Duration::from_millis(1_500),
        resubscribe: Duration::from_secs(2),
        ..Timing::default()
    }
}

/// Rung when a handle has events.
#[derive(Debug, Default)]
pub struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Until it rings, or a short while.
    pub fn wait(&self) {
        let rung = self.rung.lock().unwrap();
        let (mut rung, _) = self.changed.wait_timeout_while(rung, Duration::from_millis(50), |rung| !*rung).unwrap();
        *rung = false;
    }
}

/// A broker's presence. The handle is dropped first.
pub struct Process {
    pub handle: RedisHandle,
    pub presence: RedisPresence,
}

impl Process {
    pub fn start(config: &RedisConfig, bell: &Arc<Bell>) -> Self {
        let presence = RedisPresence::start(config).unwrap();
        let bell = bell.clone();
        Self { handle: presence.handle(Arc::new(move || bell.ring())), presence }
    }
}

impl Presence for Process {
    fn submit(&mut self, op: PresenceOp) {
        self.handle.submit(op);
    }

    fn poll_events(&mut self, events: &mut Vec<PresenceEvent>) {
        self.handle.poll_events(events);
    }
}

/// A store that nobody else uses.
pub struct Redis {
    config: RedisConfig,
    bell: Arc<Bell>,
}

impl Redis {
    /// Empty, on a server that others may use too.
    pub fn fresh(config: &RedisConfig) -> Box<dyn Store> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let namespace = format!("store-{}", MADE.fetch_add(1, Ordering::Relaxed));
        Box::new(Self { config: RedisConfig { namespace, ..config.clone() }, bell: Arc::default() })
    }
}

impl Store for Redis {
    fn process(&mut self) -> Box<dyn Presence> {
        Box::new(Process::start(&self.config, &self.bell))
    }

    fn wait(&mut self) {
        self.bell.wait();
    }

    fn let_seats_expire(&mut self) {
        // Time passes by itself.
    }
}
