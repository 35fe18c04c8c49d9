//! Times `antiphon_bench_cases::handover`: a follower that resumes, and a page of history.

mod support;

use criterion::{Criterion, criterion_group, criterion_main};

fn handover(c: &mut Criterion) {
    support::time(c, "handover");
}

criterion_group!(benches, handover);
criterion_main!(benches);
