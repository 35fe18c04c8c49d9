//! What is compared: the work, who does it, and the ratios that are the goals.

use std::str::FromStr;

use antiphon_peers::Peer;
use serde::Serialize;
use thiserror::Error;

use super::{
    browsers::{self, Browsers},
    contender::Contender,
    durable::{self, Durable},
    growth::{self, Growth},
    herd::{self, Herd},
    history::{self, History},
    latency,
    live::{self, Live},
    outcome::Measure,
    storm::{self, Storm},
    stranger, variants,
};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ScenarioName {
    /// Live fan-out.
    S1,
    /// Chat: fan-out of what was synced.
    S2,
    /// Durable publish.
    S3,
    /// Idle herd.
    S4,
    /// Reconnect storm.
    S5,
    /// History.
    S6,
    /// Latency at a fixed rate.
    S7,
    /// Live fan-out to browsers.
    S9,
    /// The broker against itself.
    Growth,
}

/// No scenario is called so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "no scenario is called {0:?}; there are S1 (live fan-out), S2 (chat), S3 (durable publish), S4 (idle herd), \
     S5 (reconnect storm), S6 (history), S7 (latency at a fixed rate), S9 (browsers) and growth (the broker \
     against itself)"
)]
pub struct UnknownScenario(String);

impl ScenarioName {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::S1, Self::S2, Self::S3, Self::S4, Self::S5, Self::S6, Self::S7, Self::S9, Self::Growth];
}

impl FromStr for ScenarioName {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        match name {
            "S1" => Ok(Self::S1),
            "S2" => Ok(Self::S2),
            "S3" => Ok(Self::S3),
            "S4" => Ok(Self::S4),
            "S5" => Ok(Self::S5),
            "S6" => Ok(Self::S6),
            "S7" => Ok(Self::S7),
            "S9" => Ok(Self::S9),
            "growth" => Ok(Self::Growth),
            other => Err(UnknownScenario(other.to_owned())),
        }
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Length of a measurement.
    pub seconds: f64,
    /// Rounds of a headline row.
    pub rounds: u32,
    /// The other rows, too.
    pub is_full: bool,
    /// Divides followers and sessions.
    pub divide: u32,
}

/// One comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Short.
    pub name: &'static str,
    /// What is done, in a line.
    pub title: String,
    /// The work.
    pub work: Work,
    /// In the order of their turns.
    pub contenders: Vec<Contender>,
    /// The figure that is compared.
    pub headline: Measure,
    /// The ratios that are to be reached.
    pub goals: &'static [Goal],
    /// How often.
    pub rounds: u32,
}

/// What is done.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Work {
    /// Rooms with one publisher and many followers.
    Live(Live),
    /// Connections with messages that wait for their acknowledgement, which comes when they are kept.
    Durable(Durable),
    /// Connections with subscriptions, and nothing happens.
    Herd(Herd),
    /// Connections that all end, and come back within a second.
    Storm(Storm),
    /// Clients that read the end of a conversation.
    History(History),
    /// A room of browsers.
    Browsers(Browsers),
    /// The same by the broker at two sizes.
    Growth(Growth),
}

impl Work {
    /// What was counted, in words.
    pub fn counted(&self, done: u64, expected: u64) -> String {
        match self {
            Self::Live(_) | Self::Browsers(_) | Self::Growth(Growth::Followers { .. }) => {
                format!("{done} of {expected}: lost 0, duplicated 0, out of order 0")
            }
            Self::Durable(_) | Self::Growth(Growth::Conversations { .. }) => {
                format!("{done} acknowledged: lost 0, duplicated 0, out of order 0")
            }
            Self::Herd(_) => format!("{done} connected, all subscriptions"),
            Self::Storm(Storm { missed: 0, .. }) => {
                format!("{done} of {expected} back with all subscriptions, and nothing came")
            }
            Self::Storm(_) => {
                format!("{done} of {expected} back, missed messages: lost 0, duplicated 0, out of order 0")
            }
            Self::History(_) => format!("{done} read: lost 0, duplicated 0, out of order 0"),
        }
    }
}

/// A ratio of the broker's figure to another contender's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Goal {
    /// Of which figure.
    pub measure: Measure,
    /// To whose.
    pub against: Contender,
    /// Where it has to be.
    pub bound: Bound,
}

/// Where a ratio has to be.
#[derive(Debug, Clone, Copy, Serialize)]
pub enum Bound {
    /// On the better side of `must`, and by intention of `aim`.
    Better {
        /// What has to be reached.
        must: f64,
        /// What is aimed at.
        aim: f64,
    },
    /// Neither side of 1 is the better one: at most this, and at least one divided by it.
    Alike(f64),
}

pub(super) const fn goal(measure: Measure, against: Contender, must: f64, aim: f64) -> Goal {
    Goal { measure, against, bound: Bound::Better { must, aim } }
}

pub(super) const NATS: Contender = Contender::Peer(Peer::Nats);
pub(super) const REDIS: Contender = Contender::Peer(Peer::Redis);
pub(super) const MOSQUITTO: Contender = Contender::Peer(Peer::Mosquitto);
pub(super) const MOQ_RELAY: Contender = Contender::Peer(Peer::MoqRelay);

/// The rows of a scenario.
pub fn of(scenario: ScenarioName, size: Size) -> Vec<Row> {
    let mut rows = match scenario {
        ScenarioName::S1 => live::live_rows(size).into_iter().chain([stranger::live_row(size)]).collect(),
        ScenarioName::S2 => live::chat_rows(size),
        ScenarioName::S3 => durable::durable_rows(size).into_iter().chain([stranger::durable_row(size)]).collect(),
        ScenarioName::S4 => herd::herd_rows(size),
        ScenarioName::S5 => storm::storm_rows(size),
        ScenarioName::S6 => vec![history::history_row(size)],
        ScenarioName::S7 => latency::latency_rows(size),
        ScenarioName::S9 => browsers::browser_rows(size),
        ScenarioName::Growth => growth::growth_rows(size),
    };
    if size.is_full {
        let variants: Vec<Row> = rows.iter().flat_map(variants::of).collect();
        rows.extend(variants);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Size = Size { seconds: 8.0, rounds: 3, is_full: false, divide: 1 };

    #[test]
    fn goals_are_about_contenders_of_their_row() {
        for row in ScenarioName::ALL.into_iter().flat_map(|scenario| of(scenario, Size { is_full: true, ..QUICK })) {
            assert!(row.contenders.contains(&Contender::Antiphon), "{}", row.name);
            for goal in row.goals {
                assert!(row.contenders.contains(&goal.against), "{}", row.name);
                match goal.bound {
                    Bound::Better { must, aim } if goal.measure.is_better_when_higher() => assert!(aim > must),
                    Bound::Better { must, aim } => assert!(aim < must, "{}", row.name),
                    Bound::Alike(factor) => assert!(factor > 1.0, "{}", row.name),
                }
            }
        }
    }

    #[test]
    fn scenarios_are_named_as_they_are_told() {
        assert_eq!("S3".parse(), Ok(ScenarioName::S3));
        assert_eq!("growth".parse(), Ok(ScenarioName::Growth));
        assert!("S0".parse::<ScenarioName>().unwrap_err().to_string().contains("S4"));
    }
}
