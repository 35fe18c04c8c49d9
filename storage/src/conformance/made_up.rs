//! Made-up content for tests of what reads whole stores.

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{Op, RecordWrite};
use bytes::Bytes;

use super::rows::{TestRow, log};
use crate::dice::Dice;

/// Logs that grow, and lose their older rows, as a broker's do. Every operation keeps the contract.
#[derive(Debug)]
pub struct MadeUp {
    dice: Dice,
    logs: Vec<Bounds>,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    floor: u64,
    head: u64,
}

impl MadeUp {
    /// `logs` logs without content, the first ones of [`log`].
    pub fn new(seed: u64, logs: u64) -> Self {
        Self { dice: Dice::new(seed), logs: vec![Bounds { floor: 1, head: 0 }; logs as usize] }
    }

    /// The keys of the logs.
    pub fn keys(&self) -> Vec<LogKey> {
        (0..self.logs.len() as u64).map(log).collect()
    }

    /// Positions of rows that a log has: `floor..=head`.
    pub fn bounds(&self, n: u64) -> std::ops::RangeInclusive<u64> {
        let Bounds { floor, head } = self.logs[n as usize];
        floor..=head
    }

    /// The next `count` operations.
    pub fn ops(&mut self, count: usize) -> Vec<Op> {
        (0..count).map(|_| self.op()).collect()
    }

    fn op(&mut self) -> Op {
        let n = self.dice.below(self.logs.len() as u64);
        let (key, Bounds { floor, head }) = (log(n), self.logs[n as usize]);
        let has_rows = head >= floor;
        match self.dice.below(12) {
            0 if has_rows => {
                let seq = floor + self.dice.below(head + 1 - floor);
                Op::Rewrite { log: key, row: row(n, seq).redacted() }
            }
            1 if has_rows => {
                let through = floor + self.dice.below(head + 1 - floor);
                Op::Checkpoint { log: key, through, value: Bytes::from(self.dice.roll().to_string()) }
            }
            2 if has_rows && self.dice.once_in(4) => {
                let floor = floor + self.dice.below(head + 2 - floor);
                self.logs[n as usize].floor = floor;
                Op::SetFloor { log: key, floor }
            }
            3 | 4 => {
                let records = (0..1 + self.dice.below(5)).map(|_| self.record()).collect();
                Op::PutRecords { log: key, records }
            }
            _ => {
                // One log is long.
                let count = if n == 0 { 40 } else { 1 + self.dice.below(4) };
                self.logs[n as usize].head = head + count;
                Op::Append { log: key, rows: (head + 1..=head + count).map(|seq| row(n, seq)).collect() }
            }
        }
    }

    fn record(&mut self) -> RecordWrite {
        let key = Bytes::from(format!("member/{}", self.dice.below(40)));
        RecordWrite { key, value: (!self.dice.once_in(3)).then(|| Bytes::from(self.dice.roll().to_string())) }
    }
}

/// The same row for the same place.
fn row(n: u64, seq: u64) -> antiphon_protocol::Row {
    let mut own = Dice::new(n << 32 | seq);
    let length = if own.once_in(50) { own.below(60_000) } else { own.below(300) };
    let body = vec![b'a' + (seq % 26) as u8; length as usize];
    let id = if own.once_in(6) { 0 } else { u128::from(seq) << 16 | u128::from(n) | 1 << 100 };
    TestRow { seq, sender: own.below(3), client_message_id: id, body: &body }.row()
}
