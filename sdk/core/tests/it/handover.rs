//! Subscriptions: every way in which events can come, each event once and in order.

use std::time::Duration;

use antiphon_protocol::{
    ErrorCode, FrameType, Position,
    control::{self, attach::Reset, detach::Reason},
    frames::{self, Page},
};
use antiphon_sdk_core::{Command, From, Input, SubscriptionId, limits::HELD_EVENTS_MAX};

use crate::rig::{BACKFILL, EVENTS, HANDLE, Rig, STATE, attach, log, row};

/// Live from position 4 on, with the first three events handed out.
fn live_after_three() -> Rig {
    let mut rig = Rig::online();
    rig.subscribe(From::Start);
    rig.attach(2, &attach(1, 4, true));
    (1..4).for_each(|seq| rig.event(seq));
    rig.seen();
    rig
}

/// Resumed after event 3; positions 4..10 are being pulled (request 4).
fn pulling_four_to_ten() -> Rig {
    let mut rig = live_after_three();
    rig.reconnect();
    rig.expect(&["ready", "SUBSCRIBE#4 c:a after 1-3"]);
    rig.attach(4, &attach(4, 10, false));
    rig.expect(&["s1 attached after 1-3", "FETCH#5 c:a 4..10"]);
    rig
}

#[test]
fn from_says_where_to_begin() {
    let starts = [
        (From::Tail, "tail"),
        (From::Last(5), "last 5"),
        (From::Start, "last 4294967295"),
        (From::Position(Position { epoch: 2, seq: 7 }), "after 2-7"),
    ];
    for (from, written) in starts {
        let mut rig = Rig::online();
        rig.subscribe(from);
        rig.expect(&[&format!("SUBSCRIBE#2 c:a {written}")]);
    }
}

#[test]
fn inlined_rows_and_live_events_are_one_sequence() {
    let mut rig = Rig::online();
    rig.subscribe(From::Last(2));
    rig.seen();
    rig.attach(2, &attach(4, 6, true));
    (4..8).for_each(|seq| rig.event(seq));
    rig.expect(&["s1 attached after 1-3", "s1 event 1-4", "s1 event 1-5", "s1 event 1-6", "s1 event 1-7"]);
}

#[test]
fn pulled_rows_come_before_the_live_events_that_arrived_meanwhile() {
    let mut rig = pulling_four_to_ten();
    rig.event(10);
    rig.page(5, 4..7, 7);
    rig.event(11);
    rig.expect(&["s1 event 1-4", "s1 event 1-5", "s1 event 1-6", "FETCH#6 c:a 7..10"]);
    rig.page(6, 7..10, 0);
    rig.expect(&["s1 event 1-7", "s1 event 1-8", "s1 event 1-9", "s1 event 1-10", "s1 event 1-11"]);
    rig.event(12);
    rig.expect(&["s1 event 1-12"]);
}

#[test]
fn a_second_handing_out_of_an_event_is_dropped() {
    let mut rig = live_after_three();
    rig.event(3);
    rig.event(4);
    rig.event(4);
    rig.expect(&["s1 event 1-4"]);
}

#[test]
fn a_gap_is_repaired_by_subscribing_again_after_the_last_position() {
    let mut rig = live_after_three();
    rig.event(6);
    rig.expect(&["UNSUBSCRIBE#3 9", "SUBSCRIBE#4 c:a after 1-3"]);
    // The rest of the old attachment and its end change nothing.
    rig.event(7);
    rig.detach(Reason::Unsubscribed, 7);
    rig.ok(3);
    rig.expect(&[]);
    rig.attach(4, &attach(4, 8, true));
    (4..9).for_each(|seq| rig.event(seq));
    let events = ["s1 event 1-4", "s1 event 1-5", "s1 event 1-6", "s1 event 1-7", "s1 event 1-8"];
    rig.expect(&[&["s1 attached after 1-3"][..], &events].concat());
}

#[test]
fn the_end_of_an_old_attachment_does_not_end_a_new_one_of_the_same_handle() {
    let mut rig = live_after_three();
    rig.event(6);
    rig.attach(4, &attach(4, 4, true));
    rig.seen();
    rig.detach(Reason::Unsubscribed, 3);
    rig.event(4);
    rig.expect(&["s1 event 1-4"]);
}

#[test]
fn repairs_that_bring_nothing_are_spaced_out() {
    let mut rig = live_after_three();
    rig.event(6);
    rig.expect(&["UNSUBSCRIBE#3 9", "SUBSCRIBE#4 c:a after 1-3"]);
    rig.attach(4, &attach(4, 4, true));
    rig.event(6);
    rig.expect(&["s1 attached after 1-3", "UNSUBSCRIBE#5 9"]);
    assert!(rig.wait() >= Duration::from_millis(100));
    rig.expect(&["SUBSCRIBE#6 c:a after 1-3"]);
}

#[test]
fn skipped_positions_are_told_and_close_the_gap() {
    let mut rig = live_after_three();
    rig.events(frames::skip(HANDLE, 4, 5));
    rig.event(6);
    rig.events(frames::skip(HANDLE, 2, 3));
    rig.events(frames::skip(HANDLE, 8, 9));
    rig.expect(&["s1 skipped 1-4..=1-5", "s1 event 1-6", "UNSUBSCRIBE#3 9", "SUBSCRIBE#4 c:a after 1-6"]);
}

#[test]
fn behind_resumes_after_the_last_event() {
    let mut rig = live_after_three();
    rig.behind();
    rig.expect(&["SUBSCRIBE#3 c:a after 1-3"]);
}

#[test]
fn behind_in_the_middle_of_a_pull_resumes_after_what_both_brought() {
    let mut rig = pulling_four_to_ten();
    rig.event(10);
    rig.behind();
    rig.expect(&[]);
    rig.page(5, 4..10, 0);
    let lines = rig.seen();
    assert_eq!(lines[5..], ["s1 event 1-9", "s1 event 1-10", "SUBSCRIBE#6 c:a after 1-10"]);
}

#[test]
fn holding_too_much_drops_the_held_and_resumes_after_the_pull() {
    let mut rig = pulling_four_to_ten();
    let last_held = 10 + HELD_EVENTS_MAX as u64;
    (10..last_held).for_each(|seq| rig.event(seq));
    rig.expect(&[]);
    rig.event(last_held);
    rig.expect(&["UNSUBSCRIBE#6 9"]);
    rig.event(last_held + 1);
    rig.detach(Reason::Unsubscribed, last_held + 1);
    rig.page(5, 4..10, 0);
    let lines = rig.seen();
    assert_eq!(lines[5..], ["s1 event 1-9", "SUBSCRIBE#7 c:a after 1-9"]);
}

#[test]
fn a_lost_connection_in_the_middle_of_a_pull_resumes_after_the_last_event() {
    let mut rig = pulling_four_to_ten();
    rig.page(5, 4..7, 7);
    rig.seen();
    rig.reconnect();
    rig.expect(&["ready", "SUBSCRIBE#8 c:a after 1-6"]);
}

#[test]
fn a_position_that_cannot_be_resumed_is_told_before_events_begin_anew() {
    for (reset, reason) in [(Reset::EpochChanged, "EpochChanged"), (Reset::HistoryGone, "HistoryGone")] {
        let mut rig = live_after_three();
        rig.reconnect();
        rig.seen();
        let attach = control::Attach { epoch: 2, reset: reset.into(), ..attach(1, 3, true) };
        rig.attach(4, &attach);
        rig.event(1);
        let told = format!("s1 reset {reason} after 2-0");
        rig.expect(&["s1 attached after 2-0", &told, "s1 event 2-1"]);
    }
}

#[test]
fn a_hole_that_the_broker_does_not_explain_is_told_as_a_reset() {
    let mut rig = live_after_three();
    rig.reconnect();
    rig.seen();
    rig.attach(4, &attach(6, 7, true));
    rig.event(6);
    rig.expect(&["s1 attached after 1-5", "s1 reset HistoryGone after 1-5", "s1 event 1-6"]);
}

#[test]
fn history_that_goes_while_it_is_pulled_is_told_as_a_reset() {
    let mut rig = pulling_four_to_ten();
    rig.page(5, 6..8, 8);
    rig.expect(&["s1 reset HistoryGone after 1-5", "s1 event 1-6", "s1 event 1-7", "FETCH#6 c:a 8..10"]);
    rig.page(6, 8..8, 0);
    rig.event(10);
    rig.expect(&["s1 reset HistoryGone after 1-9", "s1 event 1-10"]);
}

#[test]
fn a_page_of_another_epoch_begins_anew() {
    let mut rig = pulling_four_to_ten();
    let page = Page { next: 0, head: 9, floor: 1, epoch: 2, rows: (4..10).map(row).collect() };
    rig.input(Input::Stream(BACKFILL, page.to_frame(5)));
    rig.expect(&["UNSUBSCRIBE#6 9", "SUBSCRIBE#7 c:a after 1-3"]);
}

#[test]
fn a_pull_that_is_refused_for_now_begins_anew_later() {
    let mut rig = pulling_four_to_ten();
    rig.refuse(5, ErrorCode::Overloaded);
    rig.expect(&["UNSUBSCRIBE#6 9"]);
    rig.wait();
    rig.expect(&["SUBSCRIBE#7 c:a after 1-3"]);
}

#[test]
fn removal_ends_the_subscription_with_its_position() {
    let mut rig = live_after_three();
    rig.event(4);
    rig.detach(Reason::Removed, 4);
    rig.event(5);
    rig.expect(&["s1 event 1-4", "s1 detached Removed { last: 4 }"]);
}

#[test]
fn removal_in_the_middle_of_a_pull_still_brings_what_was_owed() {
    let mut rig = pulling_four_to_ten();
    rig.event(10);
    rig.detach(Reason::Removed, 10);
    rig.page(5, 4..10, 0);
    let lines = rig.seen();
    assert_eq!(lines[5..], ["s1 event 1-9", "s1 event 1-10", "s1 detached Removed { last: 10 }"]);
}

#[test]
fn removal_that_cuts_a_pull_short_says_what_is_missing() {
    let mut rig = pulling_four_to_ten();
    rig.event(10);
    rig.detach(Reason::Removed, 10);
    rig.refuse(5, ErrorCode::Removed);
    rig.expect(&["s1 skipped 1-4..=1-9", "s1 event 1-10", "s1 detached Removed { last: 10 }"]);
}

#[test]
fn a_refused_subscription_ends_or_waits_as_the_code_says() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.refuse(2, ErrorCode::Overloaded);
    rig.expect(&["SUBSCRIBE#2 c:a tail"]);
    rig.wait();
    rig.expect(&["SUBSCRIBE#3 c:a tail"]);
    rig.refuse(3, ErrorCode::NotFound);
    let lines = rig.seen();
    assert!(lines[0].starts_with("s1 detached Refused(Refusal { number: 4004"), "{lines:?}");
}

#[test]
fn unsubscribing_ends_at_once_and_for_good() {
    let mut rig = live_after_three();
    rig.command(Command::Unsubscribe(SubscriptionId(1)));
    rig.event(4);
    rig.detach(Reason::Unsubscribed, 4);
    rig.expect(&["UNSUBSCRIBE#3 9", "s1 detached Unsubscribed"]);
    rig.reconnect();
    rig.expect(&["ready"]);
}

#[test]
fn subscribing_again_waits_for_an_unanswered_subscribe_of_the_same_log() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.command(Command::Unsubscribe(SubscriptionId(1)));
    rig.command(Command::Subscribe { id: SubscriptionId(2), log: log(), from: From::Last(1) });
    rig.expect(&["SUBSCRIBE#2 c:a tail", "s1 detached Unsubscribed"]);
    rig.attach(2, &attach(4, 4, true));
    rig.expect(&["UNSUBSCRIBE#3 9", "SUBSCRIBE#4 c:a last 1"]);
    rig.detach(Reason::Unsubscribed, 3);
    rig.attach(4, &attach(3, 4, true));
    rig.event(3);
    rig.expect(&["s2 attached after 1-2", "s2 event 1-3"]);
}

#[test]
fn a_lost_connection_frees_a_log_whose_subscribe_was_unanswered() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.command(Command::Unsubscribe(SubscriptionId(1)));
    rig.seen();
    rig.reconnect();
    rig.command(Command::Subscribe { id: SubscriptionId(2), log: log(), from: From::Tail });
    rig.expect(&["ready", "SUBSCRIBE#4 c:a tail"]);
}

#[test]
fn unsubscribing_while_a_refused_subscribe_waits_leaves_the_log_free() {
    let mut rig = Rig::online();
    rig.subscribe(From::Tail);
    rig.refuse(2, ErrorCode::Overloaded);
    rig.command(Command::Unsubscribe(SubscriptionId(1)));
    rig.command(Command::Subscribe { id: SubscriptionId(2), log: log(), from: From::Last(1) });
    rig.expect(&["SUBSCRIBE#2 c:a tail", "s1 detached Unsubscribed", "SUBSCRIBE#3 c:a last 1"]);
    assert_eq!(rig.client.poll_timeout(), None);
}

#[test]
fn a_log_is_subscribed_once() {
    let mut rig = live_after_three();
    rig.command(Command::Subscribe { id: SubscriptionId(2), log: log(), from: From::Tail });
    rig.expect(&["s2 detached AlreadySubscribed"]);
}

#[test]
fn at_most_four_pages_are_in_flight() {
    let mut rig = Rig::online();
    for n in 1..=6 {
        let log = format!("c:{n}").parse().unwrap();
        rig.command(Command::Subscribe { id: SubscriptionId(n), log, from: From::Start });
    }
    rig.seen();
    for n in 0..6 {
        let attach = control::Attach { handle: 20 + n, log: format!("c:{}", n + 1), ..attach(1, 3, false) };
        rig.events(frames::control(FrameType::Attach, 2 + n, &attach));
    }
    let fetches = rig.seen().into_iter().filter(|line| line.starts_with("FETCH")).count();
    assert_eq!(fetches, 4);
    rig.page(8, 1..3, 0);
    rig.expect(&["FETCH#12 c:5 1..3", "s1 event 1-1", "s1 event 1-2"]);
}

#[test]
fn cursors_and_signals_of_unknown_handles_are_ignored() {
    let mut rig = Rig::online();
    let cursor = control::MemberCursor { user: "bob".into(), delivered: 3, read: 2, read_msgno: 2 };
    let signal = control::Signaled { handle: HANDLE, user: "bob".into(), kind: "typing".into(), ..Default::default() };
    let state =
        [frames::control(FrameType::Cursors, HANDLE, &cursor), frames::control(FrameType::Signaled, HANDLE, &signal)];
    state.iter().for_each(|frame| rig.input(Input::Stream(STATE, frame.clone())));
    rig.expect(&[]);
    rig.subscribe(From::Tail);
    rig.attach(2, &attach(4, 4, true));
    state.iter().for_each(|frame| rig.input(Input::Stream(STATE, frame.clone())));
    rig.expect(&["SUBSCRIBE#2 c:a tail", "s1 attached after 1-3", "s1 cursor bob 3/2", "s1 signal bob typing"]);
}

#[test]
fn a_frame_on_the_wrong_stream_ends_the_connection() {
    let mut rig = live_after_three();
    let head = control::Head { log: "c:a".into(), ..Default::default() };
    rig.input(Input::Stream(EVENTS, frames::control(FrameType::Head, 0, &head)));
    rig.expect(&["close", "waiting: HEAD came on the wrong stream"]);
}
