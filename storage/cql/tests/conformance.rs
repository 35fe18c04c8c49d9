//! The store keeps the contract on a real server.

mod support;

use antiphon_storage::conformance::{
    self,
    model::{self, Plan},
};
use support::{Open, config};

/// Bursts of writes, about eight operations each; see `./test --long cql`.
fn bursts() -> u64 {
    std::env::var("ANTIPHON_CQL_BURSTS").ok().and_then(|bursts| bursts.parse().ok()).unwrap_or(150)
}

#[test]
fn the_store_keeps_the_contract() {
    let config = config("antiphon_contract");
    conformance::run_all(&mut || Box::new(Open::fresh(&config)));
}

#[test]
fn the_store_answers_like_the_reference() {
    let config = config("antiphon_model");
    let plan = Plan { seed: 7, stores: 2, bursts: bursts() / 2, stop_once_in: 25 };
    let compared = model::compare(&mut || Box::new(Open::fresh(&config)), plan);
    let server = Open::fresh(&config).shard().shared().server().clone();
    eprintln!("{compared} operations compared on {server}");
    assert!(compared >= bursts() * 6);
}
