//! What the benches measure: named pieces of work, each timed by criterion and counted in instructions.
//!
//! ```text
//! codec, json, outbox   one part by itself
//! log                   the embedded store's own work: neither disk nor index
//! world                 a shard with clients and a store in memory, without sockets and QUIC
//! shard, fanout, handover   work on a world
//! ```
//!
//! A case does the same in every process: its times, ids and seeds are constants, and nothing in it reads a clock, starts
//! a thread or asks for randomness.

mod case;
mod codec;
mod fanout;
mod handover;
mod json;
mod log;
mod outbox;
mod rows;
mod shard;
mod world;

pub use case::{COUNTED, Case, Work};
pub use log::Appender;

/// The cases of one bench.
pub type Bench = fn() -> Vec<Case>;

/// Every bench, by its name.
pub const BENCHES: [(&str, Bench); 7] = [
    ("codec", codec::cases),
    ("json", json::cases),
    ("outbox", outbox::cases),
    ("shard", shard::cases),
    ("fanout", fanout::cases),
    ("handover", handover::cases),
    ("log", log::cases),
];

/// The cases of the bench called `name`; none if there is no such bench.
pub fn bench(name: &str) -> Vec<Case> {
    BENCHES.iter().filter(|(known, _)| *known == name).flat_map(|(_, cases)| cases()).collect()
}

/// The cases of all benches.
pub fn all() -> Vec<Case> {
    BENCHES.iter().flat_map(|(_, cases)| cases()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_case_can_be_done_and_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for case in all() {
            case.count();
            assert!(names.insert(case.id()), "two cases are called {}", case.id());
        }
        assert_eq!(names.len(), BENCHES.iter().map(|(name, _)| bench(name).len()).sum::<usize>());
    }
}
