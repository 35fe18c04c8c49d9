//! What is compared: the work, who does it, and the ratios that are the goals.

use std::str::FromStr;

use antiphon_peers::{Keeping, Peer};
use serde::Serialize;
use thiserror::Error;

use super::contender::{Contender, Measure};
use crate::{fanout::FanoutArgs, publish::PublishArgs};

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
}

/// No scenario is called so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no scenario is called {0:?}; there are S1 (live fan-out), S2 (chat), S3 (durable publish) and S4 (idle herd)")]
pub struct UnknownScenario(String);

impl ScenarioName {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::S1, Self::S2, Self::S3, Self::S4];
}

impl FromStr for ScenarioName {
    type Err = UnknownScenario;

    fn from_str(name: &str) -> Result<Self, UnknownScenario> {
        match name {
            "S1" => Ok(Self::S1),
            "S2" => Ok(Self::S2),
            "S3" => Ok(Self::S3),
            "S4" => Ok(Self::S4),
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
    /// Connections with messages that wait for their acknowledgement, which comes when they are synced.
    Durable(Durable),
    /// Connections with subscriptions, and nothing happens.
    Herd(Herd),
}

/// A fan-out.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Live {
    /// Rooms, each with a publisher of its own, on a connection of its own.
    pub rooms: u32,
    /// Followers of each, each on a connection of its own.
    pub members: u32,
    /// Bytes of a message.
    pub bytes: usize,
    /// Messages per second, over all rooms in turn.
    pub rate: f64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
    /// What a peer does with a message first. The broker keeps it anyhow.
    pub keeping: Keeping,
}

/// Durable publishing.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Durable {
    /// Connections, each with a subject of its own.
    pub connections: usize,
    /// Messages that wait on each.
    pub in_flight: usize,
    /// Bytes of a message.
    pub bytes: usize,
    /// Length of the measurement.
    pub seconds: f64,
    /// Load before it.
    pub warm_up: f64,
}

/// An idle herd.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Herd {
    /// Connections; the memory of one is the slope between half of them and all.
    pub connections: usize,
    /// Subscriptions of each.
    pub subscriptions: usize,
    /// Length of the look at the idle processor time.
    pub seconds: f64,
}

impl From<Live> for FanoutArgs {
    fn from(live: Live) -> Self {
        let Live { rooms, members, bytes, rate, seconds, warm_up, keeping: _ } = live;
        Self { rooms, members, bytes, rate, seconds, warm_up }
    }
}

impl From<Durable> for PublishArgs {
    fn from(durable: Durable) -> Self {
        let Durable { connections, in_flight, bytes, seconds, warm_up } = durable;
        Self { connections, in_flight, bytes, seconds, warm_up }
    }
}

/// A ratio of the broker's figure to another contender's.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Goal {
    /// Of which figure.
    pub measure: Measure,
    /// To whose.
    pub against: Contender,
    /// What has to be reached.
    pub must: f64,
    /// What is aimed at.
    pub aim: f64,
}

const fn goal(measure: Measure, against: Contender, must: f64, aim: f64) -> Goal {
    Goal { measure, against, must, aim }
}

const NATS: Contender = Contender::Peer(Peer::Nats);
const REDIS: Contender = Contender::Peer(Peer::Redis);
const MOSQUITTO: Contender = Contender::Peer(Peer::Mosquitto);

const LIVE_GOALS: &[Goal] = &[
    goal(Measure::CpuUs, NATS, 0.75, 0.55),
    goal(Measure::CpuUs, REDIS, 1.2, 0.95),
    goal(Measure::CpuUs, Contender::Bare, 1.15, 1.05),
];
const CHAT_GOALS: &[Goal] = &[goal(Measure::CpuUs, NATS, 0.3, 0.25), goal(Measure::CpuUs, REDIS, 1.3, 1.0)];
const PIPELINED_GOALS: &[Goal] = &[goal(Measure::PerSecond, NATS, 10.0, 20.0)];
const ONE_BY_ONE_GOALS: &[Goal] = &[goal(Measure::CpuUs, REDIS, 1.2, 0.8)];
const HERD_GOALS: &[Goal] = &[goal(Measure::KibPerConnection, NATS, 0.45, 0.3)];

/// The rows of a scenario.
pub fn of(scenario: ScenarioName, size: Size) -> Vec<Row> {
    match scenario {
        ScenarioName::S1 => live_rows(size),
        ScenarioName::S2 => chat_rows(size),
        ScenarioName::S3 => durable_rows(size),
        ScenarioName::S4 => vec![herd_row(size)],
    }
}

fn live_rows(size: Size) -> Vec<Row> {
    let row = |name, members: u32, rate: f64, rounds| {
        let members = (members / size.divide).max(1);
        let (seconds, keeping) = (size.seconds, Keeping::Nothing);
        let live = Live { rooms: 1, members, bytes: 200, rate, seconds, warm_up: 2.0, keeping };
        let bytes = live.bytes;
        Row {
            name,
            title: format!("live fan-out, 1 -> {members}, {bytes} bytes, {rate} messages a second"),
            work: Work::Live(live),
            contenders: vec![Contender::Floor, Contender::Bare, Contender::Antiphon, NATS, REDIS, MOSQUITTO],
            headline: Measure::CpuUs,
            goals: LIVE_GOALS,
            rounds,
        }
    };
    let mut rows = vec![row("S1-500", 500, 50.0, size.rounds)];
    if size.is_full {
        rows.push(row("S1-5000", 5_000, 5.0, 1));
    }
    rows
}

fn chat_rows(size: Size) -> Vec<Row> {
    let row = |name, rooms: u32, members: u32, rate: f64, rounds| {
        let rooms = (rooms / size.divide).max(1);
        let (seconds, keeping) = (size.seconds, Keeping::Synced);
        let live = Live { rooms, members, bytes: 200, rate, seconds, warm_up: 2.0, keeping };
        Row {
            name,
            title: format!(
                "chat, {rooms} rooms x {members} members, 200 bytes, {rate} messages a second, synced before anybody \
                 gets them"
            ),
            work: Work::Live(live),
            contenders: vec![Contender::Antiphon, NATS, REDIS],
            headline: Measure::CpuUs,
            goals: CHAT_GOALS,
            rounds,
        }
    };
    let mut rows = vec![row("S2-50x10", 50, 10, 2_500.0, size.rounds)];
    if size.is_full {
        rows.push(row("S2-50x200", 50, 200, 125.0, 1));
    }
    rows
}

fn durable_rows(size: Size) -> Vec<Row> {
    let row = |name, connections, in_flight, headline, goals| {
        let durable = Durable { connections, in_flight, bytes: 200, seconds: size.seconds, warm_up: 2.0 };
        Row {
            name,
            title: format!("durable publish, {connections} connections x {in_flight} in flight, 200 bytes, synced"),
            work: Work::Durable(durable),
            contenders: vec![Contender::Antiphon, NATS, REDIS],
            headline,
            goals,
            rounds: size.rounds,
        }
    };
    vec![
        row("S3-10x50", 10, 50, Measure::PerSecond, PIPELINED_GOALS),
        row("S3-50x1", 50, 1, Measure::CpuUs, ONE_BY_ONE_GOALS),
    ]
}

/// The broker's own conversations have 100 members, so half of the connections is a multiple of that.
fn herd_row(size: Size) -> Row {
    const MEMBERS: u32 = 100;
    let connections = if size.is_full { 15_000 } else { 2_000 } / size.divide / (2 * MEMBERS) * (2 * MEMBERS);
    let herd = Herd { connections: connections.max(2 * MEMBERS) as usize, subscriptions: 10, seconds: size.seconds };
    let Herd { connections, subscriptions, seconds } = herd;
    Row {
        name: "S4",
        title: format!("idle herd, {connections} connections x {subscriptions} subscriptions, {seconds} s"),
        work: Work::Herd(herd),
        contenders: vec![Contender::Antiphon, NATS, REDIS, MOSQUITTO],
        headline: Measure::KibPerConnection,
        goals: HERD_GOALS,
        rounds: 1,
    }
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
                let is_harder =
                    if goal.measure.is_better_when_higher() { goal.aim > goal.must } else { goal.aim < goal.must };
                assert!(is_harder, "{}", row.name);
            }
        }
    }

    #[test]
    fn a_herd_is_made_of_whole_conversations() {
        for divide in 1..30 {
            let Work::Herd(herd) = herd_row(Size { divide, ..QUICK }).work else { panic!("a herd") };
            assert!(herd.connections >= 200 && (herd.connections / 2).is_multiple_of(100), "{herd:?}");
        }
    }

    #[test]
    fn scenarios_are_named_as_they_are_told() {
        assert_eq!("S3".parse(), Ok(ScenarioName::S3));
        assert!("S9".parse::<ScenarioName>().unwrap_err().to_string().contains("S4"));
    }
}
