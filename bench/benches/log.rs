//! The embedded store: rows of 200 bytes, made durable in blocks of different sizes on a real disk, and what of that is the
//! store's own work.
//!
//! The time on a disk is wall time, and so that of the disk's sync. What is to be seen is how little of it a row has in a
//! larger block. On a virtual disk the sync itself says nothing about drives.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has nobody to tell but its reader")]

mod support;

use std::{
    hint::spin_loop,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_bench_cases::Appender;
use antiphon_storage::embedded::{Embedded, EmbeddedConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable append");
    group.sample_size(20);
    for rows in [1_u32, 16, 128, 1_024] {
        group.throughput(Throughput::Elements(rows.into()));
        group.bench_function(format!("{rows} rows"), |b| {
            let folder = tempfile::Builder::new().prefix("antiphon-bench-").tempdir().unwrap();
            let config = EmbeddedConfig::new(1, Arc::new(|error| panic!("the store failed: {error}")));
            let mut shards = Embedded::open(folder.path(), config, vec![Arc::new(|| {})]).unwrap();
            let mut appender = Appender::new(shards.remove(0));
            b.iter(|| {
                let deadline = Instant::now() + Duration::from_secs(10);
                appender.append(rows, || {
                    assert!(Instant::now() < deadline, "the store does not answer");
                    spin_loop();
                });
            });
        });
    }
    group.finish();
}

fn append_without_a_disk(c: &mut Criterion) {
    support::time(c, "log");
}

criterion_group!(benches, append, append_without_a_disk);
criterion_main!(benches);
