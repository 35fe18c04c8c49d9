//! The open-loop schedule: when each message is to be sent, decided before the run and never changed by it.
//!
//! Thinking time is compressed by one factor for all: the smallest with which the longest group fits into the time that
//! the messages take at the wished rate. Shorter groups keep their relative pauses and begin at staggered points, so
//! the offered rate is steady from start to end. Latency is counted from the planned time, and a late message is still
//! sent, so that a broker that stalls cannot hide its stall by slowing down its clients.

use std::time::Duration;

use thiserror::Error;

use crate::{chance::Chance, merge::Group};

/// How much load is offered, over all groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// Messages sent per second.
    Messages(f64),
    /// Copies that reach members per second.
    Deliveries(f64),
}

/// One message and when it is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Planned {
    /// Since the start of the run.
    pub due: Duration,
    /// Index of the group.
    pub group: u32,
    /// Index of the message within its group.
    pub message: u32,
}

/// When everything is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// By time; messages of one group in the order of the group.
    pub sends: Vec<Planned>,
    /// How many times faster than in the corpus people think.
    pub speed: f64,
    /// Messages per second over the whole run.
    pub messages_per_second: f64,
    /// Time in which all messages fall due.
    pub length: Duration,
}

/// Why there is no schedule.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum ScheduleError {
    /// Nothing to send.
    #[error("the corpus has no messages to send")]
    Empty,
    /// A rate is a positive number.
    #[error("a rate is a number above 0, not {0}")]
    Rate(f64),
}

impl Schedule {
    /// Plans all messages of `groups`; equal seeds give equal plans.
    pub fn plan(groups: &[Group], rate: Rate, seed: u64) -> Result<Self, ScheduleError> {
        let messages: u64 = groups.iter().map(|group| group.messages.len() as u64).sum();
        let deliveries: u64 = groups.iter().map(Group::deliveries).sum();
        if messages == 0 {
            return Err(ScheduleError::Empty);
        }
        let seconds = match rate {
            Rate::Messages(rate) => messages as f64 / positive(rate)?,
            Rate::Deliveries(rate) => deliveries as f64 / positive(rate)?,
        };
        let longest_ms = groups.iter().map(Group::duration_ms).max().unwrap_or(0) as f64;
        // Groups without any pause have nothing to compress.
        let speed = if longest_ms > 0.0 { longest_ms / 1e3 / seconds } else { 1.0 };

        let mut sends = Vec::with_capacity(messages as usize);
        for (index, (group, start)) in groups.iter().zip(starts(groups, speed, seconds, seed)).enumerate() {
            sends.extend(group.messages.iter().enumerate().map(|(message, planned)| Planned {
                due: Duration::from_secs_f64(start + planned.at_ms as f64 / 1e3 / speed),
                group: index as u32,
                message: message as u32,
            }));
        }
        sends.sort_unstable();
        Ok(Self {
            sends,
            speed,
            messages_per_second: messages as f64 / seconds,
            length: Duration::from_secs_f64(seconds),
        })
    }
}

fn positive(rate: f64) -> Result<f64, ScheduleError> {
    if rate.is_finite() && rate > 0.0 { Ok(rate) } else { Err(ScheduleError::Rate(rate)) }
}

/// When each group begins, in seconds: stratified over the time that its own length leaves free.
fn starts(groups: &[Group], speed: f64, seconds: f64, seed: u64) -> Vec<f64> {
    let mut chance = Chance::new(seed);
    let mut strata: Vec<usize> = (0..groups.len()).collect();
    chance.shuffle(&mut strata);
    let start = |(group, stratum): (&Group, usize)| {
        let slack = (seconds - group.duration_ms() as f64 / 1e3 / speed).max(0.0);
        slack * (stratum as f64 + chance.unit()) / groups.len() as f64
    };
    groups.iter().zip(strata).map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merge, synthetic::Synthetic};

    fn groups() -> Vec<Group> {
        merge::merged(Synthetic::new(5).take(600), 10)
    }

    #[test]
    fn all_messages_fall_due_within_the_time_of_their_rate() {
        let groups = groups();
        let messages: usize = groups.iter().map(|group| group.messages.len()).sum();
        let schedule = Schedule::plan(&groups, Rate::Messages(500.0), 1).unwrap();
        assert_eq!(schedule.sends.len(), messages);
        assert!((schedule.length.as_secs_f64() - messages as f64 / 500.0).abs() < 1e-6);
        let last = schedule.sends[messages - 1].due;
        assert!(last <= schedule.length + Duration::from_millis(1), "{last:?} > {:?}", schedule.length);
    }

    #[test]
    fn the_offered_rate_is_steady() {
        let schedule = Schedule::plan(&groups(), Rate::Messages(500.0), 1).unwrap();
        let mut quarters = [0_usize; 4];
        for planned in &schedule.sends {
            let quarter = 4.0 * planned.due.as_secs_f64() / schedule.length.as_secs_f64();
            quarters[(quarter as usize).min(3)] += 1;
        }
        let even = schedule.sends.len() / 4;
        assert!(quarters.iter().all(|&count| count > even / 2 && count < even * 2), "{quarters:?}");
    }

    #[test]
    fn a_rate_of_deliveries_counts_every_member() {
        let groups = groups();
        let by_deliveries = Schedule::plan(&groups, Rate::Deliveries(5_000.0), 1).unwrap();
        assert!((by_deliveries.messages_per_second - 500.0).abs() < 1e-6);
    }

    #[test]
    fn a_group_keeps_its_order_and_its_relative_pauses() {
        let groups = groups();
        let schedule = Schedule::plan(&groups, Rate::Messages(500.0), 1).unwrap();
        let own: Vec<_> = schedule.sends.iter().filter(|planned| planned.group == 3).collect();
        assert!(own.iter().map(|planned| planned.message).eq(0..groups[3].messages.len() as u32));
        for (planned, message) in own.iter().zip(&groups[3].messages) {
            let pause = (planned.due - own[0].due).as_secs_f64() * schedule.speed * 1e3;
            assert!((pause - message.at_ms as f64).abs() < 1.0 + schedule.speed * 1e-5, "{pause} {}", message.at_ms);
        }
    }

    #[test]
    fn equal_seeds_plan_alike() {
        let plan = |seed| Schedule::plan(&groups(), Rate::Messages(500.0), seed).unwrap();
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Schedule::plan(&[], Rate::Messages(1.0), 1), Err(ScheduleError::Empty));
        assert_eq!(Schedule::plan(&groups(), Rate::Deliveries(0.0), 1), Err(ScheduleError::Rate(0.0)));
    }
}
