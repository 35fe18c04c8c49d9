//! Latency at a fixed rate: chat at a part of what the slowest peer can take.
//!
//! The work is that of chat ([`super::live`]): nobody gets a message before it is synced, and latencies count from the planned
//! send, whatever the generator was doing then. It sends each message at its moment, from a thread that comes first; where it is
//! late all the same, the row says so. By how much its receivers are late is in the latencies, for everybody alike, and makes no
//! row void: on a processor that has something else to do they say nothing.

use antiphon_peers::Keeping;

use super::{
    contender::Contender,
    live::Live,
    outcome::Measure,
    rows::{Goal, NATS, REDIS, Row, Size, Work, goal},
};
use crate::rooms::Choice;

const GOALS: &[Goal] = &[goal(Measure::P99Ms, NATS, 0.5, 0.35)];

/// Its rows. On the machine of the results JetStream that syncs every message takes some 3,500 messages a second, to ten members
/// each.
pub(super) fn latency_rows(size: Size) -> Vec<Row> {
    let row = |name, percent: u32, rate: f64, goals| {
        let (rooms, rate) = ((50 / size.divide).max(1), rate / f64::from(size.divide));
        let (members, keeping, choice) = (10, Keeping::Synced, Choice::Turns);
        let live = Live {
            rooms,
            members,
            bytes: 200,
            rate,
            seconds: size.seconds,
            warm_up: 2.0,
            keeping,
            choice,
            exact: true,
        };
        Row {
            name,
            title: format!(
                "latency at {rate} messages a second, {percent} % of what the slowest peer takes, {rooms} rooms x \
                 {members} members, 200 bytes, synced before anybody gets them"
            ),
            work: Work::Live(live),
            contenders: vec![Contender::Antiphon, NATS, REDIS],
            headline: Measure::P99Ms,
            goals,
            rounds: size.rounds,
        }
    };
    vec![row("S7-60", 60, 2_000.0, GOALS), row("S7-30", 30, 1_000.0, &[])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rates_are_one_twice_the_other() {
        let rows = latency_rows(Size { seconds: 8.0, rounds: 3, is_full: false, divide: 1 });
        let rates: Vec<f64> = rows
            .iter()
            .filter_map(|row| if let Work::Live(live) = row.work { Some(live.rate) } else { None })
            .collect();
        assert_eq!(rates, [2_000.0, 1_000.0]);
        assert!(rows.iter().all(|row| row.headline == Measure::P99Ms));
    }
}
