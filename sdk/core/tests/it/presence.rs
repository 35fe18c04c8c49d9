//! The users whom an application watches: one list, the newest, restated to every session.

use std::time::Duration;

use antiphon_protocol::{ErrorCode, FrameType, control, frames};
use antiphon_sdk_core::{Command, CommandId, Input, limits::PRESENCE_WATCHED_MAX};

use crate::rig::{Rig, STATE, config};

fn watch(rig: &mut Rig, id: u64, users: &[&str]) {
    let users = users.iter().map(|user| user.parse().unwrap()).collect();
    rig.command(Command::WatchPresence { id: CommandId(id), users });
}

fn told(rig: &mut Rig, user: &str, status: i32, text: &str) {
    let presence = control::Presence { user: user.into(), status, text: text.into() };
    rig.input(Input::Stream(STATE, frames::control(FrameType::Presence, 0, &presence)));
}

#[test]
fn watched_users_are_told_and_nobody_else() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["bob", "eve"]);
    told(&mut rig, "bob", 1, "");
    rig.ok(2);
    told(&mut rig, "eve", 3, "in a meeting");
    told(&mut rig, "carl", 1, "");
    rig.expect(&["PRESENCE_SUBSCRIBE#2 [bob eve]", "presence bob online", "d1 done", "presence eve busy in a meeting"]);
    watch(&mut rig, 2, &["carl"]);
    told(&mut rig, "bob", 0, "");
    rig.expect(&["PRESENCE_SUBSCRIBE#3 [carl]"]);
}

#[test]
fn a_status_of_a_later_version_is_some_way_of_being_there() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["bob"]);
    rig.seen();
    told(&mut rig, "bob", 9, "");
    rig.expect(&["presence bob online"]);
}

#[test]
fn of_lists_that_wait_only_the_newest_is_told_to_the_broker() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["a"]);
    watch(&mut rig, 2, &["b"]);
    watch(&mut rig, 3, &["c"]);
    rig.expect(&["PRESENCE_SUBSCRIBE#2 [a]"]);
    rig.ok(2);
    rig.expect(&["PRESENCE_SUBSCRIBE#3 [c]"]);
    rig.ok(3);
    rig.expect(&["d1 done", "d2 done", "d3 done"]);
}

#[test]
fn the_list_is_restated_to_every_session() {
    let mut rig = Rig::offline(config());
    watch(&mut rig, 1, &["bob"]);
    rig.go_online();
    rig.expect(&["ready", "PRESENCE_SUBSCRIBE#2 [bob]"]);
    // The answer is lost, and comes on the next connection.
    rig.reconnect();
    rig.expect(&["ready", "PRESENCE_SUBSCRIBE#4 [bob]"]);
    rig.ok(4);
    rig.expect(&["d1 done"]);
    rig.reconnect();
    rig.expect(&["ready", "PRESENCE_SUBSCRIBE#6 [bob]"]);
    rig.ok(6);
    rig.expect(&[]);
    watch(&mut rig, 2, &[]);
    rig.ok(7);
    rig.expect(&["PRESENCE_SUBSCRIBE#7 []", "d2 done"]);
    rig.reconnect();
    rig.expect(&["ready"]);
}

#[test]
fn a_refusal_for_now_is_repeated_with_the_list_of_then() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["a"]);
    rig.refuse(2, ErrorCode::StoreUnavailable);
    rig.expect(&["PRESENCE_SUBSCRIBE#2 [a]"]);
    watch(&mut rig, 2, &["b"]);
    rig.expect(&[]);
    rig.pass(Duration::from_secs(1));
    rig.expect(&["PRESENCE_SUBSCRIBE#3 [b]"]);
    rig.ok(3);
    rig.expect(&["d1 done", "d2 done"]);
}

#[test]
fn a_list_that_is_refused_for_good_is_forgotten() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["bob"]);
    rig.refuse(2, ErrorCode::InvalidField);
    rig.expect(&["PRESENCE_SUBSCRIBE#2 [bob]", "d1 failed: the broker refused with invalid_field (3005)"]);
    rig.reconnect();
    rig.expect(&["ready"]);
}

#[test]
fn a_list_that_is_too_long_is_refused_and_the_one_before_stays() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["bob"]);
    rig.ok(2);
    let many: Vec<String> = (0..=PRESENCE_WATCHED_MAX).map(|n| format!("u{n}")).collect();
    watch(&mut rig, 2, &many.iter().map(String::as_str).collect::<Vec<_>>());
    told(&mut rig, "bob", 2, "");
    let refused = "d2 failed: 65 watched users, at most 64 are allowed";
    rig.expect(&["PRESENCE_SUBSCRIBE#2 [bob]", "d1 done", refused, "presence bob away"]);
}

#[test]
fn whoever_waits_for_a_list_hears_that_the_client_stops() {
    let mut rig = Rig::online();
    watch(&mut rig, 1, &["bob"]);
    rig.command(Command::Close);
    rig.pass(Duration::from_secs(2));
    let lines = rig.seen();
    let stopped = "d1 failed: the client has stopped: the application closed the client".to_owned();
    assert!(lines.contains(&stopped), "{lines:?}");
    watch(&mut rig, 2, &["bob"]);
    rig.expect(&["d2 failed: the client has stopped: the application closed the client"]);
}
