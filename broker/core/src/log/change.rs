//! Changes of a conversation and its members. Each is an event of its log, durable before the next request is looked
//! at, so what decides about a request is always the fold of durable rows.

use std::collections::BTreeMap;

use antiphon_protocol::{
    Authority, ContentType, ErrorCode, EventKind, FrameType, LogName, Row, UserId,
    control::{self, ConversationKind, JoinPolicy, Role},
    frames,
    limits::{MEMBERS_MAX, MEMBERS_PER_REQUEST_MAX, RETENTION_MIN_S},
};
use prost::Message;
use uuid::Uuid;

use super::{Answer, Contents, Conversation, Flow, Log, Stall, State, Waiter, answer, contents::Draft, own};
use crate::{
    authority::authorize,
    effects::Effects,
    refusal::Refusal,
    routing::ShardId,
    shard_message::{Audience, Change, Operation, Request, ShardMessage},
};

/// Longest title, in bytes.
const TITLE_BYTES_MAX: usize = 256;

/// What a change writes.
enum Event {
    Conversation(control::ConversationEvent),
    Member(control::MemberEvent),
}

/// What became of a change.
enum Decision {
    /// It is a new event.
    Write(Event, Answer),
    /// Nothing has to change.
    Nothing,
}

impl Log {
    pub(super) fn get(&mut self, fx: &mut Effects, request: &Request) {
        let user = request.actor.user.clone();
        match self.allowed(request, FrameType::ConversationGet, &user) {
            Ok(_) => self.answer_conversation(fx, request, false),
            Err(refusal) => self.refuse(fx, request, &refusal),
        }
    }

    pub(super) fn change(&mut self, fx: &mut Effects, request: Box<Request>) -> Flow {
        let Operation::Change(change) = &request.operation else { return Flow::Done };
        let State::Ready(contents) = &mut self.state else { return Flow::Done };
        let user = match request.actor.acting_user(change.act_as()) {
            Ok(user) => user,
            Err(refusal) => {
                self.refuse(fx, &request, &refusal);
                return Flow::Done;
            }
        };
        let (event, reply) = match decide(change, &request, &user, &self.name, contents) {
            Ok(Decision::Write(event, reply)) => (event, reply),
            // Whoever is no member is told nothing of the conversation.
            Ok(Decision::Nothing) if matches!(change, Change::Leave) => {
                answer(fx, request.origin, own::done(request.origin.request_id));
                return Flow::Done;
            }
            Ok(Decision::Nothing) => {
                self.answer_conversation(fx, &request, false);
                return Flow::Done;
            }
            Err(refusal) => {
                self.refuse(fx, &request, &refusal);
                return Flow::Done;
            }
        };
        let request = match self.enter_journal_for(fx, request, &event) {
            Ok(flow) => return flow,
            Err(request) => request,
        };
        let State::Ready(contents) = &mut self.state else { return Flow::Done };
        let (kind, body) = match event {
            Event::Conversation(event) => (EventKind::CONVERSATION, event.encode_to_vec()),
            Event::Member(event) => (EventKind::MEMBER, event.encode_to_vec()),
        };
        let draft = Draft {
            kind,
            content_type: ContentType::Control,
            client_message_id: Uuid::nil(),
            sender: &user,
            via: (user != request.actor.user).then_some(&request.actor.user),
            envelope: &[],
            body: &body,
            original_time_ms: None,
        };
        let waiter = Waiter { origin: request.origin, dseq: 0, record: None, answer: reply };
        Flow::Stalled(Stall::Durable(contents.append(fx, self.handle, &draft, waiter)))
    }

    /// Members hear of what they become or cease to be in their inboxes.
    fn enter_journal_for(
        &mut self,
        fx: &mut Effects,
        request: Box<Request>,
        event: &Event,
    ) -> Result<Flow, Box<Request>> {
        use control::{conversation_event::Change as ConversationChange, member_event::Change as MemberChange};
        let concerns_inboxes = match event {
            Event::Conversation(event) => event.change() != ConversationChange::Updated,
            Event::Member(event) => event.change() != MemberChange::Role,
        };
        if concerns_inboxes { self.enter_journal(fx, request) } else { Err(request) }
    }

    fn answer_conversation(&self, fx: &mut Effects, request: &Request, created: bool) {
        let State::Ready(contents) = &self.state else { return };
        let body = describe(&self.name, contents, created);
        answer(fx, request.origin, frames::control(FrameType::Ok, request.origin.request_id, &body));
    }
}

/// The conversation as answers show it.
pub(super) fn describe(name: &LogName, contents: &Contents, created: bool) -> control::Conversation {
    let conversation = &contents.conversation;
    let member = |(user, membership): (&UserId, &super::Membership)| control::Member {
        user: user.to_string(),
        role: membership.role.into(),
        joined_seq: membership.joined_seq,
    };
    let id = match name {
        LogName::Conversation(id) => id.to_string(),
        LogName::Inbox(_) => String::new(),
    };
    control::Conversation {
        conversation: id,
        kind: conversation.kind.into(),
        title: conversation.title.clone(),
        join_policy: conversation.join_policy.into(),
        members: conversation.members().map(member).collect(),
        head: contents.head,
        head_msgno: contents.head_msgno,
        created,
        deleted: conversation.deleted,
        retention_s: conversation.retention_s,
        history: conversation.history.into(),
    }
}

/// After a durable removal or deletion: ends the subscriptions that it ends, behind the event itself.
pub(super) fn detach(fx: &mut Effects, handle: u32, interest: &BTreeMap<ShardId, u32>, row: &Row) {
    use control::{detach::Reason, member_event::Change as MemberChange};
    let mut end = |audience: Audience, reason| {
        for shard in interest.keys() {
            let message = ShardMessage::Detach { handle, audience: audience.clone(), reason, seq: row.seq() };
            fx.post(*shard, message);
        }
    };
    match row.kind() {
        EventKind::MEMBER => {
            let Ok(event) = frames::decode_answer::<control::MemberEvent>(&row.body()) else { return };
            if matches!(event.change(), MemberChange::Removed | MemberChange::Left) {
                for user in event.members.iter().filter_map(|member| member.user.parse().ok()) {
                    end(Audience::User(user), Reason::Removed);
                }
            }
        }
        EventKind::CONVERSATION => {
            let Ok(event) = frames::decode_answer::<control::ConversationEvent>(&row.body()) else { return };
            if event.change() == control::conversation_event::Change::Deleted {
                end(Audience::All, Reason::Deleted);
            }
        }
        _ => {}
    }
}

fn decide(
    change: &Change,
    request: &Request,
    user: &UserId,
    name: &LogName,
    contents: &Contents,
) -> Result<Decision, Refusal> {
    let conversation = &contents.conversation;
    let needs = |authority| authorize(authority, &request.actor, user, name, conversation).map_err(Refusal::from);
    match change {
        // What was written before belongs to those whom grants name: nobody else becomes its owner by asking.
        Change::Create(_) if !conversation.exists && contents.head > 0 && needs(Authority::Manage).is_err() => {
            Err(Refusal::field(ErrorCode::AlreadyExists, "conversation", "this id is taken"))
        }
        Change::Create(create) => decide_create(create, user, conversation),
        Change::Update(update) => {
            needs(Authority::Manage)?;
            decide_update(update, conversation)
        }
        Change::Delete => {
            needs(Authority::Own)?;
            let event = conversation_event(conversation, control::conversation_event::Change::Deleted);
            Ok(write(Event::Conversation(event)))
        }
        Change::Add(add) => {
            needs(Authority::Manage)?;
            refuse_direct(conversation)?;
            decide_add(add, conversation)
        }
        Change::Remove(target) => {
            needs(Authority::Manage)?;
            refuse_direct(conversation)?;
            decide_remove(target, user, conversation)
        }
        Change::SetRole(target, role) => {
            needs(Authority::Own)?;
            decide_role(target, *role, conversation)
        }
        Change::Join => decide_join(user, conversation),
        Change::Leave => {
            needs(Authority::Read)?;
            refuse_direct(conversation)?;
            decide_leave(user, conversation)
        }
    }
}

fn decide_create(
    create: &control::ConversationCreate,
    creator: &UserId,
    conversation: &Conversation,
) -> Result<Decision, Refusal> {
    if conversation.exists {
        // A direct conversation is found; so is one of which the creator is a member and that looks the same.
        let is_direct = conversation.kind == ConversationKind::Direct;
        let is_same = conversation.kind == create.kind() && (is_direct || conversation.title == create.title);
        return match conversation.member(creator) {
            Some(_) if is_same && !conversation.deleted => Ok(Decision::Nothing),
            _ => Err(Refusal::field(ErrorCode::AlreadyExists, "conversation", "this id is taken")),
        };
    }
    check_title(&create.title)?;
    check_retention(create.retention_s)?;
    let mut members = check_members(&create.members)?;
    members.retain(|member| member.user != creator.as_str());
    members.insert(0, member(creator, Role::Owner));
    let event = control::ConversationEvent {
        change: control::conversation_event::Change::Created.into(),
        kind: create.kind,
        title: create.title.clone(),
        join_policy: create.join_policy,
        members,
        retention_s: create.retention_s,
        history: create.history,
    };
    Ok(Decision::Write(Event::Conversation(event), Answer::Conversation { created: true }))
}

fn decide_update(update: &control::ConversationUpdate, conversation: &Conversation) -> Result<Decision, Refusal> {
    let mut event = conversation_event(conversation, control::conversation_event::Change::Updated);
    if let Some(title) = &update.title {
        check_title(title)?;
        event.title.clone_from(title);
    }
    if update.join_policy.is_some() {
        event.join_policy = update.join_policy().into();
    }
    if let Some(retention_s) = update.retention_s {
        check_retention(retention_s)?;
        event.retention_s = retention_s;
    }
    if update.history.is_some() {
        event.history = update.history().into();
    }
    Ok(write(Event::Conversation(event)))
}

fn decide_add(add: &control::MemberAdd, conversation: &Conversation) -> Result<Decision, Refusal> {
    let mut members = check_members(&add.members)?;
    members.retain(|member| member.user.parse().is_ok_and(|user| conversation.member(&user).is_none()));
    if members.is_empty() {
        return Ok(Decision::Nothing);
    }
    if conversation.member_count() + members.len() > MEMBERS_MAX {
        return Err(Refusal::field(ErrorCode::LimitExceeded, "members", "the conversation is full"));
    }
    if members.iter().any(|member| member.role() == Role::Owner) {
        return Err(Refusal::field(ErrorCode::InvalidField, "members.role", "an owner is made by MEMBER_SET_ROLE"));
    }
    Ok(write(member_event(control::member_event::Change::Added, members)))
}

fn decide_remove(target: &UserId, user: &UserId, conversation: &Conversation) -> Result<Decision, Refusal> {
    let Some(standing) = conversation.member(target) else { return Ok(Decision::Nothing) };
    let is_owner = conversation.member(user).is_none_or(|membership| membership.role == Role::Owner);
    if standing.role != Role::Member && !is_owner {
        return Err(Refusal::new(ErrorCode::Forbidden, "only an owner removes an admin or owner"));
    }
    keep_an_owner(target, conversation)?;
    Ok(write(member_event(control::member_event::Change::Removed, vec![member(target, standing.role)])))
}

fn decide_role(target: &UserId, role: Role, conversation: &Conversation) -> Result<Decision, Refusal> {
    let Some(standing) = conversation.member(target) else {
        return Err(Refusal::field(ErrorCode::NotFound, "user", "this user is not a member"));
    };
    if standing.role == role {
        return Ok(Decision::Nothing);
    }
    keep_an_owner(target, conversation)?;
    Ok(write(member_event(control::member_event::Change::Role, vec![member(target, role)])))
}

fn decide_join(user: &UserId, conversation: &Conversation) -> Result<Decision, Refusal> {
    if conversation.member(user).is_some() && !conversation.deleted {
        return Ok(Decision::Nothing);
    }
    // The name of a direct conversation can be computed, so its policy must not let anybody in.
    let may_be_open = conversation.exists && !conversation.deleted && conversation.kind != ConversationKind::Direct;
    if !may_be_open || conversation.join_policy != JoinPolicy::Open {
        return Err(Refusal::new(ErrorCode::NotFound, "there is no open conversation of this name"));
    }
    if conversation.member_count() >= MEMBERS_MAX {
        return Err(Refusal::new(ErrorCode::LimitExceeded, "the conversation is full"));
    }
    Ok(write(member_event(control::member_event::Change::Joined, vec![member(user, Role::Member)])))
}

fn decide_leave(user: &UserId, conversation: &Conversation) -> Result<Decision, Refusal> {
    let Some(standing) = conversation.member(user) else { return Ok(Decision::Nothing) };
    if conversation.member_count() > 1 {
        keep_an_owner(user, conversation)?;
    }
    let left = member_event(control::member_event::Change::Left, vec![member(user, standing.role)]);
    Ok(Decision::Write(left, Answer::Done))
}

fn keep_an_owner(leaving: &UserId, conversation: &Conversation) -> Result<(), Refusal> {
    if conversation.is_last_owner(leaving) {
        return Err(Refusal::new(ErrorCode::Forbidden, "the last owner stays; make another member owner first"));
    }
    Ok(())
}

fn refuse_direct(conversation: &Conversation) -> Result<(), Refusal> {
    if conversation.kind == ConversationKind::Direct {
        return Err(Refusal::new(ErrorCode::Forbidden, "the members of a direct conversation do not change"));
    }
    Ok(())
}

fn check_title(title: &str) -> Result<(), Refusal> {
    if title.len() > TITLE_BYTES_MAX {
        return Err(Refusal::field(
            ErrorCode::InvalidField,
            "title",
            format!("a title has at most {TITLE_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

fn check_retention(retention_s: u32) -> Result<(), Refusal> {
    if (1..RETENTION_MIN_S).contains(&retention_s) {
        let message = format!("events are kept at least {RETENTION_MIN_S} seconds, or for ever with 0");
        return Err(Refusal::field(ErrorCode::InvalidField, "retention_s", message));
    }
    Ok(())
}

fn check_members(members: &[control::Member]) -> Result<Vec<control::Member>, Refusal> {
    if members.len() > MEMBERS_PER_REQUEST_MAX {
        let message = format!("one request names at most {MEMBERS_PER_REQUEST_MAX} members");
        return Err(Refusal::field(ErrorCode::LimitExceeded, "members", message));
    }
    let check = |given: &control::Member| {
        let user = given.user.parse::<UserId>();
        user.map(|user| member(&user, given.role()))
            .map_err(|error| Refusal::field(ErrorCode::InvalidField, "members.user", error.to_string()))
    };
    members.iter().map(check).collect()
}

fn member(user: &UserId, role: Role) -> control::Member {
    control::Member { user: user.to_string(), role: role.into(), joined_seq: 0 }
}

fn conversation_event(
    conversation: &Conversation,
    change: control::conversation_event::Change,
) -> control::ConversationEvent {
    control::ConversationEvent {
        change: change.into(),
        kind: conversation.kind.into(),
        title: conversation.title.clone(),
        join_policy: conversation.join_policy.into(),
        members: Vec::new(),
        retention_s: conversation.retention_s,
        history: conversation.history.into(),
    }
}

fn member_event(change: control::member_event::Change, members: Vec<control::Member>) -> Event {
    Event::Member(control::MemberEvent { change: change.into(), members })
}

fn write(event: Event) -> Decision {
    Decision::Write(event, Answer::Conversation { created: false })
}
