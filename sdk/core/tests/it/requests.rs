//! Requests, pages and cursors of the application.

use std::time::Duration;

use antiphon_protocol::{ErrorCode, FrameType, control, frames};
use antiphon_sdk_core::{
    Command, CommandId, Input, NewSignal, Range,
    limits::{REQUEST_ATTEMPTS_MAX, REQUESTS_IN_FLIGHT_MAX},
};
use bytes::Bytes;

use crate::rig::{Rig, STATE, config, error, log};

fn request(rig: &mut Rig, id: u64, frame_type: FrameType) {
    rig.command(Command::Request { id: CommandId(id), frame_type, body: Bytes::new() });
}

fn fetch(rig: &mut Rig, id: u64) {
    let range = Range::newest(log(), 0);
    rig.command(Command::Fetch { id: CommandId(id), range });
}

#[test]
fn a_request_gets_its_answer() {
    let mut rig = Rig::online();
    request(&mut rig, 1, FrameType::Join);
    request(&mut rig, 2, FrameType::Leave);
    rig.ok(3);
    rig.refuse(2, ErrorCode::NotFound);
    rig.expect(&["JOIN#2", "LEAVE#3", "r2 OK", "r1 failed: the broker refused with not_found (4004)"]);
}

#[test]
fn a_refusal_for_now_is_repeated_a_few_times_before_it_is_shown() {
    let mut rig = Rig::online();
    request(&mut rig, 1, FrameType::Join);
    for n in 0..REQUEST_ATTEMPTS_MAX - 1 {
        rig.expect(&[&format!("JOIN#{}", 2 + n)]);
        rig.refuse(2 + n, ErrorCode::Overloaded);
        rig.wait();
    }
    rig.seen();
    rig.refuse(1 + REQUEST_ATTEMPTS_MAX, ErrorCode::Overloaded);
    rig.expect(&["r1 failed: the broker refused with overloaded (1001)"]);
}

#[test]
fn a_refusal_with_unknown_outcome_is_repeated_only_where_that_is_harmless() {
    let unknown = control::error::Outcome::Unknown.into();
    let refusal = control::Error { outcome: unknown, ..error(ErrorCode::StoreUnavailable) };
    let mut rig = Rig::online();
    request(&mut rig, 1, FrameType::MemberAdd);
    request(&mut rig, 2, FrameType::ConversationGet);
    rig.seen();
    rig.control(frames::control(FrameType::Error, 2, &refusal));
    rig.control(frames::control(FrameType::Error, 3, &refusal));
    rig.expect(&["r1 failed: the broker refused with store_unavailable (1004)"]);
    rig.wait();
    rig.expect(&["CONVERSATION_GET#4"]);
}

#[test]
fn a_lost_connection_fails_what_was_written_and_keeps_what_was_not() {
    let mut rig = Rig::online();
    request(&mut rig, 1, FrameType::Join);
    request(&mut rig, 2, FrameType::ConversationGet);
    fetch(&mut rig, 3);
    rig.lose();
    request(&mut rig, 4, FrameType::Leave);
    let lines = rig.seen();
    let failed = "r1 failed: the connection ended before the broker answered";
    assert_eq!(lines[3..], ["waiting: lost", failed]);
    rig.wait();
    rig.go_online_again();
    rig.expect(&["ready", "CONVERSATION_GET#6", "LEAVE#7", "FETCH#8 c:a 0..0"]);
}

fn signal(rig: &mut Rig, id: u64, data: Bytes) {
    let signal = NewSignal { log: log(), kind: "typing".into(), data, ttl_ms: 500 };
    rig.command(Command::Signal { id: CommandId(id), signal });
}

#[test]
fn signals_are_not_kept_for_later() {
    let mut rig = Rig::offline(config());
    rig.seen();
    signal(&mut rig, 1, Bytes::new());
    rig.expect(&["d1 failed: there is no connection, and signals are not kept for later"]);
}

#[test]
fn a_signal_has_no_answer_and_takes_no_place_among_the_requests() {
    let mut rig = Rig::online();
    for id in 1..=2 * REQUESTS_IN_FLIGHT_MAX as u64 {
        signal(&mut rig, id, Bytes::new());
        rig.expect(&["SIGNAL#0 c:a typing 500 ms", &format!("d{id} done")]);
    }
    request(&mut rig, 1_000, FrameType::Join);
    rig.expect(&["JOIN#2"]);
}

#[test]
fn a_signal_that_is_too_long_is_refused_here_since_the_broker_says_nothing() {
    let mut rig = Rig::online();
    signal(&mut rig, 1, Bytes::from(vec![0; 1_025]));
    rig.expect(&["d1 failed: data has 1025 bytes, at most 1024 are allowed"]);
}

#[test]
fn frames_with_commands_of_their_own_are_no_requests() {
    let mut rig = Rig::online();
    request(&mut rig, 1, FrameType::Subscribe);
    request(&mut rig, 2, FrameType::Event);
    request(&mut rig, 3, FrameType::Signal);
    let failed = ["r1 failed: SUBSCRIBE", "r2 failed: EVENT", "r3 failed: SIGNAL"];
    rig.expect(&failed.map(|line| format!("{line} cannot be sent as a request")).each_ref().map(String::as_str));
}

#[test]
fn a_page_is_handed_over_with_where_to_go_on() {
    let mut rig = Rig::online();
    fetch(&mut rig, 1);
    rig.page(2, 4..6, 4);
    rig.expect(&["FETCH#2 c:a 0..0", "p1 [4, 5] next Some(4)"]);
    fetch(&mut rig, 2);
    rig.page(3, 1..1, 0);
    rig.expect(&["FETCH#3 c:a 0..0", "p2 [] next None"]);
}

#[test]
fn cursors_are_merged_and_sent_once_a_second() {
    let mut rig = Rig::online();
    let advance = |rig: &mut Rig, delivered, read| rig.command(Command::Cursor { log: log(), delivered, read });
    advance(&mut rig, 3, 0);
    advance(&mut rig, 4, 0);
    advance(&mut rig, 2, 1);
    rig.expect(&["CURSOR#2 c:a 3/0"]);
    rig.ok(2);
    rig.pass(Duration::from_millis(999));
    rig.expect(&[]);
    rig.pass(Duration::from_millis(1));
    rig.expect(&["CURSOR#3 c:a 4/1"]);
    rig.ok(3);
    rig.pass(Duration::from_secs(5));
    rig.expect(&[]);
}

#[test]
fn cursors_are_restated_after_a_reconnect() {
    let mut rig = Rig::online();
    rig.command(Command::Cursor { log: log(), delivered: 0, read: 3 });
    rig.ok(2);
    rig.reconnect();
    rig.expect(&["ready", "CURSOR#4 c:a 3/3"]);
}

#[test]
fn digests_are_told() {
    let mut rig = Rig::online();
    let head = control::Head { log: "c:b".into(), epoch: 1, seq: 4, msgno: 3, last: None };
    rig.input(Input::Stream(STATE, frames::control(FrameType::Head, 0, &head)));
    rig.expect(&["digest c:b 1-4"]);
}
