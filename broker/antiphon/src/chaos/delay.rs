//! When something may go on. Pure: the time comes from the caller, the chance from a seed.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::Plan;

/// Bytes that one direction of one client may have under way; the newest datagram beyond it is dropped, as a router with
/// a full queue does.
const UNDER_WAY_MAX: usize = 1 << 20;
/// With `reorder`, one datagram in so many is held back.
const HELD_BACK_ONE_IN: u64 = 8;
/// How long, so that those behind it overtake it.
const HELD_BACK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(30));

/// A seeded source of what the relay needs.
#[derive(Debug, Clone)]
pub(super) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream with this number; each part of the relay has its own.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        chance.set_stream(stream);
        Self(chance)
    }

    /// A time from `min` to `max`.
    pub(super) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let unit = (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        min + max.saturating_sub(min).mul_f64(unit)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.0.next_u64().is_multiple_of(n)
    }
}

/// Makes the delays of every direction of every client.
#[derive(Debug, Clone)]
pub(super) struct Harm {
    lag: Duration,
    reorder: bool,
    seed: u64,
}

impl Harm {
    pub(super) fn new(plan: &Plan, seed: u64) -> Self {
        Self { lag: plan.lag.unwrap_or_default(), reorder: plan.reorder, seed }
    }

    /// Delays that keep the order; `stream` numbers the direction.
    pub(super) fn jitter(&self, stream: u64) -> Jitter {
        Jitter { lag: self.lag, chance: Chance::new(self.seed, stream), latest: None }
    }

    /// Datagrams under way in one direction.
    pub(super) fn line(&self, stream: u64) -> DelayLine {
        DelayLine { jitter: self.jitter(stream), reorder: self.reorder, held: BinaryHeap::new(), count: 0, bytes: 0 }
    }
}

/// Times from three to five quarters of the lag, each not before the one before it.
#[derive(Debug)]
pub(super) struct Jitter {
    lag: Duration,
    chance: Chance,
    latest: Option<Instant>,
}

impl Jitter {
    /// When what came at `now` may go on.
    pub(super) fn due(&mut self, now: Instant) -> Instant {
        let due = now + self.chance.between(self.lag * 3 / 4, self.lag * 5 / 4);
        let due = self.latest.map_or(due, |latest| latest.max(due));
        self.latest = Some(due);
        due
    }
}

/// Datagrams under way in one direction of one client, bounded.
#[derive(Debug)]
pub(super) struct DelayLine {
    jitter: Jitter,
    reorder: bool,
    /// By time, then in the order in which they came.
    held: BinaryHeap<Reverse<(Instant, u64, Bytes)>>,
    count: u64,
    bytes: usize,
}

impl DelayLine {
    /// Takes a datagram, or drops it if the line is full.
    pub(super) fn push(&mut self, now: Instant, datagram: Bytes) {
        if self.bytes + datagram.len() > UNDER_WAY_MAX {
            return;
        }
        let mut due = self.jitter.due(now);
        if self.reorder && self.jitter.chance.one_in(HELD_BACK_ONE_IN) {
            due += self.jitter.chance.between(HELD_BACK.0, HELD_BACK.1);
        }
        self.bytes += datagram.len();
        self.count += 1;
        self.held.push(Reverse((due, self.count, datagram)));
    }

    /// When the next one may go on.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next one whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Bytes> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse((_, _, datagram)) = self.held.pop()?;
        self.bytes -= datagram.len();
        Some(datagram)
    }

    /// Loses everything that is under way.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out, in its order, with the time that each took, if one datagram a millisecond goes in.
    fn through(plan: &str, seed: u64, count: u8) -> Vec<(u8, Duration)> {
        let mut line = Harm::new(&plan.parse().unwrap(), seed).line(0);
        let start = Instant::now();
        let sent = |n: u8| start + Duration::from_millis(n.into());
        (0..count).for_each(|n| line.push(sent(n), Bytes::from(vec![n])));
        let mut out = Vec::new();
        while let Some(due) = line.next_due() {
            assert_eq!(line.pop(due - Duration::from_nanos(1)), None, "nothing goes on before its time");
            let datagram = line.pop(due).unwrap();
            out.push((datagram[0], due - sent(datagram[0])));
        }
        assert_eq!(line.bytes, 0);
        out
    }

    fn numbers(out: &[(u8, Duration)]) -> Vec<u8> {
        out.iter().map(|(n, _)| *n).collect()
    }

    #[test]
    fn lag_alone_keeps_the_order_and_its_bounds() {
        let out = through("lag=100ms", 3, 200);
        assert_eq!(numbers(&out), (0..200).collect::<Vec<_>>());
        assert!(out.iter().all(|(_, took)| (75..=125).contains(&took.as_millis())), "{out:?}");
    }

    #[test]
    fn reorder_lets_some_overtake_others_and_loses_none() {
        let out = through("reorder", 3, 200);
        let mut sorted = numbers(&out);
        assert_ne!(sorted, (0..200).collect::<Vec<_>>());
        sorted.sort_unstable();
        assert_eq!(sorted, (0..200).collect::<Vec<_>>());
        assert!(out.iter().all(|(_, took)| *took <= HELD_BACK.1), "{out:?}");
    }

    #[test]
    fn a_seed_draws_the_same_again() {
        let plan = "lag=50ms,reorder";
        assert_eq!(through(plan, 7, 100), through(plan, 7, 100));
        assert_ne!(through(plan, 7, 100), through(plan, 8, 100));
    }

    #[test]
    fn a_full_line_drops_the_newest() {
        let mut line = Harm::new(&"lag=1s".parse().unwrap(), 1).line(0);
        let now = Instant::now();
        let datagram = |first: u8| Bytes::from([vec![first], vec![0; 1_199]].concat());
        let fit = (UNDER_WAY_MAX / 1_200) as u64;
        (0..fit + 10).for_each(|n| line.push(now, datagram(u8::from(n >= fit))));
        assert_eq!(line.held.len() as u64, fit);
        assert!(line.held.iter().all(|Reverse((_, _, datagram))| datagram[0] == 0));
        line.clear();
        assert_eq!((line.next_due(), line.bytes), (None, 0));
    }
}
