//! A few runs in every test: the promises hold, and a seed is a run, byte for byte. `cargo sim --seeds N` runs more.

use antiphon_sim::{Fault, Phase, Tally, run};

#[test]
fn honest_runs_keep_every_promise() {
    let mut sum = Tally::default();
    for seed in 10_000..10_010 {
        let report = run(seed, false);
        assert!(report.violations.is_empty(), "cargo sim --seed {seed} --trace: {:#?}", report.violations);
        assert!(report.tally.operations >= 2_000, "seed {seed} did {} operations", report.tally.operations);
        assert!(report.tally.of(Fault::Crash) >= 3, "seed {seed} crashed {} times", report.tally.of(Fault::Crash));
        sum.merge(&report.tally);
    }
    for phase in Phase::ALL {
        assert!(sum.cuts(phase) > 10, "{phase:?} was cut {} times", sum.cuts(phase));
    }
    assert!(sum.fetched <= sum.missed + sum.missed / 10, "{} missed, {} fetched", sum.missed, sum.fetched);
}

#[test]
fn a_seed_is_a_run_byte_for_byte() {
    let (one, other) = (run(20_000, true), run(20_000, true));
    assert!(one.trace.len() > 1_000);
    assert_eq!((one.digest, &one.trace, one.tally), (other.digest, &other.trace, other.tally));
    assert_ne!(one.digest, run(20_001, false).digest);
}
