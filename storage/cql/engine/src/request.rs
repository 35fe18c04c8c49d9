//! What the engine asks of the cluster. The shell turns each request into statements and repeats it until it is done or
//! given up; every write may be repeated.

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;
use bytes::Bytes;
use uuid::Uuid;

use crate::bucket::{Bucket, BucketId};

/// Names a request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One statement, or one batch of statements on one partition. `at` is the timestamp of a write, in microseconds: of two
/// writes of the same cell the later one wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The index of a log. Answer: [`Reply::Buckets`].
    ReadBuckets { log: LogKey },
    /// Adds a bucket to the index, or says the same once more.
    WriteBucket { log: LogKey, bucket: Bucket, at: i64 },
    /// Takes a bucket out of the index and deletes its rows.
    DropBucket { log: LogKey, bucket: BucketId, at: i64 },
    /// Floor and checkpoint of a log. Answer: [`Reply::Head`].
    ReadHead { log: LogKey },
    /// Writes a log's checkpoint.
    WriteCheckpoint { log: LogKey, through: u64, value: Bytes, at: i64 },
    /// Writes a log's floor.
    WriteFloor { log: LogKey, floor: u64, at: i64 },
    /// Writes rows of one bucket, all or none.
    WriteRows { log: LogKey, bucket: BucketId, rows: Vec<(u64, Bytes)>, at: i64 },
    /// Rows of one bucket, `from <= seq < to`. Answer: [`Reply::Rows`].
    ReadRows {
        /// Whose.
        log: LogKey,
        /// Where.
        bucket: BucketId,
        /// First position.
        from: u64,
        /// Position after the last.
        to: u64,
        /// Which way.
        direction: Direction,
        /// At most so many.
        rows_max: u32,
        /// Ask every replica: a majority has answered with a row missing.
        is_thorough: bool,
    },
    /// Writes entries of one slice of a log's duplicate index.
    WriteDuplicates { log: LogKey, slice: i32, entries: Vec<Duplicate>, at: i64 },
    /// Where a message was stored. Answer: [`Reply::Duplicate`].
    ReadDuplicate { log: LogKey, slice: i32, sender: String, client_message_id: Uuid },
    /// Deletes entries of one slice of a log's duplicate index.
    DropDuplicates { log: LogKey, slice: i32, entries: Vec<Duplicate>, at: i64 },
    /// Writes records; without a value: marks them as deleted.
    WriteRecords { log: LogKey, records: Vec<(Bytes, Option<Bytes>)>, at: i64 },
    /// One record. Answer: [`Reply::Records`].
    ReadRecord { log: LogKey, key: Bytes },
    /// Records `from <= key < to`, in key order, deleted ones included. Answer: [`Reply::Records`].
    ScanRecords { log: LogKey, from: Bytes, to: Bytes, records_max: u32 },
}

/// An entry of the duplicate index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duplicate {
    /// Who sent it.
    pub sender: String,
    /// Under which id.
    pub client_message_id: Uuid,
    /// Where it was stored.
    pub seq: u64,
}

/// What the cluster answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A write that a majority has, while the term was held.
    Done,
    /// Answer to [`Request::ReadBuckets`], in any order.
    Buckets(Vec<Bucket>),
    /// Answer to [`Request::ReadHead`].
    Head {
        /// The floor; absent if none was written.
        floor: Option<u64>,
        /// The checkpoint and the row through which it describes the log.
        checkpoint: Option<(u64, Bytes)>,
    },
    /// Answer to [`Request::ReadRows`], in the direction of the read.
    Rows(Vec<(u64, Bytes)>),
    /// Answer to [`Request::ReadDuplicate`].
    Duplicate(Option<u64>),
    /// Answer to [`Request::ReadRecord`] and [`Request::ScanRecords`].
    Records(Vec<(Bytes, Option<Bytes>)>),
}

/// A request was given up. Whether a write took effect is unknown, now and later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub String);
