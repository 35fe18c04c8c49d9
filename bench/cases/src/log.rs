//! Rows through the embedded store's own code: blocks made, checked and acknowledged, keys of the index made.
//!
//! What writes the blocks, and the tables of the index, take everything and keep nothing: on a real disk both work in
//! threads of their own, whose turns differ from run to run. The disk's time is what the bench `log` is for.

#![expect(clippy::unwrap_used, reason = "work that cannot go on has nobody to tell but its reader")]

use std::sync::Arc;

use antiphon_protocol::{LogKey, Row, UserId};
use antiphon_storage::{
    Completion, Direction, EventLog, Op, Token,
    embedded::{
        BlockWriter, EmbeddedShard, InlineIndex, ShardParts, WalConfig, WriterCounters,
        table::{KeyRange, Table, TableError, View, Visit},
        writer::{WriteFinished, WriteRequest},
    },
};
use bytes::Bytes;

use crate::{
    case::Case,
    rows::{row, sender},
};

const LOG: LogKey = LogKey([9; 16]);
const SEGMENT_BYTES: u64 = 32 << 20;
const PARTITIONS: usize = 64;

pub(crate) fn cases() -> Vec<Case> {
    let case = |rows: u32, rounds: u32| {
        let name = format!("{rows} {}", if rows == 1 { "row" } else { "rows" });
        Case::new("append without a disk", name, move || append(rows)).elements(rows).rounds(rounds)
    };
    vec![case(1, 200), case(16, 100), case(128, 20), case(1_024, 4)]
}

fn append(rows: u32) -> impl FnMut() {
    let wal =
        WalConfig { boot: 1, shard: 0, shards: 1, segment_bytes: SEGMENT_BYTES, wal_bytes_max: 4 * SEGMENT_BYTES };
    let tables = (0..PARTITIONS).map(|_| Arc::new(Nowhere)).collect();
    let mut appender = Appender::new(EmbeddedShard::new(ShardParts {
        wal,
        writer: AtOnce::default(),
        index: InlineIndex::new(Arc::new(tables), 1),
        wake: Arc::new(|| {}),
    }));
    move || appender.append(rows, || {})
}

/// Appends rows of 200 bytes to one log of a store.
#[derive(Debug)]
pub struct Appender<S> {
    store: S,
    sender: UserId,
    content_hash: u64,
    seq: u64,
    completions: Vec<Completion>,
}

impl<S: EventLog> Appender<S> {
    /// Begins with the first row.
    pub fn new(store: S) -> Self {
        let sender = sender();
        // Of every row the same: hashing is the broker's work, and would be most of what a row costs here.
        let content_hash = row(1, &sender).to_row().content_hash();
        Self { store, sender, content_hash, seq: 0, completions: Vec::new() }
    }

    /// Appends `rows` rows in one operation, and calls `wait` until they are durable.
    pub fn append(&mut self, rows: u32, mut wait: impl FnMut()) {
        let end = self.seq + u64::from(rows);
        let row = |seq| row(seq, &self.sender).to_row_as(0, self.content_hash);
        let rows: Vec<Row> = (self.seq + 1..=end).map(row).collect();
        self.seq = end;
        self.store.submit(Op::Append { log: LOG, rows }, Token(self.seq));
        loop {
            self.store.poll_completions(&mut self.completions);
            if !self.completions.is_empty() {
                break;
            }
            wait();
        }
        for completion in self.completions.drain(..) {
            completion.result.unwrap();
        }
    }
}

/// Says of every block at once that it is durable.
#[derive(Debug, Default)]
struct AtOnce(Vec<WriteFinished>);

impl BlockWriter for AtOnce {
    fn submit(&mut self, request: WriteRequest) {
        match request {
            WriteRequest::Allocate { segment, .. } => self.0.push(WriteFinished::Allocated(segment)),
            WriteRequest::Write { number, .. } => self.0.push(WriteFinished::Written { number }),
            WriteRequest::Release { .. } => {}
        }
    }

    fn poll(&mut self, finished: &mut Vec<WriteFinished>) {
        finished.append(&mut self.0);
    }

    fn counters(&self) -> WriterCounters {
        WriterCounters::default()
    }
}

/// A table that stays empty.
#[derive(Debug)]
struct Nowhere;

impl Table for Nowhere {
    fn put(&self, _: &[u8], _: &[u8]) {}

    fn delete(&self, _: &[u8]) {}

    fn publish(&self) {}

    fn view(&self) -> Box<dyn View + '_> {
        Box::new(Self)
    }

    fn unsealed_bytes(&self) -> u64 {
        0
    }

    fn seal(&self) {}

    fn flush(&self) -> Result<(), TableError> {
        Ok(())
    }

    fn compact(&self) -> Result<(), TableError> {
        Ok(())
    }
}

impl View for Nowhere {
    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, TableError> {
        Ok(None)
    }

    fn scan(&self, _: KeyRange<'_>, _: Direction, _: &mut Visit<'_>) -> Result<(), TableError> {
        Ok(())
    }
}
