//! How far others have come, and how far the user has: by cursors, and by messages that say the same without one.

use std::time::Duration;

use antiphon_protocol::{
    ContentType, EventKind, FrameType, NewRow, Row, UserId,
    control::{self, attach::Reset},
    frames,
};
use antiphon_sdk_core::{Command, CommandId, From, Input, Item, NewMessage, Output};
use uuid::Uuid;

use crate::rig::{HANDLE, Rig, STATE, attach, log};

/// Somebody's event, as the broker pushes it.
fn says(rig: &mut Rig, seq: u64, kind: EventKind, sender: &str, via: Option<&str>) {
    rig.events(frames::event(HANDLE, &row(seq, kind, sender, via)));
}

fn row(seq: u64, kind: EventKind, sender: &str, via: Option<&str>) -> Row {
    NewRow {
        seq,
        msgno: seq,
        time_ms: 1_000 + seq,
        event_id: Uuid::from_u128(seq.into()),
        client_message_id: Uuid::nil(),
        kind,
        content_type: ContentType::Text,
        sender: &UserId::new(sender).unwrap(),
        via: via.map(|via| UserId::new(via).unwrap()).as_ref(),
        envelope: b"",
        body: b"x",
    }
    .to_row()
}

fn cursor(rig: &mut Rig, user: &str, delivered: u64, read: u64) {
    let cursor = control::MemberCursor { user: user.into(), delivered, read, read_msgno: read };
    rig.input(Input::Stream(STATE, frames::control(FrameType::Cursors, HANDLE, &cursor)));
}

fn advance(rig: &mut Rig, delivered: u64, read: u64) {
    rig.command(Command::Cursor { log: log(), delivered, read });
}

/// A session that follows the log from its fifth event.
fn following() -> Rig {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.attach(2, &attach(5, 5, true));
    rig.seen();
    rig
}

#[test]
fn a_message_goes_through_every_state() {
    let mut rig = following();
    rig.send(1, "x");
    rig.ack(3, 5);
    cursor(&mut rig, "bob", 5, 0);
    cursor(&mut rig, "bob", 5, 5);
    cursor(&mut rig, "eve", 5, 5);
    let lines = rig.seen();
    let states: Vec<_> = lines.iter().filter(|line| line.starts_with("m1")).collect();
    assert_eq!(states, ["m1 queued", "m1 sending", "m1 sent 1-5", "m1 delivered", "m1 read"]);
}

#[test]
fn a_receipt_may_come_before_the_acknowledgement() {
    let mut rig = following();
    rig.send(1, "x");
    rig.send(2, "y");
    cursor(&mut rig, "bob", 6, 5);
    rig.seen();
    rig.ack(3, 5);
    rig.ack(4, 6);
    rig.expect(&["m1 sent 1-5", "m1 read", "m2 sent 1-6", "m2 delivered"]);
}

#[test]
fn whoever_answers_has_read_what_came_before() {
    let mut rig = following();
    rig.send(1, "x");
    rig.ack(3, 5);
    says(&mut rig, 5, EventKind::MESSAGE, "ann", None);
    says(&mut rig, 6, EventKind::MESSAGE, "bob", Some("helper"));
    says(&mut rig, 7, EventKind::REACTION, "bob", None);
    rig.seen();
    says(&mut rig, 8, EventKind::MESSAGE, "bob", None);
    rig.expect(&["m1 read", "s1 event 1-8"]);
}

#[test]
fn the_cursors_of_an_attach_are_receipts_too() {
    let mut rig = following();
    rig.send(1, "x");
    rig.ack(3, 5);
    rig.reconnect();
    rig.seen();
    let bob = control::MemberCursor { user: "bob".into(), delivered: 6, read: 6, read_msgno: 6 };
    rig.attach(5, &control::Attach { cursors: vec![bob], ..attach(5, 7, true) });
    rig.expect(&["s1 attached after 1-4", "m1 read"]);
}

#[test]
fn receipts_of_another_epoch_are_not_about_the_same_message() {
    let mut rig = following();
    rig.send(1, "x");
    rig.ack(3, 5);
    rig.reconnect();
    rig.seen();
    let reset = Reset::EpochChanged.into();
    rig.attach(5, &control::Attach { epoch: 2, reset, ..attach(1, 1, true) });
    cursor(&mut rig, "bob", 9, 9);
    rig.expect(&["s1 attached after 2-0", "s1 reset EpochChanged after 2-0", "s1 cursor bob 9/9"]);
}

#[test]
fn who_sends_a_message_has_read_up_to_it_and_need_not_say_so() {
    let mut rig = following();
    rig.send(1, "x");
    rig.ack(3, 5);
    rig.seen();
    advance(&mut rig, 5, 5);
    rig.expect(&[]);
    advance(&mut rig, 6, 5);
    rig.expect(&["CURSOR#4 c:a 6/5"]);
}

#[test]
fn what_a_service_sends_for_a_user_says_nothing_about_the_cursor() {
    let mut rig = following();
    let message = NewMessage::text(log(), "x").act_as("carl".parse().unwrap());
    rig.command(Command::Send { id: CommandId(1), message });
    rig.ack(3, 5);
    rig.seen();
    advance(&mut rig, 5, 5);
    rig.expect(&["CURSOR#4 c:a 5/5"]);
}

#[test]
fn other_devices_of_the_user_move_the_cursor() {
    let mut rig = following();
    says(&mut rig, 5, EventKind::MESSAGE, "ann", None);
    cursor(&mut rig, "ann", 8, 7);
    rig.seen();
    advance(&mut rig, 8, 7);
    rig.expect(&[]);
    advance(&mut rig, 8, 8);
    rig.expect(&["CURSOR#3 c:a 8/8"]);
}

#[test]
fn a_cursor_that_waits_is_not_written_when_it_has_become_known() {
    let mut rig = following();
    advance(&mut rig, 5, 5);
    advance(&mut rig, 6, 6);
    rig.expect(&["CURSOR#3 c:a 5/5"]);
    cursor(&mut rig, "ann", 7, 7);
    rig.seen();
    rig.pass(Duration::from_secs(2));
    rig.expect(&[]);
}

#[test]
fn cursors_of_a_followed_log_are_restated_once_it_is_attached() {
    let mut rig = following();
    advance(&mut rig, 4, 4);
    rig.reconnect();
    assert_eq!(rig.seen()[..], ["ready", "SUBSCRIBE#5 c:a after 1-4"]);
    rig.attach(5, &attach(5, 5, true));
    rig.expect(&["s1 attached after 1-4", "CURSOR#6 c:a 4/4"]);
    rig.behind();
    rig.attach(7, &attach(5, 5, true));
    rig.expect(&["SUBSCRIBE#7 c:a after 1-4", "s1 attached after 1-4"]);
}

#[test]
fn cursors_of_another_epoch_are_forgotten() {
    let mut rig = following();
    advance(&mut rig, 4, 4);
    rig.reconnect();
    rig.seen();
    let reset = Reset::EpochChanged.into();
    rig.attach(5, &control::Attach { epoch: 2, reset, ..attach(1, 3, true) });
    rig.seen();
    rig.pass(Duration::from_secs(2));
    rig.expect(&[]);
    advance(&mut rig, 2, 2);
    rig.expect(&["CURSOR#6 c:a 2/2"]);
}

#[test]
fn an_event_tells_the_cursor_of_its_sender() {
    let mut rig = following();
    let mut cursor_of = |seq, kind, via| {
        says(&mut rig, seq, kind, "bob", via);
        match rig.client.poll_output() {
            Some(Output::Subscription { item: Item::Event(event), .. }) => {
                event.cursor().map(|cursor| (cursor.user, cursor.read, cursor.read_msgno))
            }
            other => panic!("an event comes: {other:?}"),
        }
    };
    assert_eq!(cursor_of(5, EventKind::MESSAGE, None), Some(("bob".to_owned(), 5, 5)));
    assert_eq!(cursor_of(6, EventKind::MESSAGE, Some("helper")), None);
    assert_eq!(cursor_of(7, EventKind::PIN, None), None);
}
