//! Rows in which the broker does what it always does, and the peers have it easier: once, to tell the ratio beside that of
//! equal conditions.

use antiphon_peers::Keeping;

use super::{
    contender::Contender,
    rows::{Row, Work},
};

/// Rows with such a variant, and its name.
const PLAIN: [(&str, &str); 5] = [
    ("S1-500", "S1-500-plain"),
    ("S2-50x10", "S2-50x10-plain"),
    ("S3-10x50", "S3-10x50-plain"),
    ("S3-50x1", "S3-50x1-plain"),
    ("S4", "S4-plain"),
];
/// The same of the other variant.
const WRITTEN: [(&str, &str); 2] = [("S2-50x10", "S2-50x10-written"), ("S3-10x50", "S3-10x50-written")];

/// The variants of a row.
pub(super) fn of(row: &Row) -> Vec<Row> {
    plain(row).into_iter().chain(written(row)).collect()
}

/// Peers without TLS. The broker never runs without.
fn plain(row: &Row) -> Option<Row> {
    let title = format!("{}; peers without TLS", row.title);
    let of_peer = |contender: &Contender| contender.peer().filter(|peer| peer.has_plain()).map(Contender::Plain);
    let peers = row.contenders.iter().filter_map(of_peer);
    let contenders = [Contender::Antiphon].into_iter().chain(peers).collect();
    Some(Row { name: variant(row, &PLAIN)?, title, contenders, goals: &[], rounds: 1, ..row.clone() })
}

/// Peers that answer, and pass a message on, when the page cache has it. The broker has no such level: it always syncs.
fn written(row: &Row) -> Option<Row> {
    let name = variant(row, &WRITTEN)?;
    let mut work = row.work;
    match &mut work {
        Work::Live(load) => load.keeping = Keeping::Written,
        Work::Durable(load) => load.keeping = Keeping::Written,
        _ => return None,
    }
    let title = format!("{}; peers only write to the page cache", row.title);
    // The controls sync, or keep nothing.
    let contenders = row.contenders.iter().copied();
    let contenders = contenders.filter(|it| *it == Contender::Antiphon || it.peer().is_some()).collect();
    Some(Row { name, title, work, contenders, goals: &[], rounds: 1, ..row.clone() })
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
    fn peers_that_only_write_are_told_so() {
        let rows = rows(true);
        let written: Vec<&Row> = rows.iter().filter(|row| row.name.ends_with("-written")).collect();
        assert_eq!(written.iter().map(|row| row.name).collect::<Vec<_>>(), WRITTEN.map(|(_, name)| name));
        for row in written {
            let keeping = match row.work {
                Work::Live(load) => load.keeping,
                Work::Durable(load) => load.keeping,
                _ => panic!("{} keeps nothing", row.name),
            };
            assert_eq!(keeping, Keeping::Written, "{}", row.name);
            assert!(row.title.contains("page cache"), "{}", row.title);
            let redis = Contender::Peer(Peer::Redis);
            assert!(row.contenders.contains(&Contender::Antiphon) && row.contenders.contains(&redis), "{}", row.name);
            assert!(!row.contenders.contains(&Contender::Bare), "{}", row.name);
        }
    }

    #[test]
    fn plain_peers_are_told_from_those_with_tls() {
        assert_eq!(Contender::Plain(Peer::Redis).to_string(), "redis (plain)");
        assert_eq!(serde_json::to_string(&Contender::Plain(Peer::Nats)).unwrap(), "\"nats (plain)\"");
    }
}
