//! SEND at the log's owner: from a request to a row on its way to disk.

use antiphon_protocol::{
    Authority, ContentType, ErrorCode, EventKind, FrameType, LogKey, Row, UserId,
    envelope::{Envelope, EventRef},
    frames::Send,
    limits::CLOCK_SKEW_MS_MAX,
    row::content_hash,
};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};

use super::{
    Answer, Contents, Flow, Log, Purpose, Stall, State, Waiter, answer,
    contents::Draft,
    duplicates::{Known, own_time_ms},
    sender,
};
use crate::{
    authority::authorize,
    effects::Effects,
    refusal::Refusal,
    shard_message::{Operation, Request},
};

/// A send that is allowed and new; what is left is the event that it relates to.
#[derive(Debug)]
pub(crate) struct Admitted {
    user: UserId,
    target: EventRef,
}

/// How far a send has got.
enum Step {
    /// It is on its way to disk.
    Appended,
    /// It repeats a row that is stored or on its way.
    Repeats { seq: u64 },
    /// The store has to say whether it repeats a row.
    FindDuplicate(UserId),
    /// The store has to give the row that it relates to.
    FindTarget(Admitted),
}

impl Log {
    pub(super) fn send(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        let step = self.admit(fx, &request);
        self.follow(fx, request, step)
    }

    /// Carries a step out.
    fn follow(&mut self, fx: &mut Effects, request: Box<Request>, step: Result<Step, Refusal>) -> Flow {
        let Operation::Send(send) = &request.operation else { return Flow::Done };
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
            Ok(Step::FindTarget(admitted)) => {
                let op = Op::Read { log: self.key, range: one_row(admitted.target.seq) };
                fx.store(op, Purpose::FindTarget(request, Box::new(admitted)));
                return Flow::Stalled(Stall::Store);
            }
        }
        Flow::Done
    }

    /// Everything that can be decided without the store, in the order in which a client can mend it.
    fn admit(&mut self, fx: &mut Effects, request: &Request) -> Result<Step, Refusal> {
        let Operation::Send(send) = &request.operation else { return Err(internal()) };
        let user = acting_user(request, send)?;
        let admits = self.order.admits(sender(request.origin), send.dseq);
        let contents = self.allowed(request, FrameType::Send, &user)?;
        check(send, fx.now.unix_ms())?;
        if !admits {
            return Err(Refusal::field(ErrorCode::OutOfOrder, "dseq", "an earlier send was refused; repeat it first"));
        }
        match contents.duplicates.find(send.client_message_id, &user) {
            Known::At { seq, content_hash } => {
                check_repeats(send, content_hash)?;
                Ok(Step::Repeats { seq })
            }
            Known::New => self.append_new(fx, request, user),
            Known::Unknown => Ok(Step::FindDuplicate(user)),
        }
    }

    /// A send that repeats nothing: finds what it relates to, then appends it.
    fn append_new(&mut self, fx: &mut Effects, request: &Request, user: UserId) -> Result<Step, Refusal> {
        let Operation::Send(send) = &request.operation else { return Err(internal()) };
        let Some(target) = target(send)? else { return self.append(fx, request, &user, None) };
        let State::Ready(contents) = &self.state else { return Err(internal()) };
        if target.seq < contents.floor || target.seq > contents.head {
            return Err(no_target());
        }
        match contents.tail.get(target.seq).cloned() {
            Some(row) => self.append_related(fx, request, &Admitted { user, target }, &row),
            None => Ok(Step::FindTarget(Admitted { user, target })),
        }
    }

    fn append_related(
        &mut self,
        fx: &mut Effects,
        request: &Request,
        admitted: &Admitted,
        row: &Row,
    ) -> Result<Step, Refusal> {
        let Operation::Send(send) = &request.operation else { return Err(internal()) };
        if row.event_id() != admitted.target.event_id || row.kind() != EventKind::MESSAGE || row.is_redacted() {
            return Err(no_target());
        }
        let is_own = row.sender() == admitted.user.as_str();
        let State::Ready(contents) = &self.state else { return Err(internal()) };
        let manages =
            || authorize(Authority::Manage, &request.actor, &admitted.user, &self.name, &contents.conversation).is_ok();
        let is_allowed = match send.kind {
            EventKind::EDIT => is_own,
            EventKind::REDACT => is_own || manages(),
            _ => true,
        };
        if !is_allowed {
            return Err(Refusal::new(ErrorCode::Forbidden, "only its author may change this message"));
        }
        let redacts = (send.kind == EventKind::REDACT).then(|| row.clone());
        self.append(fx, request, &admitted.user, redacts)
    }

    fn append(
        &mut self,
        fx: &mut Effects,
        request: &Request,
        user: &UserId,
        redacts: Option<Row>,
    ) -> Result<Step, Refusal> {
        let (Operation::Send(send), State::Ready(contents)) = (&request.operation, &mut self.state) else {
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
        };
        let waiter = Waiter { origin: request.origin, dseq: send.dseq, answer: Answer::Ack { duplicate: false } };
        contents.append(fx, self.handle, &draft, waiter);
        if let Some(target) = redacts {
            contents.redact(target);
        }
        Ok(Step::Appended)
    }

    /// Answers a repeated send as the first time, once that answer is true.
    fn repeat(&mut self, fx: &mut Effects, request: &Request, seq: u64) {
        let (Operation::Send(send), State::Ready(contents)) = (&request.operation, &mut self.state) else { return };
        fx.counters.duplicates += 1;
        self.order.consume(sender(request.origin), send.dseq);
        if seq > contents.head {
            let waiter = Waiter { origin: request.origin, dseq: send.dseq, answer: Answer::Ack { duplicate: true } };
            contents.join(seq, waiter);
            return;
        }
        let user = send.act_as.as_ref().unwrap_or(&request.actor.user);
        if let Some(ack) = contents.duplicates.ack(send.client_message_id, user) {
            answer(fx, request.origin, ack.to_frame(request.origin.request_id));
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
            Ok(Outcome::Row(None)) => self.append_looked_up(fx, &request),
            Ok(Outcome::Row(Some(row))) => {
                self.repeat_row(fx, &request, &row);
                self.drain(fx);
                return;
            }
            Ok(_) => Err(internal()),
            Err(error) => Err(Refusal { is_outcome_unknown: false, ..Refusal::from(&error) }),
        };
        self.resume(fx, request, step);
    }

    fn append_looked_up(&mut self, fx: &mut Effects, request: &Request) -> Result<Step, Refusal> {
        let Operation::Send(send) = &request.operation else { return Err(internal()) };
        let user = acting_user(request, send)?;
        self.allowed(request, FrameType::Send, &user)?;
        self.append_new(fx, request, user)
    }

    fn repeat_row(&mut self, fx: &mut Effects, request: &Request, row: &Row) {
        let (Operation::Send(send), State::Ready(contents)) = (&request.operation, &self.state) else {
            self.refuse(fx, request, &Refusal::new(ErrorCode::Overloaded, "the log is being read"));
            return;
        };
        if let Err(refusal) = check_repeats(send, row.content_hash()) {
            self.refuse(fx, request, &refusal);
            return;
        }
        let frame = contents.ack(row, true).to_frame(request.origin.request_id);
        fx.counters.duplicates += 1;
        self.order.consume(sender(request.origin), send.dseq);
        answer(fx, request.origin, frame);
    }

    pub(super) fn target_found(
        &mut self,
        fx: &mut Effects,
        request: Box<Request>,
        admitted: Admitted,
        result: Result<Outcome, StoreError>,
    ) {
        self.stall = None;
        let step = match result {
            Ok(Outcome::Rows(rows)) => match rows.first() {
                Some(row) if matches!(self.state, State::Ready(_)) => self.append_related(fx, &request, &admitted, row),
                Some(_) => Err(Refusal::new(ErrorCode::Overloaded, "the log is being read")),
                None => Err(no_target()),
            },
            Ok(_) => Err(internal()),
            Err(error) => Err(Refusal { is_outcome_unknown: false, ..Refusal::from(&error) }),
        };
        self.resume(fx, request, step);
    }

    fn resume(&mut self, fx: &mut Effects, request: Box<Request>, step: Result<Step, Refusal>) {
        if let Flow::Stalled(stall) = self.follow(fx, request, step) {
            self.stall = Some(stall);
        }
        self.drain(fx);
    }
}

/// Rules that the send itself can break.
fn check(send: &Send, now_ms: u64) -> Result<(), Refusal> {
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

/// The message that a send relates to, if its kind relates to one.
fn target(send: &Send) -> Result<Option<EventRef>, Refusal> {
    let envelope = Envelope::verify(&send.envelope, send.kind)
        .map_err(|error| Refusal::field(error.code(), error.field(), error.to_string()))?;
    Ok(envelope.relates_to().map(|relation| relation.target))
}

fn no_target() -> Refusal {
    Refusal::field(ErrorCode::InvalidRelation, "envelope.relates_to", "there is no such message to relate to")
}

fn internal() -> Refusal {
    Refusal::new(ErrorCode::Internal, "the broker mixed up a request")
}

fn one_row(seq: u64) -> ReadRows {
    ReadRows { from: seq, to: seq + 1, direction: Direction::Forward, rows_max: 1, bytes_max: 0 }
}

/// Whether a row redacts another.
pub(super) fn is_redaction(row: &Row) -> bool {
    row.kind() == EventKind::REDACT
}

/// Writes again the redactions of the newest rows, in case the process ended between the event and its effect.
pub(super) fn repair_redactions(fx: &mut Effects, log: LogKey, contents: &mut Contents, redactions: &[Row]) {
    for redaction in redactions {
        let envelope = redaction.envelope();
        let Ok(envelope) = Envelope::trusted(&envelope) else { continue };
        let Some(seq) = envelope.relates_to().map(|relation| relation.target.seq) else { continue };
        let Some(row) = contents.tail.get(seq).filter(|row| !row.is_redacted()) else { continue };
        let row = row.redacted();
        contents.tail.replace(row.clone());
        fx.store(Op::Rewrite { log, row }, Purpose::Projection);
    }
}
