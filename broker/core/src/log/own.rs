//! A user's inbox at its owner: what its user changes in it, and what other logs make happen in it.

use antiphon_protocol::{
    ContentType, ErrorCode, EventKind, FrameType, LogName, Row, UserId,
    control::{self, conversation_removed::Reason},
    frames,
    limits::COUNTER_MAX,
};
use antiphon_storage_contract::{Op, Outcome, StoreError};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::{
    Answer, Flow, Inbox, Log, Purpose, Stall, State, Waiter, across::report, answer, blocks::Blocks, contents::Draft,
    duplicates::Known, explain, summary,
};
use crate::{
    claims::{Ability, Scope},
    effect::{Consequence, Effect},
    effects::Effects,
    limits::{BLOCKED_MAX, HIDDEN_MAX, HIDDEN_PER_LOG_MAX},
    refusal::Refusal,
    shard_message::{Admission, Operation, OwnChange, Request, ShardMessage},
};

/// A change of an inbox: the event that it is.
type Event = (EventKind, Vec<u8>);

impl Log {
    /// A session begins: lets it, unless its token was revoked.
    pub(super) fn register(&mut self, fx: &mut Effects, request: Box<Request>) {
        let State::Ready(contents) = &self.state else { return };
        let not_before_ms = contents.inbox.not_before_ms();
        if request.actor.issued_at_ms() < not_before_ms {
            let message = "the user's sessions were revoked after this token was issued";
            return self.refuse(fx, &request, &Refusal::field(ErrorCode::TokenRevoked, "token", message));
        }
        let Operation::Register(registration) = request.operation else { return };
        let all = contents.inbox.memberships(None).map(|(id, _)| id.clone());
        let memberships = if registration.follows { all.collect() } else { Vec::new() };
        let admission = Admission { registration, from: request.origin.shard, not_before_ms, memberships };
        fx.post(fx.shard, ShardMessage::Admitted(Box::new(admission)));
    }

    /// What the user has hidden from a page of messages.
    pub(super) fn find_hidden(&mut self, fx: &mut Effects, request: Box<Request>) {
        let (Operation::FindHidden(fetch), State::Ready(contents)) = (request.operation, &self.state) else { return };
        let hidden = fetch.log.parse().map(|log| contents.inbox.hidden(&log).collect()).unwrap_or_default();
        let message = ShardMessage::HiddenFound { origin: request.origin, fetch: Box::new(fetch), hidden };
        fx.post(request.origin.shard, message);
    }

    /// Refuses what no client asked for. False for a client's request.
    pub(super) fn refuse_internal(&self, fx: &mut Effects, request: &Request, refusal: &Refusal) -> bool {
        match &request.operation {
            Operation::Register(registration) => {
                let (connection, code, message) = (registration.connection, refusal.code, refusal.message.clone());
                fx.post(request.origin.shard, ShardMessage::Rejected { connection, code, message });
            }
            Operation::Effect(effect) => report(fx, effect.source, &self.name, effect.seq, false),
            Operation::Summarize { .. } => summary::reply(fx, request, summary::refused(refusal)),
            operation @ (Operation::Explain(_) | Operation::ExplainUser(_)) => {
                explain::refused(fx, operation, refusal.code);
            }
            // What is not known looks like nobody there.
            Operation::TakeUp | Operation::Watched(_) => {}
            _ => return false,
        }
        true
    }

    /// The user changes something of their own.
    pub(super) fn change_own(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        let (Operation::Own(change), State::Ready(contents)) = (&request.operation, &self.state) else {
            return Flow::Done;
        };
        let event = match decide(change, &request, &self.name, &contents.inbox, fx.now.unix_ms()) {
            Ok(Some(event)) => event,
            Ok(None) => {
                answer(fx, request.origin, done(request.origin.request_id));
                return Flow::Done;
            }
            Err(refusal) => {
                self.refuse(fx, &request, &refusal);
                return Flow::Done;
            }
        };
        if event.0 == EventKind::BLOCK {
            match self.enter_journal(fx, request) {
                Ok(flow) => flow,
                Err(request) => self.write_own(fx, &request, &event),
            }
        } else {
            self.write_own(fx, &request, &event)
        }
    }

    fn write_own(&mut self, fx: &mut Effects, request: &Request, (kind, body): &Event) -> Flow {
        let State::Ready(contents) = &mut self.state else { return Flow::Done };
        let draft = Draft {
            kind: *kind,
            content_type: ContentType::Control,
            client_message_id: Uuid::nil(),
            sender: &request.actor.user,
            via: None,
            envelope: &[],
            body,
            original_time_ms: None,
        };
        let waiter = Waiter { origin: request.origin, dseq: 0, record: None, answer: Answer::Done };
        Flow::Stalled(Stall::Durable(contents.append(fx, self.handle, &draft, waiter)))
    }

    /// Another log makes something happen here.
    pub(super) fn receive(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        let (Operation::Effect(effect), State::Ready(contents)) = (&request.operation, &mut self.state) else {
            return Flow::Done;
        };
        if let Consequence::Blocked(blocked) = effect.consequence {
            self.receive_block(fx, effect, blocked);
            return Flow::Done;
        }
        let id = effect.id(self.key);
        match contents.duplicates.find(id, &effect.by) {
            Known::At { seq, .. } if seq > contents.head => {
                contents.join(seq, waiter(&request, effect));
            }
            Known::At { .. } => report(fx, effect.source, &self.name, effect.seq, true),
            Known::New => self.append_effect(fx, &request),
            Known::Unknown => {
                fx.counters.duplicate_lookups += 1;
                let op = Op::FindDuplicate { log: self.key, sender: effect.by.clone(), client_message_id: id };
                fx.store(op, Purpose::FindEffect(request));
                return Flow::Stalled(Stall::Store);
            }
        }
        Flow::Done
    }

    pub(super) fn effect_found(
        &mut self,
        fx: &mut Effects,
        request: Box<Request>,
        result: Result<Outcome, StoreError>,
    ) {
        self.stall = None;
        if let Operation::Effect(effect) = &request.operation {
            match result {
                Ok(Outcome::Row(Some(_))) => report(fx, effect.source, &self.name, effect.seq, true),
                Ok(Outcome::Row(None)) if matches!(self.state, State::Ready(_)) => self.append_effect(fx, &request),
                _ => report(fx, effect.source, &self.name, effect.seq, false),
            }
        }
        self.drain(fx);
    }

    fn append_effect(&mut self, fx: &mut Effects, request: &Request) {
        let (Operation::Effect(effect), State::Ready(contents)) = (&request.operation, &mut self.state) else { return };
        let LogName::Conversation(conversation) = &effect.source_name else { return };
        let conversation = conversation.to_string();
        let (kind, body) = match effect.consequence {
            Consequence::Added(kind) => {
                let added = control::ConversationAdded { conversation, joined_seq: effect.seq, kind: kind.into() };
                (EventKind::CONVERSATION_ADDED, added.encode_to_vec())
            }
            Consequence::Removed(reason) => (EventKind::CONVERSATION_REMOVED, removed(conversation, effect, reason)),
            Consequence::Blocked(_) => return,
        };
        let draft = Draft {
            kind,
            content_type: ContentType::Control,
            client_message_id: effect.id(self.key),
            sender: &effect.by,
            via: None,
            envelope: &[],
            body: &body,
            original_time_ms: None,
        };
        contents.append(fx, self.handle, &draft, waiter(request, effect));
    }

    /// Refuses a new event in a direct conversation of which one member blocked the other.
    pub(super) fn refuse_blocked(&self, user: &UserId) -> Result<(), Refusal> {
        let State::Ready(contents) = &self.state else { return Ok(()) };
        if self.blocks.is_any() && contents.conversation.member(user).is_some() {
            return Err(Refusal::new(ErrorCode::Blocked, "one of the two users blocked the other"));
        }
        Ok(())
    }

    /// A member of this direct conversation blocked the other, or does not any more.
    fn receive_block(&mut self, fx: &mut Effects, effect: &Effect, blocked: bool) {
        if !self.blocks.is_news(&effect.by, effect.seq) {
            return report(fx, effect.source, &self.name, effect.seq, true);
        }
        let records = vec![Blocks::record(&effect.by, effect.seq, blocked)];
        fx.store(Op::PutRecords { log: self.key, records }, Purpose::Block(Box::new(effect.clone())));
    }

    pub(super) fn block_stored(&mut self, fx: &mut Effects, effect: &Effect, is_durable: bool) {
        if let (true, Consequence::Blocked(blocked)) = (is_durable, effect.consequence) {
            self.blocks.set(effect.by.clone(), effect.seq, blocked);
        }
        report(fx, effect.source, &self.name, effect.seq, is_durable);
    }

    /// Tells the part of this shard that keeps users of an event of an inbox that concerns their sessions.
    pub(super) fn tell_users(&self, fx: &mut Effects, row: &Row) {
        let kinds =
            [EventKind::CONVERSATION_ADDED, EventKind::CONVERSATION_REMOVED, EventKind::BLOCK, EventKind::REVOKED];
        if kinds.contains(&row.kind()) {
            fx.post(fx.shard, ShardMessage::InboxEvent { key: self.key, row: row.clone() });
        }
    }
}

fn waiter(request: &Request, effect: &Effect) -> Waiter {
    let answer = Answer::Effect { source: effect.source, seq: effect.seq };
    Waiter { origin: request.origin, dseq: 0, record: None, answer }
}

fn removed(conversation: String, effect: &Effect, reason: Reason) -> Vec<u8> {
    control::ConversationRemoved { conversation, seq: effect.seq, reason: reason.into() }.encode_to_vec()
}

/// The event that a change is; `None` if everything is so already.
fn decide(
    change: &OwnChange,
    request: &Request,
    name: &LogName,
    inbox: &Inbox,
    now_ms: u64,
) -> Result<Option<Event>, Refusal> {
    let LogName::Inbox(owner) = name else { return Err(Refusal::new(ErrorCode::Internal, "this is no inbox")) };
    match change {
        OwnChange::Preferences(preferences) => decide_preferences(preferences, inbox),
        OwnChange::Block(block) => decide_block(block, owner, inbox),
        OwnChange::Hide(hide) => decide_hide(hide, request, inbox),
        OwnChange::Revoke => {
            if request.actor.user != *owner && !request.actor.has_scope(Scope::AdminWrite) {
                let message = "the sessions of others are revoked with scope admin:write";
                return Err(Refusal::field(ErrorCode::Forbidden, "user", message));
            }
            // A token of this very millisecond may be older than the request.
            let revoked = control::Revoked { not_before_ms: now_ms + 1 };
            Ok(Some((EventKind::REVOKED, revoked.encode_to_vec())))
        }
    }
}

fn decide_preferences(preferences: &control::Preferences, inbox: &Inbox) -> Result<Option<Event>, Refusal> {
    let mine = preferences.conversation.parse().ok().and_then(|conversation| inbox.membership(&conversation));
    let Some(mine) = mine else {
        let message = "the user is no member of such a conversation";
        return Err(Refusal::field(ErrorCode::NotFound, "conversation", message));
    };
    let changes = preferences.pinned.is_some_and(|pinned| pinned != mine.pinned)
        || preferences.muted.is_some_and(|muted| muted != mine.muted);
    Ok(changes.then(|| (EventKind::PREFERENCES, preferences.encode_to_vec())))
}

fn decide_block(block: &control::Block, owner: &UserId, inbox: &Inbox) -> Result<Option<Event>, Refusal> {
    let invalid = |message: String| Refusal::field(ErrorCode::InvalidField, "user", message);
    let user: UserId = block.user.parse().map_err(|error: antiphon_protocol::InvalidId| invalid(error.to_string()))?;
    if user == *owner {
        return Err(invalid("nobody blocks themselves".into()));
    }
    if inbox.blocked().contains(&user) == block.blocked {
        return Ok(None);
    }
    if block.blocked && inbox.blocked().len() >= BLOCKED_MAX {
        let message = format!("at most {BLOCKED_MAX} users are blocked");
        return Err(Refusal::field(ErrorCode::LimitExceeded, "user", message));
    }
    Ok(Some((EventKind::BLOCK, block.encode_to_vec())))
}

fn decide_hide(hide: &control::Hide, request: &Request, inbox: &Inbox) -> Result<Option<Event>, Refusal> {
    let invalid = |field, message: &str| Refusal::field(ErrorCode::InvalidField, field, message);
    let Ok(log) = hide.log.parse::<LogName>() else { return Err(invalid("log", "this is no name of a log")) };
    let is_member = matches!(&log, LogName::Conversation(id) if inbox.membership(id).is_some());
    if !is_member && !request.actor.is_granted(&log, Ability::Read) {
        return Err(Refusal::field(ErrorCode::NotFound, "log", "there is no such log for this user"));
    }
    if hide.event_id.len() != 16 {
        return Err(invalid("event_id", "an event id has 16 bytes"));
    }
    if !(1..=COUNTER_MAX).contains(&hide.seq) {
        return Err(invalid("seq", "a position is at least 1"));
    }
    if inbox.is_hidden(&log, hide.seq) {
        return Ok(None);
    }
    if inbox.hidden(&log).count() >= HIDDEN_PER_LOG_MAX || inbox.hidden_count() >= HIDDEN_MAX {
        let message = format!("at most {HIDDEN_PER_LOG_MAX} events of a log and {HIDDEN_MAX} in all are hidden");
        return Err(Refusal::field(ErrorCode::LimitExceeded, "seq", message));
    }
    Ok(Some((EventKind::HIDE, hide.encode_to_vec())))
}

/// An OK without a body.
pub(super) fn done(request_id: u32) -> Bytes {
    frames::raw(FrameType::Ok, request_id, &[])
}
