//! RESUME from a gateway, and a better way to the broker.

use std::time::Duration;

use antiphon_protocol::{ErrorCode, FrameType, control, frames};
use antiphon_sdk_core::{
    Command, CommandId, From, Input, Token,
    limits::{BACKOFF_DOUBLINGS_STANDBY_MAX, BACKOFF_MIN},
};
use bytes::Bytes;

use crate::rig::{EVENTS, Rig, STATE, attach, config, row, welcome};

fn resume(rig: &mut Rig, jitter_ms: u32) {
    rig.control(frames::control(FrameType::Resume, 0, &control::Resume { jitter_ms }));
}

#[test]
fn a_session_goes_on_over_the_same_transport_with_everything_sent_again_in_order() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.subscribe(From::Tail);
    rig.attach(3, &attach(5, 5, true));
    rig.event(5);
    rig.seen();
    resume(&mut rig, 2_000);
    rig.expect(&["waiting: the gateway lost the broker"]);
    rig.send(2, "y");
    rig.expect(&["m2 queued"]);
    assert!(rig.wait() <= Duration::from_secs(2));
    rig.expect(&["connecting", "HELLO#4 token resume=resume"]);
    rig.control(frames::control(FrameType::Welcome, 4, &welcome()));
    rig.expect(&["ready", "SUBSCRIBE#5 c:a after 1-5", "SEND#6 c:a dseq=1 x", "m2 sending", "SEND#7 c:a dseq=2 y"]);
    // The streams of the transport go on: nobody opens them again.
    rig.attach(5, &attach(6, 6, true));
    rig.event(6);
    rig.ack(6, 7);
    rig.expect(&["s1 attached after 1-5", "s1 event 1-6", "m1 sent 1-7"]);
}

#[test]
fn the_next_hello_counts_one_attempt_more() {
    let mut rig = Rig::online();
    resume(&mut rig, 0);
    rig.wait();
    let hello = std::iter::from_fn(|| rig.client.poll_output()).find_map(|output| match output {
        antiphon_sdk_core::Output::Write(bytes) => Some(crate::rig::decode(&bytes)),
        _ => None,
    });
    let hello: control::Hello = frames::decode_request(&hello.unwrap().body).unwrap();
    assert_eq!((hello.attempt, &hello.resume_token[..]), (2, &b"resume"[..]));
}

#[test]
fn what_was_on_its_way_is_passed_over() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.subscribe(From::Tail);
    rig.attach(3, &attach(5, 5, true));
    rig.command(Command::FetchMessages {
        id: CommandId(9),
        range: antiphon_sdk_core::Range::all("c:b".parse().unwrap()),
    });
    rig.command(Command::Unsubscribe(antiphon_sdk_core::SubscriptionId(1)));
    rig.command(Command::Subscribe {
        id: antiphon_sdk_core::SubscriptionId(2),
        log: "c:b".parse().unwrap(),
        from: From::Tail,
    });
    rig.seen();
    resume(&mut rig, 1_000);
    rig.seen();
    let late = |rig: &mut Rig| {
        rig.ack(2, 5);
        rig.ok(5);
        // Of the subscription that was under way.
        rig.attach(6, &attach(5, 5, true));
        rig.event(5);
        rig.page(4, 1..3, 0);
        rig.input(Input::Stream(STATE, frames::control(FrameType::Cursors, 9, &control::MemberCursor::default())));
        let goaway = control::Goaway { code: 1005, deadline_ms: 1, jitter_ms: 1 };
        rig.control(frames::control(FrameType::Goaway, 0, &goaway));
        rig.behind();
        rig.expect(&[]);
    };
    late(&mut rig);
    rig.wait();
    let lines = rig.seen();
    assert!(lines[1].starts_with("HELLO#"), "{lines:?}");
    late(&mut rig);
    let id = lines[1]["HELLO#".len()..].split(' ').next().unwrap().parse().unwrap();
    rig.control(frames::control(FrameType::Welcome, id, &welcome()));
    assert_eq!(rig.seen()[0], "ready");
    rig.attach(6, &attach(5, 5, true));
    rig.event(5);
    rig.expect(&[]);
    // But not what nobody has ever asked for.
    rig.attach(id + 100, &attach(5, 5, true));
    rig.expect(&["close", "waiting: ATTACH answers no SUBSCRIBE"]);
}

#[test]
fn a_frame_that_is_half_here_is_finished_after_resume() {
    let mut rig = Rig::online();
    let event = frames::event(9, &row(5));
    rig.events(event.slice(..20));
    resume(&mut rig, 0);
    rig.wait();
    rig.events(event.slice(20..));
    let lines = rig.seen();
    assert!(lines.last().unwrap().starts_with("HELLO"), "{lines:?}");
    rig.input(Input::StreamEnded(EVENTS));
}

#[test]
fn a_second_resume_before_hello_changes_nothing_and_one_after_it_ends_the_transport() {
    let mut rig = Rig::online();
    resume(&mut rig, 2_000);
    rig.seen();
    resume(&mut rig, 2_000);
    rig.expect(&[]);
    rig.wait();
    rig.expect(&["connecting", "HELLO#2 token resume=resume"]);
    resume(&mut rig, 2_000);
    rig.expect(&["close", "waiting: RESUME came before the session stood"]);
    rig.wait();
    rig.expect(&["connecting", "connect"]);
}

#[test]
fn resume_before_a_session_is_the_brokers_fault() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("token")));
    rig.input(Input::Connected);
    rig.seen();
    resume(&mut rig, 0);
    rig.expect(&["close", "waiting: RESUME came before the session stood"]);
}

#[test]
fn a_transport_that_ends_before_hello_is_made_anew() {
    let mut rig = Rig::online();
    resume(&mut rig, 2_000);
    rig.lose();
    rig.seen();
    rig.wait();
    rig.expect(&["connecting", "connect"]);
    rig.go_online_again();
    assert_eq!(rig.seen()[0], "ready");
}

#[test]
fn a_gateway_that_loses_the_broker_at_once_again_does_not_make_the_client_spin() {
    let mut rig = Rig::online();
    for _ in 0..8 {
        resume(&mut rig, 0);
        rig.wait();
        let lines = rig.seen();
        let id = lines.last().unwrap()["HELLO#".len()..].split(' ').next().unwrap().parse().unwrap();
        rig.control(frames::control(FrameType::Welcome, id, &welcome()));
        rig.seen();
    }
    resume(&mut rig, 0);
    assert!(rig.wait() >= Duration::from_secs(5));
}

#[test]
fn a_token_that_has_ended_is_renewed_on_the_same_transport() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("t1")));
    rig.input(Input::Connected);
    let ending = control::Welcome { expires_at_ms: welcome().server_time_ms + 1_000, ..welcome() };
    rig.control(frames::control(FrameType::Welcome, 1, &ending));
    rig.pass(Duration::from_millis(100));
    resume(&mut rig, 0);
    rig.now = rig.now.after(Duration::from_secs(2));
    rig.input(Input::Timeout);
    rig.open_streams();
    let lines = rig.seen();
    assert_eq!(lines[lines.len() - 2..], ["connecting", "need token"]);
    rig.input(Input::Token(Token::new("t2")));
    rig.expect(&["connecting", "HELLO#2 t2 resume=resume"]);
}

#[test]
fn resume_ends_a_close_and_keeps_a_leave_in_its_time() {
    let mut rig = Rig::online();
    rig.command(Command::Close);
    rig.seen();
    resume(&mut rig, 0);
    rig.expect(&["close", "stopped: the application closed the client"]);
    let mut rig = Rig::online();
    rig.send(1, "a");
    let goaway = control::Goaway { code: 1005, deadline_ms: 5_000, jitter_ms: 2_000 };
    rig.control(frames::control(FrameType::Goaway, 0, &goaway));
    resume(&mut rig, 0);
    rig.seen();
    assert!(rig.wait() <= Duration::from_secs(2));
    rig.expect(&["connecting", "HELLO#3 token resume=resume"]);
}

#[test]
fn an_error_instead_of_hellos_answer_counts_as_always() {
    let mut rig = Rig::online();
    resume(&mut rig, 0);
    rig.seen();
    rig.refuse(0, ErrorCode::NotActive);
    let lines = rig.seen();
    assert_eq!(lines[0], "close");
    rig.wait();
    rig.expect(&["connecting", "connect"]);
}

#[test]
fn a_broker_that_stands_by_is_asked_again_within_seconds() {
    let mut rig = Rig::online();
    rig.input(Input::Disconnected { cause: "gone".into(), close_code: None });
    for _ in 0..20 {
        rig.wait();
        rig.input(Input::Connected);
        rig.refuse(0, ErrorCode::NotActive);
    }
    let longest = BACKOFF_MIN * (1 << BACKOFF_DOUBLINGS_STANDBY_MAX);
    let wait = rig.wait();
    assert!((longest / 2..=longest).contains(&wait), "{wait:?}");
    // Nobody answers: from here on the wait grows again.
    rig.input(Input::Disconnected { cause: "no answer".into(), close_code: None });
    let wait = rig.wait();
    assert!((longest..=longest * 2).contains(&wait), "{wait:?}");
}

#[test]
fn a_better_way_is_taken_once_nothing_is_awaited() {
    let mut rig = Rig::online();
    rig.send(1, "a");
    rig.seen();
    rig.input(Input::Move);
    rig.send(2, "b");
    rig.expect(&["m2 queued"]);
    rig.ack(2, 1);
    rig.expect(&["m1 sent 1-1", "close", "waiting: there is a better way to the broker"]);
    assert_eq!(rig.wait(), Duration::ZERO);
    rig.expect(&["connecting", "connect"]);
    rig.go_online_again();
    rig.expect(&["ready", "m2 sending", "SEND#4 c:a dseq=2 b"]);
}

#[test]
fn a_better_way_does_not_wait_for_ever_and_needs_a_session() {
    let mut rig = Rig::online();
    rig.send(1, "a");
    rig.seen();
    rig.input(Input::Move);
    assert_eq!(rig.wait(), antiphon_sdk_core::limits::MOVE_TIMEOUT);
    rig.expect(&["close", "waiting: there is a better way to the broker", "connecting", "connect"]);
    rig.input(Input::Move);
    rig.input(Input::Connected);
    rig.input(Input::Move);
    rig.expect(&["HELLO#3 token resume=resume"]);
    rig.control(Bytes::new());
    rig.expect(&[]);
}
