//! Is the process alive, and may it get traffic?
//!
//! Alive means that every shard's loop still turns: each loop counts its turns, the admin task looks at the counts once
//! a second. A loop that has nothing to do must still turn once a second. Ready means that no reason against it is set.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// A loop that has not turned for this long counts as stuck.
pub const STALL: Duration = Duration::from_secs(5);

/// The reason that is set from the beginning, until the shell clears it.
pub const STARTING: &str = "starting";
/// The reason while the broker stops.
pub const DRAINING: &str = "draining";

/// A shard's pulse; the shard's thread alone writes it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Count>);

// On a cache line of its own, so that the pulses of two shards do not slow each other.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicU64);

impl Heartbeat {
    /// Counts one turn of the loop. Costs one uncontended add.
    pub fn beat(&self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What `/healthz` and `/readyz` answer from. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Health {
    shards: Arc<[Heartbeat]>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Per shard: the last count seen and when it last changed.
    pulses: Vec<(u64, Instant)>,
    against: BTreeSet<&'static str>,
}

impl Health {
    /// Health of this many shards, not ready ([`STARTING`]), every shard alive as of `now`.
    pub fn new(shards: u16, now: Instant) -> Self {
        let hearts: Arc<[Heartbeat]> = (0..shards).map(|_| Heartbeat(Arc::default())).collect();
        let pulses = vec![(0, now); hearts.len()];
        Self { shards: hearts, state: Arc::new(Mutex::new(State { pulses, against: [STARTING].into() })) }
    }

    /// The pulse that a shard's thread takes with it; `None` if there is no such shard.
    pub fn heartbeat(&self, shard: u16) -> Option<Heartbeat> {
        self.shards.get(usize::from(shard)).cloned()
    }

    /// Sets a reason against traffic, such as [`DRAINING`].
    pub fn not_ready(&self, reason: &'static str) {
        self.state().against.insert(reason);
    }

    /// Clears a reason.
    pub fn ready_again(&self, reason: &'static str) {
        self.state().against.remove(reason);
    }

    /// Looks at every pulse. To be called about once a second.
    pub fn sample(&self, now: Instant) {
        let mut state = self.state();
        for (heart, pulse) in self.shards.iter().zip(&mut state.pulses) {
            let count = heart.0.0.load(Ordering::Relaxed);
            if count != pulse.0 {
                *pulse = (count, now);
            }
        }
    }

    /// The shards whose loop has not turned for [`STALL`].
    pub fn stalled(&self, now: Instant) -> Vec<usize> {
        let state = self.state();
        let stuck = |pulse: &(u64, Instant)| now.saturating_duration_since(pulse.1) >= STALL;
        state.pulses.iter().enumerate().filter(|(_, pulse)| stuck(pulse)).map(|(shard, _)| shard).collect()
    }

    /// Everything that speaks against traffic; empty when ready.
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        let stalled = self.stalled(now).into_iter().map(|shard| format!("shard {shard} is stuck"));
        let state = self.state();
        state.against.iter().map(ToString::to_string).chain(stalled).collect()
    }

    /// No panic can happen while the lock is held, so a poisoned one still holds good values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stops_turning_is_found_and_forgiven() {
        let start = Instant::now();
        let health = Health::new(2, start);
        let hearts = [health.heartbeat(0).unwrap(), health.heartbeat(1).unwrap()];
        assert!(health.heartbeat(2).is_none());
        for second in 1..=6 {
            hearts[0].beat();
            health.sample(start + Duration::from_secs(second));
        }
        let now = start + Duration::from_secs(6);
        assert_eq!(health.stalled(now), [1]);
        hearts[1].beat();
        health.sample(now);
        assert_eq!(health.stalled(now), [0usize; 0]);
    }

    #[test]
    fn ready_means_no_reason_against_it() {
        let now = Instant::now();
        let health = Health::new(1, now);
        assert_eq!(health.reasons(now), ["starting"]);
        health.ready_again(STARTING);
        assert_eq!(health.reasons(now), [""; 0]);
        health.not_ready(DRAINING);
        assert_eq!(health.reasons(now + STALL), ["draining", "shard 0 is stuck"]);
    }
}
