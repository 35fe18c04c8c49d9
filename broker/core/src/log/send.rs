//! SEND at the log's owner: from a request to a row on its way to disk.

use antiphon_protocol::{
    ContentType, ErrorCode, EventKind, Row, UserId, fold, frames::Send, limits::CLOCK_SKEW_MS_MAX, row::content_hash,
};
use antiphon_storage_contract::{Op, Outcome, StoreError};
use bytes::Bytes;

use super::{
    Answer, Contents, Flow, Log, Purpose, Stall, State, Waiter, answer,
    contents::Draft,
    duplicates::{Known, own_time_ms},
    relation::Lookup,
    sender,
};
use crate::{
    effects::Effects,
    refusal::Refusal,
    shard_message::{Operation, Request},
};

/// How far a send has got.
pub(super) enum Step {
    /// It is on its way to disk.
    Appended,
    /// It repeats a row that is stored or on its way.
    Repeats { seq: u64 },
    /// The store has to say whether it repeats a row.
    FindDuplicate(UserId),
    /// The store has to give what it relates to.
    LookUp(Box<Lookup>),
}

impl Log {
    pub(super) fn send(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        if let Operation::Record(_, record) = request.operation
            && self.batches.is_stopped(record)
        {
            let refusal = Refusal::new(ErrorCode::NotApplied, "an earlier record of the batch was refused");
            self.refuse(fx, &request, &refusal);
            return Flow::Done;
        }
        let step = self.admit(fx, &request);
        self.follow(fx, request, step)
    }

    /// Carries a step out.
    fn follow(&mut self, fx: &mut Effects, request: Box<Request>, step: Result<Step, Refusal>) -> Flow {
        let Some((send, _)) = request.operation.send() else { return Flow::Done };
        match step {
            Err(refusal) => self.refuse(fx, &request, &refusal),
            Ok(Step::Appended) => {
                self.order.consume(sender(request.origin), send.dseq);
                if let State::Ready(contents) = &self.state
                    && !contents.has_room()
                {
                    return Flow::Stalled(Stall::Room);
                }
            }
            Ok(Step::Repeats { seq }) => self.repeat(fx, &request, seq),
            Ok(Step::FindDuplicate(user)) => {
                let (log, client_message_id) = (self.key, send.client_message_id);
                fx.counters.duplicate_lookups += 1;
                let op = Op::FindDuplicate { log, sender: user, client_message_id };
                fx.store(op, Purpose::FindDuplicate(request));
                return Flow::Stalled(Stall::Store);
            }
            Ok(Step::LookUp(lookup)) => {
                self.look_up(fx, request, lookup);
                return Flow::Stalled(Stall::Store);
            }
        }
        Flow::Done
    }

    /// Everything that can be decided without the store, in the order in which a client can mend it.
    fn admit(&mut self, fx: &mut Effects, request: &Request) -> Result<Step, Refusal> {
        let Some((send, _)) = request.operation.send() else { return Err(internal()) };
        // First of all, so that what is refused for good has its place in the order too.
        if !self.is_in_order(request) {
            return Err(out_of_order());
        }
        let user = acting_user(request, send)?;
        let contents = self.allowed(request, request.operation.send_type(), &user)?;
        check(request, send, fx.now.unix_ms())?;
        match contents.duplicates.find(send.client_message_id, &user) {
            Known::At { seq, content_hash } => {
                check_repeats(send, content_hash)?;
                Ok(Step::Repeats { seq })
            }
            Known::New => self.append_new(fx, request, user),
            Known::Unknown => Ok(Step::FindDuplicate(user)),
        }
    }

    pub(super) fn is_in_order(&self, request: &Request) -> bool {
        self.order.admits(sender(request.origin), request.operation.dseq())
    }

    /// Answers a send that cannot be read, in its place.
    pub(super) fn refuse_unreadable(&mut self, fx: &mut Effects, request: &Request, code: ErrorCode, error: Bytes) {
        if !self.is_in_order(request) {
            return self.refuse(fx, request, &out_of_order());
        }
        self.order.consume(sender(request.origin), request.operation.dseq());
        fx.refused(code);
        answer(fx, request.origin, error);
    }

    /// Gives the event its place. `target` is the message that it changes, and whether it changes nothing after all.
    pub(super) fn append(
        &mut self,
        fx: &mut Effects,
        request: &Request,
        user: &UserId,
        target: Option<(Row, bool)>,
    ) -> Result<Step, Refusal> {
        let (Some((send, record)), State::Ready(contents)) = (request.operation.send(), &mut self.state) else {
            return Err(internal());
        };
        let draft = Draft {
            kind: send.kind,
            content_type: send.content_type,
            client_message_id: send.client_message_id,
            sender: user,
            via: (*user != request.actor.user).then_some(&request.actor.user),
            envelope: &send.envelope,
            body: &send.body,
            original_time_ms: request.operation.original_time_ms(),
        };
        let answer = Answer::Ack { duplicate: false };
        let waiter = Waiter { origin: request.origin, dseq: send.dseq, record, answer };
        contents.append(fx, self.handle, &draft, waiter);
        if let Some((target, is_unchanged)) = target {
            contents.relate(self.handle, target, is_unchanged);
        }
        Ok(Step::Appended)
    }

    /// Answers a repeated send as the first time, once that answer is true.
    fn repeat(&mut self, fx: &mut Effects, request: &Request, seq: u64) {
        let (Some((send, record)), State::Ready(contents)) = (request.operation.send(), &mut self.state) else {
            return;
        };
        fx.counters.duplicates += 1;
        self.order.consume(sender(request.origin), send.dseq);
        if seq > contents.head {
            let answer = Answer::Ack { duplicate: true };
            let waiter = Waiter { origin: request.origin, dseq: send.dseq, record, answer };
            contents.join(seq, waiter);
            return;
        }
        let user = send.act_as.as_ref().unwrap_or(&request.actor.user);
        if let Some(ack) = contents.duplicates.ack(send.client_message_id, user) {
            self.acknowledge(fx, request.origin, record, &ack);
        }
    }

    pub(super) fn duplicate_found(
        &mut self,
        fx: &mut Effects,
        request: Box<Request>,
        result: Result<Outcome, StoreError>,
    ) {
        self.stall = None;
        let step = match result {
            // An earlier send may have failed while the store looked.
            _ if !self.is_in_order(&request) => Err(out_of_order()),
            Ok(Outcome::Row(row)) => {
                let Some(row) = row.filter(|row| self.exists(row)) else {
                    let step = self.append_looked_up(fx, &request);
                    return self.resume(fx, request, step);
                };
                self.repeat_row(fx, &request, &row);
                self.drain(fx);
                return;
            }
            Ok(_) => Err(internal()),
            Err(error) => Err(Refusal { is_outcome_unknown: false, ..Refusal::from(&error) }),
        };
        self.resume(fx, request, step);
    }

    /// Whether a row that was read has not gone since.
    fn exists(&self, row: &Row) -> bool {
        !matches!(&self.state, State::Ready(contents) if row.seq() < contents.floor())
    }

    fn append_looked_up(&mut self, fx: &mut Effects, request: &Request) -> Result<Step, Refusal> {
        let Some((send, _)) = request.operation.send() else { return Err(internal()) };
        let user = acting_user(request, send)?;
        self.allowed(request, request.operation.send_type(), &user)?;
        self.append_new(fx, request, user)
    }

    fn repeat_row(&mut self, fx: &mut Effects, request: &Request, row: &Row) {
        let (Some((send, record)), State::Ready(contents)) = (request.operation.send(), &self.state) else {
            self.refuse(fx, request, &Refusal::new(ErrorCode::Overloaded, "the log is being read"));
            return;
        };
        if let Err(refusal) = check_repeats(send, row.content_hash()) {
            self.refuse(fx, request, &refusal);
            return;
        }
        let ack = contents.ack(row, true);
        fx.counters.duplicates += 1;
        self.order.consume(sender(request.origin), send.dseq);
        self.acknowledge(fx, request.origin, record, &ack);
    }

    pub(super) fn resume(&mut self, fx: &mut Effects, request: Box<Request>, step: Result<Step, Refusal>) {
        if let Flow::Stalled(stall) = self.follow(fx, request, step) {
            self.stall = Some(stall);
        }
        self.drain(fx);
    }
}

/// Rules that the send itself can break.
fn check(request: &Request, send: &Send, now_ms: u64) -> Result<(), Refusal> {
    if let Some(original_ms) = request.operation.original_time_ms() {
        check_import(send, original_ms, now_ms)?;
    }
    if !send.kind.is_client_sent() {
        return Err(Refusal::field(ErrorCode::InvalidField, "kind", "events of this kind are made by the broker"));
    }
    if send.content_type == ContentType::Text && std::str::from_utf8(&send.body).is_err() {
        return Err(Refusal::field(ErrorCode::InvalidField, "body", "a text body is UTF-8"));
    }
    match (send.client_message_id.get_version_num(), own_time_ms(send.client_message_id)) {
        (7, Some(ms)) if ms > now_ms + CLOCK_SKEW_MS_MAX => Err(Refusal::field(
            ErrorCode::ClockSkew,
            "client_message_id",
            "the id's time is more than a minute ahead; use the time of WELCOME",
        )),
        (7 | 8, _) => Ok(()),
        _ => Err(Refusal::field(ErrorCode::InvalidField, "client_message_id", "the id is a UUID of version 7 or 8")),
    }
}

/// What is imported has an id without a time: the index of recent ids goes by the time at which events are stored.
fn check_import(send: &Send, original_ms: u64, now_ms: u64) -> Result<(), Refusal> {
    if send.client_message_id.get_version_num() != 8 {
        let message = "the id of an imported event is a UUID of version 8";
        return Err(Refusal::field(ErrorCode::InvalidField, "client_message_id", message));
    }
    if original_ms > now_ms + CLOCK_SKEW_MS_MAX {
        return Err(Refusal::field(ErrorCode::ClockSkew, "time_ms", "an event that is imported has happened already"));
    }
    Ok(())
}

/// The user in whose name the event is made.
fn acting_user(request: &Request, send: &Send) -> Result<UserId, Refusal> {
    request.actor.acting_user(send.act_as.as_ref().map_or("", UserId::as_str))
}

fn check_repeats(send: &Send, stored_hash: u64) -> Result<(), Refusal> {
    if content_hash(send.kind, send.content_type, &send.envelope, &send.body) == stored_hash {
        return Ok(());
    }
    let message = "this id was used for other content; a new event needs a new id";
    Err(Refusal::field(ErrorCode::IdReused, "client_message_id", message))
}

pub(super) fn out_of_order() -> Refusal {
    Refusal::field(ErrorCode::OutOfOrder, "dseq", "an earlier send was refused; repeat it first")
}

pub(super) fn internal() -> Refusal {
    Refusal::new(ErrorCode::Internal, "the broker mixed up a request")
}

/// Notes the redactions of the newest rows, in case the process ended between the event and its effect.
pub(super) fn repair_redactions(contents: &mut Contents, rows: &[Row]) {
    let redactions = rows.iter().filter(|row| row.kind() == EventKind::REDACT);
    for seq in redactions.filter_map(fold::target) {
        let edits = contents.messages.edits(seq).to_vec();
        for seq in [seq].into_iter().chain(edits) {
            if seq >= contents.floor() && contents.tail.get(seq).is_none_or(|row| !row.is_redacted()) {
                contents.redact(seq, None);
            }
        }
    }
}
