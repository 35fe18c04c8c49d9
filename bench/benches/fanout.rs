//! Times `antiphon_bench_cases::fanout`: one message to many followers through a shard's logic.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn fanout(c: &mut Criterion) {
    support::time(c, "fanout");
}

criterion_group!(name = benches; config = Criterion::default().sample_size(20); targets = fanout);
criterion_main!(benches);
