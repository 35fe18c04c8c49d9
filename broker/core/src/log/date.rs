//! FETCH at a date, at the log's owner: first the position of the date, then a page like any other.
//!
//! ```text
//! request -> allowed? -> where the date lies: memory, else the store -> the same request by positions, from the beginning
//! ```
//!
//! Invariant: nothing is decided before the position is known but that the request is allowed to look for it. It waits its
//! turn anew then, is authorized anew, and its page ends at the head of that moment: a reader who was removed meanwhile is
//! refused, as if the request had come just then.

use antiphon_protocol::{FrameType, control};
use antiphon_storage_contract::{Op, Outcome, StoreError};

use super::{Contents, Log, Purpose};
use crate::{
    effects::Effects,
    refusal::Refusal,
    shard_message::{Operation, Request},
};

impl Log {
    /// Answers a FETCH of either view.
    pub(super) fn fetch(&mut self, fx: &mut Effects, mut request: Box<Request>) {
        let Some(at_ms) = fetch_of(&mut request).map(|fetch| fetch.at_ms) else { return };
        if at_ms == 0 {
            return self.fetch_page(fx, &request);
        }
        let found = match self.readable(&request, FrameType::Fetch) {
            Ok((contents, _)) => contents.find_time(at_ms),
            Err(refusal) => return self.refuse(fx, &request, &refusal),
        };
        match found {
            Some(seq) => {
                turn_to_positions(&mut request, seq);
                self.fetch_page(fx, &request);
            }
            None => {
                fx.store(Op::FindTime { log: self.key, at_ms }, Purpose::FindTime(request));
            }
        }
    }

    fn fetch_page(&mut self, fx: &mut Effects, request: &Request) {
        match &request.operation {
            Operation::Fetch(fetch) => self.fetch_events(fx, request, fetch),
            _ => self.fetch_messages(fx, request),
        }
    }

    /// The store knows where the date lies, or failed.
    pub(super) fn time_found(
        &mut self,
        fx: &mut Effects,
        mut request: Box<Request>,
        result: Result<Outcome, StoreError>,
    ) {
        match result {
            Ok(Outcome::Position(seq)) => {
                turn_to_positions(&mut request, seq);
                self.request(fx, request);
            }
            Ok(_) => self.refuse(fx, &request, &super::send::internal()),
            Err(error) => {
                let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
                self.refuse(fx, &request, &refusal);
            }
        }
    }
}

impl Contents {
    /// Where a time lies, if the rows in memory tell.
    fn find_time(&self, at_ms: u64) -> Option<u64> {
        if self.head < self.floor() || self.head_time_ms() < at_ms {
            return Some(self.head + 1);
        }
        self.tail.find_time(at_ms, self.floor())
    }
}

fn fetch_of(request: &mut Request) -> Option<&mut control::Fetch> {
    match &mut request.operation {
        Operation::Fetch(fetch) | Operation::FetchMessages { fetch, .. } => Some(fetch),
        _ => None,
    }
}

/// Makes the range of positions out of a date that lies at `seq`.
fn turn_to_positions(request: &mut Request, seq: u64) {
    let Some(fetch) = fetch_of(request) else { return };
    fetch.at_ms = 0;
    match (fetch.backward, fetch.to) {
        (false, _) => fetch.from = fetch.from.max(seq),
        (true, 0) => fetch.to = seq,
        (true, to) => fetch.to = to.min(seq),
    }
}
