//! One message to many followers through a shard's logic, into their outboxes and out of them again: what a delivery
//! costs before QUIC. The figure of 1 is mostly that of the send itself.

use antiphon_bench::world::World;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group.sample_size(20);
    for members in [1_u32, 10, 500, 5_000] {
        group.throughput(Throughput::Elements(members.into()));
        group.bench_function(format!("1 to {members}"), |b| {
            let mut world = World::new(members, 200);
            b.iter(|| world.send(1));
        });
    }
    group.finish();
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
