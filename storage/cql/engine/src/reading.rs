//! Reads under way.

use antiphon_protocol::Row;
use antiphon_storage_contract::{Loaded, Op, Outcome, RECORD_KEY_BYTES_MAX, StoreError, Token};
use bytes::Bytes;

use crate::{
    duplicates::slice,
    limits::{SCAN_RECORDS_MARGIN, SCAN_RECORDS_MAX},
    log::Known,
    request::{Reply, Request},
    rows::Walk,
    search::Search,
};

/// One read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) token: Token,
    /// What was asked, should the log have to be taken up again.
    pub(crate) op: Op,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Nothing was asked yet.
    New,
    /// The head is being read.
    Head,
    /// The rows after the checkpoint are being read.
    Tail(Option<(u64, Bytes)>, Walk),
    /// A page is being read.
    Page(Walk),
    /// The position of a time is being looked for.
    Time(Search),
    /// The duplicate index is being asked.
    Index,
    /// The row that the index names is being read.
    Stored(Walk),
    /// Records are being read.
    Records(Scan),
}

/// A walk over records.
#[derive(Debug, Default)]
struct Scan {
    /// The next key.
    from: Bytes,
    found: Vec<(Bytes, Bytes)>,
    /// Records that were asked for last; fewer in the answer are the last ones.
    asked: u32,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    Asks(Request),
    Answers(Result<Outcome, StoreError>),
    /// The log has to be taken up first.
    Waits,
}

/// Above every key of a record.
const AFTER_EVERY_KEY: [u8; RECORD_KEY_BYTES_MAX + 1] = [0xff; _];

impl Reading {
    pub(crate) fn new(op: Op, token: Token) -> Self {
        Self { token, op, stage: Stage::New }
    }

    /// Begins, or goes on after [`Self::take`]. `known` is the log, if reads may be answered from it.
    pub(crate) fn next(&mut self, known: Option<&Known>, epoch: u32) -> Next {
        if let Stage::New = self.stage
            && let Some(next) = self.begin(known)
        {
            return next;
        }
        match (&mut self.stage, known) {
            (Stage::Records(_), _) => self.scan(),
            (_, None) => {
                self.stage = Stage::New;
                Next::Waits
            }
            (Stage::Tail(_, walk) | Stage::Page(walk) | Stage::Stored(walk), Some(known)) => {
                match walk.next(self.op.log(), &known.buckets, known.floor) {
                    Some(Ok(request)) => Next::Asks(request),
                    Some(Err(error)) => Next::Answers(Err(error)),
                    None => Next::Answers(Ok(self.outcome(known, epoch))),
                }
            }
            (Stage::Time(search), Some(known)) => match search.next(self.op.log(), &known.buckets, known.floor) {
                Some(Ok(request)) => Next::Asks(request),
                Some(Err(error)) => Next::Answers(Err(error)),
                None => Next::Answers(Ok(Outcome::Position(search.found()))),
            },
            (Stage::New | Stage::Head | Stage::Index, Some(_)) => Next::Waits,
        }
    }

    /// The first step.
    fn begin(&mut self, known: Option<&Known>) -> Option<Next> {
        let log = self.op.log();
        match (&self.op, known) {
            (Op::GetRecord { key, .. }, _) => {
                self.stage = Stage::Records(Scan::default());
                Some(Next::Asks(Request::ReadRecord { log, key: key.clone() }))
            }
            (Op::ScanRecords { records_max: 0, .. }, _) => Some(Next::Answers(Ok(Outcome::Records(Vec::new())))),
            (Op::ScanRecords { prefix, after, .. }, _) => {
                let after = after.as_ref().map(|after| Bytes::from([after, &b"\0"[..]].concat()));
                let from = after.into_iter().chain([prefix.clone()]).max().unwrap_or_default();
                self.stage = Stage::Records(Scan { from, ..Scan::default() });
                None
            }
            (_, None) => Some(Next::Waits),
            (Op::Load { .. }, Some(_)) => {
                self.stage = Stage::Head;
                Some(Next::Asks(Request::ReadHead { log }))
            }
            (Op::Read { range, .. }, Some(known)) => {
                self.stage = Stage::Page(Walk::new(*range, known.floor, known.head));
                None
            }
            (Op::FindTime { at_ms, .. }, Some(known)) => {
                self.stage = Stage::Time(Search::new(*at_ms, known));
                None
            }
            (Op::FindDuplicate { sender, client_message_id, .. }, Some(known)) => {
                match known.duplicates.find(sender.as_str(), *client_message_id) {
                    Some(seq) => {
                        self.stage = Stage::Stored(stored_at(seq, known));
                        None
                    }
                    None => {
                        self.stage = Stage::Index;
                        Some(Next::Asks(Request::ReadDuplicate {
                            log,
                            slice: slice(*client_message_id),
                            sender: sender.to_string(),
                            client_message_id: *client_message_id,
                        }))
                    }
                }
            }
            _ => Some(Next::Answers(Err(StoreError::Misuse("a write among reads".into())))),
        }
    }

    /// Takes in an answer; the result, if it is complete.
    pub(crate) fn take(&mut self, reply: Reply, known: Option<&Known>) -> Option<Result<Outcome, StoreError>> {
        match (&mut self.stage, reply, known) {
            (Stage::Head, Reply::Head { checkpoint, .. }, Some(known)) => {
                let described = checkpoint.as_ref().map_or(0, |(through, _)| *through);
                let walk = Walk::all((described + 1).max(known.floor), known.head + 1);
                self.stage = Stage::Tail(checkpoint, walk);
                None
            }
            (Stage::Index, Reply::Duplicate(seq), Some(known)) => match seq {
                Some(seq) if (known.floor..=known.head).contains(&seq) => {
                    self.stage = Stage::Stored(stored_at(seq, known));
                    None
                }
                _ => Some(Ok(Outcome::Row(None))),
            },
            (Stage::Tail(_, walk) | Stage::Page(walk) | Stage::Stored(walk), Reply::Rows(rows), _) => {
                walk.take(rows).err().map(Err)
            }
            (Stage::Time(search), Reply::Rows(rows), _) => search.take(rows).err().map(Err),
            (Stage::Records(_), Reply::Records(records), _) => self.take_records(records).map(Ok),
            // The log was lost meanwhile, or is being taken up again.
            (Stage::Head | Stage::Index, ..) => {
                self.stage = Stage::New;
                None
            }
            _ => Some(Err(StoreError::Unavailable("the cluster answered something else".into()))),
        }
    }

    /// Whether the last answer lacked a row that must be there.
    pub(crate) fn has_missed(&self) -> bool {
        match &self.stage {
            Stage::Tail(_, walk) | Stage::Page(walk) | Stage::Stored(walk) => walk.has_missed(),
            Stage::Time(search) => search.has_missed(),
            Stage::New | Stage::Head | Stage::Index | Stage::Records(_) => false,
        }
    }

    /// Whether `request`, which is the next one, asks another partition than the one before.
    pub(crate) fn changes_partition(&mut self, request: &Request) -> bool {
        match &mut self.stage {
            Stage::Time(search) => search.changes_partition(request),
            _ => true,
        }
    }

    fn scan(&mut self) -> Next {
        let (Op::ScanRecords { prefix, records_max, .. }, Stage::Records(scan)) = (&self.op, &mut self.stage) else {
            return Next::Answers(Err(StoreError::Misuse("not a scan".into())));
        };
        let missing = records_max.saturating_sub(scan.found.len() as u32);
        scan.asked = missing.saturating_add(SCAN_RECORDS_MARGIN).min(SCAN_RECORDS_MAX);
        let (from, to) = (scan.from.clone(), after_prefix(prefix));
        if from >= to {
            return Next::Answers(Ok(Outcome::Records(std::mem::take(&mut scan.found))));
        }
        Next::Asks(Request::ScanRecords { log: self.op.log(), from, to, records_max: scan.asked })
    }

    fn take_records(&mut self, records: Vec<(Bytes, Option<Bytes>)>) -> Option<Outcome> {
        let Op::ScanRecords { records_max, .. } = &self.op else {
            return Some(Outcome::Record(records.into_iter().next().and_then(|(_, value)| value)));
        };
        let Stage::Records(scan) = &mut self.stage else { return None };
        let is_last = records.len() < scan.asked as usize;
        if let Some((last, _)) = records.last() {
            scan.from = [last, &b"\0"[..]].concat().into();
        }
        let missing = (*records_max as usize).saturating_sub(scan.found.len());
        let alive = records.into_iter().filter_map(|(key, value)| Some((key, value?)));
        scan.found.extend(alive.take(missing));
        let is_over = is_last || scan.found.len() >= *records_max as usize;
        is_over.then(|| Outcome::Records(std::mem::take(&mut scan.found)))
    }

    /// What the rows come to that were read.
    fn outcome(&mut self, known: &Known, epoch: u32) -> Outcome {
        let (checkpoint, rows) = match std::mem::replace(&mut self.stage, Stage::New) {
            Stage::Tail(checkpoint, walk) => (checkpoint, walk.into_rows()),
            Stage::Page(walk) | Stage::Stored(walk) => (None, walk.into_rows()),
            Stage::New | Stage::Head | Stage::Time(_) | Stage::Index | Stage::Records(_) => (None, Vec::new()),
        };
        match &self.op {
            Op::Load { .. } => loaded(known, epoch, checkpoint, rows),
            Op::FindDuplicate { sender, client_message_id, .. } => {
                let is_it =
                    |row: &Row| row.sender() == sender.as_str() && row.client_message_id() == *client_message_id;
                Outcome::Row(rows.into_iter().next().filter(is_it))
            }
            _ => Outcome::Rows(rows),
        }
    }
}

/// The answer to a load.
pub(crate) fn loaded(known: &Known, epoch: u32, checkpoint: Option<(u64, Bytes)>, tail: Vec<Row>) -> Outcome {
    // The log may have grown since its tail was read; the answer is one moment's.
    let described = checkpoint.as_ref().map_or(0, |(through, _)| *through);
    let head = tail.last().map_or(described.max(known.floor - 1), Row::seq);
    Outcome::Loaded(Loaded { epoch, floor: known.floor, head, checkpoint, tail })
}

/// Finds a row that may have fallen below the floor meanwhile.
fn stored_at(seq: u64, known: &Known) -> Walk {
    if seq < known.floor { Walk::all(0, 0) } else { Walk::all(seq, seq + 1) }
}

/// The first key after all that begin with `prefix`.
fn after_prefix(prefix: &Bytes) -> Bytes {
    let mut key = prefix.to_vec();
    while key.last() == Some(&u8::MAX) {
        key.pop();
    }
    match key.last_mut() {
        Some(last) => *last += 1,
        None => return Bytes::from_static(&AFTER_EVERY_KEY),
    }
    key.into()
}
