//! Taking a log up: its index, its head, and every row after its checkpoint.
//!
//! The rows of a log end where, in its newest bucket, the first one is missing: an owner has one append under way and
//! opens another bucket after one of unknown outcome, so every acknowledged row lies before the first gap. Of the rows found
//! after the checkpoint the last ones may be known to a minority only; see [`crate::opening`] for what is done about it.

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use crate::{
    bucket::{Bucket, Buckets, Gone},
    limits::READ_ROWS_MAX,
    log::{Fresh, Known},
    request::{Reply, Request},
    rows::{missing, parse},
};

/// A checkpoint and the row through which it describes the log.
type Checkpoint = Option<(u64, Bytes)>;

/// A log that is being taken up.
#[derive(Debug, Default)]
pub(crate) struct Hydration {
    /// Tells the answers to this attempt from those to an earlier one.
    attempt: u64,
    index: Option<Vec<Bucket>>,
    head: Option<(u64, Checkpoint)>,
    buckets: Buckets,
    ended: Vec<Gone>,
    /// The next row to find.
    next: u64,
    rows: Vec<Row>,
    misses: u32,
}

/// What comes of an answer.
#[derive(Debug)]
pub(crate) enum Progress {
    /// More answers are under way.
    Waits,
    /// This is to be asked.
    Asks(Request),
    /// The log is known; these buckets of it hold nothing any more.
    Finished(Box<Known>, Vec<Gone>),
}

impl Hydration {
    /// The `attempt`-th one of its engine.
    pub(crate) fn new(attempt: u64) -> Self {
        Self { attempt, ..Self::default() }
    }

    /// Which attempt this is.
    pub(crate) fn attempt(&self) -> u64 {
        self.attempt
    }

    /// The two reads to begin with.
    pub(crate) fn first_requests(log: LogKey) -> [Request; 2] {
        [Request::ReadBuckets { log }, Request::ReadHead { log }]
    }

    /// Takes in an answer.
    pub(crate) fn take(&mut self, log: LogKey, reply: Reply) -> Result<Progress, StoreError> {
        match reply {
            Reply::Buckets(index) => {
                self.index = Some(index);
                self.begin(log)
            }
            Reply::Head { floor, checkpoint } => {
                self.head = Some((floor.unwrap_or(1), checkpoint));
                self.begin(log)
            }
            Reply::Rows(rows) => self.take_rows(log, rows),
            Reply::Done | Reply::Duplicate(_) | Reply::Records(_) => Ok(Progress::Waits),
        }
    }

    /// Looks for rows once both first answers are there.
    fn begin(&mut self, log: LogKey) -> Result<Progress, StoreError> {
        let (Some(index), Some((floor, checkpoint))) = (&mut self.index, &self.head) else {
            return Ok(Progress::Waits);
        };
        (self.buckets, self.ended) = Buckets::of(std::mem::take(index));
        let described = checkpoint.as_ref().map_or(0, |(through, _)| *through);
        self.next = (described + 1).max(*floor);
        self.ask(log)
    }

    fn ask(&mut self, log: LogKey) -> Result<Progress, StoreError> {
        let Some((bucket, end)) = self.buckets.holding(self.next) else {
            return match self.buckets.newest() {
                None => Ok(self.finish()),
                Some(_) => Err(missing(self.next)),
            };
        };
        Ok(Progress::Asks(Request::ReadRows {
            log,
            bucket: bucket.id,
            from: self.next,
            to: end,
            direction: antiphon_storage_contract::Direction::Forward,
            rows_max: READ_ROWS_MAX,
            is_thorough: self.misses > 0,
        }))
    }

    fn take_rows(&mut self, log: LogKey, rows: Vec<(u64, Bytes)>) -> Result<Progress, StoreError> {
        let (asked, answered) = (self.next, rows.len());
        let end = self.buckets.holding(self.next).map_or(u64::MAX, |(_, end)| end);
        for (seq, bytes) in rows {
            if seq != self.next {
                break;
            }
            self.rows.push(parse(seq, bytes)?);
            self.next += 1;
        }
        let found = (self.next - asked) as usize;
        if end == u64::MAX {
            let may_have_more = found == answered && answered >= READ_ROWS_MAX as usize;
            return if may_have_more { self.ask(log) } else { Ok(self.finish()) };
        }
        // An older bucket is complete: its rows were acknowledged before the next one was opened.
        self.misses = if found == 0 { self.misses + 1 } else { 0 };
        if self.misses > 1 { Err(missing(self.next)) } else { self.ask(log) }
    }

    fn finish(&mut self) -> Progress {
        let (floor, checkpoint) = self.head.take().unwrap_or((1, None));
        let head = self.next - 1;
        let tail = std::mem::take(&mut self.rows);
        let buckets = std::mem::take(&mut self.buckets);
        let in_newest = buckets.newest().map_or(&tail[..], |newest| {
            let before = tail.partition_point(|row| row.seq() < newest.first_seq);
            &tail[before..]
        });
        let mut known = Known {
            floor,
            head,
            newest_bytes: buckets.newest().map_or(0, |it| Known::estimate_bytes(it.first_seq, head, in_newest)),
            unsettled: in_newest.to_vec(),
            buckets,
            is_in_doubt: false,
            duplicates: Default::default(),
            fresh: None,
        };
        for row in &tail {
            known.duplicates.add(row);
        }
        known.fresh = Some(Fresh { checkpoint, tail });
        Progress::Finished(Box::new(known), std::mem::take(&mut self.ended))
    }
}
