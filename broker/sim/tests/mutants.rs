//! The simulation finds planted bugs. Runs with `--features mutants` only.
#![cfg(feature = "mutants")]

use antiphon_sim::{Mutant, run};

/// Seeds within which each planted bug must be found.
const SEEDS: u64 = 200;

// One test for all, because a planted bug concerns the whole process.
#[test]
fn every_planted_bug_is_found() {
    for mutant in Mutant::ALL {
        mutant.plant();
        let found = (0..SEEDS).find(|seed| !run(*seed, false).violations.is_empty());
        assert!(found.is_some(), "{mutant:?} was not found by {SEEDS} seeds");
    }
}
