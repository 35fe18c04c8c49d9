//! The reference backend: the contract in ordered maps, completed at once. Nothing survives the process.

use std::{collections::BTreeMap, convert::Infallible};

use antiphon_protocol::{LogKey, Row, UserId};
use antiphon_storage_contract::{
    Completion, Direction, EventLog, Loaded, Op, Outcome, RECORD_KEY_BYTES_MAX, ReadRows, RecordWrite, StoreError,
    Token, find_time,
};
use bytes::Bytes;
use uuid::Uuid;

/// A store in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    logs: BTreeMap<LogKey, Log>,
    epoch: u32,
    ready: Vec<Completion>,
}

impl MemoryLog {
    /// An empty store, in its first epoch.
    pub fn new() -> Self {
        Self { epoch: 1, ..Self::default() }
    }

    fn perform(&mut self, op: Op) -> Result<Outcome, StoreError> {
        let epoch = self.epoch;
        let log = self.logs.entry(op.log()).or_default();
        match op {
            Op::Append { rows, .. } => log.append(rows),
            Op::Rewrite { row, .. } => log.rewrite(row),
            Op::Checkpoint { through, value, .. } => log.put_checkpoint(through, value),
            Op::PutRecords { records, .. } => log.put_records(records),
            Op::SetFloor { floor, .. } => log.set_floor(floor),
            Op::Load { .. } => Ok(Outcome::Loaded(log.load(epoch))),
            Op::Read { range, .. } => Ok(Outcome::Rows(log.read(range))),
            Op::FindTime { at_ms, .. } => Ok(Outcome::Position(log.find_time(at_ms))),
            Op::FindDuplicate { sender, client_message_id, .. } => {
                Ok(Outcome::Row(log.find_duplicate(sender, client_message_id)))
            }
            Op::GetRecord { key, .. } => Ok(Outcome::Record(log.records.get(&key).cloned())),
            Op::ScanRecords { prefix, after, records_max, .. } => {
                Ok(Outcome::Records(log.scan_records(&prefix, after.as_ref(), records_max)))
            }
        }
    }
}

impl EventLog for MemoryLog {
    fn submit(&mut self, op: Op, token: Token) {
        let result = self.perform(op);
        self.ready.push(Completion { token, result });
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        completions.append(&mut self.ready);
    }
}

#[derive(Debug, Clone)]
struct Log {
    floor: u64,
    head: u64,
    rows: BTreeMap<u64, Row>,
    duplicates: BTreeMap<(String, Uuid), u64>,
    checkpoint: Option<(u64, Bytes)>,
    records: BTreeMap<Bytes, Bytes>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            floor: 1,
            head: 0,
            rows: BTreeMap::new(),
            duplicates: BTreeMap::new(),
            checkpoint: None,
            records: BTreeMap::new(),
        }
    }
}

impl Log {
    fn append(&mut self, rows: Vec<Row>) -> Result<Outcome, StoreError> {
        if !rows.iter().zip(self.head + 1..).all(|(row, expected)| row.seq() == expected) {
            return Err(StoreError::Misuse(format!("row {} is next", self.head + 1)));
        }
        for row in rows {
            self.head = row.seq();
            if !row.client_message_id().is_nil() {
                self.duplicates.insert((row.sender().to_owned(), row.client_message_id()), row.seq());
            }
            self.rows.insert(row.seq(), row);
        }
        Ok(Outcome::Done)
    }

    fn rewrite(&mut self, row: Row) -> Result<Outcome, StoreError> {
        match self.rows.get_mut(&row.seq()) {
            None => Err(StoreError::Misuse(format!("row {} does not exist", row.seq()))),
            Some(stored) => {
                *stored = row;
                Ok(Outcome::Done)
            }
        }
    }

    fn put_checkpoint(&mut self, through: u64, value: Bytes) -> Result<Outcome, StoreError> {
        if through > self.head {
            return Err(StoreError::Misuse(format!("the log ends at {}", self.head)));
        }
        self.checkpoint = Some((through, value));
        Ok(Outcome::Done)
    }

    fn put_records(&mut self, records: Vec<RecordWrite>) -> Result<Outcome, StoreError> {
        if records.iter().any(|record| record.key.len() > RECORD_KEY_BYTES_MAX) {
            return Err(StoreError::Misuse(format!("a record's key has at most {RECORD_KEY_BYTES_MAX} bytes")));
        }
        for RecordWrite { key, value } in records {
            match value {
                Some(value) => self.records.insert(key, value),
                None => self.records.remove(&key),
            };
        }
        Ok(Outcome::Done)
    }

    fn set_floor(&mut self, floor: u64) -> Result<Outcome, StoreError> {
        if floor > self.head + 1 && self.head > 0 {
            return Err(StoreError::Misuse(format!("the log ends at {}", self.head)));
        }
        self.floor = self.floor.max(floor);
        self.head = self.head.max(self.floor - 1);
        self.rows = self.rows.split_off(&self.floor);
        self.duplicates.retain(|_, seq| *seq >= self.floor);
        Ok(Outcome::Done)
    }

    fn load(&self, epoch: u32) -> Loaded {
        let checkpoint = self.checkpoint.clone();
        let after = checkpoint.as_ref().map_or(0, |(through, _)| *through);
        let tail = self.rows.range(after + 1..).map(|(_, row)| row.clone()).collect();
        Loaded { epoch, floor: self.floor, head: self.head, checkpoint, tail }
    }

    fn read(&self, range: ReadRows) -> Vec<Row> {
        let inside = self.rows.range(range.from..range.to.max(range.from)).map(|(_, row)| row.clone());
        let rows: Vec<Row> = match range.direction {
            Direction::Forward => inside.collect(),
            Direction::Backward => inside.rev().collect(),
        };
        let mut bytes = 0;
        let fits = |(n, row): &(usize, Row)| {
            bytes += row.bytes().len();
            *n == 0 || bytes <= range.bytes_max
        };
        let page = rows.into_iter().take(range.rows_max as usize).enumerate().take_while(fits);
        page.map(|(_, row)| row).collect()
    }

    fn find_time(&self, at_ms: u64) -> u64 {
        let is_earlier = |seq| Ok(self.rows.get(&seq).is_some_and(|row| row.time_ms() < at_ms));
        let Ok::<u64, Infallible>(seq) = find_time(self.floor, self.head + 1, is_earlier);
        seq
    }

    fn find_duplicate(&self, sender: UserId, client_message_id: Uuid) -> Option<Row> {
        let seq = self.duplicates.get(&(sender.as_str().to_owned(), client_message_id))?;
        self.rows.get(seq).cloned()
    }

    fn scan_records(&self, prefix: &Bytes, after: Option<&Bytes>, records_max: u32) -> Vec<(Bytes, Bytes)> {
        let matching = |(key, _): &(&Bytes, &Bytes)| key.starts_with(prefix) && after.is_none_or(|after| *key > after);
        let records = self.records.iter().filter(matching).take(records_max as usize);
        records.map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}
