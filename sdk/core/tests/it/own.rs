//! What is a user's own: requests with typed answers, and the events that tell of them.

use antiphon_protocol::{ContentType, EventKind, EventRef, FrameType, NewRow, UserId, control, frames};
use antiphon_sdk_core::{
    Answer, CommandId, ConversationKind, Event, From, InboxPage, Input, Item, LastMessage, MemberChange, Notice,
    Output, Preferences, PresenceStatus, RemovalReason, Request, RequestError,
};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use crate::rig::{HANDLE, Rig, STATE, attach, decode, log};

/// Makes a request, answers it with this message, and reads the answer.
fn ask<T>(rig: &mut Rig, request: &Request<T>, answer: &impl Message) -> Result<T, RequestError> {
    rig.command(request.command(CommandId(1)));
    let written = rig.client.poll_output();
    let Some(Output::Write(bytes)) = written else { panic!("it is written: {written:?}") };
    rig.control(frames::control(FrameType::Ok, decode(&bytes).id, answer));
    match rig.client.poll_output() {
        Some(Output::Answer { id: CommandId(1), result }) => request.read(result?),
        other => panic!("it is answered: {other:?}"),
    }
}

fn entry() -> control::SyncedLog {
    control::SyncedLog {
        log: "c:tea".into(),
        pinned: true,
        hidden: vec![3],
        title: "Tea".into(),
        epoch: 1,
        head: 9,
        head_msgno: 7,
        time_ms: 90,
        last: Some(control::LastMessage { seq: 8, sender: "bob".into(), body: "hi".into(), ..Default::default() }),
        delivered: 9,
        read: 5,
        read_msgno: 4,
        ..Default::default()
    }
}

fn inbox(synced: &control::Synced) -> Result<InboxPage, RequestError> {
    ask(&mut Rig::online(), &Request::inbox(None, 0), synced)
}

#[test]
fn the_list_says_what_is_unread_who_is_blocked_and_where_to_go_on() {
    let kept_back = control::SyncedLog { log: "c:x".into(), muted: true, error: 1_004, ..Default::default() };
    let synced = control::Synced { entries: vec![entry(), kept_back], next: "x".into(), blocked: vec!["eve".into()] };
    let page = inbox(&synced).unwrap();
    assert_eq!((page.next.as_ref().map(|id| id.as_str()), page.blocked[0].as_str()), (Some("x"), "eve"));
    let [tea, x] = &page.entries[..] else { panic!("two conversations: {page:?}") };
    assert_eq!(
        (tea.log().to_string().as_str(), tea.pinned, tea.muted, &tea.hidden[..]),
        ("c:tea", true, false, &[3][..])
    );
    assert_eq!((tea.unread(), x.unread()), (Some(3), None));
    let overview = tea.overview.as_ref().unwrap();
    assert_eq!((overview.kind, overview.title.as_str()), (ConversationKind::Group, "Tea"));
    assert_eq!(overview.last.as_ref().and_then(LastMessage::text).as_deref(), Some("hi"));
    assert_eq!(x.overview.as_ref().unwrap_err().code, "store_unavailable");
}

#[test]
fn a_list_that_cannot_be_read_is_no_list() {
    for log in ["tea", "u:ann", "c:"] {
        let entries = vec![control::SyncedLog { log: log.into(), ..entry() }];
        assert_eq!(inbox(&control::Synced { entries, ..Default::default() }), Err(RequestError::Answer), "{log}");
    }
}

#[test]
fn digests_keep_the_list_current_and_what_one_sends_oneself_is_read() {
    let mut rig = Rig::online();
    let mut head = |seq, msgno, sender: &str| {
        let last = control::LastMessage { seq, time_ms: 100, sender: sender.into(), ..Default::default() };
        let head = control::Head { log: "c:tea".into(), epoch: 1, seq, msgno, last: Some(last) };
        rig.input(Input::Stream(STATE, frames::control(FrameType::Head, 0, &head)));
        match rig.client.poll_output() {
            Some(Output::Digest(digest)) => digest,
            other => panic!("a digest is told: {other:?}"),
        }
    };
    let page = inbox(&control::Synced { entries: vec![entry()], ..Default::default() }).unwrap();
    let mut overview = page.entries[0].overview.clone().unwrap();
    overview.apply(&head(10, 8, "bob"), "ann");
    assert_eq!((overview.unread(), overview.head.seq, overview.time_ms), (4, 10, 100));
    overview.apply(&head(8, 6, "bob"), "ann");
    assert_eq!((overview.unread(), overview.head.seq), (4, 10), "older state changes nothing");
    overview.apply(&head(11, 9, "ann"), "ann");
    assert_eq!((overview.unread(), overview.read), (0, 11));
}

#[test]
fn what_changes_ones_own_is_written_as_the_specification_says() {
    let mut rig = Rig::online();
    let mut written = |request: Request<()>| {
        rig.command(request.command(CommandId(1)));
        match rig.client.poll_output() {
            Some(Output::Write(bytes)) => decode(&bytes),
            other => panic!("it is written: {other:?}"),
        }
    };
    let eve: UserId = "eve".parse().unwrap();
    let block = written(Request::block(&eve));
    assert_eq!(block.frame_type, FrameType::Block);
    let unblock = written(Request::unblock(&eve));
    let blocked = |body| frames::decode_request::<control::Block>(body).unwrap().blocked;
    assert_eq!((blocked(&block.body), blocked(&unblock.body)), (true, false));
    let muted = Preferences { muted: Some(false), ..Preferences::default() };
    let preferences = written(Request::set_preferences(&"tea".parse().unwrap(), muted));
    let expected = control::Preferences { conversation: "tea".into(), pinned: None, muted: Some(false) };
    assert_eq!(frames::decode_request::<control::Preferences>(&preferences.body).unwrap(), expected);
    let hide = written(Request::hide(&log(), EventRef { event_id: Uuid::from_u128(1), seq: 4 }));
    let hide: control::Hide = frames::decode_request(&hide.body).unwrap();
    assert_eq!((hide.log.as_str(), hide.seq, &hide.event_id[..]), ("c:a", 4, &Uuid::from_u128(1).as_bytes()[..]));
    let presence = written(Request::set_presence(PresenceStatus::Busy, "in a meeting"));
    let presence: control::PresenceSet = frames::decode_request(&presence.body).unwrap();
    assert_eq!((presence.status(), presence.text.as_str()), (control::PresenceStatus::Busy, "in a meeting"));
    let revoke = |request| frames::decode_request::<control::Revoke>(&request).unwrap().user;
    assert_eq!(revoke(written(Request::revoke(None)).body), "");
    assert_eq!(revoke(written(Request::revoke(Some(&eve))).body), "eve");
}

#[test]
fn an_answer_of_another_kind_is_no_answer() {
    let answer = Answer { frame_type: FrameType::Ack, body: Bytes::new() };
    assert_eq!(Request::block(&"eve".parse().unwrap()).read(answer), Err(RequestError::Answer));
}

/// An event with this body, as a subscription hands it over.
fn told(kind: EventKind, body: &impl Message) -> Event {
    let row = NewRow {
        seq: 1,
        msgno: 0,
        time_ms: 1,
        event_id: Uuid::from_u128(1),
        client_message_id: Uuid::nil(),
        kind,
        content_type: ContentType::Control,
        sender: &UserId::new("bob").unwrap(),
        via: None,
        envelope: b"",
        body: &body.encode_to_vec(),
    }
    .to_row();
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.attach(2, &attach(1, 1, true));
    rig.seen();
    rig.events(frames::event(HANDLE, &row));
    match rig.client.poll_output() {
        Some(Output::Subscription { item: Item::Event(event), .. }) => event,
        other => panic!("an event comes: {other:?}"),
    }
}

#[test]
fn events_of_the_broker_are_read_without_knowing_its_encoding() {
    let member = control::Member { user: "eve".into(), ..Default::default() };
    let body = control::MemberEvent { change: 3, members: vec![member] };
    let Some(Notice::Members { change, members }) = told(EventKind::MEMBER, &body).notice() else { panic!("{body:?}") };
    assert_eq!((change, members[0].user.as_str()), (MemberChange::Left, "eve"));
    let body = control::ConversationRemoved { conversation: "tea".into(), seq: 4, reason: 2 };
    let removed = Notice::Removed { conversation: "tea".parse().unwrap(), seq: 4, reason: RemovalReason::Deleted };
    assert_eq!(told(EventKind::CONVERSATION_REMOVED, &body).notice(), Some(removed));
    let body = control::Preferences { conversation: "tea".into(), pinned: Some(true), muted: None };
    let preferences = Preferences { pinned: Some(true), muted: None };
    let expected = Notice::Preferences { conversation: "tea".parse().unwrap(), preferences };
    assert_eq!(told(EventKind::PREFERENCES, &body).notice(), Some(expected));
    let body = control::Hide { log: "c:a".into(), event_id: Uuid::from_u128(5).as_bytes().to_vec().into(), seq: 2 };
    let event = EventRef { event_id: Uuid::from_u128(5), seq: 2 };
    assert_eq!(told(EventKind::HIDE, &body).notice(), Some(Notice::Hide { log: log(), event }));
    let body = control::MemberEvent { change: 77, members: Vec::new() };
    assert_eq!(told(EventKind::MEMBER, &body).notice(), None, "a change of a later version");
    assert_eq!(told(EventKind::MESSAGE, &control::Block::default()).notice(), None);
}
