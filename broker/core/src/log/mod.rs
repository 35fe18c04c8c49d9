//! Owner side of a log: gives every event its position, makes it durable, answers its sender, tells its readers.
//!
//! request -> load if needed -> authorize -> draft -> position -> `Output::Store` -> `Input::Stored` -> answer + deliver
//!
//! Invariants: positions are dense; a row is acknowledged and delivered only after its append completed; requests of
//! one log are carried out in their order of arrival; whatever changes who may do what is durable before the next
//! request is looked at. After a failed append the log is read anew, so memory never runs ahead of the store.
//! Deliberately absent: sessions and their subscriptions (see `home`), sockets, time.

mod change;
mod checkpoint;
mod contents;
mod conversation;
mod cursor;
mod cursors;
mod duplicates;
mod page;
mod send;
mod send_order;
mod subscribe;
mod tail;

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{ErrorCode, FrameType, LogKey, LogName, Row, UserId, frames};
use antiphon_storage_contract::{Completion, Loaded, Op, Outcome, StoreError, Token};
use bytes::Bytes;

use contents::{Answer, Contents, PendingRow, Waiter};
pub use conversation::{Conversation, Membership};
use page::PageRequest;
use send_order::SendOrder;

use crate::{
    authority::authorize,
    effects::Effects,
    limits::{LOG_WAITING_MAX, MEMBERS_LOADED_CURSORS_MAX},
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Attached, Operation, Origin, Request, ShardMessage},
};

/// What a completion of the store is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// Taking the log up.
    Load,
    /// The cursors of a log that is being taken up.
    LoadCursors,
    /// Rows.
    Append,
    /// Whether a send repeats a stored one.
    FindDuplicate(Box<Request>),
    /// The row that a send relates to.
    FindTarget(Box<Request>, Box<send::Admitted>),
    /// A page.
    Page(PageRequest),
    /// The row that a cursor moves to.
    FindCursor(Box<Request>),
    /// Something that can be derived again; nobody waits for it.
    Projection,
}

/// Why a log's requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stall {
    /// For this row to be durable, because it changes who may do what.
    Durable(u64),
    /// For an answer of the store.
    Store,
    /// For rows in flight to become fewer.
    Room,
}

#[derive(Debug)]
enum State {
    Loading {
        loaded: Option<Loaded>,
        cursors: Option<Vec<(Bytes, Bytes)>>,
    },
    Ready(Box<Contents>),
    /// An append failed; the ones behind it fail too. Then the log is read anew.
    Failing {
        outstanding: usize,
    },
}

/// A log in memory: who listens, who waits, and its contents once they are loaded.
#[derive(Debug)]
pub(crate) struct Log {
    key: LogKey,
    name: LogName,
    handle: u32,
    /// Granted subscriptions by shard.
    interest: BTreeMap<ShardId, u32>,
    waiting: VecDeque<Box<Request>>,
    stall: Option<Stall>,
    order: SendOrder,
    state: State,
}

/// What carrying out a request came to.
enum Flow {
    /// Answered, or will be when the store completes.
    Done,
    /// Later requests have to wait.
    Stalled(Stall),
}

impl Log {
    /// A log that is about to be loaded. `handle` is never reused within a boot.
    pub(crate) fn load(fx: &mut Effects, key: LogKey, name: LogName, handle: u32) -> Self {
        let mut log = Self {
            key,
            name,
            handle,
            interest: BTreeMap::new(),
            waiting: VecDeque::new(),
            stall: None,
            order: SendOrder::default(),
            state: State::Loading { loaded: None, cursors: None },
        };
        log.reload(fx);
        log
    }

    fn reload(&mut self, fx: &mut Effects) {
        self.state = State::Loading { loaded: None, cursors: None };
        // A send that waits for the store keeps its place before later ones.
        self.stall = self.stall.filter(|stall| *stall == Stall::Store);
        fx.store(Op::Load { log: self.key }, Purpose::Load);
        let cursors = Op::ScanRecords {
            log: self.key,
            prefix: Bytes::from_static(cursors::RECORD_PREFIX),
            after: None,
            records_max: MEMBERS_LOADED_CURSORS_MAX,
        };
        fx.store(cursors, Purpose::LoadCursors);
    }

    /// Carries a request out, or lets it wait its turn.
    pub(crate) fn request(&mut self, fx: &mut Effects, request: Box<Request>) {
        if self.waiting.len() >= LOG_WAITING_MAX {
            let refusal = Refusal::new(ErrorCode::Overloaded, "too many requests wait for this log");
            self.refuse(fx, &request, &refusal);
            return;
        }
        self.waiting.push_back(request);
        self.drain(fx);
    }

    /// Carries out what waits, until something has to wait again.
    fn drain(&mut self, fx: &mut Effects) {
        while self.stall.is_none() && matches!(self.state, State::Ready(_)) {
            let Some(request) = self.waiting.pop_front() else { return };
            if let Flow::Stalled(stall) = self.execute(fx, request) {
                self.stall = Some(stall);
            }
        }
    }

    fn execute(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        match request.operation {
            Operation::Send(_) => self.send(fx, request),
            Operation::Subscribe { start, inline_bytes_max } => {
                self.subscribe(fx, &request, start, inline_bytes_max);
                Flow::Done
            }
            Operation::Fetch(ref fetch) => {
                let fetch = fetch.clone();
                self.fetch(fx, &request, &fetch);
                Flow::Done
            }
            Operation::Cursor(_) => {
                self.move_cursor(fx, request);
                Flow::Done
            }
            Operation::Signal(_) => {
                self.signal(fx, &request);
                Flow::Done
            }
            Operation::Get => {
                self.get(fx, &request);
                Flow::Done
            }
            Operation::Change(_) => self.change(fx, request),
        }
    }

    /// Takes in an answer of the store.
    pub(crate) fn stored(&mut self, fx: &mut Effects, purpose: Purpose, completion: Completion) {
        match (purpose, completion.result) {
            (Purpose::Load, Ok(Outcome::Loaded(found))) => self.loaded(fx, Some(found), None),
            (Purpose::LoadCursors, Ok(Outcome::Records(found))) => self.loaded(fx, None, Some(found)),
            (Purpose::Load | Purpose::LoadCursors, result) => self.load_failed(fx, result.err()),
            (Purpose::Append, result) => self.appended(fx, completion.token, result.map(|_| ())),
            (Purpose::FindDuplicate(request), result) => self.duplicate_found(fx, request, result),
            (Purpose::FindTarget(request, admitted), result) => self.target_found(fx, request, *admitted, result),
            (Purpose::Page(page), result) => self.page_read(fx, &page, result),
            (Purpose::FindCursor(request), result) => self.cursor_found(fx, &request, result),
            (Purpose::Projection, _) => {}
        }
    }

    fn loaded(&mut self, fx: &mut Effects, found: Option<Loaded>, found_cursors: Option<Vec<(Bytes, Bytes)>>) {
        let State::Loading { loaded, cursors } = &mut self.state else { return };
        *loaded = found.or(loaded.take());
        *cursors = found_cursors.or(cursors.take());
        let (Some(_), Some(records)) = (&loaded, &cursors) else { return };
        let records = records.clone();
        let Some(loaded) = loaded.take() else { return };
        // The tail may end in redactions whose rewrite was lost with the process; they are written again.
        let redactions: Vec<Row> = loaded.tail.iter().filter(|row| send::is_redaction(row)).cloned().collect();
        let Ok(mut contents) = Contents::new(loaded) else {
            self.load_failed(fx, Some(StoreError::Degraded("the checkpoint cannot be read".into())));
            return;
        };
        contents.cursors.restore(&records);
        send::repair_redactions(fx, self.key, &mut contents, &redactions);
        self.state = State::Ready(Box::new(contents));
        self.drain(fx);
    }

    /// Refuses what waits; the next request tries again.
    fn load_failed(&mut self, fx: &mut Effects, error: Option<StoreError>) {
        if !matches!(self.state, State::Loading { .. }) {
            return;
        }
        let error = error.unwrap_or_else(|| StoreError::Misuse("wrong answer".into()));
        let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
        for request in std::mem::take(&mut self.waiting) {
            self.refuse(fx, &request, &refusal);
        }
        self.state = State::Failing { outstanding: 0 };
    }

    fn appended(&mut self, fx: &mut Effects, token: Token, result: Result<(), StoreError>) {
        match (&mut self.state, result) {
            (State::Ready(contents), Ok(())) => {
                let rows = contents.committed(token, fx.now.unix_ms());
                fx.counters.appends += rows.len() as u64;
                for pending in rows {
                    self.commit(fx, pending);
                }
                if let State::Ready(contents) = &mut self.state {
                    contents.checkpoint(fx, self.key, false);
                    let is_over = match self.stall {
                        Some(Stall::Durable(seq)) => contents.head >= seq,
                        Some(Stall::Room) => contents.has_room(),
                        Some(Stall::Store) | None => false,
                    };
                    if is_over {
                        self.stall = None;
                    }
                }
                self.drain(fx);
            }
            (State::Ready(_), Err(error)) => self.fail(fx, &error),
            (State::Failing { outstanding }, _) => {
                *outstanding = outstanding.saturating_sub(1);
                if *outstanding == 0 {
                    self.reload(fx);
                }
            }
            (State::Loading { .. }, _) => {}
        }
    }

    /// A row is durable: carries out what depends on it, answers, delivers.
    fn commit(&mut self, fx: &mut Effects, pending: PendingRow) {
        let State::Ready(contents) = &mut self.state else { return };
        if let Some(target) = pending.redacts {
            let redacted = target.redacted();
            contents.tail.replace(redacted.clone());
            fx.store(Op::Rewrite { log: self.key, row: redacted }, Purpose::Projection);
        }
        for waiter in &pending.waiters {
            let frame = match waiter.answer {
                Answer::Ack { duplicate } => contents.ack(&pending.row, duplicate).to_frame(waiter.origin.request_id),
                Answer::Conversation { created } => {
                    let body = change::describe(&self.name, contents, created);
                    frames::control(FrameType::Ok, waiter.origin.request_id, &body)
                }
            };
            answer(fx, waiter.origin, frame);
        }
        let seq = pending.row.seq();
        for shard in self.interest.keys() {
            let frame = pending.frame.clone();
            fx.post(*shard, ShardMessage::Deliver { handle: self.handle, seq, frame });
        }
        change::detach(fx, self.handle, &self.interest, &pending.row);
    }

    /// An append failed: refuses everything that is not durable and reads the log anew.
    fn fail(&mut self, fx: &mut Effects, error: &StoreError) {
        let refusal = Refusal::from(error);
        let State::Ready(contents) = std::mem::replace(&mut self.state, State::Failing { outstanding: 0 }) else {
            return;
        };
        let (rows, outstanding) = contents.into_failed();
        for waiter in rows.iter().flat_map(|pending| &pending.waiters) {
            self.order.expect(sender(waiter.origin), waiter.dseq);
            fx.counters.errors += 1;
            answer(fx, waiter.origin, refusal.to_frame(waiter.origin.request_id));
        }
        match outstanding {
            0 => self.reload(fx),
            _ => self.state = State::Failing { outstanding },
        }
    }

    /// Submits what was appended in this turn.
    pub(crate) fn end_turn(&mut self, fx: &mut Effects) {
        if let State::Ready(contents) = &mut self.state {
            contents.submit(fx, self.key);
        }
    }

    /// Saves cursors that moved.
    pub(crate) fn save_cursors(&mut self, fx: &mut Effects) {
        if let State::Ready(contents) = &mut self.state
            && contents.cursors.has_unsaved()
        {
            let records = contents.cursors.take_unsaved();
            fx.store(Op::PutRecords { log: self.key, records }, Purpose::Projection);
        }
    }

    /// Subscriptions of a shard ended.
    pub(crate) fn release(&mut self, shard: ShardId, count: u32) {
        if let Some(granted) = self.interest.get_mut(&shard) {
            *granted = granted.saturating_sub(count);
            if *granted == 0 {
                self.interest.remove(&shard);
            }
        }
    }

    /// Whether a load failed, so that the next request has to load again.
    pub(crate) fn is_unloaded(&self) -> bool {
        matches!(self.state, State::Failing { outstanding: 0 })
    }

    /// Starts another load after a failed one.
    pub(crate) fn load_again(&mut self, fx: &mut Effects) {
        self.reload(fx);
    }

    /// Whether nobody listens, nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        let is_settled = match &self.state {
            State::Ready(contents) => contents.is_idle() && !contents.cursors.has_unsaved(),
            State::Failing { outstanding } => *outstanding == 0,
            State::Loading { .. } => false,
        };
        is_settled && self.interest.is_empty() && self.waiting.is_empty() && self.stall.is_none()
    }

    /// Writes what a later load would otherwise have to read.
    pub(crate) fn before_eviction(&mut self, fx: &mut Effects) {
        if let State::Ready(contents) = &mut self.state {
            contents.checkpoint(fx, self.key, true);
        }
    }

    /// The contents, once a request on them is allowed.
    fn allowed(&mut self, request: &Request, frame_type: FrameType, user: &UserId) -> Result<&mut Contents, Refusal> {
        let State::Ready(contents) = &mut self.state else {
            return Err(Refusal::new(ErrorCode::Overloaded, "the log is being read"));
        };
        authorize(frame_type.authority(), &request.actor, user, &self.name, &contents.conversation)?;
        Ok(contents)
    }

    /// Answers with an error. A send that is refused for good is consumed.
    fn refuse(&mut self, fx: &mut Effects, request: &Request, refusal: &Refusal) {
        if let Operation::Send(send) = &request.operation {
            let from = sender(request.origin);
            if refusal.is_transient() {
                self.order.expect(from, send.dseq)
            } else {
                self.order.consume(from, send.dseq)
            }
        }
        fx.counters.errors += 1;
        answer(fx, request.origin, refusal.to_frame(request.origin.request_id));
    }

    fn attached(&mut self, fx: &mut Effects, attached: Attached) {
        let shard = attached.origin.shard;
        *self.interest.entry(shard).or_default() += 1;
        fx.post(shard, ShardMessage::Attached(Box::new(attached)));
    }
}

fn sender(origin: Origin) -> send_order::Sender {
    (origin.shard, origin.connection)
}

/// Sends the answer to a request back to where it came from.
fn answer(fx: &mut Effects, origin: Origin, frame: Bytes) {
    let message =
        ShardMessage::Answer { connection: origin.connection, class: antiphon_protocol::Class::Control, frame };
    fx.post(origin.shard, message);
}
