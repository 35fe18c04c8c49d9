//! Frames of an established session: each becomes a request to the owner of its log, or is answered here.

use super::{Connection, Home, Phase};
use crate::{
    connection_id::ConnectionId,
    effect::direct_name,
    effects::Effects,
    limits::REQUESTS_PER_PEER_MAX,
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Change, Operation, Origin, OwnChange, Request, ShardMessage, Slot, Start},
};
use antiphon_protocol::{
    Class, ConversationId, DecodeError, ErrorCode, FrameType, LogKey, LogName, RawFrame, UserId,
    control::{self, ConversationKind, History, JoinPolicy, Role, subscribe},
    frames::{self, Import, Send, SendBatch},
    limits::{PAGES_IN_FLIGHT_MAX, SUBSCRIPTIONS_MAX},
};

/// What a frame asks for.
pub(super) enum Parsed {
    /// The owner of this log decides.
    Owner(LogName, Operation),
    /// It was dealt with here.
    Here,
}

impl Home {
    pub(super) fn request(&mut self, fx: &mut Effects, id: ConnectionId, frame: &RawFrame) {
        let is_answered = frame.frame_type != FrameType::Signal;
        if is_answered && frame.id == 0 {
            let refusal = Refusal::field(ErrorCode::Malformed, "header.id", "a request has an id other than zero");
            return self.close_with(fx, id, &refusal);
        }
        match self.parse(fx, id, frame) {
            Ok(Parsed::Owner(log, operation)) => self.ask(fx, id, frame.id, log, operation),
            Ok(Parsed::Here) => {}
            Err(refusal) if refusal.code == ErrorCode::UnexpectedFrame => self.close_with(fx, id, &refusal),
            Err(refusal) => {
                fx.refused(refusal.code);
                // An ERROR with id 0 would be a farewell, and what has no answer has no refusal either.
                if is_answered {
                    self.connections.push(id, Class::Control, refusal.to_frame(frame.id));
                }
            }
        }
    }

    fn parse(&mut self, fx: &mut Effects, id: ConnectionId, frame: &RawFrame) -> Result<Parsed, Refusal> {
        let body = &frame.body;
        match frame.frame_type {
            FrameType::Send => parse_send(frame),
            FrameType::SendBatch if self.has_batch(id) => parse_batch(frame),
            FrameType::Import => parse_import(frame),
            FrameType::Subscribe => self.parse_subscribe(id, &frames::decode_request(body)?),
            FrameType::Unsubscribe => {
                let unsubscribe: control::Unsubscribe = frames::decode_request(body)?;
                self.unsubscribe(fx, id, frame.id, unsubscribe.handle);
                Ok(Parsed::Here)
            }
            FrameType::Fetch => {
                let fetch: control::Fetch = frames::decode_request(body)?;
                self.take_page_slot(id)?;
                self.parse_fetch(id, fetch).inspect_err(|_| self.give_page_slot(id))
            }
            FrameType::Cursor => {
                let cursor: control::Cursor = frames::decode_request(body)?;
                Ok(Parsed::Owner(log_name(&cursor.log)?, Operation::Cursor(cursor)))
            }
            FrameType::Signal => {
                let signal: control::Signal = frames::decode_request(body)?;
                Ok(Parsed::Owner(log_name(&signal.log)?, Operation::Signal(signal)))
            }
            FrameType::Auth => self.authenticate(fx, id, frame).map(|()| Parsed::Here),
            FrameType::Bye => {
                let _: control::Bye = frames::decode_request(body)?;
                self.end_session(fx, id);
                self.connections.push(id, Class::Control, frames::raw(FrameType::Ok, frame.id, &[]));
                self.close(fx, id, ErrorCode::Closed);
                Ok(Parsed::Here)
            }
            _ => self.parse_conversation(fx, id, frame),
        }
    }

    /// Whether SEND_BATCH was agreed on; without it, the frame is as if reserved.
    fn has_batch(&self, id: ConnectionId) -> bool {
        self.connections.get(id).and_then(Connection::session).is_some_and(|session| session.has_batch)
    }

    fn parse_subscribe(&mut self, id: ConnectionId, subscribe: &control::Subscribe) -> Result<Parsed, Refusal> {
        let log = log_name(&subscribe.log)?;
        let start = match &subscribe.from {
            Some(subscribe::From::After(position)) => Start::After { epoch: position.epoch, seq: position.seq },
            Some(subscribe::From::Last(n)) => Start::Last(*n),
            Some(subscribe::From::Tail(_)) => Start::Tail,
            None => return Err(Refusal::field(ErrorCode::InvalidField, "from", "a subscription begins somewhere")),
        };
        let room = self.connections.room_to_inline(id);
        let Some(connection) = self.connections.get_mut(id) else { return Ok(Parsed::Here) };
        let Phase::Established(session) = &mut connection.phase else { return Ok(Parsed::Here) };
        if session.subscriptions.len() + session.subscribing >= SUBSCRIPTIONS_MAX {
            let message = format!("a session follows at most {SUBSCRIPTIONS_MAX} logs");
            return Err(Refusal::field(ErrorCode::LimitExceeded, "log", message));
        }
        session.subscribing += 1;
        Ok(Parsed::Owner(log, Operation::Subscribe { start, inline_bytes_max: room / 2 }))
    }

    fn unsubscribe(&mut self, fx: &mut Effects, id: ConnectionId, request_id: u32, handle: u32) {
        self.detach(fx, handle, id, control::detach::Reason::Unsubscribed, 0);
        self.connections.push(id, Class::Control, frames::raw(FrameType::Ok, request_id, &[]));
    }

    /// Pages are bounded by those asked for plus those not yet written.
    fn take_page_slot(&mut self, id: ConnectionId) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let waiting = connection.outbox.lane(Class::Backfill).len();
        let Some(session) = connection.session_mut() else { return Ok(()) };
        if session.pages + waiting >= PAGES_IN_FLIGHT_MAX {
            let message = format!("at most {PAGES_IN_FLIGHT_MAX} pages are in flight");
            return Err(Refusal::new(ErrorCode::RateLimited, message));
        }
        session.pages += 1;
        Ok(())
    }

    fn give_page_slot(&mut self, id: ConnectionId) {
        if let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) {
            session.pages = session.pages.saturating_sub(1);
        }
    }

    fn parse_conversation(&mut self, fx: &mut Effects, id: ConnectionId, frame: &RawFrame) -> Result<Parsed, Refusal> {
        let body = &frame.body;
        let owner = |id: &str, change| Ok(Parsed::Owner(conversation(id)?, Operation::Change(change)));
        match frame.frame_type {
            FrameType::ConversationCreate => self.parse_create(fx, id, frames::decode_request(body)?),
            FrameType::ConversationGet => {
                let get: control::ConversationGet = frames::decode_request(body)?;
                Ok(Parsed::Owner(conversation(&get.conversation)?, Operation::Get))
            }
            FrameType::ConversationUpdate => {
                let update: control::ConversationUpdate = frames::decode_request(body)?;
                update.join_policy.map(|policy| known::<JoinPolicy>("join_policy", policy)).transpose()?;
                update.history.map(|history| known::<History>("history", history)).transpose()?;
                owner(&update.conversation.clone(), Change::Update(update))
            }
            FrameType::ConversationDelete => {
                let delete: control::ConversationDelete = frames::decode_request(body)?;
                owner(&delete.conversation, Change::Delete)
            }
            FrameType::MemberAdd => {
                let add: control::MemberAdd = frames::decode_request(body)?;
                check_roles(&add.members)?;
                owner(&add.conversation.clone(), Change::Add(add))
            }
            FrameType::MemberRemove => {
                let remove: control::MemberRemove = frames::decode_request(body)?;
                owner(&remove.conversation, Change::Remove(user(&remove.user)?))
            }
            FrameType::MemberSetRole => {
                let set: control::MemberSetRole = frames::decode_request(body)?;
                owner(&set.conversation, Change::SetRole(user(&set.user)?, known("role", set.role)?))
            }
            FrameType::Join => {
                let join: control::Join = frames::decode_request(body)?;
                owner(&join.conversation, Change::Join)
            }
            FrameType::Sync => {
                let sync: control::Sync = frames::decode_request(body)?;
                self.own_inbox(id, Operation::List(sync))
            }
            FrameType::PresenceSet => {
                let set: control::PresenceSet = frames::decode_request(body)?;
                if known::<control::PresenceStatus>("status", set.status)? == control::PresenceStatus::Unknown {
                    return Err(Refusal::field(
                        ErrorCode::InvalidField,
                        "status",
                        "nobody is shown as unknown by wish",
                    ));
                }
                self.own_inbox(id, Operation::SetPresence(set))
            }
            FrameType::PresenceSubscribe => {
                let operation = self.watch(fx, id, &frames::decode_request(body)?)?;
                self.own_inbox(id, operation)
            }
            FrameType::Preferences => {
                let preferences: control::Preferences = frames::decode_request(body)?;
                self.own(id, OwnChange::Preferences(preferences))
            }
            FrameType::Block => {
                let block: control::Block = frames::decode_request(body)?;
                self.own(id, OwnChange::Block(block))
            }
            FrameType::Hide => {
                let hide: control::Hide = frames::decode_request(body)?;
                self.own(id, OwnChange::Hide(hide))
            }
            FrameType::Revoke => {
                let revoke: control::Revoke = frames::decode_request(body)?;
                match revoke.user.as_str() {
                    "" => self.own(id, OwnChange::Revoke),
                    other => Ok(Parsed::Owner(LogName::Inbox(user(other)?), Operation::Own(OwnChange::Revoke))),
                }
            }
            FrameType::Leave => {
                let leave: control::Leave = frames::decode_request(body)?;
                owner(&leave.conversation, Change::Leave)
            }
            other => {
                let message = format!("{} is not expected from a client in a running session", other.name());
                Err(Refusal::new(ErrorCode::UnexpectedFrame, message))
            }
        }
    }

    /// A change of the session's own inbox.
    fn own(&self, id: ConnectionId, change: OwnChange) -> Result<Parsed, Refusal> {
        self.own_inbox(id, Operation::Own(change))
    }

    fn own_inbox(&self, id: ConnectionId, operation: Operation) -> Result<Parsed, Refusal> {
        let Some(session) = self.connections.get(id).and_then(Connection::session) else { return Ok(Parsed::Here) };
        Ok(Parsed::Owner(LogName::Inbox(session.actor.user.clone()), operation))
    }

    fn parse_create(
        &mut self,
        fx: &mut Effects,
        id: ConnectionId,
        create: control::ConversationCreate,
    ) -> Result<Parsed, Refusal> {
        let Some(session) = self.connections.get(id).and_then(Connection::session) else { return Ok(Parsed::Here) };
        known::<ConversationKind>("kind", create.kind)?;
        known::<JoinPolicy>("join_policy", create.join_policy)?;
        known::<History>("history", create.history)?;
        check_roles(&create.members)?;
        let invalid = |field, message: &str| Refusal::field(ErrorCode::InvalidField, field, message);
        let name = match (create.kind(), create.conversation.as_str()) {
            (ConversationKind::Direct, "") => {
                let [peer] = create.members.as_slice() else {
                    return Err(invalid("members", "a direct conversation names its one other member"));
                };
                let creator = session.actor.acting_user(&create.act_as)?;
                direct_name(&session.actor.tenant, &creator, &user(&peer.user)?)
            }
            (ConversationKind::Direct, _) => {
                return Err(invalid("conversation", "the broker names direct conversations"));
            }
            (_, "") => format!("~g{}", fx.new_random_id().simple()),
            (_, given) if given.starts_with('~') => {
                return Err(invalid("conversation", "names that begin with ~ are made by the broker"));
            }
            (_, given) => given.to_owned(),
        };
        Ok(Parsed::Owner(conversation(&name)?, Operation::Change(Change::Create(create))))
    }

    /// Sends a request to the log's owner, once that shard has a slot for its answer.
    fn ask(&mut self, fx: &mut Effects, id: ConnectionId, request_id: u32, log: LogName, operation: Operation) {
        let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) else { return };
        // A signal has no answer, so it holds no slot.
        let is_answered = !matches!(operation, Operation::Signal(_));
        session.in_flight += usize::from(is_answered);
        let key: LogKey = log.key(&session.actor.tenant);
        let slot = match &operation {
            Operation::Fetch(_) | Operation::FetchMessages { .. } | Operation::FindHidden(_) => Slot::Page,
            Operation::Subscribe { .. } => Slot::Subscription,
            Operation::Get | Operation::Change(_) => Slot::Alone,
            _ => Slot::Request,
        };
        session.is_alone |= slot == Slot::Alone;
        let origin = Origin { shard: fx.shard, connection: id, request_id, slot };
        let request = Box::new(Request { origin, actor: session.actor.clone(), log, key, operation });
        let owner = fx.routing.owner(key);
        if owner != fx.shard && is_answered {
            let outstanding = &mut self.outstanding[usize::from(owner.0)];
            if *outstanding >= REQUESTS_PER_PEER_MAX {
                session.stalled = Some(request);
                self.stalled[usize::from(owner.0)].push_back(id);
                return;
            }
            *outstanding += 1;
        }
        fx.post(owner, ShardMessage::Request(request));
    }

    /// A slot at `owner` is free: lets the next stalled session go on.
    pub(super) fn unstall(&mut self, fx: &mut Effects, owner: ShardId) {
        let index = usize::from(owner.0);
        while self.outstanding[index] < REQUESTS_PER_PEER_MAX {
            let Some(id) = self.stalled[index].pop_front() else { return };
            let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) else { continue };
            let Some(request) = session.stalled.take() else { continue };
            self.outstanding[index] += 1;
            fx.post(owner, ShardMessage::Request(request));
            self.process_frames(fx, id);
        }
    }
}

pub(super) fn log_name(name: &str) -> Result<LogName, Refusal> {
    name.parse().map_err(|error: antiphon_protocol::InvalidId| {
        Refusal::field(ErrorCode::InvalidField, "log", error.to_string())
    })
}

fn conversation(id: &str) -> Result<LogName, Refusal> {
    match id.parse::<ConversationId>() {
        Ok(id) => Ok(LogName::Conversation(id)),
        Err(error) => Err(Refusal::field(ErrorCode::InvalidField, "conversation", error.to_string())),
    }
}

fn user(id: &str) -> Result<UserId, Refusal> {
    id.parse().map_err(|error: antiphon_protocol::InvalidId| {
        Refusal::field(ErrorCode::InvalidField, "user", error.to_string())
    })
}

/// A send that cannot be read goes to its log's owner too, where its `dseq` is consumed in its place.
fn parse_send(frame: &RawFrame) -> Result<Parsed, Refusal> {
    match Send::decode(&frame.body) {
        Ok(send) => Ok(Parsed::Owner(send.log.clone(), Operation::Send(send))),
        Err(error) => unreadable(frame, Send::decode_place(&frame.body), error),
    }
}

/// A batch that cannot be read goes to its log's owner for the sake of its `dseq`, like a single send.
fn parse_batch(frame: &RawFrame) -> Result<Parsed, Refusal> {
    match SendBatch::decode(&frame.body) {
        Ok(batch) => {
            let log = batch.records.first().map(|first| first.log.clone());
            Ok(Parsed::Owner(log.ok_or_else(no_records)?, Operation::SendBatch(batch)))
        }
        Err(error) => unreadable(frame, SendBatch::decode_place(&frame.body), error),
    }
}

/// As [`parse_batch`].
fn parse_import(frame: &RawFrame) -> Result<Parsed, Refusal> {
    match Import::decode(&frame.body) {
        Ok(import) => {
            let log = import.records.first().map(|first| first.send.log.clone());
            Ok(Parsed::Owner(log.ok_or_else(no_records)?, Operation::Import(import)))
        }
        Err(error) => unreadable(frame, Import::decode_place(&frame.body), error),
    }
}

/// What cannot be read takes its place among the sends to its log, if that place can be read.
fn unreadable(frame: &RawFrame, place: Option<(LogName, u64)>, error: DecodeError) -> Result<Parsed, Refusal> {
    let refusal = Refusal::from(error);
    match place {
        Some((log, dseq)) => {
            let (code, error) = (refusal.code, refusal.to_frame(frame.id));
            Ok(Parsed::Owner(log, Operation::Unreadable { dseq, code, error }))
        }
        None => Err(refusal),
    }
}

fn no_records() -> Refusal {
    Refusal::field(ErrorCode::Malformed, "records", "a batch has records")
}

/// A number of an enumeration, which Protobuf leaves open and a request must know.
pub(super) fn known<T: TryFrom<i32>>(field: &'static str, number: i32) -> Result<T, Refusal> {
    let unknown = |_| Refusal::field(ErrorCode::InvalidField, field, format!("{number} stands for nothing"));
    T::try_from(number).map_err(unknown)
}

fn check_roles(members: &[control::Member]) -> Result<(), Refusal> {
    members.iter().try_for_each(|member| known::<Role>("members.role", member.role).map(|_| ()))
}
