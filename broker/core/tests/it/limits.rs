//! Bounds that are reached through volume.

use antiphon_core::limits::{LOG_WAITING_MAX, OUTBOX_CONTROL_BYTES_MAX};
use antiphon_protocol::{
    Class, ErrorCode, FrameType,
    control::{self, Role},
    limits::{MEMBERS_MAX, MEMBERS_PER_REQUEST_MAX, REQUESTS_IN_FLIGHT_MAX},
};

use super::harness::*;

#[test]
fn requests_over_what_a_session_may_have_in_flight_stay_unread() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.store.hold(&[Kind::Append]);
    for n in 0..REQUESTS_IN_FLIGHT_MAX + 10 {
        let draft = c.draft("c:tea", &n.to_string());
        c.send(ann, &draft);
    }
    c.settle();
    assert_eq!(c.client(ann).outgoing.len(), 10);
    c.store.hold(&[]);
    c.settle();
    assert!(c.client(ann).unanswered.is_empty());
    assert_eq!(c.stored(ann, "c:tea").head() as usize, REQUESTS_IN_FLIGHT_MAX + 11);
}

#[test]
fn requests_that_wait_for_one_log_are_bounded_and_the_rest_is_refused_for_now() {
    let mut c = Cluster::new(1);
    let sessions = [c.connect(0, "ann"), c.connect(0, "ann")];
    c.group(sessions[0], "tea", &[]);
    c.restart(1, false);
    let sessions = sessions.map(|_| c.connect(0, "ann"));
    c.store.hold(&[Kind::Load]);
    for n in 0..LOG_WAITING_MAX {
        for session in sessions {
            let draft = c.draft("c:tea", "x").dseq(n as u64 + 1);
            c.send(session, &draft);
        }
    }
    c.settle();
    c.store.hold(&[]);
    c.settle();
    let count = |c: &Cluster, who: Who| c.client(who).replies.values().filter(|r| matches!(r, Reply::Ack(_))).count();
    let acked: usize = sessions.iter().map(|who| count(&c, *who)).sum();
    assert_eq!(acked, LOG_WAITING_MAX);
    for session in sessions {
        let replies = c.client(session).replies.values().cloned();
        for error in replies.filter(|reply| matches!(reply, Reply::Error(_))).map(Reply::error) {
            assert!([ErrorCode::Overloaded as u32, ErrorCode::OutOfOrder as u32].contains(&error.number));
        }
        assert_eq!(c.client(session).replies.len(), LOG_WAITING_MAX);
    }
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_either() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.client_mut(ann).reads[Class::Control as usize] = false;
    for _ in 0..20_000 {
        c.ask(ann, FrameType::ConversationGet, &control::ConversationGet { conversation: "tea".into() });
    }
    c.settle();
    let connection = c.client(ann).connection;
    let waiting = c.shards[0].outbox_mut(connection).unwrap().lane(Class::Control).bytes();
    assert!((OUTBOX_CONTROL_BYTES_MAX..OUTBOX_CONTROL_BYTES_MAX * 4).contains(&waiting), "{waiting} bytes wait");
    assert!(!c.client(ann).outgoing.is_empty());
    c.client_mut(ann).reads = [true; 5];
    c.settle();
    assert_eq!(c.client(ann).replies.len(), 20_000);
}

#[test]
fn members_are_bounded_per_request_and_per_conversation() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let add = |first: usize, count: usize| control::MemberAdd {
        conversation: "tea".into(),
        members: (first..first + count).map(|n| member(&format!("m{n}"), Role::Member)).collect(),
        ..Default::default()
    };
    let error = c.call(ann, FrameType::MemberAdd, &add(0, MEMBERS_PER_REQUEST_MAX + 1)).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::LimitExceeded as u32, "members"));
    let mut count = 0;
    while count + MEMBERS_PER_REQUEST_MAX < MEMBERS_MAX {
        c.ask(ann, FrameType::MemberAdd, &add(count, MEMBERS_PER_REQUEST_MAX));
        count += MEMBERS_PER_REQUEST_MAX;
        if count == MEMBERS_PER_REQUEST_MAX * 20 {
            c.settle();
        }
    }
    c.settle();
    let rest = MEMBERS_MAX - 1 - count;
    let full = c.call(ann, FrameType::MemberAdd, &add(count, rest)).conversation();
    assert_eq!(full.members.len(), MEMBERS_MAX);
    assert_eq!(c.call(ann, FrameType::MemberAdd, &add(20_000, 1)).code(), ErrorCode::LimitExceeded);
    c.restart(1, false);
    let last = c.connect(0, &format!("m{}", MEMBERS_MAX - 2));
    c.say(last, "c:tea", "I fit").ack();
}

#[test]
fn refusals_are_counted_by_code() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &[]);
    for _ in 0..3 {
        assert_eq!(c.say(bob, "c:tea", "hi").code(), ErrorCode::NotFound);
    }
    let beyond = control::Cursor { log: "c:tea".into(), read: 9, ..Default::default() };
    assert_eq!(c.call(ann, FrameType::Cursor, &beyond).code(), ErrorCode::InvalidField);
    let counted = |c: &Cluster| {
        let all = c.shards.iter().flat_map(|shard| shard.counters().refusals.iter());
        let mut counted: Vec<_> = all.filter(|(_, count)| *count > 0).collect();
        counted.sort_unstable();
        counted
    };
    assert_eq!(counted(&c), [(ErrorCode::InvalidField, 1), (ErrorCode::NotFound, 3)]);
}
