//! The engine keeps the storage contract on a simulated cluster.

mod support;

use antiphon_storage::conformance::{
    self,
    model::{self, Plan},
};
use support::Owner;

#[test]
fn the_engine_keeps_the_contract() {
    let mut seed = 0;
    conformance::run_all(&mut || {
        seed += 1;
        Box::new(Owner::fresh(seed))
    });
}

#[test]
fn the_engine_answers_like_the_reference_across_takeovers() {
    let mut seed = 0;
    let compared = model::compare(
        &mut || {
            seed += 1;
            Box::new(Owner::fresh(seed))
        },
        Plan { seed: 5, stores: 400, bursts: 60, stop_once_in: 6 },
    );
    assert!(compared >= 100_000, "{compared}");
}
