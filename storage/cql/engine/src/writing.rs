//! The write of a log that is under way, and how the next one is made of what waits.

use std::collections::VecDeque;

use antiphon_protocol::{LogKey, Row};
use antiphon_storage_contract::{Op, Outcome, RECORD_KEY_BYTES_MAX, StoreError, Token};

use crate::{
    bucket::{Bucket, BucketId, Gone},
    duplicates::by_slice,
    engine::Outbox,
    limits::{
        APPEND_BYTES_MAX, APPEND_ROWS_MAX, BUCKET_BYTES_MAX, BUCKET_ROWS_MAX, BUCKET_ROWS_MIN, BUCKET_SPAN_MS,
        DUPLICATES_WAITING_MAX, RECORDS_PER_WRITE_MAX,
    },
    log::Known,
    opening::{Opening, copies_from},
    request::Request,
};

/// A write under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) write: Write,
    /// Requests without an answer.
    pub(crate) outstanding: usize,
    /// The first failure, told once every request has its answer.
    pub(crate) failure: Option<StoreError>,
}

/// What a write does, and who is told of it.
#[derive(Debug)]
pub(crate) enum Write {
    /// A bucket is opened with copies of rows.
    Open(Opening),
    /// Rows are added; `opened` with a bucket of their own.
    Append {
        rows: Vec<Row>,
        tokens: Vec<Token>,
        opened: Option<Bucket>,
    },
    /// A row is replaced.
    Rewrite(Token),
    /// The duplicate index catches up.
    Duplicates,
    Checkpoint(Token),
    Floor(Token, u64),
    Records(Vec<Token>),
}

impl Write {
    /// Whether a failure leaves it open what the newest bucket will hold.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Append { .. })
    }

    /// Who is told what came of it.
    pub(crate) fn tokens(&self) -> &[Token] {
        match self {
            Self::Open(_) | Self::Duplicates => &[],
            Self::Append { tokens, .. } | Self::Records(tokens) => tokens,
            Self::Rewrite(token) | Self::Checkpoint(token) | Self::Floor(token, _) => std::slice::from_ref(token),
        }
    }
}

/// The next step of a log's writes.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing to do.
    Idle,
    /// The first operation is answered at once.
    Answer(Result<Outcome, StoreError>),
    /// These requests carry out this write.
    Start(Write, Vec<Request>),
}

/// Whether an operation can only be carried out on a log that is known.
pub(crate) fn needs_known(op: &Op) -> bool {
    !matches!(op, Op::PutRecords { .. } | Op::GetRecord { .. } | Op::ScanRecords { .. })
}

fn misuse(why: String) -> Step {
    Step::Answer(Err(StoreError::Misuse(why)))
}

/// The next write of a log that is known.
pub(crate) fn plan(log: LogKey, known: &mut Known, writes: &mut VecDeque<(Op, Token)>, out: &mut Outbox) -> Step {
    if known.is_in_doubt && !known.unsettled.is_empty() {
        return open(log, known, out);
    }
    let Some((op, token)) = writes.front() else { return Step::Idle };
    let token = *token;
    let head = known.head;
    match op {
        Op::Append { rows, .. } => match rows.iter().zip(head + 1..).all(|(row, seq)| row.seq() == seq) {
            false => misuse(format!("row {} is next", head + 1)),
            true if rows.is_empty() => Step::Answer(Ok(Outcome::Done)),
            true if known.duplicates.len() >= DUPLICATES_WAITING_MAX => catch_up(log, known, out),
            true => append(log, known, writes, out),
        },
        Op::Rewrite { row, .. } => match known.buckets.holding(row.seq()) {
            Some((bucket, _)) if (known.floor..=head).contains(&row.seq()) => {
                let rows = vec![(row.seq(), row.bytes().clone())];
                start(
                    writes,
                    Write::Rewrite(token),
                    Request::WriteRows { log, bucket: bucket.id, rows, at: out.stamp() },
                )
            }
            _ => misuse(format!("row {} does not exist", row.seq())),
        },
        Op::Checkpoint { through, .. } if *through > head => misuse(format!("the log ends at {head}")),
        Op::Checkpoint { .. } if !known.duplicates.is_empty() => catch_up(log, known, out),
        Op::Checkpoint { through, value, .. } => {
            let request = Request::WriteCheckpoint { log, through: *through, value: value.clone(), at: out.stamp() };
            start(writes, Write::Checkpoint(token), request)
        }
        Op::SetFloor { floor, .. } if *floor > head + 1 && head > 0 => misuse(format!("the log ends at {head}")),
        Op::SetFloor { floor, .. } if *floor <= known.floor => Step::Answer(Ok(Outcome::Done)),
        Op::SetFloor { floor, .. } => {
            let floor = *floor;
            start(writes, Write::Floor(token, floor), Request::WriteFloor { log, floor, at: out.stamp() })
        }
        Op::PutRecords { .. } => put_records(log, writes, out),
        // Reads do not wait among writes.
        Op::Load { .. }
        | Op::Read { .. }
        | Op::FindTime { .. }
        | Op::FindDuplicate { .. }
        | Op::GetRecord { .. }
        | Op::ScanRecords { .. } => Step::Answer(Err(StoreError::Misuse("a read among writes".into()))),
    }
}

fn start(writes: &mut VecDeque<(Op, Token)>, write: Write, request: Request) -> Step {
    writes.pop_front();
    Step::Start(write, vec![request])
}

/// Writes the records that come next, together.
pub(crate) fn put_records(log: LogKey, writes: &mut VecDeque<(Op, Token)>, out: &mut Outbox) -> Step {
    let (mut records, mut tokens) = (Vec::new(), Vec::new());
    while let Some((Op::PutRecords { records: next, .. }, token)) = writes.front() {
        let is_too_long = next.iter().any(|record| record.key.len() > RECORD_KEY_BYTES_MAX);
        if is_too_long && tokens.is_empty() {
            return misuse(format!("a record's key has at most {RECORD_KEY_BYTES_MAX} bytes"));
        }
        if is_too_long || (!tokens.is_empty() && records.len() + next.len() > RECORDS_PER_WRITE_MAX) {
            break;
        }
        records.extend(next.iter().map(|record| (record.key.clone(), record.value.clone())));
        tokens.push(*token);
        writes.pop_front();
    }
    // Within one batch of statements all have one timestamp, so of two values of a key only the later is written.
    let mut seen = std::collections::BTreeSet::new();
    let mut latest: Vec<_> = records.into_iter().rev().filter(|(key, _)| seen.insert(key.clone())).collect();
    latest.reverse();
    let requests = match latest.is_empty() {
        true => Vec::new(),
        false => vec![Request::WriteRecords { log, records: latest, at: out.stamp() }],
    };
    Step::Start(Write::Records(tokens), requests)
}

/// Brings the duplicate index up to the head.
fn catch_up(log: LogKey, known: &Known, out: &mut Outbox) -> Step {
    let slices = by_slice(known.duplicates.entries());
    let request = |(slice, entries)| Request::WriteDuplicates { log, slice, entries, at: out.stamp() };
    Step::Start(Write::Duplicates, slices.into_iter().map(request).collect())
}

fn open(log: LogKey, known: &mut Known, out: &mut Outbox) -> Step {
    let from = copies_from(known).unwrap_or(known.head);
    let opening = Opening::new(out.next_bucket(), known, from);
    match confirm(log, known, out) {
        Some(confirmation) => Step::Start(Write::Open(opening), vec![confirmation]),
        None => Step::Idle,
    }
}

fn append(log: LogKey, known: &mut Known, writes: &mut VecDeque<(Op, Token)>, out: &mut Outbox) -> Step {
    if known.is_in_doubt && copies_from(known).is_some() {
        return open(log, known, out);
    }
    let (rows, tokens) = gather(known.head, writes);
    let Some(first) = rows.first() else { return Step::Idle };
    let mut requests = Vec::new();
    let (bucket, opened) = match known.buckets.newest() {
        Some(newest) if !known.is_in_doubt && !is_full(known, newest, first) => (newest.id, None),
        _ => {
            let bucket = Bucket { id: out.next_bucket(), first_seq: first.seq(), first_ms: first.time_ms() };
            if known.is_in_doubt {
                requests.extend(confirm(log, known, out));
            }
            requests.push(Request::WriteBucket { log, bucket, at: out.stamp() });
            (bucket.id, Some(bucket))
        }
    };
    requests.push(write_rows(log, bucket, &rows, out.stamp()));
    out.count_append(rows.len());
    known.fresh = None;
    Step::Start(Write::Append { rows, tokens, opened }, requests)
}

/// Says once more that the newest bucket is in the index: of one that is in doubt a majority may not know.
fn confirm(log: LogKey, known: &Known, out: &mut Outbox) -> Option<Request> {
    let bucket = known.buckets.newest()?;
    Some(Request::WriteBucket { log, bucket, at: out.stamp() })
}

fn write_rows(log: LogKey, bucket: BucketId, rows: &[Row], at: i64) -> Request {
    let rows = rows.iter().map(|row| (row.seq(), row.bytes().clone())).collect();
    Request::WriteRows { log, bucket, rows, at }
}

/// Takes the appends that come next, as many as fit one batch.
fn gather(head: u64, writes: &mut VecDeque<(Op, Token)>) -> (Vec<Row>, Vec<Token>) {
    let (mut rows, mut tokens, mut bytes): (Vec<Row>, Vec<Token>, usize) = Default::default();
    while let Some((Op::Append { rows: next, .. }, _)) = writes.front() {
        let next_seq = head + 1 + rows.len() as u64;
        let next_bytes: usize = next.iter().map(|row| row.bytes().len()).sum();
        let is_next = next.iter().zip(next_seq..).all(|(row, seq)| row.seq() == seq);
        let fits =
            rows.is_empty() || (rows.len() + next.len() <= APPEND_ROWS_MAX && bytes + next_bytes <= APPEND_BYTES_MAX);
        if !is_next || !fits {
            break;
        }
        let Some((Op::Append { rows: next, .. }, token)) = writes.pop_front() else { break };
        bytes += next_bytes;
        rows.extend(next);
        tokens.push(token);
    }
    (rows, tokens)
}

/// Whether the newest bucket takes no more rows: it is full or old, or has lost rows to retention, so that in time it goes
/// as a whole.
fn is_full(known: &Known, newest: Bucket, next: &Row) -> bool {
    let rows = (known.head + 1).saturating_sub(newest.first_seq);
    let is_old = next.time_ms().saturating_sub(newest.first_ms) > BUCKET_SPAN_MS;
    rows >= BUCKET_ROWS_MAX
        || known.newest_bytes >= BUCKET_BYTES_MAX
        || (rows >= BUCKET_ROWS_MIN && is_old)
        || newest.first_seq < known.floor
}

/// A write was carried out: what is known of the log now. Answers with the buckets that hold nothing any more.
pub(crate) fn carried_out(write: Write, known: &mut Known) -> Vec<Gone> {
    match write {
        Write::Open(opening) => opening.finish(known),
        Write::Append { rows, opened, .. } => {
            let ended = opened.map(|bucket| known.buckets.open(bucket)).unwrap_or_default();
            if opened.is_some() {
                (known.newest_bytes, known.is_in_doubt) = (0, false);
                known.unsettled = Vec::new();
            }
            for row in &rows {
                known.newest_bytes += row.bytes().len() as u64;
                known.duplicates.add(row);
            }
            known.head += rows.len() as u64;
            ended
        }
        Write::Duplicates => {
            known.duplicates.clear();
            Vec::new()
        }
        Write::Floor(_, floor) => {
            known.fresh = None;
            let before = std::mem::replace(&mut known.floor, floor);
            known.head = known.head.max(floor - 1);
            let gone = known.buckets.drop_below(floor).into_iter();
            // Of those that an earlier round left, ids may have been stored anew since: their entries stay.
            gone.map(|gone| Gone { expired_before: gone.expired_before.filter(|end| *end > before), ..gone }).collect()
        }
        Write::Rewrite(_) | Write::Checkpoint(_) => {
            known.fresh = None;
            Vec::new()
        }
        Write::Records(_) => Vec::new(),
    }
}
