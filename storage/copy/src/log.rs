//! Copying one log, and comparing it.
//!
//! A log is brought up to its source wherever it stands: what is missing is added, what differs is written anew. So an
//! interrupted copy is repeated from the log where it stopped, and one that has been done changes nothing.

use std::{cmp::Ordering, collections::VecDeque};

use antiphon_protocol::{LogKey, Row, UserId};
use antiphon_storage_contract::{Loaded, Op, RecordWrite, StoreError};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, future::try_join, stream};
use thiserror::Error;

use crate::{
    digest::{Digest, LogHash},
    port::{PAGE_BYTES_MAX, PAGE_MAX, Port},
};

/// Rows after which an unfinished log gets a checkpoint, so that the next attempt need not read them all at once. Nobody
/// but a copier ever sees it: the last write to a log is its true one.
const ROWS_PER_INTERIM_CHECKPOINT: u64 = 8_192;
/// Duplicates looked up at once.
const LOOKUPS_IN_FLIGHT: usize = 64;

/// Why a log was not copied.
#[derive(Debug, Error)]
pub enum LogError {
    /// The source did not answer as it should.
    #[error("the source: {0}")]
    Source(StoreError),
    /// The destination did not.
    #[error("the destination: {0}")]
    Destination(StoreError),
    /// The destination has what the source has not.
    #[error("log {log:?} of the destination {how}; it is no copy of this source: start with an empty one")]
    Diverged {
        /// Which.
        log: LogKey,
        /// In what.
        how: &'static str,
    },
    /// After the copy the two are not the same.
    #[error("log {log:?} is not the same in the destination: {what}")]
    Unequal {
        /// Which.
        log: LogKey,
        /// In what.
        what: String,
    },
}

/// What one log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Copied {
    pub(crate) rows: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) digest: Digest,
}

/// Makes `log` of the destination what it is in the source, and then reads and compares all of it. Nothing is copied of a
/// log that holds nothing: one that was looked for, or whose last record was deleted.
pub(crate) async fn copy_log(from: &Port, to: &Port, log: LogKey) -> Result<Option<Copied>, LogError> {
    let source = from.load(log).await.map_err(LogError::Source)?;
    let mut pair = Pair { from, to, log, writes: 0 };
    let mut hash = LogHash::new(log, &source);
    let destination = pair.to.load(log).await.map_err(LogError::Destination)?;
    pair.raise_floor(&source, &destination).await?;
    pair.rows(&source, &destination, &mut hash).await?;
    pair.records(&mut hash).await?;
    // Of several checkpoints the last one counts, so it is written even where an interim one looks the same.
    if source.checkpoint != destination.checkpoint || pair.writes > 0 {
        pair.checkpoint(source.checkpoint.clone()).await?;
    }
    let digest = hash.digest();
    let found = pair.read_back().await?;
    if found.digest() != digest {
        let seen = |hash: &LogHash| format!("{} rows, {} records, {}", hash.rows, hash.records, hash.digest());
        return Err(pair.unequal(format!("{} was written, {} was read", seen(&hash), seen(&found))));
    }
    let is_empty = hash.records == 0 && source.head == 0 && source.checkpoint.is_none();
    Ok((!is_empty).then_some(Copied { rows: hash.rows, records: hash.records, bytes: hash.bytes, digest }))
}

/// One log in both stores.
struct Pair<'a> {
    from: &'a Port,
    to: &'a Port,
    log: LogKey,
    writes: u64,
}

impl Pair<'_> {
    async fn write(&mut self, op: Op) -> Result<(), LogError> {
        self.writes += 1;
        self.to.write(op).await.map_err(LogError::Destination)
    }

    fn unequal(&self, what: String) -> LogError {
        LogError::Unequal { log: self.log, what }
    }

    async fn raise_floor(&mut self, source: &Loaded, destination: &Loaded) -> Result<(), LogError> {
        let log = self.log;
        let diverged = |how| Err(LogError::Diverged { log, how });
        if destination.head > source.head {
            return diverged("has more rows");
        }
        let is_new = destination.head == 0;
        match destination.floor.cmp(&source.floor) {
            Ordering::Greater => diverged("begins later"),
            Ordering::Equal => Ok(()),
            Ordering::Less if is_new || source.floor <= destination.head + 1 => {
                self.write(Op::SetFloor { log: self.log, floor: source.floor }).await
            }
            Ordering::Less => diverged("ends before the first row that the source still has"),
        }
    }

    /// Adds the rows that are missing and replaces those that differ.
    async fn rows(&mut self, source: &Loaded, destination: &Loaded, hash: &mut LogHash) -> Result<(), LogError> {
        let (from, to, log) = (self.from, self.to, self.log);
        let (end, have) = (source.head + 1, destination.head + 1);
        let interim_through = source.checkpoint.as_ref().map_or(0, |(through, _)| *through);
        let mut described = destination.checkpoint.as_ref().map_or(0, |(through, _)| *through);
        let mut page = from.rows(log, source.floor, end).await.map_err(LogError::Source)?;
        let mut next = source.floor;
        while next < end {
            let (first, after) = (next, next + page.len() as u64);
            if page.is_empty() || page.iter().zip(first..).any(|(row, seq)| row.seq() != seq) {
                return Err(self.unequal(format!("the source lacks row {first}")));
            }
            page.iter().for_each(|row| hash.row(row));
            let known = page.len().min(have.saturating_sub(first) as usize);
            let fresh = page.split_off(known);
            self.replace(&page).await?;
            let adds = !fresh.is_empty();
            let append = async {
                match adds {
                    true => to.write(Op::Append { log, rows: fresh }).await.map_err(LogError::Destination),
                    false => Ok(()),
                }
            };
            let read = async { from.rows(log, after, end).await.map_err(LogError::Source) };
            (_, page) = try_join(append, read).await?;
            self.writes += u64::from(adds);
            next = after;
            let through = (next - 1).min(interim_through);
            if adds && next < end && through >= described + ROWS_PER_INTERIM_CHECKPOINT {
                self.write(Op::Checkpoint { log, through, value: Bytes::new() }).await?;
                described = through;
            }
        }
        Ok(())
    }

    /// Writes those of `rows`, which the destination has, that it has otherwise.
    async fn replace(&mut self, mut rows: &[Row]) -> Result<(), LogError> {
        while let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            let stored = self.to.rows(self.log, first.seq(), last.seq() + 1).await.map_err(LogError::Destination)?;
            if stored.is_empty() || stored.len() > rows.len() {
                return Err(self.unequal(format!("it lacks row {}", first.seq())));
            }
            let (compared, rest) = rows.split_at(stored.len());
            for (row, stored) in compared.iter().zip(&stored) {
                if row.seq() != stored.seq() {
                    return Err(self.unequal(format!("it lacks row {}", row.seq())));
                }
                if row.bytes() != stored.bytes() {
                    self.write(Op::Rewrite { log: self.log, row: row.clone() }).await?;
                }
            }
            rows = rest;
        }
        Ok(())
    }

    /// Writes the records that are missing or differ, and deletes those that the source has no more.
    async fn records(&mut self, hash: &mut LogHash) -> Result<(), LogError> {
        let (mut source, mut destination) = (Records::of(self.from, self.log), Records::of(self.to, self.log));
        let mut batch = Batch::default();
        loop {
            let ours = source.peek().await.map_err(LogError::Source)?;
            let theirs = destination.peek().await.map_err(LogError::Destination)?;
            let order = match (&ours, &theirs) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((ours, _)), Some((theirs, _))) => ours.cmp(theirs),
            };
            let differs = ours != theirs;
            if let (Some((key, value)), Ordering::Less | Ordering::Equal) = (ours, order) {
                hash.record(&key, &value);
                if differs {
                    batch.push(key, Some(value));
                }
                source.advance();
            }
            if let (Some((key, _)), Ordering::Greater) = (&theirs, order) {
                batch.push(key.clone(), None);
            }
            if order != Ordering::Less {
                destination.advance();
            }
            if batch.is_full() {
                self.write(batch.take(self.log)).await?;
            }
        }
        if batch.records.is_empty() { Ok(()) } else { self.write(batch.take(self.log)).await }
    }

    async fn checkpoint(&mut self, checkpoint: Option<(u64, Bytes)>) -> Result<(), LogError> {
        match checkpoint {
            Some((through, value)) => self.write(Op::Checkpoint { log: self.log, through, value }).await,
            None => Ok(()),
        }
    }

    /// Everything that the destination has now, its duplicate index compared with its rows.
    async fn read_back(&self) -> Result<LogHash, LogError> {
        let (to, log) = (self.to, self.log);
        let loaded = to.load(log).await.map_err(LogError::Destination)?;
        let mut hash = LogHash::new(log, &loaded);
        let mut next = loaded.floor;
        while next <= loaded.head {
            let page = to.rows(log, next, loaded.head + 1).await.map_err(LogError::Destination)?;
            if page.is_empty() {
                return Err(self.unequal(format!("it lacks row {next}")));
            }
            page.iter().for_each(|row| hash.row(row));
            self.duplicates(&page).await?;
            next += page.len() as u64;
        }
        let mut records = Records::of(to, log);
        while let Some((key, value)) = records.peek().await.map_err(LogError::Destination)? {
            hash.record(&key, &value);
            records.advance();
        }
        Ok(hash)
    }

    /// Checks that each row is found under its sender's id for it, as in the source.
    async fn duplicates(&self, rows: &[Row]) -> Result<(), LogError> {
        let with_id = rows.iter().filter(|row| !row.client_message_id().is_nil());
        let checks = stream::iter(with_id.map(|row| Ok(self.duplicate(row))));
        checks.try_buffer_unordered(LOOKUPS_IN_FLIGHT).try_for_each(async |()| Ok(())).await
    }

    async fn duplicate(&self, row: &Row) -> Result<(), LogError> {
        let (id, seq) = (row.client_message_id(), row.seq());
        let sender: UserId = match row.sender().parse() {
            Ok(sender) => sender,
            Err(_) => return Err(self.unequal(format!("the sender of row {seq} is none"))),
        };
        let found = self.to.duplicate(self.log, sender.clone(), id).await.map_err(LogError::Destination)?;
        if found == Some(seq) {
            return Ok(());
        }
        // The same id may stand in a later row, once this one was too old to be recognised.
        let expected = self.from.duplicate(self.log, sender, id).await.map_err(LogError::Source)?;
        match found == expected {
            true => Ok(()),
            false => Err(self.unequal(format!("id {id} is found at {found:?}, in the source at {expected:?}"))),
        }
    }
}

/// The records of a log, one after the other.
struct Records<'a> {
    port: &'a Port,
    log: LogKey,
    page: VecDeque<(Bytes, Bytes)>,
    last: Option<Bytes>,
    is_over: bool,
}

impl<'a> Records<'a> {
    fn of(port: &'a Port, log: LogKey) -> Self {
        Self { port, log, page: VecDeque::new(), last: None, is_over: false }
    }

    async fn peek(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if self.page.is_empty() && !self.is_over {
            self.page = self.port.records(self.log, self.last.clone(), PAGE_MAX).await?.into();
            self.is_over = self.page.is_empty();
            self.last = self.page.back().map(|(key, _)| key.clone()).or(self.last.take());
        }
        Ok(self.page.front().cloned())
    }

    fn advance(&mut self) {
        self.page.pop_front();
    }
}

/// Records to be written together.
#[derive(Default)]
struct Batch {
    records: Vec<RecordWrite>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, key: Bytes, value: Option<Bytes>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Bytes::len);
        self.records.push(RecordWrite { key, value });
    }

    fn is_full(&self) -> bool {
        self.records.len() >= PAGE_MAX as usize / 4 || self.bytes >= PAGE_BYTES_MAX
    }

    fn take(&mut self, log: LogKey) -> Op {
        self.bytes = 0;
        Op::PutRecords { log, records: std::mem::take(&mut self.records) }
    }
}

#[cfg(test)]
mod tests;
