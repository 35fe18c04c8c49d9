//! Every bound of the engine.

/// Requests that one shard has under way. Full: further ones wait in their logs' queues, which the shard bounds.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 256;
/// Rows of one append to the cluster. What waits beyond goes with the next one.
pub const APPEND_ROWS_MAX: usize = 1_024;
/// The same in bytes, unless one operation alone is longer. Servers warn of batches from 128 KiB on.
pub const APPEND_BYTES_MAX: usize = 64 << 10;
/// Records of one write to the cluster.
pub const RECORDS_PER_WRITE_MAX: usize = 256;
/// Rows of a bucket. Full: the next row opens another one.
pub const BUCKET_ROWS_MAX: u64 = 20_000;
/// The same in bytes: a partition stays well below what servers call large.
pub const BUCKET_BYTES_MAX: u64 = 16 << 20;
/// Time that a bucket covers, from its first row, once it has [`BUCKET_ROWS_MIN`] rows.
pub const BUCKET_SPAN_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// A bucket with fewer rows is not left behind for its age, and moves as a whole into the bucket of a new owner, so that
/// a page of fifty rows lies in two buckets at most.
pub const BUCKET_ROWS_MIN: u64 = 64;
/// Rows asked for at a time.
pub const READ_ROWS_MAX: u32 = 256;
/// Requests that it takes to find where a time lies, if no replica lacks a row: a bucket that is full has taken one more
/// append, and of so many rows the one is found by halving. Each row that a majority lacks costs another request.
pub const SEARCH_REQUESTS_MAX: u32 = (BUCKET_ROWS_MAX + APPEND_ROWS_MAX as u64).ilog2() + 1;
/// Records asked for at a time, beyond what the caller wants: deleted ones are passed over.
pub const SCAN_RECORDS_MARGIN: u32 = 64;
/// Records asked for at a time, at most.
pub const SCAN_RECORDS_MAX: u32 = 2_048;
/// Buckets that wait to be removed. More: they are found again when their log is taken up the next time.
pub const CLEANUPS_WAITING_MAX: usize = 1_024;
/// Ids of messages that wait to be written into the duplicate index. Full: they are written before the next append.
pub const DUPLICATES_WAITING_MAX: usize = 1_024;
/// Logs that are remembered, unless more are in use at once.
pub const LOGS_KNOWN_MAX: usize = 1 << 18;
/// Logs whose last append has an unknown outcome that are remembered by name. More: every bucket so far counts as cut off.
pub const LOGS_IN_DOUBT_MAX: usize = 1 << 16;

const _: () = {
    assert!(BUCKET_ROWS_MIN >= 50, "a page of fifty rows");
    assert!(SEARCH_REQUESTS_MAX <= 16, "a search is short");
    assert!(BUCKET_ROWS_MIN <= BUCKET_ROWS_MAX && BUCKET_ROWS_MIN as usize <= APPEND_ROWS_MAX);
};
