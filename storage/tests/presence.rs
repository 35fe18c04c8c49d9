//! Presence within one process keeps the contract.

use antiphon_storage::conformance::presence::{
    self,
    model::{self, Plan},
};

#[test]
fn the_presence_of_one_process_keeps_the_contract() {
    presence::run_all(&mut model::reference);
}

#[test]
fn the_presence_of_one_process_equals_itself_in_the_model() {
    let plan = Plan { seed: 1, bursts: 1_000, death_once_in: 50 };
    let compared = model::compare(&mut model::reference, plan);
    assert!(compared >= 10_000, "{compared}");
}
