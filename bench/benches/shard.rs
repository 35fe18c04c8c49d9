//! One message through a shard's logic, from the bytes of a SEND to its ACK: decode, check, order, duplicate index,
//! store (in memory), acknowledge. Nobody follows the conversation.

use antiphon_bench::world::World;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn send(c: &mut Criterion) {
    let mut group = c.benchmark_group("send to ack");
    for in_turn in [1_u32, 10, 100] {
        group.throughput(Throughput::Elements(in_turn.into()));
        group.bench_function(format!("{in_turn} in a turn"), |b| {
            let mut world = World::new(0, 200);
            b.iter(|| world.send(in_turn));
        });
    }
    group.finish();
}

criterion_group!(benches, send);
criterion_main!(benches);
