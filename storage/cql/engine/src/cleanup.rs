//! Removing buckets that hold nothing any more, one after another, behind everything else.
//!
//! Nobody reads them, so a failure is forgotten: what is left is found again when the log is taken up. A bucket that went
//! with retention takes its entries of the duplicate index along; those that were written after it went are newer than the
//! moment that the deletion names, and stay.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;

use crate::{
    bucket::Gone,
    duplicates::{by_slice, entry},
    limits::{CLEANUPS_WAITING_MAX, READ_ROWS_MAX},
    request::{Duplicate, Reply, Request},
    rows::parse,
};

/// A bucket to remove.
#[derive(Debug)]
struct Job {
    log: LogKey,
    gone: Gone,
    at: i64,
    /// The next row whose entry in the duplicate index goes; none once all were found.
    next: Option<u64>,
    /// Entries that were found.
    entries: BTreeMap<i32, Vec<Duplicate>>,
    /// Whether the bucket itself goes now.
    is_last: bool,
}

/// The buckets that wait; the first one is being removed.
#[derive(Debug, Default)]
pub(crate) struct Cleanups {
    jobs: VecDeque<Job>,
    is_busy: bool,
}

impl Cleanups {
    /// Removes a bucket, with the entries of rows that retention let go; `at` is when they went.
    pub(crate) fn add(&mut self, log: LogKey, gone: Gone, at: i64) {
        if self.jobs.len() < CLEANUPS_WAITING_MAX {
            let next = gone.expired_before.map(|_| gone.bucket.first_seq);
            self.jobs.push_back(Job { log, gone, at, next, entries: BTreeMap::new(), is_last: false });
        }
    }

    /// What to ask next, unless an answer is under way.
    pub(crate) fn next(&mut self) -> Option<Request> {
        if self.is_busy {
            return None;
        }
        let job = self.jobs.front_mut()?;
        self.is_busy = true;
        let (log, bucket, at) = (job.log, job.gone.bucket.id, job.at);
        if let Some((slice, entries)) = job.entries.pop_first() {
            return Some(Request::DropDuplicates { log, slice, entries, at });
        }
        Some(match job.next {
            Some(from) => Request::ReadRows {
                log,
                bucket,
                from,
                to: job.gone.expired_before.unwrap_or(from),
                direction: Direction::Forward,
                rows_max: READ_ROWS_MAX,
                is_thorough: false,
            },
            None => {
                job.is_last = true;
                Request::DropBucket { log, bucket, at }
            }
        })
    }

    /// The last request was answered, or failed.
    pub(crate) fn take(&mut self, reply: Option<Reply>) {
        self.is_busy = false;
        let Some(job) = self.jobs.front_mut() else { return };
        match reply {
            Some(Reply::Rows(rows)) => {
                let may_have_more = rows.len() >= READ_ROWS_MAX as usize;
                job.next = rows.last().map(|(seq, _)| seq + 1).filter(|_| may_have_more);
                job.entries = by_slice(rows.into_iter().filter_map(|(seq, bytes)| entry(&parse(seq, bytes).ok()?)));
            }
            Some(_) if !job.is_last => {}
            _ => {
                self.jobs.pop_front();
            }
        }
    }
}
