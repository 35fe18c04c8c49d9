//! `dseq`: the sends of one connection to one log keep their order, whatever is refused in between.

use antiphon_protocol::{ErrorCode, control, limits::BODY_BYTES_MAX};
use antiphon_storage_contract::StoreError;

use super::harness::*;

fn group() -> (Cluster, Who) {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    c.group(ann, "tea", &[]);
    (c, ann)
}

fn numbered(c: &mut Cluster, dseq: u64) -> Draft {
    c.draft("c:tea", &dseq.to_string()).dseq(dseq)
}

fn stored_texts(c: &Cluster, who: Who) -> Vec<String> {
    c.stored(who, "c:tea").rows.values().filter(|row| row.msgno_counts()).map(text).collect()
}

#[test]
fn a_hole_is_refused_until_it_is_filled() {
    let (mut c, ann) = group();
    let drafts: Vec<Draft> = (7..=9).map(|dseq| numbered(&mut c, dseq)).collect();
    c.send_now(ann, &drafts[0]).ack();
    let refused = c.send_now(ann, &drafts[2]).error();
    assert_eq!((refused.number, refused.field.as_str()), (ErrorCode::OutOfOrder as u32, "dseq"));
    assert!(refused.retry_after_ms > 0);
    c.send_now(ann, &drafts[1]).ack();
    c.send_now(ann, &drafts[2]).ack();
    assert!(c.send_now(ann, &drafts[0]).ack().duplicate, "a consumed number may come again");
    assert_eq!(stored_texts(&c, ann), ["7", "8", "9"]);
}

#[test]
fn after_a_refusal_for_now_later_sends_wait_for_it() {
    let (mut c, ann) = group();
    let drafts: Vec<Draft> = (1..=4).map(|dseq| numbered(&mut c, dseq)).collect();
    c.send_now(ann, &drafts[0]).ack();
    c.store.fail(Kind::Append, StoreError::Full, 1);
    assert_eq!(c.send_now(ann, &drafts[1]).code(), ErrorCode::StoreFull);
    assert_eq!(c.send_now(ann, &drafts[2]).code(), ErrorCode::OutOfOrder);
    assert_eq!(c.send_now(ann, &drafts[3]).code(), ErrorCode::OutOfOrder);
    for draft in &drafts[1..] {
        c.send_now(ann, draft).ack();
    }
    assert_eq!(stored_texts(&c, ann), ["1", "2", "3", "4"]);
}

#[test]
fn a_refusal_for_good_is_consumed() {
    let (mut c, ann) = group();
    let (first, third) = (numbered(&mut c, 1), numbered(&mut c, 3));
    c.send_now(ann, &first).ack();
    let bad = Draft { body: vec![0xff], ..numbered(&mut c, 2) };
    assert_eq!(c.send_now(ann, &bad).code(), ErrorCode::InvalidField);
    c.send_now(ann, &third).ack();
    let reused = Draft { body: b"other".to_vec(), ..third }.dseq(4);
    assert_eq!(c.send_now(ann, &reused).code(), ErrorCode::IdReused);
    let fifth = numbered(&mut c, 5);
    c.send_now(ann, &fifth).ack();
}

#[test]
fn a_send_that_cannot_even_be_read_is_consumed_in_its_place() {
    let (mut c, ann) = group();
    let first = numbered(&mut c, 1);
    c.send_now(ann, &first).ack();
    let long = Draft { body: vec![b'x'; BODY_BYTES_MAX + 1], ..numbered(&mut c, 2) };
    let third = numbered(&mut c, 3);
    // All at once: the refusal must not overtake or be overtaken.
    let ids = [c.send(ann, &long), c.send(ann, &third)];
    c.settle();
    let refused = c.take(ann, ids[0]).error();
    assert_eq!((refused.number, refused.field.as_str()), (ErrorCode::LimitExceeded as u32, "body"));
    c.take(ann, ids[1]).ack();
}

#[test]
fn orders_of_two_connections_and_two_logs_are_separate() {
    let (mut c, ann) = group();
    let tablet = c.connect(0, "ann");
    c.group(ann, "coffee", &[]);
    let first = numbered(&mut c, 1);
    c.send_now(ann, &first).ack();
    let base = numbered(&mut c, 40);
    c.send_now(tablet, &base).ack();
    let other_log = Draft { log: "c:coffee".into(), ..numbered(&mut c, 9) };
    c.send_now(ann, &other_log).ack();
    let hole = numbered(&mut c, 3);
    assert_eq!(c.send_now(ann, &hole).code(), ErrorCode::OutOfOrder);
    // A new connection of the same client begins with what it has not heard back about.
    c.disconnect(ann);
    let ann = c.connect(0, "ann");
    let resent = numbered(&mut c, 17);
    c.send_now(ann, &resent).ack();
}

#[test]
fn a_pipeline_whose_lookup_outlives_a_failed_append_stays_in_order() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    for n in 0..300 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    c.get(ann, "tea").conversation();
    c.advance_ms(120_000);
    let first = numbered(&mut c, 1);
    // An id from before the checkpoint has to be looked up.
    let second = Draft::text("c:tea", c.new_id_at(START_MS - 1), "2").dseq(2);
    c.store.hold(&[Kind::Append, Kind::FindDuplicate]);
    let ids = [c.send(ann, &first), c.send(ann, &second)];
    c.settle();
    assert_eq!(c.store.count(Kind::FindDuplicate), 1);
    c.store.fail(Kind::Append, StoreError::Unavailable("test".into()), 1);
    c.store.hold(&[Kind::FindDuplicate]);
    c.settle();
    let refused = c.take(ann, ids[0]).error();
    assert_eq!(refused.outcome(), control::error::Outcome::Unknown);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(ann, ids[1]).code(), ErrorCode::OutOfOrder);
    c.send_now(ann, &first).ack();
    c.send_now(ann, &second).ack();
    let stored = stored_texts(&c, ann);
    assert_eq!(stored[stored.len() - 2..], ["1", "2"]);
}
