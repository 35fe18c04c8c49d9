//! The broker against itself: whether a delivery or a message costs more where there are more followers or conversations.
//!
//! A bare driver of `quinn-proto` has as many followers, in the same rounds: what its deliveries to many cost more, those of
//! any server on that library do.

use std::sync::OnceLock;

use antiphon_peers::Keeping;
use serde::Serialize;

use super::{
    contender::Contender,
    live::Live,
    outcome::{Measure, Outcome},
    rows::{Goal, Row, Size, Work, goal},
};
use crate::{
    rooms::Choice,
    spread::{SpreadArgs, SpreadReport},
};

/// The large load is Antiphon's, the small one that of [`Contender::Smaller`].
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Growth {
    /// As many deliveries a second, by many messages to few or few messages to many.
    Followers {
        /// To many.
        large: Live,
        /// To few.
        small: Live,
    },
    /// As many messages a second, in many conversations or in few.
    Conversations {
        /// In many.
        large: Spread,
        /// In few.
        small: Spread,
    },
}

/// Messages in conversations that nobody follows.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spread {
    /// Conversations, chosen at random.
    pub conversations: usize,
    /// Connections that send, each to its share of them.
    pub connections: usize,
    /// Messages per second.
    pub rate: f64,
    /// Messages before, to one conversation after the other.
    pub first: usize,
    /// Length of the measurement.
    pub seconds: f64,
}

impl From<Spread> for SpreadArgs {
    fn from(spread: Spread) -> Self {
        let Spread { conversations, connections, rate, first, seconds } = spread;
        let (bytes, making, warm_up, made) = (200, 60.0, 2.0, OnceLock::new());
        Self { conversations, connections, bytes, rate, making, first, seconds, warm_up, made }
    }
}

impl From<SpreadReport> for Outcome {
    fn from(report: SpreadReport) -> Self {
        let mut outcome = Self::new([
            (Measure::CpuUs, report.cpu_us_per_message),
            (Measure::Conversations, Some(report.conversations as f64)),
            (Measure::ResidentMib, report.resident_kib.map(|kib| kib as f64 / 1024.0)),
            (Measure::LagP999Ms, report.lag.map(|lag| lag.p999_ms)),
        ]);
        (outcome.done, outcome.expected) = (report.messages, report.messages);
        outcome
    }
}

const FOLLOWERS_GOALS: &[Goal] = &[goal(Measure::CpuUs, Contender::Smaller, 1.1, 1.0)];
const CONVERSATIONS_GOALS: &[Goal] = &[goal(Measure::CpuUs, Contender::Smaller, 1.3, 1.1)];

/// Its rows.
pub(super) fn growth_rows(size: Size) -> Vec<Row> {
    vec![followers_row(size), conversations_row(size)]
}

/// Where the followers are divided, so are the messages to few: the deliveries are as many.
fn followers_row(size: Size) -> Row {
    let live = |members, rate| {
        let (seconds, keeping, choice) = (size.seconds, Keeping::Nothing, Choice::Turns);
        Live { rooms: 1, members, bytes: 200, rate, seconds, warm_up: 2.0, keeping, choice, exact: false }
    };
    let many = (5_000 / size.divide).max(50);
    let large = live(many, 5.0);
    let small = live(50, f64::from(many) * large.rate / 50.0);
    Row {
        name: "growth-followers",
        title: format!(
            "fan-out, 1 -> {} at {} messages a second (small: 1 -> {} at {}), per delivery",
            large.members, large.rate, small.members, small.rate
        ),
        work: Work::Growth(Growth::Followers { large, small }),
        contenders: vec![Contender::SmallerBare, Contender::Bare, Contender::Smaller, Contender::Antiphon],
        headline: Measure::CpuUs,
        goals: FOLLOWERS_GOALS,
        rounds: size.rounds,
    }
}

/// In many conversations each has had one message before; so has the log, in few.
fn conversations_row(size: Size) -> Row {
    let many = (100_000 / size.divide as usize).max(100);
    let (rate, seconds) = (2_000.0, size.seconds);
    let spread = |conversations| Spread { conversations, connections: 50, rate, first: many, seconds };
    let (large, small) = (spread(many), spread(100));
    Row {
        name: "growth-conversations",
        title: format!(
            "{} messages a second in {} conversations (small: {}), which the broker made before it was restarted and has \
             in memory, synced, per message",
            large.rate, large.conversations, small.conversations
        ),
        work: Work::Growth(Growth::Conversations { large, small }),
        contenders: vec![Contender::Smaller, Contender::Antiphon],
        headline: Measure::CpuUs,
        goals: CONVERSATIONS_GOALS,
        rounds: size.rounds,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_and_few_followers_get_as_many_deliveries() {
        for divide in [1, 3, 10, 1_000] {
            let row = followers_row(Size { seconds: 8.0, rounds: 3, is_full: false, divide });
            let Work::Growth(Growth::Followers { large, small }) = row.work else { panic!("followers") };
            let deliveries = |live: Live| f64::from(live.members) * live.rate;
            assert!((deliveries(large) - deliveries(small)).abs() < 1e-6, "{large:?} {small:?}");
        }
    }
}
