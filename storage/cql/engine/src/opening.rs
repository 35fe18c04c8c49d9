//! Opening a bucket that begins with rows of the one before: how an owner cuts off what may still be written there.
//!
//! The index is told of the bucket before once more, as a majority may not know of it. Rows that may lack a majority are
//! copied, and so is the whole of a bucket with few rows. The copies are written before the index names the new bucket:
//! until then nothing has changed, and from then on the rows that they were copied from are out of reach.

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use crate::{
    bucket::{Bucket, BucketId, Gone},
    limits::{APPEND_BYTES_MAX, APPEND_ROWS_MAX, BUCKET_ROWS_MIN},
    log::Known,
    request::{Reply, Request},
    rows::Walk,
};

/// A bucket on its way into the index.
#[derive(Debug)]
pub(crate) struct Opening {
    id: BucketId,
    /// Finds the rows that were not found when the log was taken up.
    walk: Option<Walk>,
    rows: Vec<Row>,
    written: usize,
    bucket: Option<Bucket>,
}

/// The first row to copy out of the newest bucket when another owner's writes to it are to be cut off; nothing if it may
/// stay as it is and end with its last row.
pub(crate) fn copies_from(known: &Known) -> Option<u64> {
    let newest = known.buckets.newest()?;
    let first = newest.first_seq.max(known.floor);
    if first > known.head {
        return None;
    }
    if known.head - first < BUCKET_ROWS_MIN {
        return Some(first);
    }
    // No append is longer than that, and only the last one may lack a majority.
    let of_last_append = (known.head + 1).saturating_sub(APPEND_ROWS_MAX as u64);
    known.unsettled.first().map(|row| row.seq().max(of_last_append).max(first))
}

impl Opening {
    /// Opens bucket `id` with the rows of `known` from `from` on.
    pub(crate) fn new(id: BucketId, known: &Known, from: u64) -> Self {
        let unsettled = known.unsettled.first().map_or(known.head + 1, Row::seq);
        let rows = known.unsettled.iter().filter(|row| row.seq() >= from).cloned().collect();
        let walk = (from < unsettled).then(|| Walk::all(from, unsettled));
        Self { id, walk, rows, written: 0, bucket: None }
    }

    /// What to ask next; nothing once the index names the bucket.
    pub(crate) fn next(&mut self, log: LogKey, known: &Known, at: i64) -> Option<Result<Request, StoreError>> {
        if let Some(walk) = &mut self.walk {
            if let Some(request) = walk.next(log, &known.buckets, 0) {
                return Some(request);
            }
            let read = self.walk.take().map(Walk::into_rows).unwrap_or_default();
            self.rows.splice(..0, read);
        }
        if self.written < self.rows.len() {
            let batch = self.next_batch();
            return Some(Ok(Request::WriteRows { log, bucket: self.id, rows: batch, at }));
        }
        if self.bucket.is_some() {
            return None;
        }
        let first = self.rows.first()?;
        let bucket = Bucket { id: self.id, first_seq: first.seq(), first_ms: first.time_ms() };
        self.bucket = Some(bucket);
        Some(Ok(Request::WriteBucket { log, bucket, at }))
    }

    fn next_batch(&mut self) -> Vec<(u64, Bytes)> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for row in self.rows[self.written..].iter().take(APPEND_ROWS_MAX) {
            bytes += row.bytes().len();
            if !batch.is_empty() && bytes > APPEND_BYTES_MAX {
                break;
            }
            batch.push((row.seq(), row.bytes().clone()));
        }
        self.written += batch.len();
        batch
    }

    /// Takes in an answer.
    pub(crate) fn take(&mut self, reply: Reply) -> Result<(), StoreError> {
        match (&mut self.walk, reply) {
            (Some(walk), Reply::Rows(rows)) => walk.take(rows),
            _ => Ok(()),
        }
    }

    /// Notes in `known` that the index names the bucket. Answers with the buckets that it ended.
    pub(crate) fn finish(self, known: &mut Known) -> Vec<Gone> {
        let Some(bucket) = self.bucket else { return Vec::new() };
        known.newest_bytes = self.rows.iter().map(|row| row.bytes().len() as u64).sum();
        known.unsettled = Vec::new();
        known.is_in_doubt = false;
        known.buckets.open(bucket)
    }
}
