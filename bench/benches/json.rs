//! Times `antiphon_bench_cases::json`: an event and a page as JSON, and a SEND from it.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn json(c: &mut Criterion) {
    support::time(c, "json");
}

criterion_group!(benches, json);
criterion_main!(benches);
