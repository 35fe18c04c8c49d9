//! Sends that relate to an earlier message: edit, redaction, reaction, pin.
//!
//! Such a send is judged by the message's row, by what earlier events made of it and, to react, by the user's earlier
//! reactions. What of these is not in memory is read in one round, and the log waits for that round, so that sends keep
//! their order; it never waits for a second one.

use antiphon_protocol::{
    Authority, ErrorCode, EventKind, Row, UserId,
    envelope::{Envelope, EventRef},
    frames::Send,
};
use antiphon_storage_contract::{Op, Outcome, StoreError};
use bytes::Bytes;

use super::{
    Contents, Log, Purpose, State,
    message_state::{Change, reacted_key, state_key},
    redactions::one_row,
    send::{Step, internal, out_of_order},
};
use crate::{authority::authorize, effects::Effects, refusal::Refusal, shard_message::Request};

/// What a send says about an earlier message.
#[derive(Debug)]
struct Relation {
    kind: EventKind,
    target: EventRef,
    /// Of a reaction.
    key: String,
    remove: bool,
}

/// A send that is allowed and new, and what is known of the message that it relates to.
#[derive(Debug)]
pub(super) struct Lookup {
    user: UserId,
    relation: Relation,
    row: Option<Row>,
    needs_state: bool,
    needs_reacted: bool,
    state: Option<Bytes>,
    reacted: Option<Bytes>,
    /// Answers of the store that have not come.
    missing: u32,
    error: Option<Refusal>,
}

/// One of the things that a lookup reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The message.
    Row,
    /// Its record.
    State,
    /// The user's reactions to it.
    Reacted,
}

impl Lookup {
    fn new(contents: &Contents, user: UserId, relation: Relation) -> Self {
        let seq = relation.target.seq;
        Self {
            row: contents.tail.get(seq).cloned(),
            needs_state: contents.messages.needs_state(seq),
            needs_reacted: relation.kind == EventKind::REACTION && contents.messages.needs_reacted(seq, &user),
            user,
            relation,
            state: None,
            reacted: None,
            missing: 0,
            error: None,
        }
    }

    fn is_complete(&self) -> bool {
        self.row.is_some() && !self.needs_state && !self.needs_reacted
    }
}

impl Log {
    /// A send that repeats nothing: finds what it relates to, then appends it.
    pub(super) fn append_new(&mut self, fx: &mut Effects, request: &Request, user: UserId) -> Result<Step, Refusal> {
        let Some((send, _)) = request.operation.send() else { return Err(internal()) };
        if request.operation.original_time_ms().is_none() {
            self.refuse_blocked(&user)?;
        }
        let floor = self.floor_of(request, &user);
        let State::Ready(contents) = &self.state else { return Err(internal()) };
        contents.refuse_expired(send.client_message_id)?;
        let Some(relation) = relation(send)? else { return self.append(fx, request, &user, None) };
        if relation.target.seq < floor || relation.target.seq > contents.head {
            return Err(no_target());
        }
        let lookup = Lookup::new(contents, user, relation);
        if lookup.is_complete() { self.append_related(fx, request, lookup) } else { Ok(Step::LookUp(Box::new(lookup))) }
    }

    /// First position that the sender may relate to. What is imported happened when others could read.
    fn floor_of(&self, request: &Request, user: &UserId) -> u64 {
        match (&self.state, request.operation.original_time_ms()) {
            (State::Ready(contents), Some(_)) => contents.floor(),
            _ => self.floor_for(&request.actor, user),
        }
    }

    /// Reads what is not in memory. The log waits meanwhile.
    pub(super) fn look_up(&mut self, fx: &mut Effects, request: Box<Request>, mut lookup: Box<Lookup>) {
        let (log, seq) = (self.key, lookup.relation.target.seq);
        let mut read = |op, part| {
            fx.store(op, Purpose::LookUp(part));
            lookup.missing += 1;
        };
        if lookup.row.is_none() {
            read(Op::Read { log, range: one_row(seq) }, Part::Row);
        }
        if lookup.needs_state {
            read(Op::GetRecord { log, key: state_key(seq) }, Part::State);
        }
        if lookup.needs_reacted {
            read(Op::GetRecord { log, key: reacted_key(lookup.user.as_str(), seq) }, Part::Reacted);
        }
        self.looking_up = Some((request, lookup));
    }

    /// One of the reads has ended. After the last one the send goes on.
    pub(super) fn looked_up(&mut self, fx: &mut Effects, part: Part, result: Result<Outcome, StoreError>) {
        let Some((request, mut lookup)) = self.looking_up.take() else { return };
        match (part, result) {
            (Part::Row, Ok(Outcome::Rows(rows))) => lookup.row = rows.into_iter().next(),
            (Part::State, Ok(Outcome::Record(record))) => lookup.state = record,
            (Part::Reacted, Ok(Outcome::Record(record))) => lookup.reacted = record,
            (_, Ok(_)) => lookup.error = Some(internal()),
            (_, Err(error)) => lookup.error = Some(Refusal { is_outcome_unknown: false, ..Refusal::from(&error) }),
        }
        lookup.missing -= 1;
        if lookup.missing > 0 {
            self.looking_up = Some((request, lookup));
            return;
        }
        self.stall = None;
        let step = match lookup.error.take() {
            Some(refusal) => Err(refusal),
            None => self.append_related(fx, &request, *lookup),
        };
        self.resume(fx, request, step);
    }

    fn append_related(&mut self, fx: &mut Effects, request: &Request, lookup: Lookup) -> Result<Step, Refusal> {
        let Some((send, _)) = request.operation.send() else { return Err(internal()) };
        // An earlier send may have failed while the store looked.
        if !self.is_in_order(request) {
            return Err(out_of_order());
        }
        let floor = self.floor_of(request, &lookup.user);
        let State::Ready(contents) = &mut self.state else {
            return Err(Refusal::new(ErrorCode::Overloaded, "the log is being read"));
        };
        let Lookup { user, relation, row, state, reacted, .. } = lookup;
        // The message may have gone while the store looked.
        let row = row.filter(|row| row.seq() >= floor);
        let row = contents.redactions.apply(row.ok_or_else(no_target)?);
        check_target(&relation, &row)?;
        let is_own = row.sender() == user.as_str();
        let manages =
            || authorize(Authority::Manage, &request.actor, &user, &self.name, &contents.conversation).is_ok();
        let is_allowed = match send.kind {
            EventKind::EDIT => is_own,
            // Who imports manages.
            EventKind::REDACT => is_own || request.operation.original_time_ms().is_some() || manages(),
            _ => true,
        };
        if !is_allowed {
            return Err(Refusal::new(ErrorCode::Forbidden, "only its author may change this message"));
        }
        let Relation { kind, target, key, remove } = relation;
        contents.messages.learn_state(target.seq, state.as_ref());
        if kind == EventKind::REACTION {
            contents.messages.learn_reacted(target.seq, &user, reacted.as_ref());
        }
        let change = Change { kind, seq: target.seq, user: &user, key: &key, remove };
        let is_unchanged = contents.messages.judge(&change)?;
        self.append(fx, request, &user, Some((row, is_unchanged)))
    }
}

fn check_target(relation: &Relation, row: &Row) -> Result<(), Refusal> {
    if row.event_id() != relation.target.event_id {
        let message = "there is another event at this position";
        return Err(Refusal::field(ErrorCode::NotFound, "envelope.relates_to", message));
    }
    if row.kind() != EventKind::MESSAGE || row.is_redacted() { Err(no_target()) } else { Ok(()) }
}

/// What the send relates to, if its kind relates to something.
fn relation(send: &Send) -> Result<Option<Relation>, Refusal> {
    let envelope = Envelope::verify(&send.envelope, send.kind)
        .map_err(|error| Refusal::field(error.code(), error.field(), error.to_string()))?;
    Ok(envelope.relates_to().map(|relation| Relation {
        kind: send.kind,
        target: relation.target,
        key: relation.key.unwrap_or_default().to_owned(),
        remove: relation.remove,
    }))
}

fn no_target() -> Refusal {
    Refusal::field(ErrorCode::InvalidRelation, "envelope.relates_to", "there is no such message to relate to")
}
