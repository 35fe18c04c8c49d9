//! Reads a whole data directory, offline, and reports everything that is not as it should be.
//!
//! Checked are every block of the logs and every block of index files that a full scan reads (their checksums), every
//! row, that each log is dense from its floor to its head, in the index and on through the logs, and that the duplicate
//! index and the rows agree.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::{Direction, Op};
use bytes::Bytes;
use lsm_tree::Cache;
use uuid::Uuid;

use super::{
    admission::{self, Admitted},
    disk::{Disk as _, RealDisk, SegmentName},
    format::{Format, Layout, OpenError},
    keys::{self, Key},
    lsm::{Absent, LsmTable},
    payload,
    query::{self, Bounds},
    recovery::{self, RecoveredBlock},
    replay::PARTITIONS,
    segments::SPARE_BOOT,
    table::{KeyRange, Table as _, View},
};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub place: String,
    /// What.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// What a data directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What the directory says it is.
    pub format: Format,
    /// Logs in the index.
    pub logs: u64,
    /// Rows in the index, at and above their log's floor.
    pub rows: u64,
    /// Entries of the duplicate index.
    pub duplicates: u64,
    /// Records in the index.
    pub records: u64,
    /// Blocks with writes in the write-ahead logs, which the next start replays.
    pub blocks: u64,
    /// Logs whose unacknowledged tail the next start cuts; usual after a crash.
    pub torn: u64,
    /// Everything wrong; empty for an intact directory.
    pub findings: Vec<Finding>,
}

impl Report {
    fn found(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.findings.push(Finding { place: place.into(), what: what.into() });
    }
}

/// Reads everything in `dir`, which no process may be using.
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let layout = Layout::new(dir);
    let missing = || OpenError::NotADataDirectory(dir.to_owned(), "its format file is missing".to_owned());
    let _lock = layout.lock()?;
    let format = layout.format()?.ok_or_else(missing)?;
    let mut report =
        Report { format, logs: 0, rows: 0, duplicates: 0, records: 0, blocks: 0, torn: 0, findings: Vec::new() };
    for (partition, reason) in layout.read_damaged()? {
        report.found(format!("partition {partition}"), reason);
    }
    let cache = Arc::new(Cache::with_capacity_bytes(16 << 20));
    let mut tables = Vec::new();
    for partition in 0..PARTITIONS {
        let dir = layout.partition(partition);
        let table = layout
            .was_started()
            .then(|| catch_unwind(AssertUnwindSafe(|| LsmTable::open(&dir, Absent::Damage, cache.clone()))));
        match table {
            None => tables.push(None),
            Some(Ok(Ok(table))) => {
                check_partition(partition, &*table.view(), &mut report);
                tables.push(Some(table));
            }
            Some(Ok(Err(error))) => {
                report.found(format!("partition {partition}"), error.to_string());
                tables.push(None);
            }
            Some(Err(_)) => {
                report.found(format!("partition {partition}"), "its files cannot be read");
                tables.push(None);
            }
        }
    }
    check_logs(&layout, &tables, &mut report)?;
    Ok(report)
}

fn check_partition(partition: u8, view: &dyn View, report: &mut Report) {
    let mut check = PartitionCheck { partition, view, log: None, report };
    // No key begins with more than 16 bytes 0xff.
    let everything = KeyRange { from: &[0], to: &[0xff; 32] };
    let scanned = catch_unwind(AssertUnwindSafe(|| {
        view.scan(everything, Direction::Forward, &mut |key, value| {
            check.entry(key, value);
            ControlFlow::Continue(())
        })
    }));
    check.end_log();
    match scanned {
        Ok(Ok(())) => {}
        Ok(Err(error)) => check.found(error.to_string()),
        Err(_) => check.found("its files cannot be read".to_owned()),
    }
}

struct PartitionCheck<'a> {
    partition: u8,
    view: &'a dyn View,
    log: Option<LogCheck>,
    report: &'a mut Report,
}

struct LogCheck {
    key: LogKey,
    floor: u64,
    next: u64,
    checkpoint: u64,
}

impl PartitionCheck<'_> {
    fn found(&mut self, what: String) {
        let log = self.log.as_ref().map_or(String::new(), |log| format!(", log {:?}", log.key));
        self.report.found(format!("partition {}{log}", self.partition), what);
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) {
        let Some((log_key, key)) = Key::parse(key) else {
            return self.found(format!("{key:02x?} is no key"));
        };
        if self.log.as_ref().is_none_or(|log| log.key != log_key) {
            self.end_log();
            self.report.logs += 1;
            self.log = Some(LogCheck { key: log_key, floor: 1, next: 1, checkpoint: 0 });
            if log_key.partition() != self.partition {
                self.found("the log belongs to another partition".to_owned());
            }
        }
        match key {
            Key::Floor => self.floor(value),
            Key::Checkpoint => self.checkpoint(value),
            Key::Row(seq) => self.row(seq, value),
            Key::Duplicate { client_message_id, sender } => self.duplicate(client_message_id, sender, value),
            Key::Record(_) => self.report.records += 1,
        }
    }

    fn floor(&mut self, value: &[u8]) {
        match (keys::number(value), &mut self.log) {
            (Some(floor), Some(log)) if floor > 0 => (log.floor, log.next) = (floor, floor),
            _ => self.found("its floor is no number".to_owned()),
        }
    }

    fn checkpoint(&mut self, value: &[u8]) {
        match (value.get(..8).and_then(keys::number), &mut self.log) {
            (Some(through), Some(log)) => log.checkpoint = through,
            _ => self.found("its checkpoint is cut off".to_owned()),
        }
    }

    fn row(&mut self, seq: u64, value: &[u8]) {
        let Some(log) = self.log.as_mut().filter(|log| seq >= log.floor) else { return };
        let (log_key, expected) = (log.key, log.next);
        log.next = seq + 1;
        self.report.rows += 1;
        if seq != expected {
            self.found(format!("rows {expected} to {} are missing", seq - 1));
        }
        let row = match Row::new(Bytes::copy_from_slice(value)) {
            Ok(row) if row.seq() == seq => row,
            Ok(row) => return self.found(format!("row {seq} says that it is row {}", row.seq())),
            Err(error) => return self.found(format!("row {seq}: {error}")),
        };
        if row.client_message_id().is_nil() {
            return;
        }
        let sender = row.sender().as_bytes();
        let key = Key::Duplicate { client_message_id: row.client_message_id(), sender }.of(log_key);
        let indexed = self.view.get(&key).ok().flatten().and_then(|value| keys::number(&value));
        if indexed.is_none_or(|indexed| indexed < seq) {
            self.found(format!("row {seq} is not in the duplicate index"));
        }
    }

    fn duplicate(&mut self, client_message_id: Uuid, sender: &[u8], value: &[u8]) {
        self.report.duplicates += 1;
        let Some(log) = &self.log else { return };
        let Some(seq) = keys::number(value) else {
            return self.found("an entry of the duplicate index is no number".to_owned());
        };
        if seq < log.floor {
            return;
        }
        let row = self.view.get(&Key::Row(seq).of(log.key)).ok().flatten().and_then(|row| Row::new(row).ok());
        let matches = |row: Row| row.client_message_id() == client_message_id && row.sender().as_bytes() == sender;
        if !row.is_some_and(matches) {
            self.found(format!("the duplicate index names row {seq}, which is missing or another"));
        }
    }

    fn end_log(&mut self) {
        if let Some(log) = &self.log
            && log.checkpoint >= log.next
        {
            let what = format!("its checkpoint describes it through {}, its head is {}", log.checkpoint, log.next - 1);
            self.found(what);
        }
        self.log = None;
    }
}

fn check_logs(layout: &Layout, tables: &[Option<LsmTable>], report: &mut Report) -> Result<(), OpenError> {
    let mut disk = RealDisk::new(&layout.wal());
    let segments: Vec<SegmentName> = disk.list()?.into_iter().filter(|segment| segment.boot != SPARE_BOOT).collect();
    let mut bounds = BTreeMap::new();
    for log in segments.chunk_by(|a, b| (a.boot, a.shard) == (b.boot, b.shard)) {
        let name = format!("write-ahead log {}/{}", log[0].boot, log[0].shard);
        let mut findings = Vec::new();
        let recovered = recovery::recover(&mut disk, log, |block| {
            findings.extend(check_block(block, tables, &mut bounds)?);
            Ok(())
        })?;
        report.blocks += recovered.blocks;
        report.torn += u64::from(recovered.torn);
        for damage in recovered.damage {
            report.found(&name, format!("acknowledged block {} is damaged", damage.number));
        }
        findings.into_iter().for_each(|what| report.found(&name, what));
    }
    Ok(())
}

/// A log may hold what the index has already; then its writes repeat what is there.
fn check_block(
    block: RecoveredBlock,
    tables: &[Option<LsmTable>],
    bounds: &mut BTreeMap<LogKey, Bounds>,
) -> io::Result<Option<String>> {
    let mut payload = block.payload;
    loop {
        let op = match payload::decode(&mut payload) {
            Ok(Some(op)) => op,
            Ok(None) => return Ok(None),
            Err(error) => return Ok(Some(format!("block {}: {error}", block.number))),
        };
        let Some(Some(table)) = tables.get(usize::from(op.log().partition())) else { continue };
        let before = match bounds.get(&op.log()) {
            Some(before) => *before,
            None => query::bounds(op.log(), &*table.view()).map_err(io::Error::other)?,
        };
        match admission::check(&without_known_rows(op.clone(), before.head), before, usize::MAX) {
            Ok(Admitted::Write(after)) => _ = bounds.insert(op.log(), after),
            Ok(Admitted::Nothing) => {}
            // A write whose row has since gone below the floor is in order.
            Err(_) if matches!(op, Op::Rewrite { .. }) => {}
            Err(error) => return Ok(Some(format!("block {}: {error}", block.number))),
        }
    }
}

fn without_known_rows(mut op: Op, head: u64) -> Op {
    if let Op::Append { rows, .. } = &mut op {
        rows.retain(|row| row.seq() > head);
    }
    op
}
