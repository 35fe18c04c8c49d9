//! The outbox: order, repetition, receipts, bounds.

use antiphon_protocol::{
    ErrorCode, FrameType, control,
    frames::{self, Send},
};
use antiphon_sdk_core::{
    Command, CommandId, From, Input, NewMessage, OutboxLimits, Output, Token,
    limits::{OUT_OF_ORDER_MAX, SENDS_IN_FLIGHT_MAX},
};

use crate::rig::{Rig, STATE, attach, config, decode, log};

#[test]
fn a_message_is_queued_written_and_acknowledged() {
    let mut rig = Rig::online();
    rig.send(1, "hi");
    rig.expect(&["m1 queued", "m1 sending", "SEND#2 c:a dseq=1 hi"]);
    rig.ack(2, 7);
    rig.expect(&["m1 sent 1-7"]);
}

#[test]
fn ids_are_uuids_of_version_7_by_the_brokers_clock_and_stay_the_same_in_every_attempt() {
    let mut rig = Rig::online();
    rig.now = rig.now.after(std::time::Duration::from_millis(2_500));
    let ids = |rig: &mut Rig| -> Vec<uuid::Uuid> {
        std::iter::from_fn(|| rig.client.poll_output())
            .filter_map(|output| match output {
                Output::Write(bytes) => Some(decode(&bytes)),
                _ => None,
            })
            .filter(|frame| frame.frame_type == FrameType::Send)
            .map(|frame| Send::decode(&frame.body).unwrap().client_message_id)
            .collect()
    };
    rig.send(1, "hi");
    let first = ids(&mut rig);
    assert_eq!(first[0].get_version_num(), 7);
    let millis = (first[0].as_u128() >> 80) as u64;
    assert_eq!(millis, 1_700_000_002_500);
    rig.reconnect();
    assert_eq!(ids(&mut rig), first);
}

#[test]
fn what_is_sent_offline_is_written_in_order_once_a_session_stands() {
    let mut rig = Rig::offline(config());
    rig.send(1, "a");
    rig.send(2, "b");
    rig.expect(&["connecting", "need token", "m1 queued", "m2 queued"]);
    rig.go_online();
    rig.expect(&["ready", "m1 sending", "SEND#2 c:a dseq=1 a", "m2 sending", "SEND#3 c:a dseq=2 b"]);
}

#[test]
fn what_was_not_acknowledged_is_written_again_after_a_reconnect_with_the_same_dseq() {
    let mut rig = Rig::online();
    (1..4).for_each(|n| rig.send(n, "x"));
    rig.ack(2, 1);
    rig.seen();
    rig.reconnect();
    rig.expect(&["ready", "SEND#6 c:a dseq=2 x", "SEND#7 c:a dseq=3 x"]);
}

#[test]
fn a_refusal_for_now_stops_the_log_until_it_is_written_again_in_order() {
    let mut rig = Rig::online();
    (1..4).for_each(|n| rig.send(n, &n.to_string()));
    rig.seen();
    rig.refuse(2, ErrorCode::Overloaded);
    rig.refuse(3, ErrorCode::OutOfOrder);
    rig.send(4, "4");
    rig.expect(&["m4 queued"]);
    rig.wait();
    // One of the refused ones is still unanswered, so nothing is written yet.
    rig.expect(&[]);
    rig.refuse(4, ErrorCode::OutOfOrder);
    rig.expect(&[
        "SEND#5 c:a dseq=1 1",
        "SEND#6 c:a dseq=2 2",
        "SEND#7 c:a dseq=3 3",
        "m4 sending",
        "SEND#8 c:a dseq=4 4",
    ]);
}

#[test]
fn a_log_that_waits_writes_nothing_even_when_the_window_opens() {
    let mut rig = Rig::online();
    let count = SENDS_IN_FLIGHT_MAX as u64 + 3;
    (0..count).for_each(|n| rig.send(n, "x"));
    rig.seen();
    rig.refuse(2, ErrorCode::Overloaded);
    rig.ack(3, 1);
    rig.expect(&["m1 sent 1-1"]);
}

#[test]
fn a_refusal_of_one_log_does_not_stop_another() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.refuse(2, ErrorCode::StoreFull);
    rig.seen();
    let message = NewMessage::text("c:b".parse().unwrap(), "y");
    rig.command(Command::Send { id: CommandId(2), message });
    rig.expect(&["m2 queued", "m2 sending", "SEND#3 c:b dseq=1 y"]);
}

#[test]
fn the_broker_says_how_long_to_wait() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    let refusal = control::Error { retry_after_ms: 9_000, ..crate::rig::error(ErrorCode::RateLimited) };
    rig.control(frames::control(FrameType::Error, 2, &refusal));
    assert_eq!(rig.wait().as_millis(), 9_000);
}

#[test]
fn a_final_refusal_fails_the_message_and_consumes_its_dseq() {
    let mut rig = Rig::online();
    (1..4).for_each(|n| rig.send(n, "x"));
    rig.seen();
    rig.refuse(3, ErrorCode::Forbidden);
    rig.ack(2, 1);
    rig.ack(4, 2);
    rig.send(4, "x");
    rig.expect(&[
        "m2 failed: the broker refused with forbidden (4001)",
        "m1 sent 1-1",
        "m3 sent 1-2",
        "m4 queued",
        "m4 sending",
        "SEND#5 c:a dseq=4 x",
    ]);
}

#[test]
fn a_final_refusal_leaves_no_hole_in_what_is_written_again() {
    let mut rig = Rig::online();
    (1..4).for_each(|n| rig.send(n, &n.to_string()));
    rig.refuse(3, ErrorCode::IdReused);
    rig.seen();
    rig.reconnect();
    rig.expect(&["ready", "SEND#6 c:a dseq=1 1", "SEND#7 c:a dseq=2 3"]);
    rig.send(4, "4");
    rig.expect(&["m4 queued", "m4 sending", "SEND#8 c:a dseq=3 4"]);
}

#[test]
fn a_log_that_gets_nowhere_gets_a_new_connection() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.seen();
    for n in 0..OUT_OF_ORDER_MAX - 1 {
        rig.refuse(2 + n, ErrorCode::OutOfOrder);
        rig.wait();
        rig.expect(&[&format!("SEND#{} c:a dseq=1 x", 3 + n)]);
    }
    rig.refuse(1 + OUT_OF_ORDER_MAX, ErrorCode::OutOfOrder);
    let lines = rig.seen();
    assert!(lines[0] == "close" && lines[1].contains("out of order"), "{lines:?}");
}

#[test]
fn the_outbox_is_bounded_in_messages_and_bytes() {
    for limits in [OutboxLimits { messages: 2, bytes: 100 }, OutboxLimits { messages: 100, bytes: 4 }] {
        let mut rig = Rig::offline(antiphon_sdk_core::Config { outbox: limits, ..config() });
        rig.seen();
        (1..4).for_each(|n| rig.send(n, "xy"));
        rig.expect(&["m1 queued", "m2 queued", "m3 failed: the outbox is full: 2 messages, 4 bytes"]);
        rig.go_online();
        rig.ack(2, 1);
        rig.seen();
        rig.send(4, "xy");
        assert_eq!(rig.seen()[0], "m4 queued");
    }
}

#[test]
fn sends_in_flight_are_bounded() {
    let mut rig = Rig::online();
    let count = SENDS_IN_FLIGHT_MAX as u64 + 1;
    (0..count).for_each(|n| rig.send(n, "x"));
    let written = rig.seen().iter().filter(|line| line.starts_with("SEND#")).count();
    assert_eq!(written, SENDS_IN_FLIGHT_MAX);
    rig.ack(2, 1);
    assert_eq!(rig.seen().iter().filter(|line| line.starts_with("SEND#")).count(), 1);
}

#[test]
fn what_no_broker_would_take_is_refused_at_once() {
    let mut rig = Rig::online();
    rig.command(Command::Send {
        id: CommandId(1),
        message: NewMessage::new(log(), antiphon_protocol::ContentType::Octets, vec![0; 65_537].into()),
    });
    let member = NewMessage { kind: antiphon_protocol::EventKind::MEMBER, ..NewMessage::text(log(), "x") };
    rig.command(Command::Send { id: CommandId(2), message: member });
    rig.expect(&[
        "m1 failed: body has 65537 bytes, at most 65536 are allowed",
        "m2 failed: clients may not send events of this kind",
    ]);
}

#[test]
fn receipts_of_others_move_sent_messages_on() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.attach(2, &attach(1, 1, true));
    rig.send(1, "x");
    rig.send(2, "y");
    rig.ack(3, 5);
    rig.ack(4, 6);
    rig.seen();
    let cursor = |rig: &mut Rig, user: &str, delivered, read| {
        let cursor = control::MemberCursor { user: user.into(), delivered, read, read_msgno: 0 };
        rig.input(Input::Stream(STATE, frames::control(FrameType::Cursors, crate::rig::HANDLE, &cursor)));
    };
    cursor(&mut rig, "ann", 6, 6);
    rig.expect(&["s1 cursor ann 6/6"]);
    cursor(&mut rig, "bob", 6, 5);
    rig.expect(&["m1 read", "m2 delivered", "s1 cursor bob 6/5"]);
    cursor(&mut rig, "eve", 6, 6);
    rig.expect(&["m2 read", "s1 cursor eve 6/6"]);
}

#[test]
fn a_token_that_ends_while_sending_is_renewed_and_the_message_repeated() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.seen();
    rig.refuse(2, ErrorCode::TokenExpired);
    rig.expect(&["need token"]);
    rig.input(Input::Token(Token::new("fresh")));
    rig.expect(&["AUTH#3 fresh"]);
    rig.ok(3);
    rig.wait();
    rig.expect(&["SEND#4 c:a dseq=1 x"]);
}

#[test]
fn a_client_that_stops_fails_what_waits() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.seen();
    rig.refuse(0, ErrorCode::Replaced);
    rig.expect(&[
        "close",
        "m1 failed: the client stopped before the message was acknowledged: the session was refused: the broker \
         refused with replaced (5003)",
        "stopped: the session was refused: the broker refused with replaced (5003)",
    ]);
    rig.send(2, "x");
    assert!(rig.seen()[0].starts_with("m2 failed"));
    assert_eq!(rig.client.poll_timeout(), None);
}
