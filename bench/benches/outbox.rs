//! Times `antiphon_bench_cases::outbox`: frames into the lanes of a connection and out again.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn outbox(c: &mut Criterion) {
    support::time(c, "outbox");
}

criterion_group!(benches, outbox);
criterion_main!(benches);
