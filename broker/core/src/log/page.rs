//! FETCH at the log's owner: rows from memory if they are there, else from the store.
//!
//! Invariant: a page's upper bound is fixed when the request is authorized, so a read that completes after a removal
//! holds nothing from behind it.

use antiphon_protocol::{Class, ErrorCode, FrameType, Row, control, frames::Page, limits::PAGE_ROWS_MAX};
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
    pub(super) fn fetch(&mut self, fx: &mut Effects, request: &Request, fetch: &control::Fetch) {
        let (contents, floor) = match self.readable(request, FrameType::Fetch) {
            Ok(readable) => readable,
            Err(refusal) => return self.refuse(fx, request, &refusal),
        };
        let (head, epoch) = (contents.head, contents.epoch);
        let page = PageRequest { origin: request.origin, range: range(head, floor, fetch), head, floor, epoch };
        if page.range.from >= page.range.to {
            deliver(fx, &page, Vec::new());
        } else if let Some(rows) = from_tail(contents, &page.range) {
            deliver(fx, &page, rows);
        } else {
            fx.store(Op::Read { log: self.key, range: page.range }, Purpose::Page(page));
        }
    }

    pub(super) fn page_read(&mut self, fx: &mut Effects, mut page: PageRequest, result: Result<Outcome, StoreError>) {
        if let State::Ready(contents) = &self.state {
            page.raise_floor(contents.floor());
        }
        let rows: Vec<Row> = match result {
            Ok(Outcome::Rows(rows)) => {
                let rows = rows.into_iter().filter(|row| row.seq() >= page.range.from);
                match &self.state {
                    State::Ready(contents) => rows.map(|row| contents.redactions.apply(row)).collect(),
                    _ => rows.collect(),
                }
            }
            Ok(_) => Vec::new(),
            Err(error) => {
                fx.counters.errors += 1;
                let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
                return answer(fx, page.origin, refusal.to_frame(page.origin.request_id));
            }
        };
        // Retention may have passed the range while it was read; anything else is damage, and is said aloud.
        if rows.is_empty() && matches!(self.state, State::Ready(_)) && page.range.to > page.range.from {
            fx.counters.errors += 1;
            let refusal = Refusal::new(ErrorCode::StoreDegraded, "rows that should exist were not found");
            return answer(fx, page.origin, refusal.to_frame(page.origin.request_id));
        }
        deliver(fx, &page, rows);
    }
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
