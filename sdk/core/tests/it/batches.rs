//! Batches of sends, and pages of messages as they stand.

use antiphon_protocol::{ErrorCode, FrameType, LogName, control, frames, limits::BATCH_RECORDS_MAX};
use antiphon_sdk_core::{
    Command, CommandId, Input, NewMessage, Range, Token,
    limits::{BATCH_BYTES_MAX, OUT_OF_ORDER_MAX},
};

use crate::rig::{BACKFILL, Rig, config, failed, log, row, stored, welcome};

#[test]
fn a_batch_is_written_as_one_and_each_message_has_its_own_fate() {
    let mut rig = Rig::online();
    rig.send_batch(1..4);
    let sending = ["m1 queued", "m2 queued", "m3 queued", "m1 sending", "m2 sending", "m3 sending"];
    rig.expect(&[&sending[..], &["SEND_BATCH#2 c:a dseq=1 1 2 3"]].concat());
    rig.send(4, "next");
    rig.expect(&["m4 queued", "m4 sending", "SEND#3 c:a dseq=2 next"]);
    rig.batch_ack(2, vec![stored(7), failed(ErrorCode::IdReused), stored(8)]);
    let lines = rig.seen();
    assert_eq!((lines[0].as_str(), lines[2].as_str()), ("m1 sent 1-7", "m3 sent 1-8"));
    assert!(lines[1].starts_with("m2 failed: "), "{lines:?}");
    rig.ack(3, 9);
    rig.expect(&["m4 sent 1-9"]);
}

#[test]
fn what_a_batch_did_not_get_stored_is_written_again_in_its_place() {
    let mut rig = Rig::online();
    rig.send_batch(1..4);
    rig.send(4, "next");
    rig.seen();
    rig.batch_ack(2, vec![stored(7), failed(ErrorCode::StoreUnavailable), failed(ErrorCode::NotApplied)]);
    rig.expect(&["m1 sent 1-7"]);
    rig.refuse(3, ErrorCode::OutOfOrder);
    rig.wait();
    rig.expect(&["SEND_BATCH#4 c:a dseq=1 2 3", "SEND#5 c:a dseq=2 next"]);
    rig.batch_ack(4, vec![stored(8), stored(9)]);
    rig.ack(5, 10);
    rig.expect(&["m2 sent 1-8", "m3 sent 1-9", "m4 sent 1-10"]);
}

#[test]
fn a_batch_that_was_not_answered_is_written_again_on_the_next_connection() {
    let mut rig = Rig::online();
    rig.send_batch(1..4);
    rig.seen();
    rig.reconnect();
    rig.expect(&["ready", "SEND_BATCH#4 c:a dseq=1 1 2 3"]);
    rig.batch_ack(4, (7..10).map(stored).collect());
    rig.expect(&["m1 sent 1-7", "m2 sent 1-8", "m3 sent 1-9"]);
}

#[test]
fn a_broker_that_takes_no_batches_gets_single_sends() {
    let mut rig = Rig::offline(config());
    rig.send_batch(1..3);
    rig.input(Input::Token(Token::new("token")));
    rig.input(Input::Connected);
    rig.seen();
    let without = control::Welcome { capabilities: Vec::new(), ..welcome() };
    rig.control(frames::control(FrameType::Welcome, 1, &without));
    rig.expect(&["ready", "m1 sending", "SEND#2 c:a dseq=1 1", "m2 sending", "SEND#3 c:a dseq=2 2"]);
    // The next broker takes them: one batch has one place.
    rig.reconnect();
    rig.send(3, "3");
    rig.expect(&["ready", "SEND_BATCH#5 c:a dseq=1 1 2", "m3 queued", "m3 sending", "SEND#6 c:a dseq=2 3"]);
}

#[test]
fn a_batch_is_cut_where_a_frame_or_the_log_ends() {
    let mut rig = Rig::online();
    rig.send_batch(0..BATCH_RECORDS_MAX as u64 + 20);
    let frames = |rig: &mut Rig| rig.seen().iter().filter(|line| line.starts_with("SEND")).count();
    assert_eq!(frames(&mut rig), 2);
    let large = |id: u64, log: &str| {
        let log: LogName = log.parse().unwrap();
        (CommandId(id), NewMessage::text(log, "x".repeat(BATCH_BYTES_MAX / 5)))
    };
    rig.command(Command::SendBatch((200..210).map(|id| large(id, "c:large")).collect()));
    assert_eq!(frames(&mut rig), 3, "four of this size fit");
    rig.command(Command::SendBatch(vec![large(300, "c:b"), large(301, "c:c"), large(302, "c:b")]));
    assert_eq!(frames(&mut rig), 3);
    assert_eq!(log().to_string(), "c:a");
}

#[test]
fn a_batch_refused_as_a_whole_is_written_again_or_fails_as_a_whole() {
    let mut rig = Rig::online();
    rig.send_batch(1..3);
    rig.seen();
    rig.refuse(2, ErrorCode::Overloaded);
    rig.expect(&[]);
    rig.wait();
    rig.expect(&["SEND_BATCH#3 c:a dseq=1 1 2"]);
    rig.refuse(3, ErrorCode::Forbidden);
    let lines = rig.seen();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("failed: ")), "{lines:?}");
}

#[test]
fn a_broker_that_keeps_refusing_a_batch_as_out_of_order_gets_a_new_connection() {
    let mut rig = Rig::online();
    rig.send_batch(1..3);
    rig.seen();
    for request in 2.. {
        rig.refuse(request, ErrorCode::OutOfOrder);
        let lines = rig.seen();
        if lines.iter().any(|line| line == "close") {
            assert_eq!(request, 1 + OUT_OF_ORDER_MAX);
            return;
        }
        assert!(request <= OUT_OF_ORDER_MAX);
        rig.wait();
        rig.seen();
    }
}

#[test]
fn an_answer_with_the_wrong_number_of_results_ends_the_connection() {
    let mut rig = Rig::online();
    rig.send_batch(1..4);
    rig.seen();
    rig.batch_ack(2, vec![stored(7)]);
    assert_eq!(rig.seen()[0], "close");
}

#[test]
fn messages_are_fetched_and_fetched_again_after_a_lost_connection() {
    let mut rig = Rig::online();
    let range = Range::newest(log(), 10);
    rig.command(Command::FetchMessages { id: CommandId(1), range: range.clone() });
    rig.expect(&["FETCH#2 c:a 0..0 messages"]);
    rig.reconnect();
    rig.expect(&["ready", "FETCH#4 c:a 0..0 messages"]);
    let view = control::MessageView { row: row(3).bytes().clone(), ..Default::default() };
    let page = control::MessagesPage { next: 5, head: 9, floor: 1, epoch: 1, messages: vec![view] };
    rig.input(Input::Stream(BACKFILL, frames::control(FrameType::MessagesPage, 4, &page)));
    rig.expect(&["p1 1 messages next Some(5)"]);
    rig.command(Command::FetchMessages { id: CommandId(2), range });
    rig.seen();
    rig.refuse(5, ErrorCode::NotFound);
    assert!(rig.seen()[0].starts_with("p2 failed: "));
}

#[test]
fn a_page_is_fetched_at_a_date() {
    let mut rig = Rig::online();
    rig.command(Command::Fetch { id: CommandId(1), range: Range::since(log(), 1_700_000_000_000) });
    rig.command(Command::FetchMessages { id: CommandId(2), range: Range::before(log(), 1_700_000_000_000, 10) });
    rig.expect(&["FETCH#2 c:a 0..0 at 1700000000000", "FETCH#3 c:a 0..0 messages at 1700000000000"]);
}

#[test]
fn a_page_with_a_message_that_cannot_be_read_ends_the_connection() {
    let mut rig = Rig::online();
    let range = Range::all(log());
    rig.command(Command::FetchMessages { id: CommandId(1), range });
    rig.seen();
    let page = control::MessagesPage { messages: vec![control::MessageView::default()], ..Default::default() };
    rig.input(Input::Stream(BACKFILL, frames::control(FrameType::MessagesPage, 2, &page)));
    assert_eq!(rig.seen()[0], "close");
}
