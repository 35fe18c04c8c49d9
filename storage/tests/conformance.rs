//! Every backend of this crate keeps the contract.

mod support;

use antiphon_storage::{
    conformance::{
        self,
        model::{self, Plan},
    },
    memory::MemoryLog,
};
use support::{Memory, Open, Simulated, small, with_each_writer};

#[test]
fn the_memory_backend_keeps_the_contract() {
    conformance::run_all(&mut || Box::new(Memory(MemoryLog::new())));
}

#[test]
fn the_embedded_store_keeps_the_contract() {
    with_each_writer(|| {
        conformance::run_all(&mut || Box::new(Open::fresh(small(2))));
    });
}

#[test]
fn the_simulated_store_keeps_the_contract() {
    let mut seed = 0;
    conformance::run_all(&mut || {
        seed += 1;
        Box::new(Simulated::fresh(seed))
    });
}

#[test]
fn the_memory_backend_equals_itself_in_the_model() {
    let compared = model::compare(
        &mut || Box::new(Memory(MemoryLog::new())),
        Plan { seed: 1, stores: 50, bursts: 50, stop_once_in: 5 },
    );
    assert!(compared >= 10_000);
}

#[test]
fn the_embedded_store_answers_like_the_reference() {
    with_each_writer(|| {
        let compared = model::compare(
            &mut || Box::new(Open::fresh(small(2))),
            Plan { seed: 2, stores: 10, bursts: 300, stop_once_in: 25 },
        );
        assert!(compared >= 15_000);
    });
}

#[test]
fn the_simulated_store_answers_like_the_reference_across_crashes() {
    let mut seed = 0;
    let compared = model::compare(
        &mut || {
            seed += 1;
            Box::new(Simulated::fresh(seed))
        },
        Plan { seed: 3, stores: 400, bursts: 60, stop_once_in: 6 },
    );
    assert!(compared >= 100_000);
}
