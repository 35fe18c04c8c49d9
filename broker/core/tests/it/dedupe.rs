//! A send that is repeated is stored once, however late the repetition comes.

use antiphon_core::limits::DUPLICATES_IN_MEMORY_MS;
use antiphon_protocol::{ErrorCode, limits::CLOCK_SKEW_MS_MAX};
use uuid::Uuid;

use super::harness::*;

fn messages(c: &Cluster, who: Who, log: &str) -> usize {
    c.stored(who, log).rows.values().filter(|row| row.msgno_counts()).count()
}

fn version_8(n: u8) -> Uuid {
    uuid::Builder::from_custom_bytes([n; 16]).into_uuid()
}

#[test]
fn a_repetition_in_flight_waits_for_the_first_and_gets_its_answer() {
    let mut c = Cluster::new(2);
    let (ann, again) = (c.connect(0, "ann"), c.connect(1, "ann"));
    c.group(ann, "tea", &[]);
    c.follow(ann, "c:tea");
    c.store.hold(&[Kind::Append]);
    let draft = c.draft("c:tea", "hello");
    let (first, second) = (c.send(ann, &draft), c.send(ann, &draft));
    c.settle();
    let third = c.send(again, &draft);
    c.settle();
    assert!(!c.is_answered(ann, first) && !c.is_answered(ann, second) && !c.is_answered(again, third));
    c.store.hold(&[]);
    c.settle();
    let acks = [c.take(ann, first), c.take(ann, second), c.take(again, third)].map(Reply::ack);
    assert_eq!(acks.map(|ack| ack.duplicate), [false, true, true]);
    assert!(acks.iter().all(|ack| (ack.position, ack.event_id) == (acks[0].position, acks[0].event_id)));
    assert_eq!(c.heard(ann, "c:tea"), ["hello"]);
}

#[test]
fn a_repetition_gets_the_first_answer_again_without_asking_the_store() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let draft = c.draft("c:tea", "hello");
    let first = c.send_now(ann, &draft).ack();
    c.say(ann, "c:tea", "another").ack();
    c.advance_ms(DUPLICATES_IN_MEMORY_MS - 1_000);
    let second = c.send_now(ann, &draft).ack();
    assert_eq!(second, antiphon_protocol::frames::Ack { duplicate: true, ..first });
    assert_eq!((messages(&c, ann, "c:tea"), c.store.count(Kind::FindDuplicate)), (2, 0));
}

#[test]
fn a_repetition_after_a_restart_is_found() {
    for writes_survive in [false, true] {
        let mut c = Cluster::new(2);
        let ann = c.connect(0, "ann");
        c.group(ann, "tea", &[]);
        let stored = c.draft("c:tea", "stored");
        let ack = c.send_now(ann, &stored).ack();
        c.store.hold(&[Kind::Append]);
        let lost = c.draft("c:tea", "in flight");
        c.send(ann, &lost);
        c.settle();
        c.restart(3, writes_survive);
        c.store.hold(&[]);
        let ann = c.connect(1, "ann");
        let again = c.send_now(ann, &stored).ack();
        assert_eq!((again.position, again.event_id, again.duplicate), (ack.position, ack.event_id, true));
        assert_eq!(c.send_now(ann, &lost).ack().duplicate, writes_survive);
        assert_eq!(messages(&c, ann, "c:tea"), 2);
    }
}

#[test]
fn a_repetition_after_ten_minutes_is_found_by_the_store() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let draft = c.draft("c:tea", "hello");
    let first = c.send_now(ann, &draft).ack();
    c.advance_ms(DUPLICATES_IN_MEMORY_MS + 1_000);
    // What is old is forgotten when something new is stored.
    c.say(ann, "c:tea", "later").ack();
    let again = c.send_now(ann, &draft).ack();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    assert_eq!(c.store.count(Kind::FindDuplicate), 1);
    assert_eq!(messages(&c, ann, "c:tea"), 2);
    // A new message with an old id of its own is looked up and stored once.
    let late = Draft::text("c:tea", c.new_id_at(START_MS - 5), "written long ago");
    assert!(!c.send_now(ann, &late).ack().duplicate);
    assert!(c.send_now(ann, &late).ack().duplicate);
}

#[test]
fn a_repetition_behind_a_checkpoint_is_found_after_a_restart() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let first = c.draft("c:tea", "first");
    let (ack, key) = (c.send_now(ann, &first).ack(), version_8(1));
    let by_key = Draft::text("c:tea", key, "by key");
    c.send_now(ann, &by_key).ack();
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    assert!(c.stored(ann, "c:tea").checkpoint.is_some());
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    let again = c.send_now(ann, &first).ack();
    assert_eq!((again.position, again.duplicate), (ack.position, true));
    assert!(c.send_now(ann, &by_key).ack().duplicate);
    assert_eq!(c.store.count(Kind::FindDuplicate), 2);
    assert_eq!(messages(&c, ann, "c:tea"), 302);
}

#[test]
fn the_same_id_with_other_content_is_refused_everywhere() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.store.hold(&[Kind::Append]);
    let draft = c.draft("c:tea", "hello");
    let other = Draft { body: b"other".to_vec(), ..draft.clone() };
    let (first, second) = (c.send(ann, &draft), c.send(ann, &other));
    c.settle();
    assert_eq!(c.take(ann, second).code(), ErrorCode::IdReused, "in flight");
    c.store.hold(&[]);
    c.settle();
    c.take(ann, first).ack();
    assert_eq!(c.send_now(ann, &other).code(), ErrorCode::IdReused, "in memory");
    c.advance_ms(DUPLICATES_IN_MEMORY_MS + 1_000);
    c.say(ann, "c:tea", "later").ack();
    assert_eq!(c.send_now(ann, &other).code(), ErrorCode::IdReused, "in the store");
    assert_eq!(c.store.count(Kind::FindDuplicate), 1);
}

#[test]
fn an_id_belongs_to_its_sender_and_its_log() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.group(ann, "coffee", &[]);
    let draft = c.draft("c:tea", "hello");
    c.send_now(ann, &draft).ack();
    assert!(!c.send_now(bob, &draft).ack().duplicate);
    assert!(!c.send_now(ann, &Draft { log: "c:coffee".into(), ..draft }).ack().duplicate);
}

#[test]
fn an_id_from_the_future_is_refused_and_stores_nothing() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let late = Draft::text("c:tea", c.new_id_at(START_MS + CLOCK_SKEW_MS_MAX), "just in time");
    c.send_now(ann, &late).ack();
    let ahead = Draft::text("c:tea", c.new_id_at(START_MS + CLOCK_SKEW_MS_MAX + 1), "ahead");
    let error = c.send_now(ann, &ahead).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::ClockSkew as u32, "client_message_id"));
    assert_eq!(messages(&c, ann, "c:tea"), 1);
}

#[test]
fn sends_behind_a_lookup_keep_their_place() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    c.advance_ms(DUPLICATES_IN_MEMORY_MS + 1_000);
    c.say(ann, "c:tea", "now").ack();
    let old = Draft::text("c:tea", c.new_id_at(START_MS - 1), "old id").dseq(1);
    let new = c.draft("c:tea", "new id").dseq(2);
    // The first message made old ids uncertain only once it was pruned.
    c.advance_ms(DUPLICATES_IN_MEMORY_MS + 1_000);
    c.say(ann, "c:tea", "prunes").ack();
    c.store.hold(&[Kind::FindDuplicate]);
    let (first, second) = (c.send(ann, &old), c.send(ann, &new));
    c.settle();
    assert!(!c.is_answered(ann, first) && !c.is_answered(ann, second));
    c.store.hold(&[]);
    c.settle();
    assert!(c.take(ann, first).ack().position.seq < c.take(ann, second).ack().position.seq);
    assert_eq!(c.heard(bob, "c:tea"), ["now", "prunes", "old id", "new id"]);
}
