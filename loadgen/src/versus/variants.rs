//! Rows in which the broker does what it always does, and the peers have it easier: once, to tell the ratio beside that of
//! equal conditions.

use super::{contender::Contender, rows::Row};

/// Rows with such a variant, and its name.
const PLAIN: [(&str, &str); 5] = [
    ("S1-500", "S1-500-plain"),
    ("S2-50x10", "S2-50x10-plain"),
    ("S3-10x50", "S3-10x50-plain"),
    ("S3-50x1", "S3-50x1-plain"),
    ("S4", "S4-plain"),
];

/// The variants of a row.
pub(super) fn of(row: &Row) -> Vec<Row> {
    plain(row).into_iter().collect()
}

/// Peers without TLS. The broker never runs without.
fn plain(row: &Row) -> Option<Row> {
    let title = format!("{}; peers without TLS", row.title);
    let of_peer = |contender: &Contender| contender.peer().map(Contender::Plain);
    let peers = row.contenders.iter().filter_map(of_peer);
    let contenders = [Contender::Antiphon].into_iter().chain(peers).collect();
    Some(Row { name: variant(row, &PLAIN)?, title, contenders, goals: &[], rounds: 1, ..row.clone() })
}

fn variant(row: &Row, names: &[(&str, &'static str)]) -> Option<&'static str> {
    names.iter().find(|(name, _)| *name == row.name).map(|(_, variant)| *variant)
}

#[cfg(test)]
mod tests {
    use antiphon_peers::Peer;

    use super::*;
    use crate::versus::rows::{self, ScenarioName, Size};

    fn rows(is_full: bool) -> Vec<Row> {
        let size = Size { seconds: 15.0, rounds: 5, is_full, divide: 1 };
        ScenarioName::ALL.into_iter().flat_map(|scenario| rows::of(scenario, size)).collect()
    }

    #[test]
    fn only_peers_are_plain_and_only_at_full_size() {
        let is_plain = |row: &Row| row.name.ends_with("-plain");
        assert!(!rows(false).iter().any(is_plain));
        let all = rows(true);
        let plain: Vec<&Row> = all.iter().filter(|row| is_plain(row)).collect();
        assert_eq!(plain.iter().map(|row| row.name).collect::<Vec<_>>(), PLAIN.map(|(_, name)| name));
        for row in plain {
            assert_eq!(row.contenders[0], Contender::Antiphon, "{}", row.name);
            assert!(row.contenders[1..].iter().all(|other| matches!(other, Contender::Plain(_))), "{}", row.name);
            assert!(row.contenders.contains(&Contender::Plain(Peer::Redis)), "{}", row.name);
            assert_eq!((row.rounds, row.goals.len()), (1, 0), "{}", row.name);
        }
    }

    #[test]
    fn plain_peers_are_told_from_those_with_tls() {
        assert_eq!(Contender::Plain(Peer::Redis).to_string(), "redis (plain)");
        assert_eq!(serde_json::to_string(&Contender::Plain(Peer::Nats)).unwrap(), "\"nats (plain)\"");
    }
}
