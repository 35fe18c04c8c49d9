//! FETCH at the log's owner: rows from memory if they are there, else from the store.
//!
//! Invariant: a page's upper bound is fixed when the request is authorized, so a read that completes after a removal
//! holds nothing from behind it.

use antiphon_protocol::{Class, ErrorCode, FrameType, LogKey, Row, control, frames::Page, limits::PAGE_ROWS_MAX};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};

use super::{Contents, Log, Purpose, State, answer};
use crate::{
    effects::Effects,
    limits::PAGE_BYTES_TARGET,
    refusal::Refusal,
    shard_message::{Origin, Request, ShardMessage},
};

/// A page that the store is reading.
#[derive(Debug)]
pub(crate) struct PageRequest {
    origin: Origin,
    range: ReadRows,
    head: u64,
    floor: u64,
    epoch: u32,
}

impl Log {
    pub(super) fn fetch_events(&mut self, fx: &mut Effects, request: &Request, fetch: &control::Fetch) {
        let key = self.key;
        let (contents, floor) = match self.readable(request, FrameType::Fetch) {
            Ok(readable) => readable,
            Err(refusal) => return self.refuse(fx, request, &refusal),
        };
        let (head, epoch) = (contents.head, contents.epoch);
        let page = PageRequest { origin: request.origin, range: range(head, floor, fetch), head, floor, epoch };
        serve(fx, key, contents, page);
    }

    pub(super) fn page_read(&mut self, fx: &mut Effects, mut page: PageRequest, result: Result<Outcome, StoreError>) {
        if let State::Ready(contents) = &self.state {
            page.raise_floor(contents.floor());
        }
        let rows = match result {
            Ok(Outcome::Rows(rows)) => rows,
            Ok(_) => Vec::new(),
            Err(error) => {
                let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
                return refuse(fx, &page, &refusal);
            }
        };
        let is_found = !rows.is_empty();
        let mut rows: Vec<Row> = rows.into_iter().filter(|row| row.seq() >= page.range.from).collect();
        if let State::Ready(contents) = &self.state {
            match (rows.is_empty() && page.range.from < page.range.to, is_found) {
                // Retention has passed all that this one read returned: what is left of the range lies behind.
                (true, true) => return serve(fx, self.key, contents, page),
                // Damage is said aloud.
                (true, false) => {
                    let refusal = Refusal::new(ErrorCode::StoreDegraded, "rows that should exist were not found");
                    return refuse(fx, &page, &refusal);
                }
                (false, _) => rows = rows.into_iter().map(|row| contents.redactions.apply(row)).collect(),
            }
        }
        deliver(fx, &page, rows);
    }
}

/// Answers from memory, or asks the store.
fn serve(fx: &mut Effects, log: LogKey, contents: &Contents, page: PageRequest) {
    if page.range.from >= page.range.to {
        deliver(fx, &page, Vec::new());
    } else if let Some(rows) = from_tail(contents, &page.range) {
        deliver(fx, &page, rows);
    } else {
        fx.store(Op::Read { log, range: page.range }, Purpose::Page(page));
    }
}

fn refuse(fx: &mut Effects, page: &PageRequest, refusal: &Refusal) {
    fx.refused(refusal.code);
    answer(fx, page.origin, refusal.to_frame(page.origin.request_id));
}

impl PageRequest {
    /// The floor may have risen while the rows were read.
    fn raise_floor(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.range.from = self.range.from.max(self.floor);
    }
}

/// What is wanted of the positions from the reader's floor to the head.
pub(super) fn range(head: u64, floor: u64, fetch: &control::Fetch) -> ReadRows {
    let end = head + 1;
    ReadRows {
        from: fetch.from.max(floor),
        to: if fetch.to == 0 { end } else { fetch.to.min(end) },
        direction: if fetch.backward { Direction::Backward } else { Direction::Forward },
        rows_max: if fetch.limit == 0 { PAGE_ROWS_MAX } else { fetch.limit.min(PAGE_ROWS_MAX) },
        bytes_max: PAGE_BYTES_TARGET,
    }
}

/// The page, if memory holds every row that it may need.
pub(super) fn from_tail(contents: &Contents, range: &ReadRows) -> Option<Vec<Row>> {
    let rows_max = u64::from(range.rows_max);
    let lowest = match range.direction {
        Direction::Forward => range.from,
        Direction::Backward => range.to.saturating_sub(rows_max).max(range.from),
    };
    let count = (range.to - lowest) as usize;
    let rows = contents.tail.since(lowest)?.take(count);
    let mut rows: Vec<Row> = rows.cloned().collect();
    if range.direction == Direction::Backward {
        rows.reverse();
    }
    rows.truncate(range.rows_max as usize);
    let mut bytes = 0;
    let fitting = rows.iter().take_while(|row| {
        bytes += row.bytes().len();
        bytes <= range.bytes_max
    });
    let fitting = fitting.count().max(1);
    rows.truncate(fitting);
    Some(rows)
}

fn deliver(fx: &mut Effects, page: &PageRequest, rows: Vec<Row>) {
    let next = match (rows.last().map(Row::seq), page.range.direction) {
        (Some(last), Direction::Forward) if last + 1 < page.range.to => last + 1,
        (Some(last), Direction::Backward) if last > page.range.from => last,
        _ => 0,
    };
    fx.counters.pages += 1;
    let frame =
        Page { next, head: page.head, floor: page.floor, epoch: page.epoch, rows }.to_frame(page.origin.request_id);
    let message = ShardMessage::Answer { origin: page.origin, class: Class::Backfill, frame };
    fx.post(page.origin.shard, message);
}
