//! Owner side of a log: gives every event its position, makes it durable, answers its sender, tells its readers.
//!
//! request -> load if needed -> authorize -> draft -> position -> `Output::Store` -> `Input::Stored` -> answer + deliver
//!
//! Invariants: positions are dense; a row is acknowledged and delivered only after its append completed; requests of
//! one log are carried out in their order of arrival; whatever changes who may do what is durable before the next
//! request is looked at. After a failed append the log is read anew, so memory never runs ahead of the store.
//! Deliberately absent: sessions and their subscriptions (see `home`), sockets, time.

mod across;
mod batch;
mod blocks;
mod change;
mod checkpoint;
mod contents;
mod conversation;
mod cursor;
mod cursors;
mod date;
mod duplicates;
mod explain;
mod inbox;
mod last_message;
mod loading;
mod message_state;
mod messages;
mod own;
mod page;
mod reader;
mod redactions;
mod relation;
mod restoring;
mod retention;
mod send;
mod send_order;
mod subscribe;
mod summary;
mod tail;
mod watch;

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{ErrorCode, FrameType, LogKey, LogName, Row, TenantId, UserId, frames};
use antiphon_storage_contract::{Completion, StoreError, Token};
use bytes::Bytes;

use across::Across;
use batch::Batches;
use blocks::Blocks;
use contents::{Answer, Contents, PendingRow, Waiter};
pub use conversation::{Conversation, Membership};
use cursors::Cursors;
pub use inbox::{Inbox, Mine};
use loading::Loading;
use messages::Gatherings;
use page::PageRequest;
use relation::Lookup;
use restoring::Restoring;
use send_order::SendOrder;

use crate::{
    authority::authorize,
    effect::Effect,
    effects::Effects,
    limits::LOG_WAITING_MAX,
    refusal::Refusal,
    routing::ShardId,
    seldom::Seldom,
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
    /// Something that a send relates to.
    LookUp(relation::Part),
    /// Where the date of a page lies.
    FindTime(Box<Request>),
    /// A page.
    Page(PageRequest),
    /// Something that a page of messages is made of.
    Gather(u64, messages::Part),
    /// What blocks a direct conversation that is being taken up.
    LoadBlocks,
    /// Whether an effect repeats a stored one.
    FindEffect(Box<Request>),
    /// A block of a direct conversation.
    Block(Box<Effect>),
    /// Entering the journal, before this request.
    Journaled(Box<Request>),
    /// Leaving the journal.
    Struck,
    /// The journal of a partition; the shard's own business.
    Journal(u8),
    /// The row that a cursor moves to.
    FindCursor(Box<Request>),
    /// Cursors.
    SaveCursors(cursors::Saving),
    /// The event that a question is about.
    Explain(Box<Request>),
    /// The row that was redacted: to be read first, or rewritten.
    Redact { seq: u64, is_read: bool },
    /// A record of a message that rows behind the checkpoint concern.
    RestoreState(Bytes),
    /// Records of messages.
    SaveStates,
    /// A checkpoint. At most the retention waits for it; the next one describes more.
    Checkpoint,
    /// Something that rows which are too old are removed with.
    Expire,
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
    /// For rows that are too old to be removed.
    Expiry,
}

#[derive(Debug)]
enum State {
    Loading(Loading),
    Restoring(Box<Restoring>),
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
    tenant: TenantId,
    handle: u32,
    /// Granted subscriptions by shard.
    interest: BTreeMap<ShardId, u32>,
    waiting: VecDeque<Box<Request>>,
    stall: Option<Stall>,
    order: Seldom<SendOrder>,
    batches: Seldom<Batches>,
    /// The related send that the log waits for.
    looking_up: Option<(Box<Request>, Box<Lookup>)>,
    /// Pages of messages that are being put together.
    gatherings: Seldom<Gatherings>,
    /// Cursors as they were when an append failed; some may not be saved yet.
    cursors: Seldom<Cursors>,
    /// Last position that live readers were told when an append failed.
    told: Option<u64>,
    /// Who blocked whom, in a direct conversation.
    blocks: Seldom<Blocks>,
    /// What is owed to other logs.
    across: Seldom<Across>,
    /// Rows that were read and may owe something that was not noted yet.
    unsettled: Vec<Row>,
    state: State,
}

/// What carrying out a request came to.
enum Flow {
    /// Answered, or will be when the store completes.
    Done,
    /// Later requests have to wait.
    Stalled(Stall),
}

/// Which log, and its handle.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) tenant: TenantId,
    pub(crate) name: LogName,
    pub(crate) key: LogKey,
    pub(crate) handle: u32,
}

impl Log {
    /// A log that is about to be loaded. `handle` is never reused within a boot. `is_journaled`: it may owe something.
    pub(crate) fn load(fx: &mut Effects, place: Place, is_journaled: bool) -> Self {
        let Place { tenant, name, key, handle } = place;
        let mut log = Self {
            key,
            name,
            tenant,
            handle,
            interest: BTreeMap::new(),
            waiting: VecDeque::new(),
            stall: None,
            order: Seldom::default(),
            batches: Seldom::default(),
            looking_up: None,
            gatherings: Seldom::default(),
            cursors: Seldom::default(),
            told: None,
            blocks: Seldom::default(),
            across: Across::new(is_journaled).into(),
            unsettled: Vec::new(),
            state: State::Failing { outstanding: 0 },
        };
        log.reload(fx);
        log
    }

    /// Carries a request out, or lets it wait its turn.
    pub(crate) fn request(&mut self, fx: &mut Effects, request: Box<Request>) {
        if self.waiting.len() >= LOG_WAITING_MAX {
            let refusal = Refusal::new(ErrorCode::Overloaded, "too many requests wait for this log");
            self.refuse(fx, &request, &refusal);
            return;
        }
        if matches!(request.operation, Operation::SendBatch(_) | Operation::Import(_)) {
            return self.queue_batch(fx, request);
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
            Operation::Send(_) | Operation::Record(..) => self.send(fx, request),
            // Its records wait in its place.
            Operation::SendBatch(_) | Operation::Import(_) => Flow::Done,
            Operation::Unreadable { code, ref error, .. } => {
                let error = error.clone();
                self.refuse_unreadable(fx, &request, code, error);
                Flow::Done
            }
            Operation::Subscribe { start, inline_bytes_max } => {
                self.subscribe(fx, &request, start, inline_bytes_max);
                Flow::Done
            }
            Operation::Fetch(_) | Operation::FetchMessages { .. } => {
                self.fetch(fx, request);
                Flow::Done
            }
            Operation::FindHidden(_) => {
                self.find_hidden(fx, request);
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
            Operation::Own(_) => self.change_own(fx, request),
            Operation::Effect(_) => self.receive(fx, request),
            Operation::Register(_) => {
                self.register(fx, request);
                Flow::Done
            }
            Operation::List(_) => {
                self.list(fx, &request);
                Flow::Done
            }
            Operation::Summarize { .. } => {
                self.summarize(fx, &request);
                Flow::Done
            }
            Operation::SetPresence(_) => {
                self.set_presence(fx, &request);
                Flow::Done
            }
            Operation::Watch { .. } => {
                self.watch(fx, &request);
                Flow::Done
            }
            Operation::Watched(_) => {
                self.watched(fx, request);
                Flow::Done
            }
            Operation::Explain(_) => {
                self.explain(fx, request);
                Flow::Done
            }
            Operation::ExplainUser(_) => {
                self.explain_user(fx, request);
                Flow::Done
            }
            // It is taken up by now.
            Operation::TakeUp => Flow::Done,
        }
    }

    /// Takes in an answer of the store.
    pub(crate) fn stored(&mut self, fx: &mut Effects, purpose: Purpose, completion: Completion) {
        match (purpose, completion.result) {
            (Purpose::Load | Purpose::LoadCursors | Purpose::LoadBlocks, result) => {
                self.load_answered(fx, completion.token, result)
            }
            (Purpose::FindEffect(request), result) => self.effect_found(fx, request, result),
            (Purpose::Block(effect), result) => self.block_stored(fx, &effect, result.is_ok()),
            (Purpose::Journaled(request), result) => self.journaled(fx, request, result.map(|_| ())),
            (Purpose::Append, result) => self.appended(fx, completion.token, result.map(|_| ())),
            (Purpose::FindDuplicate(request), result) => self.duplicate_found(fx, request, result),
            (Purpose::LookUp(part), result) => self.looked_up(fx, part, result),
            (Purpose::FindTime(request), result) => self.time_found(fx, request, result),
            (Purpose::Page(page), result) => self.page_read(fx, page, result),
            (Purpose::Gather(page, part), result) => self.gathered(fx, page, part, result),
            (Purpose::RestoreState(key), result) => self.state_restored(fx, completion.token, key, result),
            (Purpose::SaveStates, result) => {
                if let State::Ready(contents) = &mut self.state {
                    contents.messages.saved(completion.token, result.is_ok());
                }
            }
            (Purpose::FindCursor(request), result) => self.cursor_found(fx, &request, result),
            (Purpose::Explain(request), result) => self.explain_read(fx, *request, result),
            (Purpose::SaveCursors(saving), result) => {
                let cursors = match &mut self.state {
                    State::Ready(contents) => &mut contents.cursors,
                    State::Restoring(restoring) => &mut restoring.contents.cursors,
                    State::Loading(_) | State::Failing { .. } => &mut self.cursors,
                };
                match result {
                    Ok(_) => cursors.saved(&saving),
                    Err(_) => cursors.save_again(saving),
                }
            }
            (Purpose::Redact { seq, is_read }, result) => self.redacted(fx, seq, is_read, result),
            (Purpose::Checkpoint | Purpose::Expire, result) => self.expiry_answered(fx, completion.token, result),
            (Purpose::Struck | Purpose::Journal(_), _) => {}
        }
    }

    /// Sends a durable event to every shard with live readers.
    fn tell_event(&self, fx: &mut Effects, frame: &Bytes, row: &Row) {
        for shard in self.interest.keys() {
            fx.post(*shard, ShardMessage::Deliver { handle: self.handle, seq: row.seq(), frame: frame.clone() });
        }
        change::detach(fx, self.handle, &self.interest, row);
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
                    contents.messages.save(fx, self.key);
                    contents.redactions.submit(fx, self.key);
                    contents.checkpoint(fx, self.key, &self.across, false);
                    let is_over = match self.stall {
                        Some(Stall::Durable(seq)) => contents.head >= seq,
                        Some(Stall::Room) => contents.has_room(),
                        Some(Stall::Store | Stall::Expiry) | None => false,
                    };
                    if is_over {
                        self.stall = None;
                    }
                }
                self.expire(fx);
                self.leave_journal(fx);
                self.drain(fx);
            }
            (State::Ready(_), Err(error)) => self.fail(fx, &error),
            (State::Failing { outstanding }, _) => {
                *outstanding = outstanding.saturating_sub(1);
                if *outstanding == 0 {
                    self.reload(fx);
                }
            }
            (State::Loading(_) | State::Restoring(_), _) => {}
        }
    }

    /// A row is durable: carries out what depends on it, answers, delivers.
    fn commit(&mut self, fx: &mut Effects, pending: PendingRow) {
        let State::Ready(contents) = &mut self.state else { return };
        if let Some(related) = pending.related {
            contents.change(related);
        }
        for waiter in &pending.waiters {
            let State::Ready(contents) = &self.state else { return };
            match waiter.answer {
                Answer::Ack { duplicate } => {
                    let ack = contents.ack(&pending.row, duplicate);
                    self.acknowledge(fx, waiter.origin, waiter.record, &ack);
                }
                Answer::Done => answer(fx, waiter.origin, own::done(waiter.origin.request_id)),
                Answer::Effect { source, seq } => across::report(fx, source, &self.name, seq, true),
                Answer::Conversation { created } => {
                    let body = change::describe(&self.name, contents, created);
                    answer(fx, waiter.origin, frames::control(FrameType::Ok, waiter.origin.request_id, &body));
                }
            }
        }
        self.tell_event(fx, &pending.frame, &pending.row);
        self.tell_users(fx, &pending.row);
        self.owe_for(fx, &pending.row);
    }

    /// An append failed: refuses everything that is not durable and reads the log anew.
    fn fail(&mut self, fx: &mut Effects, error: &StoreError) {
        let refusal = Refusal::from(error);
        let State::Ready(mut contents) = std::mem::replace(&mut self.state, State::Failing { outstanding: 0 }) else {
            return;
        };
        self.cursors = std::mem::take(&mut contents.cursors);
        self.told = Some(contents.head);
        let (rows, outstanding) = contents.into_failed();
        for waiter in rows.iter().flat_map(|pending| &pending.waiters) {
            match waiter.answer {
                Answer::Effect { source, seq } => across::report(fx, source, &self.name, seq, false),
                _ => self.refuse_send(fx, waiter.origin, (waiter.dseq, waiter.record), &refusal),
            }
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

    /// Whether there is something for [`write_behind`](Self::write_behind).
    pub(crate) fn owes_writes(&self) -> bool {
        matches!(&self.state, State::Ready(contents) if contents.owes_writes())
    }

    /// Saves cursors that moved, and asks again for what the store did not do.
    pub(crate) fn write_behind(&mut self, fx: &mut Effects) {
        let State::Ready(contents) = &mut self.state else { return };
        contents.write_cursors_behind(fx, self.key);
        contents.redactions.submit(fx, self.key);
        contents.messages.save(fx, self.key);
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

    /// Whether nobody listens, nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        let is_settled = match &self.state {
            State::Ready(contents) => contents.is_idle(),
            State::Failing { outstanding } => *outstanding == 0 && !self.cursors.has_unsaved(),
            State::Loading(_) | State::Restoring(_) => false,
        };
        is_settled
            && self.across.is_settled()
            && self.interest.is_empty()
            && self.waiting.is_empty()
            && self.stall.is_none()
            && self.batches.is_empty()
    }

    /// Writes what a later load would otherwise have to read.
    pub(crate) fn checkpoint(&mut self, fx: &mut Effects) {
        if let State::Ready(contents) = &mut self.state {
            contents.checkpoint(fx, self.key, &self.across, true);
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
        if self.refuse_internal(fx, request, refusal) {
            return;
        }
        // A signal has no answer.
        if matches!(request.operation, Operation::Signal(_)) {
            fx.refused(refusal.code);
            return;
        }
        let record = request.operation.send().and_then(|(_, record)| record);
        self.refuse_send(fx, request.origin, (request.operation.dseq(), record), refusal);
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
    let message = ShardMessage::Answer { origin, class: antiphon_protocol::Class::Control, frame };
    fx.post(origin.shard, message);
}
