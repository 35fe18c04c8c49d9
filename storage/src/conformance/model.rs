//! Random operations on a store and on the memory reference at once; every answer must be the same.
//!
//! Writes are submitted in bursts, so that they meet in blocks; reads follow when the burst has completed, since a
//! store may answer a read before the writes that are still under way.

use antiphon_storage_contract::{Completion, Direction, EventLog, Op, ReadRows, RecordWrite, StoreError, Token};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Factory, Session,
    rows::{ROWS_BEGIN_MS, TestRow, find_time, log, user},
};
use crate::{dice::Dice, memory::MemoryLog};

/// How much to try.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Names the whole run.
    pub seed: u64,
    /// Sequences of operations; each begins on an empty store.
    pub stores: u64,
    /// Bursts of writes, each followed by reads, on one store.
    pub bursts: u64,
    /// A stop comes once in this many bursts.
    pub stop_once_in: u64,
}

/// Logs that one store is tried with.
const LOGS: u64 = 6;

/// Compares stores from `fresh` with the reference. Panics at the first difference and names the seed. Returns the
/// number of operations compared.
pub fn compare(fresh: &mut Factory<'_>, plan: Plan) -> u64 {
    let mut compared = 0;
    for store in 0..plan.stores {
        let seed = plan.seed.wrapping_mul(1_000_003).wrapping_add(store);
        let mut run = Run {
            seed,
            dice: Dice::new(seed),
            session: Session::new(fresh()),
            reference: MemoryLog::new(),
            heads: [0; LOGS as usize],
            compared: 0,
        };
        for burst in 0..plan.bursts {
            run.burst();
            if run.dice.once_in(plan.stop_once_in) && burst + 1 < plan.bursts {
                run.session.reopen();
            }
        }
        compared += run.compared;
    }
    compared
}

/// When a row came: four at a time, with pauses between them.
fn time_of(seq: u64) -> u64 {
    seq / 4 * 3
}

struct Run {
    seed: u64,
    dice: Dice,
    session: Session,
    reference: MemoryLog,
    /// Heads if every append is accepted; only a hint for making operations that mostly are.
    heads: [u64; LOGS as usize],
    compared: u64,
}

impl Run {
    fn burst(&mut self) {
        let writes: Vec<Op> = (0..1 + self.dice.below(8)).map(|_| self.write()).collect();
        let tokens: Vec<Token> = writes.iter().map(|op| self.session.submit(op.clone())).collect();
        for (op, token) in writes.into_iter().zip(tokens) {
            self.same(op, token);
        }
        for _ in 0..1 + self.dice.below(4) {
            let op = self.read();
            let token = self.session.submit(op.clone());
            self.same(op, token);
        }
    }

    /// Compares the answers to one operation.
    fn same(&mut self, op: Op, token: Token) {
        self.compared += 1;
        let got = self.session.result(token);
        self.reference.submit(op.clone(), token);
        let mut completions = Vec::new();
        self.reference.poll_completions(&mut completions);
        let [Completion { result: expected, .. }] = &completions[..] else { panic!("the reference answers at once") };
        // How a misuse is worded is up to the store.
        let both_refuse = matches!((&got, expected), (Err(StoreError::Misuse(_)), Err(StoreError::Misuse(_))));
        assert!(both_refuse || got == *expected, "seed {}: {op:?}\n     got {got:?}\nexpected {expected:?}", self.seed);
    }

    fn some_log(&mut self) -> u64 {
        self.dice.below(LOGS)
    }

    fn write(&mut self) -> Op {
        let n = self.some_log();
        let head = self.heads[n as usize];
        let key = log(n);
        match self.dice.below(20) {
            0..=9 => self.append(n),
            10 | 11 => {
                let seq = 1 + self.dice.below(head.max(1));
                // The stored row may be redacted already; the bytes are the same then.
                Op::Rewrite { log: key, row: self.test_row(n, seq).redacted() }
            }
            12 | 13 => {
                let through = self.dice.below(head + 2);
                let value = Bytes::from(self.dice.roll().to_be_bytes()[..self.dice.below(9) as usize].to_vec());
                Op::Checkpoint { log: key, through, value }
            }
            14 => {
                let floor = 1 + self.dice.below(head + 3);
                if head == 0 {
                    self.heads[n as usize] = floor - 1;
                }
                Op::SetFloor { log: key, floor }
            }
            _ => {
                let records = (0..self.dice.below(4)).map(|_| self.record()).collect();
                Op::PutRecords { log: key, records }
            }
        }
    }

    fn append(&mut self, n: u64) -> Op {
        let head = self.heads[n as usize];
        let first = if self.dice.once_in(15) { head + self.dice.below(3) } else { head + 1 };
        let count = self.dice.below(5);
        let rows = (first..first + count).map(|seq| self.test_row(n, seq)).collect();
        if first == head + 1 {
            self.heads[n as usize] += count;
        }
        Op::Append { log: log(n), rows }
    }

    /// The same row for the same place, whatever the dice say: what tells rows apart is their place.
    fn test_row(&mut self, n: u64, seq: u64) -> antiphon_protocol::Row {
        let mut own = Dice::new(n << 32 | seq);
        let body = vec![b'a' + (seq % 26) as u8; own.below(300) as usize];
        let by_the_broker = own.once_in(6);
        let id = if by_the_broker { 0 } else { u128::from(seq) << 16 | u128::from(n) | 1 << 100 };
        TestRow { seq, sender: own.below(3), client_message_id: id, body: &body }.row_at(ROWS_BEGIN_MS + time_of(seq))
    }

    fn record(&mut self) -> RecordWrite {
        let key = self.record_key();
        let value = (!self.dice.once_in(3)).then(|| Bytes::from(self.dice.roll().to_string()));
        RecordWrite { key, value }
    }

    fn record_key(&mut self) -> Bytes {
        const KEYS: &[&str] = &["", "a", "a\u{ff}", "ab", "abc", "b", "\u{10ffff}", "member/ann", "member/bob"];
        Bytes::from_static(KEYS[self.dice.below(KEYS.len() as u64) as usize].as_bytes())
    }

    fn read(&mut self) -> Op {
        let n = self.some_log();
        let (key, head) = (log(n), self.heads[n as usize]);
        match self.dice.below(10) {
            0 | 1 => Op::Load { log: key },
            2 | 3 => {
                let range = ReadRows {
                    from: self.dice.below(head + 3),
                    to: self.dice.below(head + 5),
                    direction: if self.dice.once_in(2) { Direction::Forward } else { Direction::Backward },
                    rows_max: self.dice.below(6) as u32,
                    bytes_max: self.dice.below(1_200) as usize,
                };
                Op::Read { log: key, range }
            }
            4 | 5 => {
                let seq = 1 + self.dice.below(head + 1);
                let client_message_id = self.test_row(n, seq).client_message_id();
                let sender = user(self.dice.below(3));
                let any = if self.dice.once_in(8) { Uuid::from_u128(9) } else { client_message_id };
                Op::FindDuplicate { log: key, sender, client_message_id: any }
            }
            6 | 7 => find_time(n, self.dice.below(time_of(head) + 4)),
            8 => Op::GetRecord { log: key, key: self.record_key() },
            _ => Op::ScanRecords {
                log: key,
                prefix: self.record_key(),
                after: self.dice.once_in(2).then(|| self.record_key()),
                records_max: self.dice.below(6) as u32,
            },
        }
    }
}
