//! `describe`: what a replay would send, without sending it.

use std::fmt;

use crate::{merge::Group, schedule::Schedule};

/// Figures of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    groups: usize,
    sessions: u64,
    deliveries: u64,
    text_bytes: Spread,
    group_messages: Spread,
    pause_ms: Spread,
    schedule: ScheduleFigures,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct ScheduleFigures {
    messages: usize,
    speed: f64,
    messages_per_second: f64,
    seconds: f64,
}

/// Median, mean and maximum.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Spread {
    median: u64,
    mean: f64,
    max: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let Some(&max) = values.last() else { return Self::default() };
        let mean = values.iter().map(|&value| value as f64).sum::<f64>() / values.len() as f64;
        Self { median: values[values.len() / 2], mean, max }
    }
}

impl Description {
    /// Measures what `schedule` sends of `groups`.
    pub fn of(groups: &[Group], schedule: &Schedule) -> Self {
        let messages = || groups.iter().flat_map(|group| &group.messages);
        let pauses =
            groups.iter().flat_map(|group| group.messages.windows(2)).map(|pair| pair[1].at_ms - pair[0].at_ms);
        Self {
            groups: groups.len(),
            sessions: groups.iter().map(|group| u64::from(group.members)).sum(),
            deliveries: groups.iter().map(Group::deliveries).sum(),
            text_bytes: Spread::of(messages().map(|message| message.text.len() as u64)),
            group_messages: Spread::of(groups.iter().map(|group| group.messages.len() as u64)),
            pause_ms: Spread::of(pauses),
            schedule: ScheduleFigures {
                messages: schedule.sends.len(),
                speed: schedule.speed,
                messages_per_second: schedule.messages_per_second,
                seconds: schedule.length.as_secs_f64(),
            },
        }
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { groups, sessions, deliveries, schedule, .. } = self;
        writeln!(f, "conversations     {groups}")?;
        writeln!(f, "sessions          {sessions}")?;
        writeln!(f, "messages          {}", schedule.messages)?;
        writeln!(f, "deliveries        {deliveries}")?;
        for (name, spread) in
            [("text bytes", self.text_bytes), ("messages each", self.group_messages), ("pause ms", self.pause_ms)]
        {
            writeln!(f, "{name:<18}median {}, mean {:.1}, maximum {}", spread.median, spread.mean, spread.max)?;
        }
        writeln!(f, "offered messages/s {:.1}", schedule.messages_per_second)?;
        writeln!(f, "seconds           {:.1}", schedule.seconds)?;
        write!(f, "speed             {:.1} times that of the people", schedule.speed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{merge, schedule::Rate, synthetic::Synthetic};

    #[test]
    fn a_workload_is_measured() {
        let groups = merge::merged(Synthetic::new(2).take(50), 10);
        let schedule = Schedule::plan(&groups, Rate::Messages(100.0), 1).unwrap();
        let description = Description::of(&groups, &schedule);
        assert_eq!((description.groups, description.sessions), (10, 100));
        assert_eq!(description.deliveries, 10 * schedule.sends.len() as u64);
        assert!(description.to_string().contains("sessions          100\n"));
    }

    #[test]
    fn a_spread_of_nothing_is_zero() {
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
        assert_eq!(Spread::of([1, 9, 2].into_iter()), Spread { median: 2, mean: 4.0, max: 9 });
    }
}
