//! Cursors and signals.

use antiphon_core::limits::CHECKPOINT_ROWS;
use antiphon_protocol::{
    ErrorCode, FrameType,
    control::{Cursor, MemberCursor, Signal, subscribe::From},
    frames,
    limits::{RECEIPTS_MEMBERS_MAX, SIGNAL_BYTES_MAX},
};
use antiphon_storage_contract::StoreError;

use super::harness::*;

fn group() -> (Cluster, Who, Who) {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    for n in 0..9 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    c.follow(ann, "c:tea");
    c.follow(bob, "c:tea");
    (c, ann, bob)
}

fn read(c: &mut Cluster, who: Who, delivered: u64, read: u64) -> Reply {
    c.call(who, FrameType::Cursor, &Cursor { log: "c:tea".into(), delivered, read, act_as: String::new() })
}

fn cursor(user: &str, delivered: u64, read: u64, read_msgno: u64) -> MemberCursor {
    MemberCursor { user: user.into(), delivered, read, read_msgno }
}

/// The user's cursor, as a hand-over tells it.
fn handed_over(c: &mut Cluster, user: &str) -> Vec<MemberCursor> {
    let who = c.connect(0, user);
    let cursors = c.subscribe(who, "c:tea", From::Tail(true)).attach().cursors;
    cursors.into_iter().filter(|cursor| cursor.user == user).collect()
}

#[test]
fn others_learn_how_far_one_has_read_and_it_never_moves_back() {
    let (mut c, ann, bob) = group();
    read(&mut c, bob, 6, 4).ok::<()>();
    read(&mut c, bob, 2, 1).ok::<()>();
    read(&mut c, bob, 0, 8).ok::<()>();
    read(&mut c, bob, 0, 0).ok::<()>();
    let told = [cursor("bob", 6, 4, 3), cursor("bob", 8, 8, 7)].map(Told::Cursor);
    assert_eq!(c.client(ann).told, told, "a cursor that did not move is not told");
    assert!(c.client(bob).told.is_empty(), "nobody hears of it on the connection that did it");
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 8, 8, 7)]);
}

#[test]
fn another_device_of_the_same_user_learns_it_too() {
    let (mut c, _, bob) = group();
    let tablet = c.connect(0, "bob");
    c.follow(tablet, "c:tea");
    read(&mut c, bob, 5, 5).ok::<()>();
    assert_eq!(c.client(tablet).told, [Told::Cursor(cursor("bob", 5, 5, 4))]);
}

#[test]
fn a_cursor_beyond_the_head_is_refused_and_moves_nothing() {
    let (mut c, ann, bob) = group();
    assert_eq!(read(&mut c, bob, 5, 11).code(), ErrorCode::InvalidField);
    assert_eq!(read(&mut c, bob, 11, 5).code(), ErrorCode::InvalidField);
    assert!(c.client(ann).told.is_empty());
}

#[test]
fn a_cursor_at_a_row_that_left_memory_finds_its_msgno() {
    let (mut c, ann, bob) = group();
    for n in 0..400 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    read(&mut c, bob, 5, 5).ok::<()>();
    assert_eq!(c.client(ann).told, [Told::Cursor(cursor("bob", 5, 5, 4))]);
    c.store.fail(Kind::Read, StoreError::Unavailable("test".into()), 1);
    assert_eq!(read(&mut c, bob, 7, 7).code(), ErrorCode::StoreUnavailable);
    read(&mut c, bob, 7, 7).ok::<()>();
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 7, 7, 6)]);
}

#[test]
fn cursors_are_saved_within_a_second_and_come_back() {
    let (mut c, _, bob) = group();
    let before = c.store.count(Kind::PutRecords);
    read(&mut c, bob, 3, 3).ok::<()>();
    read(&mut c, bob, 6, 6).ok::<()>();
    assert_eq!(c.store.count(Kind::PutRecords), before);
    c.advance_ms(1_001);
    assert_eq!(c.store.count(Kind::PutRecords), before + 1, "moves are merged");
    read(&mut c, bob, 9, 9).ok::<()>();
    c.restart(2, false);
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 6, 6, 5)], "at most the last second is lost");
}

#[test]
fn what_one_has_sent_stays_read_without_a_write_of_its_own() {
    let (mut c, ann, _) = group();
    let before = c.store.count(Kind::PutRecords);
    c.say(ann, "c:tea", "x").ack();
    c.advance_ms(10_000);
    assert_eq!(c.store.count(Kind::PutRecords), before);
    c.restart(2, false);
    assert_eq!(handed_over(&mut c, "ann"), [cursor("ann", 11, 11, 10)], "its row tells it");
}

#[test]
fn what_one_has_sent_stays_read_when_a_checkpoint_hides_its_row() {
    for fails in [0, u32::MAX] {
        let (mut c, ann, bob) = group();
        let before = c.store.count(Kind::PutRecords);
        c.store.fail(Kind::PutRecords, StoreError::Full, fails);
        c.say(bob, "c:tea", "x").ack();
        for n in 0..CHECKPOINT_ROWS * 2 {
            c.say(ann, "c:tea", &n.to_string()).ack();
        }
        assert!(c.store.logs.values().any(|log| log.checkpoint.as_ref().is_some_and(|(through, _)| *through > 11)));
        assert_eq!(c.store.count(Kind::PutRecords), before + 2, "once with each checkpoint");
        c.restart(2, false);
        assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 11, 11, 10)]);
        let head = 11 + CHECKPOINT_ROWS * 2;
        assert_eq!(handed_over(&mut c, "ann"), [cursor("ann", head, head, head - 1)]);
    }
}

#[test]
fn a_failed_save_is_repeated() {
    let (mut c, _, bob) = group();
    let before = c.store.count(Kind::PutRecords);
    c.store.fail(Kind::PutRecords, StoreError::Full, 2);
    read(&mut c, bob, 6, 6).ok::<()>();
    for _ in 0..5 {
        c.advance_ms(1_001);
    }
    assert_eq!(c.store.count(Kind::PutRecords), before + 3);
    c.restart(2, false);
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 6, 6, 5)]);
}

#[test]
fn a_failed_append_moves_no_cursor_back() {
    let (mut c, ann, bob) = group();
    read(&mut c, bob, 6, 6).ok::<()>();
    c.store.fail(Kind::Append, StoreError::Full, 1);
    assert_eq!(c.say(ann, "c:tea", "x").code(), ErrorCode::StoreFull);
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 6, 6, 5)]);
    for _ in 0..3 {
        c.advance_ms(1_001);
    }
    c.restart(1, false);
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 6, 6, 5)], "and it is still saved");
}

#[test]
fn large_conversations_push_no_receipts() {
    let (mut c, ann, bob) = group();
    let members: Vec<_> =
        (0..RECEIPTS_MEMBERS_MAX).map(|n| member(&format!("m{n}"), antiphon_protocol::control::Role::Member)).collect();
    let add = antiphon_protocol::control::MemberAdd { conversation: "tea".into(), members, ..Default::default() };
    c.call(ann, FrameType::MemberAdd, &add).conversation();
    read(&mut c, bob, 6, 6).ok::<()>();
    assert!(c.client(ann).told.is_empty());
    assert_eq!(handed_over(&mut c, "bob"), [cursor("bob", 6, 6, 5)]);
}

#[test]
fn strangers_move_no_cursor() {
    let (mut c, ann, _) = group();
    let eve = c.connect(1, "eve");
    assert_eq!(read(&mut c, eve, 1, 1).code(), ErrorCode::NotFound);
    assert!(c.client(ann).told.is_empty());
}

#[test]
fn a_signal_reaches_live_readers_except_its_own_connection() {
    let (mut c, ann, bob) = group();
    let (tablet, idle) = (c.connect(1, "ann"), c.connect(0, "bob"));
    c.follow(tablet, "c:tea");
    let signal = Signal { log: "c:tea".into(), kind: "typing".into(), data: "on".into(), ttl_ms: 0 };
    c.ask(ann, FrameType::Signal, &signal);
    c.settle();
    for who in [bob, tablet] {
        let [Told::Signal(told)] = &c.client(who).told[..] else { panic!("one signal is told") };
        assert_eq!(
            (told.user.as_str(), told.kind.as_str(), &told.data[..], told.ttl_ms),
            ("ann", "typing", &b"on"[..], 6_000)
        );
    }
    assert!(c.client(ann).told.is_empty() && c.client(idle).told.is_empty());
}

#[test]
fn signals_that_are_not_allowed_are_lost_in_silence() {
    let (mut c, ann, bob) = group();
    let eve = c.connect(1, "eve");
    let signal = Signal { log: "c:tea".into(), kind: "typing".into(), ..Default::default() };
    c.ask(eve, FrameType::Signal, &signal);
    let long = Signal { data: vec![0; SIGNAL_BYTES_MAX + 1].into(), ..signal.clone() };
    c.ask(bob, FrameType::Signal, &long);
    c.settle();
    assert!(c.client(ann).told.is_empty());
    // The session that did it goes on.
    c.ask(bob, FrameType::Signal, &signal);
    c.settle();
    assert_eq!(c.client(ann).told.len(), 1);
}

#[test]
fn a_signal_that_cannot_be_read_is_no_farewell() {
    let (mut c, ann, _) = group();
    let nameless = frames::control(FrameType::Signal, 0, &Signal { log: "nobody".into(), ..Default::default() });
    for frame in [frames::raw(FrameType::Signal, 0, &[0xff]), nameless] {
        c.raw(ann, frame);
        c.settle();
        assert!(c.client(ann).farewell.is_none() && c.client(ann).closed.is_none());
    }
    c.get(ann, "tea").conversation();
}

#[test]
fn a_signal_to_a_log_that_cannot_be_read_answers_nobody() {
    let mut c = Cluster::new(2);
    let who = [c.connect(0, "ann"), c.connect(1, "ann")];
    let signal = Signal { log: "c:tea".into(), kind: "typing".into(), ..Default::default() };
    for ann in who {
        c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1);
        c.ask(ann, FrameType::Signal, &signal);
        c.settle();
        assert!(c.client(ann).farewell.is_none() && c.client(ann).replies.is_empty());
        assert_eq!(c.get(ann, "tea").code(), ErrorCode::NotFound, "the session goes on");
    }
}
