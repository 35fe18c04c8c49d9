//! Times cases by criterion.

use antiphon_bench_cases::bench;
use criterion::{Criterion, Throughput};

/// Times every case of the bench called `name`.
pub(crate) fn time(c: &mut Criterion, name: &str) {
    let cases = bench(name);
    for cases in cases.chunk_by(|a, b| a.group() == b.group()) {
        let mut group = c.benchmark_group(cases[0].group());
        for case in cases {
            group.throughput(Throughput::Elements(case.elements_per_round()));
            group.bench_function(case.name(), |b| b.iter(case.set_up()));
        }
        group.finish();
    }
}
