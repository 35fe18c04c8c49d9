//! The embedded store on a real disk: rows of 200 bytes, made durable in blocks of different sizes.
//!
//! The time is wall time, and so that of the disk's sync. What is to be seen is how little of it a row has in a larger
//! block. On a virtual disk the sync itself says nothing about drives.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on has nobody to tell but its reader")]

use std::{
    hint::spin_loop,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_protocol::{ContentType, EventKind, LogKey, NewRow, Row, UserId};
use antiphon_storage::{
    Completion, EventLog, Op, Token,
    embedded::{Embedded, EmbeddedConfig, EmbeddedShard},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;

const LOG: LogKey = LogKey([9; 16]);

fn row(seq: u64, sender: &UserId) -> Row {
    let new = NewRow {
        seq,
        msgno: seq,
        time_ms: 1_800_000_000_000 + seq,
        event_id: Uuid::from_u128(u128::from(seq)),
        client_message_id: Uuid::from_u128(u128::from(seq) << 64),
        kind: EventKind::MESSAGE,
        content_type: ContentType::Text,
        sender,
        via: None,
        envelope: &[],
        body: &[b'x'; 200],
    };
    new.to_row()
}

struct Store {
    shard: EmbeddedShard,
    sender: UserId,
    seq: u64,
    completions: Vec<Completion>,
    _folder: tempfile::TempDir,
}

impl Store {
    fn open() -> Self {
        let folder = tempfile::Builder::new().prefix("antiphon-bench-").tempdir().unwrap();
        let config = EmbeddedConfig::new(1, Arc::new(|error| panic!("the store failed: {error}")));
        let mut shards = Embedded::open(folder.path(), config, vec![Arc::new(|| {})]).unwrap();
        Self {
            shard: shards.remove(0),
            sender: UserId::new("user17").unwrap(),
            seq: 0,
            completions: Vec::new(),
            _folder: folder,
        }
    }

    /// Appends `rows` rows in one operation and waits until they are durable.
    fn append(&mut self, rows: u64) {
        let rows: Vec<Row> = (self.seq + 1..=self.seq + rows).map(|seq| row(seq, &self.sender)).collect();
        self.seq += rows.len() as u64;
        self.shard.submit(Op::Append { log: LOG, rows }, Token(self.seq));
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.completions.is_empty() {
            self.shard.poll_completions(&mut self.completions);
            assert!(Instant::now() < deadline, "the store does not answer");
            spin_loop();
        }
        for completion in self.completions.drain(..) {
            completion.result.unwrap();
        }
    }
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("durable append");
    group.sample_size(20);
    for rows in [1_u64, 16, 128, 1_024] {
        group.throughput(Throughput::Elements(rows));
        group.bench_function(format!("{rows} rows"), |b| {
            let mut store = Store::open();
            b.iter(|| store.append(rows));
        });
    }
    group.finish();
}

criterion_group!(benches, append);
criterion_main!(benches);
