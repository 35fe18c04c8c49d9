//! What would be compared, and how long that takes, without measuring.

use std::{collections::BTreeSet, fmt};

use super::{
    contender::Contender,
    growth::{Growth, Spread},
    live::Live,
    rows::{Row, Work},
};
use crate::{idle, storm};

/// A server's start, the moments in which nothing is to come any more, and its end.
const AROUND_SECONDS: f64 = 4.0;
/// What both sides of a connection take to make it.
const CONNECTION_SECONDS: f64 = 0.001;
/// The same with the subscriptions of an idle herd.
const HERD_CONNECTION_SECONDS: f64 = 0.003;
/// What the making of a conversation takes, where many are made at a time.
const CONVERSATION_SECONDS: f64 = 0.000_3;

/// Rows with how often each is measured, and the peers that take part.
#[derive(Debug)]
pub struct Plan {
    /// The rows, in their order.
    pub rows: Vec<Row>,
    /// How often all of them, if not as often as each says.
    pub rounds: Option<u32>,
    /// The names of the peers; of all if it is empty.
    pub peers: BTreeSet<&'static str>,
}

impl Plan {
    fn contenders(&self, row: &Row) -> Vec<Contender> {
        let takes_part = |contender: &Contender| {
            contender.peer().is_none_or(|peer| self.peers.is_empty() || self.peers.contains(peer.name()))
        };
        row.contenders.iter().copied().filter(takes_part).collect()
    }

    fn minutes(&self, row: &Row) -> f64 {
        let round: f64 = self.contenders(row).into_iter().map(|contender| seconds(contender, &row.work)).sum();
        round * f64::from(self.rounds.unwrap_or(row.rounds)) / 60.0
    }
}

/// How long one measurement takes, as far as its windows, pauses and connections tell.
fn seconds(contender: Contender, work: &Work) -> f64 {
    let connecting = |connections: usize| connections as f64 * CONNECTION_SECONDS;
    let is_small = matches!(contender, Contender::Smaller | Contender::SmallerBare);
    let work = match *work {
        Work::Live(live) => live_seconds(live),
        Work::Durable(load) => connecting(load.connections) + load.warm_up + load.seconds,
        Work::Herd(herd) => {
            3.0 * idle::REST.as_secs_f64() + herd.connections as f64 * HERD_CONNECTION_SECONDS + herd.seconds
        }
        Work::Storm(load) => connecting(2 * load.connections) + 3.0 * storm::REST.as_secs_f64(),
        Work::History(load) => connecting(load.clients) + load.warm_up + load.seconds,
        Work::Browsers(load) => connecting(load.members as usize) + load.warm_up + load.seconds,
        Work::Growth(Growth::Followers { large, small }) => live_seconds(if is_small { small } else { large }),
        Work::Growth(Growth::Conversations { large, small }) => {
            let Spread { conversations, seconds, .. } = if is_small { small } else { large };
            conversations as f64 * CONVERSATION_SECONDS + seconds
        }
    };
    AROUND_SECONDS + work
}

fn live_seconds(live: Live) -> f64 {
    f64::from(live.rooms * (live.members + 1)) * CONNECTION_SECONDS + live.warm_up + live.seconds
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| row | what | contenders | rounds | minutes |\n|---|---|---|---|---|")?;
        for row in &self.rows {
            let contenders: Vec<String> = self.contenders(row).iter().map(Contender::to_string).collect();
            let (contenders, rounds) = (contenders.join(", "), self.rounds.unwrap_or(row.rounds));
            writeln!(f, "| {} | {} | {contenders} | {rounds} | {:.1} |", row.name, row.title, self.minutes(row))?;
        }
        let minutes: f64 = self.rows.iter().map(|row| self.minutes(row)).sum();
        writeln!(f, "\n{} rows, some {minutes:.0} minutes with everybody", self.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::rows::{self, ScenarioName, Size};

    fn plan(is_full: bool) -> Plan {
        let (seconds, rounds) = if is_full { (15.0, 5) } else { (8.0, 3) };
        let size = Size { seconds, rounds, is_full, divide: 1 };
        let rows = ScenarioName::ALL.into_iter().flat_map(|scenario| rows::of(scenario, size)).collect();
        Plan { rows, rounds: None, peers: BTreeSet::new() }
    }

    fn minutes(plan: &Plan) -> f64 {
        plan.rows.iter().map(|row| plan.minutes(row)).sum()
    }

    #[test]
    fn everything_at_full_size_takes_hours_and_not_a_day() {
        let (all, quick) = (minutes(&plan(true)), minutes(&plan(false)));
        assert!(all <= 240.0, "{all} minutes");
        assert!(quick < all / 2.0, "{quick} of {all} minutes");
    }

    #[test]
    fn rounds_and_peers_are_those_that_were_asked_for() {
        let all = plan(false);
        let once = Plan { rounds: Some(1), ..plan(false) };
        assert!(minutes(&once) < minutes(&all));
        let redis = Plan { peers: ["redis"].into(), ..plan(false) };
        assert!(minutes(&redis) < minutes(&all));
        let (told, all) = (redis.to_string(), all.to_string());
        assert!(told.contains("Antiphon, redis |") && !told.contains("nats,"), "{told}");
        assert!(all.contains("Antiphon, nats, redis, mosquitto |"), "{all}");
        assert!(told.lines().any(|line| line.starts_with("| S1-500 | live fan-out, 1 -> 500")), "{told}");
    }
}
