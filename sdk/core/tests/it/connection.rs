//! Token, handshake, GOAWAY, errors of the connection, reconnecting.

use std::time::Duration;

use antiphon_protocol::{ErrorCode, FrameType, control, frames};
use antiphon_sdk_core::{Command, From, Input, Token};

use crate::rig::{Rig, attach, config, error, welcome};

#[test]
fn a_client_asks_for_a_token_connects_and_says_hello() {
    let mut rig = Rig::offline(config());
    rig.expect(&["connecting", "need token"]);
    rig.input(Input::Token(Token::new("t1")));
    rig.expect(&["connecting", "connect"]);
    rig.input(Input::Connected);
    rig.expect(&["HELLO#1 t1 resume="]);
    rig.control(frames::control(FrameType::Welcome, 1, &welcome()));
    rig.expect(&["ready"]);
}

#[test]
fn a_token_is_written_and_never_printed() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("very-secret")));
    rig.input(Input::Connected);
    let secret = "very-secret";
    assert!(!format!("{:?}", rig.client).contains(secret));
    let outputs: Vec<_> = std::iter::from_fn(|| rig.client.poll_output()).collect();
    assert!(!format!("{outputs:?}").contains(secret));
    assert!(matches!(outputs.last(), Some(antiphon_sdk_core::Output::Write(hello))
        if hello.windows(secret.len()).any(|window| window == secret.as_bytes())));
}

#[test]
fn a_lost_connection_is_resumed_with_the_resume_token_then_subscriptions_then_sends() {
    let mut rig = Rig::online();
    rig.send(1, "x");
    rig.subscribe(From::Tail);
    rig.attach(3, &attach(5, 5, true));
    rig.event(5);
    rig.seen();
    rig.lose();
    rig.expect(&["waiting: lost"]);
    rig.wait();
    rig.expect(&["connecting", "connect"]);
    rig.input(Input::Connected);
    rig.expect(&["HELLO#4 token resume=resume"]);
    rig.control(frames::control(FrameType::Welcome, 4, &welcome()));
    rig.expect(&["ready", "SUBSCRIBE#5 c:a after 1-5", "SEND#6 c:a dseq=1 x"]);
}

#[test]
fn attempts_back_off_with_growing_random_waits_and_start_over_after_a_stable_connection() {
    let mut rig = Rig::online();
    let mut waits = Vec::new();
    for _ in 0..12 {
        rig.lose();
        waits.push(rig.wait());
    }
    assert!(waits[1] < Duration::from_millis(500) && waits[11] >= Duration::from_secs(15), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(30)), "{waits:?}");
    rig.seen();
    rig.go_online_again();
    rig.pass(Duration::from_secs(11));
    rig.lose();
    assert_eq!(rig.wait(), Duration::ZERO);
}

#[test]
fn connections_that_break_at_once_do_not_spin() {
    let mut rig = Rig::online();
    for _ in 0..8 {
        rig.reconnect();
    }
    rig.lose();
    assert!(rig.wait() >= Duration::from_secs(5));
}

#[test]
fn the_broker_spreads_reconnects() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("token")));
    rig.input(Input::Connected);
    let welcome = control::Welcome { reconnect_jitter_ms: 60_000, ..welcome() };
    rig.control(frames::control(FrameType::Welcome, 1, &welcome));
    rig.pass(Duration::from_secs(20));
    rig.lose();
    let wait = rig.wait();
    assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(60), "{wait:?}");
}

#[test]
fn a_silent_broker_is_given_up() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("token")));
    rig.input(Input::Connected);
    rig.seen();
    rig.wait();
    rig.expect(&["close", "waiting: the broker did not answer in time"]);
}

#[test]
fn the_thousands_of_a_connections_error_say_what_to_do() {
    let after = |code: ErrorCode| {
        let mut rig = Rig::online();
        rig.refuse(0, code);
        let mut lines = rig.seen();
        assert_eq!(lines.remove(0), "close");
        if !rig.client.is_stopped() {
            rig.wait();
            lines.extend(rig.seen());
        }
        lines.remove(0);
        lines
    };
    assert_eq!(after(ErrorCode::Overloaded), ["connecting", "connect"]);
    assert_eq!(after(ErrorCode::TokenExpired), ["connecting", "need token"]);
    assert_eq!(after(ErrorCode::AuthenticationTimeout), ["connecting", "connect"]);
    assert_eq!(after(ErrorCode::Internal), ["connecting", "connect"]);
    for stopping in [ErrorCode::VersionUnsupported, ErrorCode::Malformed, ErrorCode::Forbidden, ErrorCode::Replaced] {
        let mut rig = Rig::online();
        rig.refuse(0, stopping);
        assert!(rig.client.is_stopped(), "{stopping:?}");
        assert_eq!(rig.client.poll_timeout(), None);
    }
}

#[test]
fn a_close_code_counts_like_the_error() {
    let mut rig = Rig::online();
    rig.input(Input::Disconnected { cause: "closed".into(), close_code: Some(ErrorCode::Replaced as u32) });
    assert!(rig.client.is_stopped());
    let mut rig = Rig::online();
    rig.input(Input::Disconnected { cause: "closed".into(), close_code: Some(0) });
    assert!(!rig.client.is_stopped());
}

#[test]
fn the_same_token_after_its_refusal_stops_the_client() {
    let mut rig = Rig::online();
    rig.refuse(0, ErrorCode::TokenRevoked);
    rig.wait();
    rig.seen();
    rig.input(Input::Token(Token::new("token")));
    let lines = rig.seen();
    assert!(lines[0].starts_with("stopped: the token provider gave a token"), "{lines:?}");
}

#[test]
fn a_new_token_after_a_refusal_connects_again() {
    let mut rig = Rig::online();
    rig.refuse(0, ErrorCode::TokenExpired);
    rig.wait();
    rig.seen();
    rig.input(Input::Token(Token::new("fresh")));
    rig.input(Input::Connected);
    rig.expect(&["connecting", "connect", "HELLO#2 fresh resume=resume"]);
}

#[test]
fn a_token_is_renewed_before_it_ends() {
    let mut rig = Rig::offline(config());
    rig.input(Input::Token(Token::new("t1")));
    rig.input(Input::Connected);
    let start = welcome().server_time_ms;
    let welcome = control::Welcome { expires_at_ms: start + 300_000, ..welcome() };
    rig.control(frames::control(FrameType::Welcome, 1, &welcome));
    rig.seen();
    assert_eq!(rig.wait(), Duration::from_secs(240));
    rig.expect(&["need token"]);
    rig.input(Input::Token(Token::new("t2")));
    rig.expect(&["AUTH#2 t2"]);
    let authenticated = control::Authenticated { expires_at_ms: start + 600_000 };
    rig.control(frames::control(FrameType::Ok, 2, &authenticated));
    assert_eq!(rig.wait(), Duration::from_secs(300));
    rig.expect(&["need token"]);
}

#[test]
fn a_provider_that_fails_is_asked_again() {
    let mut rig = Rig::offline(config());
    rig.seen();
    rig.input(Input::TokenFailed { cause: "no network".into() });
    rig.expect(&["waiting: no token: no network"]);
    rig.wait();
    rig.expect(&["need token"]);
}

#[test]
fn goaway_takes_the_last_answers_and_holds_new_requests_for_the_next_connection() {
    let mut rig = Rig::online();
    rig.send(1, "a");
    rig.seen();
    let goaway = control::Goaway { code: 1005, deadline_ms: 5_000, jitter_ms: 2_000 };
    rig.control(frames::control(FrameType::Goaway, 0, &goaway));
    rig.send(2, "b");
    rig.expect(&["m2 queued"]);
    rig.ack(2, 1);
    rig.expect(&["m1 sent 1-1", "close", "waiting: the broker asked to connect again"]);
    assert!(rig.wait() <= Duration::from_secs(2));
    rig.expect(&["connecting", "connect"]);
    rig.go_online_again();
    rig.expect(&["ready", "m2 sending", "SEND#4 c:a dseq=2 b"]);
}

#[test]
fn goaway_does_not_wait_for_answers_of_an_earlier_connection() {
    let mut rig = Rig::online();
    rig.command(Command::Request {
        id: antiphon_sdk_core::CommandId(1),
        frame_type: FrameType::Join,
        body: bytes::Bytes::new(),
    });
    rig.reconnect();
    rig.seen();
    let goaway = control::Goaway { code: 1005, deadline_ms: 5_000, jitter_ms: 60_000 };
    rig.control(frames::control(FrameType::Goaway, 0, &goaway));
    rig.expect(&["close", "waiting: the broker asked to connect again"]);
}

#[test]
fn goaway_does_not_wait_longer_than_its_deadline() {
    let mut rig = Rig::online();
    rig.send(1, "a");
    rig.seen();
    let goaway = control::Goaway { code: 1005, deadline_ms: 5_000, jitter_ms: 0 };
    rig.control(frames::control(FrameType::Goaway, 0, &goaway));
    assert_eq!(rig.wait(), Duration::from_secs(5));
    rig.expect(&["close", "waiting: the broker asked to connect again", "connecting", "connect"]);
}

#[test]
fn closing_says_bye_and_fails_what_waits() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.seen();
    rig.command(Command::Close);
    rig.expect(&["BYE#3"]);
    rig.control(frames::control(FrameType::Error, 0, &error(ErrorCode::Closed)));
    rig.expect(&["close", "s1 detached Stopped(Closed)", "stopped: the application closed the client"]);
}

#[test]
fn a_broker_that_does_not_answer_bye_does_not_hold_up_the_close() {
    let mut rig = Rig::online();
    rig.command(Command::Close);
    rig.seen();
    rig.wait();
    rig.expect(&["close", "stopped: the application closed the client"]);
}

#[test]
fn bytes_that_are_no_frames_end_the_connection() {
    let mut rig = Rig::online();
    rig.control(bytes::Bytes::from_static(&[0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]));
    rig.expect(&["close", "waiting: frame type 0xff is unknown"]);
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs() {
    let run = || {
        let mut rig = Rig::online();
        rig.send(1, "x");
        rig.lose();
        let wait = rig.wait();
        let outputs: Vec<_> = std::iter::from_fn(|| rig.client.poll_output()).collect();
        (wait, outputs)
    };
    assert_eq!(run(), run());
}

#[test]
fn an_application_may_renew_its_token_at_any_time() {
    let mut rig = Rig::online();
    rig.command(Command::RenewToken);
    rig.command(Command::RenewToken);
    rig.expect(&["need token"]);
    rig.input(Input::Token(Token::new("wider")));
    rig.expect(&["AUTH#2 wider"]);
    rig.ok(2);
    rig.lose();
    rig.seen();
    rig.wait();
    rig.input(Input::Connected);
    rig.expect(&["connecting", "connect", "HELLO#3 wider resume=resume"]);
}
