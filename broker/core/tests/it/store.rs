//! The storage contract in memory, with completions that can be held back and operations that can be made to fail.
//!
//! A write takes effect when it completes; a read sees what had completed when it was submitted. Both are the least
//! that the contract promises, so a shard that relies on more is found out.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
};

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::{Completion, Direction, Loaded, Op, Outcome, ReadRows, StoreError, Token, find_time};
use bytes::Bytes;
use uuid::Uuid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Append,
    Rewrite,
    Checkpoint,
    PutRecords,
    Load,
    Read,
    FindTime,
    FindDuplicate,
    ScanRecords,
    GetRecord,
    SetFloor,
}

impl Kind {
    const WRITES: [Self; 5] = [Self::Append, Self::Rewrite, Self::Checkpoint, Self::PutRecords, Self::SetFloor];

    fn of(op: &Op) -> Self {
        match op {
            Op::Append { .. } => Self::Append,
            Op::Rewrite { .. } => Self::Rewrite,
            Op::Checkpoint { .. } => Self::Checkpoint,
            Op::PutRecords { .. } => Self::PutRecords,
            Op::Load { .. } => Self::Load,
            Op::Read { .. } => Self::Read,
            Op::FindTime { .. } => Self::FindTime,
            Op::FindDuplicate { .. } => Self::FindDuplicate,
            Op::ScanRecords { .. } => Self::ScanRecords,
            Op::GetRecord { .. } => Self::GetRecord,
            Op::SetFloor { .. } => Self::SetFloor,
        }
    }
}

/// What an operation in flight will come to.
#[derive(Debug)]
enum Work {
    Write(Op),
    Read(Result<Outcome, StoreError>),
}

#[derive(Debug)]
struct Pending {
    shard: usize,
    log: LogKey,
    kind: Kind,
    token: Token,
    work: Work,
}

/// What happens to the next operations of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) error: StoreError,
    /// Whether the write takes effect all the same, as `Unavailable` may.
    pub(crate) applies: bool,
    pub(crate) times: u32,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct StoredLog {
    pub(crate) floor: u64,
    pub(crate) rows: BTreeMap<u64, Row>,
    pub(crate) checkpoint: Option<(u64, Bytes)>,
    pub(crate) records: BTreeMap<Bytes, Bytes>,
    /// An append failed since the log was last loaded, so that the ones behind it do not fit.
    is_broken: bool,
}

impl StoredLog {
    pub(crate) fn head(&self) -> u64 {
        self.rows.last_key_value().map_or(self.floor.max(1) - 1, |(seq, _)| *seq)
    }
}

#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) logs: BTreeMap<LogKey, StoredLog>,
    pub(crate) epoch: u32,
    pub(crate) held: Vec<Kind>,
    pub(crate) faults: Vec<Fault>,
    /// How often each kind was submitted.
    pub(crate) submitted: BTreeMap<Kind, u64>,
    pending: VecDeque<Pending>,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            epoch: 1,
            held: Vec::new(),
            faults: Vec::new(),
            submitted: BTreeMap::new(),
            pending: VecDeque::new(),
        }
    }
}

impl Store {
    pub(crate) fn fail(&mut self, kind: Kind, error: StoreError, times: u32) {
        self.faults.push(Fault { kind, error, applies: false, times });
    }

    pub(crate) fn hold(&mut self, kinds: &[Kind]) {
        self.held = kinds.to_vec();
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.submitted.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn submit(&mut self, shard: usize, op: Op, token: Token) {
        let (log, kind) = (op.log(), Kind::of(&op));
        *self.submitted.entry(kind).or_default() += 1;
        let work = if Kind::WRITES.contains(&kind) { Work::Write(op) } else { self.read(&op) };
        self.pending.push_back(Pending { shard, log, kind, token, work });
    }

    /// How many operations could complete now.
    pub(crate) fn eligible(&self) -> Vec<usize> {
        let mut logs_written = Vec::new();
        let mut eligible = Vec::new();
        for (index, pending) in self.pending.iter().enumerate() {
            let is_write = matches!(pending.work, Work::Write(_));
            let waits = is_write && logs_written.contains(&pending.log);
            if is_write {
                logs_written.push(pending.log);
            }
            if !waits && !self.held.contains(&pending.kind) {
                eligible.push(index);
            }
        }
        eligible
    }

    /// How many operations are held back.
    pub(crate) fn pending_held(&self) -> usize {
        self.pending.iter().filter(|pending| self.held.contains(&pending.kind)).count()
    }

    /// Index of the `n`th operation in flight whose kind is held back.
    pub(crate) fn eligible_held(&self, n: usize) -> usize {
        let held = self.pending.iter().enumerate().filter(|(_, pending)| self.held.contains(&pending.kind));
        held.map(|(index, _)| index).nth(n).expect("something is held back")
    }

    /// Completes the operation at `index`, which must be eligible.
    pub(crate) fn complete(&mut self, index: usize) -> (usize, Completion) {
        let Pending { shard, kind, token, work, log } = self.pending.remove(index).unwrap();
        let fault = self.faults.iter_mut().find(|fault| fault.kind == kind && fault.times > 0);
        let fault = fault.map(|fault| {
            fault.times -= 1;
            fault.clone()
        });
        let result = match (work, fault) {
            (Work::Write(op), None) => self.write(op),
            (Work::Write(op), Some(fault)) => {
                if fault.applies {
                    let _ = self.write(op);
                } else if kind == Kind::Append {
                    self.logs.entry(log).or_default().is_broken = true;
                }
                Err(fault.error)
            }
            (Work::Read(result), None) => result,
            (Work::Read(_), Some(fault)) => Err(fault.error),
        };
        (shard, Completion { token, result })
    }

    /// Everything in flight is lost with the process; writes may have reached the disk before that.
    pub(crate) fn crash(&mut self, writes_survive: bool) {
        for pending in std::mem::take(&mut self.pending) {
            if let Work::Write(op) = pending.work
                && writes_survive
            {
                let _ = self.write(op);
            }
        }
        for log in self.logs.values_mut() {
            log.is_broken = false;
        }
    }

    fn read(&mut self, op: &Op) -> Work {
        let epoch = self.epoch;
        let log = self.logs.entry(op.log()).or_default();
        Work::Read(Ok(match op {
            Op::Load { .. } => {
                log.is_broken = false;
                let after = log.checkpoint.as_ref().map_or(0, |(through, _)| *through);
                let tail = log.rows.range(after + 1..).map(|(_, row)| row.clone()).collect();
                let (floor, head) = (log.floor.max(1), log.head());
                Outcome::Loaded(Loaded { epoch, floor, head, checkpoint: log.checkpoint.clone(), tail })
            }
            Op::Read { range, .. } => Outcome::Rows(read_rows(log, range)),
            Op::FindTime { at_ms, .. } => {
                let is_earlier = |seq| Ok(log.rows[&seq].time_ms() < *at_ms);
                let Ok::<u64, Infallible>(seq) = find_time(log.floor.max(1), log.head() + 1, is_earlier);
                Outcome::Position(seq)
            }
            Op::FindDuplicate { sender, client_message_id, .. } => {
                let is_it = |row: &&Row| row.sender() == sender.as_str() && same(row, *client_message_id);
                Outcome::Row(log.rows.values().find(is_it).cloned())
            }
            Op::GetRecord { key, .. } => Outcome::Record(log.records.get(key).cloned()),
            Op::ScanRecords { prefix, after, records_max, .. } => {
                let is_after = |key: &Bytes| after.as_ref().is_none_or(|after| key > after);
                let found = log.records.iter().filter(|(key, _)| key.starts_with(prefix) && is_after(key));
                Outcome::Records(
                    found.take(*records_max as usize).map(|(key, value)| (key.clone(), value.clone())).collect(),
                )
            }
            other => panic!("{other:?} is no read"),
        }))
    }

    fn write(&mut self, op: Op) -> Result<Outcome, StoreError> {
        let log = self.logs.entry(op.log()).or_default();
        match op {
            Op::Append { rows, .. } => {
                if !rows.iter().zip(log.head() + 1..).all(|(row, seq)| row.seq() == seq) {
                    assert!(log.is_broken, "row {:?} does not follow {}", rows[0], log.head());
                    return Err(StoreError::Misuse("not the next row".into()));
                }
                log.rows.extend(rows.into_iter().map(|row| (row.seq(), row)));
            }
            Op::Rewrite { row, .. } => {
                let stored = log.rows.get_mut(&row.seq()).expect("only rows that exist are rewritten");
                assert_eq!(stored.event_id(), row.event_id());
                *stored = row;
            }
            Op::Checkpoint { through, value, .. } => {
                assert!(through <= log.head(), "a checkpoint describes durable rows");
                log.checkpoint = Some((through, value));
            }
            Op::PutRecords { records, .. } => {
                for record in records {
                    match record.value {
                        Some(value) => log.records.insert(record.key, value),
                        None => log.records.remove(&record.key),
                    };
                }
            }
            Op::SetFloor { floor, .. } => {
                assert!(floor <= log.head() + 1, "a floor lies at or before the end of the log");
                log.floor = log.floor.max(floor);
                log.rows = log.rows.split_off(&log.floor);
            }
            other => panic!("{other:?} is no write"),
        }
        Ok(Outcome::Done)
    }
}

fn same(row: &Row, id: Uuid) -> bool {
    row.client_message_id() == id
}

fn read_rows(log: &StoredLog, range: &ReadRows) -> Vec<Row> {
    let inside = log.rows.range(range.from..range.to.max(range.from)).map(|(_, row)| row.clone());
    let rows: Vec<Row> = match range.direction {
        Direction::Forward => inside.collect(),
        Direction::Backward => inside.rev().collect(),
    };
    let mut bytes = 0;
    let mut count = 0;
    for row in rows.iter().take(range.rows_max as usize) {
        bytes += row.bytes().len();
        if count > 0 && bytes > range.bytes_max {
            break;
        }
        count += 1;
    }
    rows.into_iter().take(count).collect()
}
