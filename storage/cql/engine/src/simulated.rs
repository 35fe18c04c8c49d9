//! A simulated cluster: three replicas, each a table of cells where the later timestamp wins, and what goes wrong on the
//! way to them. Seeded, so that a run can be repeated.
//!
//! A write that fails may have reached any of the replicas, and may reach the others at any later time. A read asks two of
//! the three, any two, and repairs nothing, which is less than real servers do.

use std::collections::BTreeMap;

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    bucket::{Bucket, BucketId},
    request::{Failure, Reply, Request},
};

const REPLICAS: usize = 3;

/// Names a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Cell {
    Bucket(LogKey, BucketId),
    Floor(LogKey),
    Checkpoint(LogKey),
    Row(LogKey, BucketId, u64),
    Duplicate(LogKey, i32, String, Uuid),
    Record(LogKey, Bytes),
}

/// What a cell holds; nothing once it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Gone,
    Bucket(u64, u64),
    Number(u64),
    Checkpoint(u64, Bytes),
    Bytes(Bytes),
    Record(Option<Bytes>),
}

#[derive(Debug, Clone, Default)]
struct Replica {
    cells: BTreeMap<Cell, (i64, Value)>,
    /// Buckets that were dropped, and when.
    dropped: BTreeMap<(LogKey, BucketId), i64>,
}

impl Replica {
    fn put(&mut self, cell: Cell, at: i64, value: Value) {
        let held = self.cells.entry(cell).or_insert((i64::MIN, Value::Gone));
        if (at, &value) > (held.0, &held.1) {
            *held = (at, value);
        }
    }

    fn get(&self, cell: &Cell) -> Option<(i64, Value)> {
        let held = self.cells.get(cell).cloned()?;
        let dropped = match cell {
            Cell::Row(log, bucket, _) => self.dropped.get(&(*log, *bucket)),
            _ => None,
        };
        Some(match dropped {
            Some(at) if *at >= held.0 => (*at, Value::Gone),
            _ => held,
        })
    }

    fn apply(&mut self, request: &Request) {
        match request.clone() {
            Request::WriteBucket { log, bucket, at } => {
                self.put(Cell::Bucket(log, bucket.id), at, Value::Bucket(bucket.first_seq, bucket.first_ms));
            }
            Request::DropBucket { log, bucket, at } => {
                self.put(Cell::Bucket(log, bucket), at, Value::Gone);
                let dropped = self.dropped.entry((log, bucket)).or_insert(at);
                *dropped = at.max(*dropped);
            }
            Request::WriteCheckpoint { log, through, value, at } => {
                self.put(Cell::Checkpoint(log), at, Value::Checkpoint(through, value));
            }
            Request::WriteFloor { log, floor, at } => self.put(Cell::Floor(log), at, Value::Number(floor)),
            Request::WriteRows { log, bucket, rows, at } => {
                for (seq, bytes) in rows {
                    self.put(Cell::Row(log, bucket, seq), at, Value::Bytes(bytes));
                }
            }
            Request::WriteDuplicates { log, slice, entries, at } => {
                for it in entries {
                    let cell = Cell::Duplicate(log, slice, it.sender, it.client_message_id);
                    self.put(cell, at, Value::Number(it.seq));
                }
            }
            Request::DropDuplicates { log, slice, entries, at } => {
                for it in entries {
                    self.put(Cell::Duplicate(log, slice, it.sender, it.client_message_id), at, Value::Gone);
                }
            }
            Request::WriteRecords { log, records, at } => {
                for (key, value) in records {
                    self.put(Cell::Record(log, key), at, Value::Record(value));
                }
            }
            _ => {}
        }
    }
}

/// How often, in a hundred, something goes wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// A write is given up: any of the replicas may have it, now or later.
    pub writes_lost: u64,
    /// A read is given up.
    pub reads_lost: u64,
}

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    replicas: [Replica; REPLICAS],
    /// Writes on their way, each to one replica.
    late: Vec<(usize, Request)>,
    seed: u64,
    /// What goes wrong.
    pub trouble: Trouble,
}

impl Cluster {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self { replicas: Default::default(), late: Vec::new(), seed: seed | 1, trouble: Trouble::default() }
    }

    fn roll(&mut self) -> u64 {
        // SplitMix64, as published by Vigna.
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True `percent` times in a hundred.
    fn happens(&mut self, percent: u64) -> bool {
        self.roll() % 100 < percent
    }

    /// Lets some of the writes that are on their way arrive.
    pub fn deliver_late_writes(&mut self) {
        for _ in 0..self.late.len() {
            if self.happens(30) {
                let at = self.roll() as usize % self.late.len();
                let (replica, request) = self.late.swap_remove(at);
                self.replicas[replica].apply(&request);
            }
        }
    }

    /// Carries a request out, or gives it up.
    pub fn perform(&mut self, request: &Request) -> Result<Reply, Failure> {
        if is_read(request) {
            if self.happens(self.trouble.reads_lost) {
                return Err(Failure("the read was lost".into()));
            }
            return Ok(self.read(request));
        }
        let is_lost = self.happens(self.trouble.writes_lost);
        let first = self.roll() as usize % REPLICAS;
        for n in 0..REPLICAS {
            let replica = (first + n) % REPLICAS;
            let arrives = if is_lost { self.happens(33) } else { n < 2 || self.happens(50) };
            match arrives {
                true => self.replicas[replica].apply(request),
                false => self.late.push((replica, request.clone())),
            }
        }
        if is_lost { Err(Failure("the write was lost".into())) } else { Ok(Reply::Done) }
    }

    /// What any two replicas say, or all of them.
    fn read(&mut self, request: &Request) -> Reply {
        let is_thorough = matches!(request, Request::ReadRows { is_thorough: true, .. });
        let without = if is_thorough { REPLICAS } else { self.roll() as usize % REPLICAS };
        let asked: Vec<&Replica> =
            self.replicas.iter().enumerate().filter(|(n, _)| *n != without).map(|(_, replica)| replica).collect();
        answer(
            request,
            &|cell| {
                let newest = asked.iter().filter_map(|replica| replica.get(cell)).max();
                newest.map(|(_, value)| value).filter(|value| *value != Value::Gone)
            },
            &|from, to| {
                let cells = asked.iter().flat_map(|replica| replica.cells.range(from.clone()..to.clone()));
                let mut cells: Vec<Cell> = cells.map(|(cell, _)| cell.clone()).collect();
                cells.sort();
                cells.dedup();
                cells
            },
        )
    }
}

fn is_read(request: &Request) -> bool {
    matches!(
        request,
        Request::ReadBuckets { .. }
            | Request::ReadHead { .. }
            | Request::ReadRows { .. }
            | Request::ReadDuplicate { .. }
            | Request::ReadRecord { .. }
            | Request::ScanRecords { .. }
    )
}

type Get<'a> = dyn Fn(&Cell) -> Option<Value> + 'a;
type Range<'a> = dyn Fn(Cell, Cell) -> Vec<Cell> + 'a;

fn answer(request: &Request, get: &Get<'_>, range: &Range<'_>) -> Reply {
    match request.clone() {
        Request::ReadBuckets { log } => {
            let all = range(
                Cell::Bucket(log, BucketId::from_stored(i64::MIN)),
                Cell::Bucket(log, BucketId::from_stored(i64::MAX)),
            );
            let bucket = |cell: &Cell| match (cell, get(cell)?) {
                (Cell::Bucket(_, id), Value::Bucket(first_seq, first_ms)) => {
                    Some(Bucket { id: *id, first_seq, first_ms })
                }
                _ => None,
            };
            Reply::Buckets(all.iter().filter_map(bucket).collect())
        }
        Request::ReadHead { log } => {
            let floor = match get(&Cell::Floor(log)) {
                Some(Value::Number(floor)) => Some(floor),
                _ => None,
            };
            let checkpoint = match get(&Cell::Checkpoint(log)) {
                Some(Value::Checkpoint(through, value)) => Some((through, value)),
                _ => None,
            };
            Reply::Head { floor, checkpoint }
        }
        Request::ReadRows { log, bucket, from, to, direction, rows_max, .. } => {
            let mut cells = range(Cell::Row(log, bucket, from), Cell::Row(log, bucket, to));
            if direction == Direction::Backward {
                cells.reverse();
            }
            let row = |cell: &Cell| match (cell, get(cell)?) {
                (Cell::Row(_, _, seq), Value::Bytes(bytes)) => Some((*seq, bytes)),
                _ => None,
            };
            Reply::Rows(cells.iter().filter_map(row).take(rows_max as usize).collect())
        }
        Request::ReadDuplicate { log, slice, sender, client_message_id } => {
            Reply::Duplicate(match get(&Cell::Duplicate(log, slice, sender, client_message_id)) {
                Some(Value::Number(seq)) => Some(seq),
                _ => None,
            })
        }
        Request::ReadRecord { log, key } => Reply::Records(match get(&Cell::Record(log, key.clone())) {
            Some(Value::Record(value)) => vec![(key, value)],
            _ => Vec::new(),
        }),
        Request::ScanRecords { log, from, to, records_max } => {
            let cells = range(Cell::Record(log, from), Cell::Record(log, to));
            let record = |cell: &Cell| match (cell, get(cell)?) {
                (Cell::Record(_, key), Value::Record(value)) => Some((key.clone(), value)),
                _ => None,
            };
            Reply::Records(cells.iter().filter_map(record).take(records_max as usize).collect())
        }
        _ => Reply::Done,
    }
}
