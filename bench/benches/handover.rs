//! Coming back: a follower that resumes after a position and gets what it missed, and a page of history.

use antiphon_bench::world::World;
use antiphon_protocol::control::subscribe::From;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn resume(c: &mut Criterion) {
    let mut group = c.benchmark_group("resume");
    group.throughput(Throughput::Elements(1));
    for missed in [0_u32, 5, 50] {
        group.bench_function(format!("{missed} missed"), |b| {
            let mut world = World::new(10, 200);
            let position = world.head();
            world.send(missed);
            // The position stays the same, so that every round hands over the same rows.
            b.iter(|| world.subscribe(1, From::After(position)));
        });
    }
    group.finish();
}

fn page(c: &mut Criterion) {
    let mut group = c.benchmark_group("history");
    for rows in [20_u32, 100] {
        group.throughput(Throughput::Elements(rows.into()));
        group.bench_function(format!("newest {rows}"), |b| {
            let mut world = World::new(1, 200);
            world.send(200);
            b.iter(|| world.fetch(1, rows));
        });
    }
    group.finish();
}

criterion_group!(benches, resume, page);
criterion_main!(benches);
