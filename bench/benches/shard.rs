//! Times `antiphon_bench_cases::shard`: a message through a shard's logic, from the bytes of a SEND to its ACK.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn shard(c: &mut Criterion) {
    support::time(c, "shard");
}

criterion_group!(benches, shard);
criterion_main!(benches);
