//! Reads and writes of the contract in terms of a table; the same code for every table, at run time and at replay.

use std::ops::ControlFlow;

use antiphon_protocol::{LogKey, Row, UserId};
use antiphon_storage_contract::{Direction, Loaded, Op, Outcome, ReadRows, StoreError, find_time};
use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::{
    keys::{self, Key},
    table::{KeyRange, Table, TableError, View},
};

/// First and last row of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First row that still exists.
    pub floor: u64,
    /// Last row; `floor - 1` if there is none.
    pub head: u64,
}

/// A read, as the index serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A read of the contract.
    Op(Op),
    /// The bounds of a log, for the density check of its next write.
    Bounds(LogKey),
}

impl Query {
    /// The log that is read.
    pub fn log(&self) -> LogKey {
        match self {
            Self::Op(op) => op.log(),
            Self::Bounds(log) => *log,
        }
    }
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Answer to [`Query::Op`].
    Outcome(Outcome),
    /// Answer to [`Query::Bounds`].
    Bounds(Bounds),
}

/// Writes `op` into `table` and shows it to readers. A read does nothing.
pub(crate) fn apply(op: &Op, table: &dyn Table, scratch: &mut Vec<u8>) {
    match op {
        Op::Append { log, rows } => rows.iter().for_each(|row| put_row(*log, row, table, scratch)),
        Op::Rewrite { log, row } => {
            Key::Row(row.seq()).write(*log, scratch);
            table.put(scratch, row.bytes());
        }
        Op::Checkpoint { log, through, value } => {
            Key::Checkpoint.write(*log, scratch);
            table.put(scratch, &[&through.to_be_bytes()[..], value].concat());
        }
        Op::PutRecords { log, records } => {
            for record in records {
                Key::Record(&record.key).write(*log, scratch);
                match &record.value {
                    Some(value) => table.put(scratch, value),
                    None => table.delete(scratch),
                }
            }
        }
        Op::SetFloor { log, floor } => {
            Key::Floor.write(*log, scratch);
            table.put(scratch, &floor.to_be_bytes());
        }
        _ => return,
    }
    table.publish();
}

fn put_row(log: LogKey, row: &Row, table: &dyn Table, scratch: &mut Vec<u8>) {
    Key::Row(row.seq()).write(log, scratch);
    table.put(scratch, row.bytes());
    let client_message_id = row.client_message_id();
    if !client_message_id.is_nil() {
        Key::Duplicate { client_message_id, sender: row.sender().as_bytes() }.write(log, scratch);
        table.put(scratch, &row.seq().to_be_bytes());
    }
}

/// Answers `query` from one view of the log's table.
pub(crate) fn run(query: &Query, view: &dyn View, epoch: u32) -> Result<Found, StoreError> {
    let outcome = match query {
        Query::Bounds(log) => return Ok(Found::Bounds(bounds(*log, view)?)),
        Query::Op(Op::Load { log }) => Outcome::Loaded(load(*log, view, epoch)?),
        Query::Op(Op::Read { log, range }) => Outcome::Rows(rows(*log, *range, view)?),
        Query::Op(Op::FindTime { log, at_ms }) => Outcome::Position(position_of(*log, *at_ms, view)?),
        Query::Op(Op::FindDuplicate { log, sender, client_message_id }) => {
            Outcome::Row(find_duplicate(*log, sender, *client_message_id, view)?)
        }
        Query::Op(Op::GetRecord { log, key }) => {
            Outcome::Record(view.get(&Key::Record(key).of(*log)).map_err(store_error)?)
        }
        Query::Op(Op::ScanRecords { log, prefix, after, records_max }) => {
            Outcome::Records(scan_records(*log, prefix, after.as_ref(), *records_max, view)?)
        }
        Query::Op(_) => return Err(StoreError::Misuse("a write was submitted as a read".into())),
    };
    Ok(Found::Outcome(outcome))
}

/// What a reader is told of a failed table.
pub(crate) fn store_error(error: TableError) -> StoreError {
    match error {
        TableError::Damaged(what) => StoreError::Degraded(what),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// Floor and head of a log.
pub(crate) fn bounds(log: LogKey, view: &dyn View) -> Result<Bounds, StoreError> {
    let floor = floor(log, view)?;
    let (from, to) = (Key::Row(floor).of(log), Key::Row(u64::MAX).of(log));
    let mut head = floor - 1;
    let mut last = |key: &[u8], _: &[u8]| {
        if let Some((_, Key::Row(seq))) = Key::parse(key) {
            head = seq;
        }
        ControlFlow::Break(())
    };
    view.scan(KeyRange { from: &from, to: &to }, Direction::Backward, &mut last).map_err(store_error)?;
    Ok(Bounds { floor, head })
}

fn floor(log: LogKey, view: &dyn View) -> Result<u64, StoreError> {
    match view.get(&Key::Floor.of(log)).map_err(store_error)? {
        None => Ok(1),
        Some(value) => match keys::number(&value) {
            Some(floor) if floor > 0 => Ok(floor),
            _ => Err(StoreError::Degraded("a floor is no number".into())),
        },
    }
}

fn load(log: LogKey, view: &dyn View, epoch: u32) -> Result<Loaded, StoreError> {
    let Bounds { floor, head } = bounds(log, view)?;
    let checkpoint = match view.get(&Key::Checkpoint.of(log)).map_err(store_error)? {
        None => None,
        Some(value) if value.len() < 8 => return Err(StoreError::Degraded("a checkpoint is cut off".into())),
        Some(value) => Some((keys::number(&value[..8]).unwrap_or_default(), value.slice(8..))),
    };
    let from = checkpoint.as_ref().map_or(floor, |(through, _)| floor.max(through + 1));
    let everything =
        ReadRows { from, to: head + 1, direction: Direction::Forward, rows_max: u32::MAX, bytes_max: usize::MAX };
    let tail = rows(log, everything, view)?;
    if from + tail.len() as u64 != head.max(from - 1) + 1 {
        return Err(StoreError::Degraded(format!("rows between {from} and {head} are missing")));
    }
    Ok(Loaded { epoch, floor, head, checkpoint, tail })
}

/// Collects consecutive rows into one buffer until a bound is reached.
struct Page {
    range: ReadRows,
    rows: u32,
    bytes: BytesMut,
    next: Option<u64>,
    damage: Option<String>,
}

impl Page {
    fn visit(&mut self, key: &[u8], value: &[u8]) -> ControlFlow<()> {
        let Some((_, Key::Row(seq))) = Key::parse(key) else {
            self.damage = Some("a row's key is malformed".into());
            return ControlFlow::Break(());
        };
        if self.rows == self.range.rows_max
            || (self.rows > 0 && self.bytes.len().saturating_add(value.len()) > self.range.bytes_max)
        {
            return ControlFlow::Break(());
        }
        if self.next.is_some_and(|next| next != seq) {
            self.damage = Some(format!("rows beside {seq} are missing"));
            return ControlFlow::Break(());
        }
        self.next = match self.range.direction {
            Direction::Forward => Some(seq + 1),
            Direction::Backward => Some(seq - 1),
        };
        self.rows += 1;
        self.bytes.extend_from_slice(value);
        ControlFlow::Continue(())
    }

    fn into_rows(self) -> Result<Vec<Row>, StoreError> {
        if let Some(damage) = self.damage {
            return Err(StoreError::Degraded(damage));
        }
        let mut bytes = self.bytes.freeze();
        let mut rows = Vec::with_capacity(self.rows as usize);
        for _ in 0..self.rows {
            let row = Row::split_first(&mut bytes).map_err(|error| StoreError::Degraded(error.to_string()))?;
            rows.push(row);
        }
        Ok(rows)
    }
}

fn rows(log: LogKey, range: ReadRows, view: &dyn View) -> Result<Vec<Row>, StoreError> {
    let from = range.from.max(floor(log, view)?);
    let (first, end) = (Key::Row(from).of(log), Key::Row(range.to.max(from)).of(log));
    let mut page = Page { range, rows: 0, bytes: BytesMut::new(), next: None, damage: None };
    let keys = KeyRange { from: &first, to: &end };
    view.scan(keys, range.direction, &mut |key, value| page.visit(key, value)).map_err(store_error)?;
    page.into_rows()
}

fn position_of(log: LogKey, at_ms: u64, view: &dyn View) -> Result<u64, StoreError> {
    let Bounds { floor, head } = bounds(log, view)?;
    find_time(floor, head + 1, |seq| {
        let row = view.get(&Key::Row(seq).of(log)).map_err(store_error)?;
        let row = row.ok_or_else(|| StoreError::Degraded(format!("row {seq} is missing")))?;
        let row = Row::new(row).map_err(|error| StoreError::Degraded(format!("row {seq} cannot be read: {error}")))?;
        Ok(row.time_ms() < at_ms)
    })
}

fn find_duplicate(
    log: LogKey,
    sender: &UserId,
    client_message_id: Uuid,
    view: &dyn View,
) -> Result<Option<Row>, StoreError> {
    let key = Key::Duplicate { client_message_id, sender: sender.as_str().as_bytes() }.of(log);
    let Some(value) = view.get(&key).map_err(store_error)? else { return Ok(None) };
    let damaged = |what: &str| StoreError::Degraded(format!("the duplicate index {what}"));
    let seq = keys::number(&value).ok_or_else(|| damaged("holds no position"))?;
    if seq < floor(log, view)? {
        return Ok(None);
    }
    let row = view.get(&Key::Row(seq).of(log)).map_err(store_error)?;
    let row = row.ok_or_else(|| damaged("names a row that is missing"))?;
    let row = Row::new(row).map_err(|_| damaged("names bytes that are no row"))?;
    if row.sender() != sender.as_str() || row.client_message_id() != client_message_id {
        return Err(damaged("names another row"));
    }
    Ok(Some(row))
}

fn scan_records(
    log: LogKey,
    prefix: &Bytes,
    after: Option<&Bytes>,
    records_max: u32,
    view: &dyn View,
) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut from = Key::Record(prefix).of(log);
    if let Some(after) = after {
        // The smallest key greater than `after` is `after` and a zero byte.
        let mut behind = Key::Record(after).of(log);
        behind.push(0);
        from = from.max(behind);
    }
    let to = keys::after_records(log, prefix);
    let mut records = Vec::new();
    let mut visit = |key: &[u8], value: &[u8]| {
        if records.len() as u64 >= u64::from(records_max) {
            return ControlFlow::Break(());
        }
        records.push((Bytes::copy_from_slice(&key[17..]), Bytes::copy_from_slice(value)));
        ControlFlow::Continue(())
    };
    view.scan(KeyRange { from: &from, to: &to }, Direction::Forward, &mut visit).map_err(store_error)?;
    Ok(records)
}
