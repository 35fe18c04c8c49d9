//! Times `antiphon_bench_cases::codec`: one SEND, one EVENT and one page in the codec alone.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn codec(c: &mut Criterion) {
    support::time(c, "codec");
}

criterion_group!(benches, codec);
criterion_main!(benches);
