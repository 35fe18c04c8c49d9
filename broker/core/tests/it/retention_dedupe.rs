//! A send that may repeat one whose row is gone is refused; no other is.

use antiphon_core::limits::{DUPLICATES_IN_MEMORY_MS, RETENTION_PAUSE};
use antiphon_protocol::{
    ErrorCode, FrameType, control,
    limits::{CLOCK_SKEW_MS_MAX, RETENTION_MIN_S},
};
use uuid::Uuid;

use super::{
    harness::*,
    retention::{KEPT_MS, aged, short_lived},
};

fn version_8(n: u8) -> Uuid {
    uuid::Builder::from_custom_bytes([n; 16]).into_uuid()
}

fn refused(c: &mut Cluster, who: Who, draft: &Draft) {
    let error = c.send_now(who, draft).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::DedupeExpired as u32, "client_message_id"));
}

#[test]
fn a_repetition_of_what_is_gone_is_refused_and_stores_nothing() {
    for (restarted, shards) in [(false, 1), (true, 2)] {
        let mut c = Cluster::new(shards);
        let ann = c.connect(0, "ann");
        short_lived(&mut c, ann, "tea");
        let gone = c.draft("c:tea", "gone");
        c.send_now(ann, &gone).ack();
        c.advance_ms(KEPT_MS / 2);
        let kept = c.draft("c:tea", "kept");
        c.send_now(ann, &kept).ack();
        c.advance_ms(KEPT_MS / 2 + 1);
        let ann = if restarted {
            c.restart(shards, false);
            c.connect(0, "ann")
        } else {
            ann
        };
        refused(&mut c, ann, &gone);
        refused(&mut c, ann, &Draft { body: b"other".to_vec(), ..gone.clone() });
        assert!(c.send_now(ann, &kept).ack().duplicate);
        assert_eq!(c.stored(ann, "c:tea").rows.len(), 1);
        // The same id in another log, or of another time, is another matter.
        c.group(ann, "coffee", &[]);
        assert!(!c.send_now(ann, &Draft { log: "c:coffee".into(), ..gone }).ack().duplicate);
        c.say(ann, "c:tea", "new").ack();
    }
}

#[test]
fn the_boundary_is_the_newest_id_that_is_gone() {
    for restarted in [false, true] {
        let mut c = Cluster::new(1);
        let ann = c.connect(0, "ann");
        short_lived(&mut c, ann, "tea");
        // The newest id is not that of the newest row, and may have been ahead of the clock.
        let ahead = Draft::text("c:tea", c.new_id_at(START_MS + 500), "ahead");
        c.send_now(ann, &ahead).ack();
        let behind = Draft::text("c:tea", c.new_id_at(START_MS - 500), "behind");
        c.send_now(ann, &behind).ack();
        let newest = Draft::text("c:tea", version_8(1), "an id without a time");
        c.send_now(ann, &newest).ack();
        c.advance_ms(KEPT_MS + 1);
        assert!(c.stored(ann, "c:tea").rows.is_empty());
        let ann = if restarted {
            c.restart(1, false);
            c.connect(0, "ann")
        } else {
            ann
        };
        refused(&mut c, ann, &ahead);
        refused(&mut c, ann, &behind);
        let never_used = Draft::text("c:tea", c.new_id_at(START_MS + 500), "never used");
        refused(&mut c, ann, &never_used);
        let later = Draft::text("c:tea", c.new_id_at(START_MS + 501), "a millisecond later");
        assert!(!c.send_now(ann, &later).ack().duplicate);
        assert!(!c.send_now(ann, &newest).ack().duplicate, "an id without a time is forgotten with its row");
        assert!(c.send_now(ann, &newest).ack().duplicate);
    }
}

#[test]
fn a_row_that_is_there_is_found_whatever_the_time_of_its_id() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    c.say(ann, "c:tea", "goes").ack();
    c.advance_ms(KEPT_MS / 2);
    let late = Draft::text("c:tea", c.new_id_at(START_MS - DUPLICATES_IN_MEMORY_MS), "written long ago");
    c.send_now(ann, &late).ack();
    c.advance_ms(KEPT_MS / 2 + 1);
    assert!(c.send_now(ann, &late).ack().duplicate);
    let other = Draft::text("c:tea", c.new_id_at(START_MS - DUPLICATES_IN_MEMORY_MS), "written then too");
    refused(&mut c, ann, &other);
    let batch = Draft { id: c.new_id_at(START_MS - 9), ..other };
    let good = c.draft("c:tea", "good");
    assert_eq!(c.stored(ann, "c:tea").rows.len(), 1);
    refused(&mut c, ann, &batch);
    c.send_now(ann, &good).ack();
}

#[test]
fn an_id_a_minute_ahead_never_costs_another_sender_a_message() {
    let (mut c, ann, bob) = {
        let mut c = Cluster::new(1);
        let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
        short_lived(&mut c, ann, "tea");
        (c, ann, bob)
    };
    for _ in 0..30 {
        let ahead = Draft::text("c:tea", c.new_id_at(c.now.unix_ms() + CLOCK_SKEW_MS_MAX), "ahead");
        c.send_now(ann, &ahead).ack();
        c.say(bob, "c:tea", "on time").ack();
        c.advance_ms(10_000);
    }
    assert!(c.stored(ann, "c:tea").floor > 30);
}

#[test]
fn a_lookup_that_meets_the_removal_does_not_find_what_is_gone() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    let old = Draft::text("c:tea", version_8(1), "an id without a time");
    c.send_now(ann, &old).ack();
    let timed = c.draft("c:tea", "with a time");
    c.send_now(ann, &timed).ack();
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    c.say(ann, "c:tea", "taken up").ack();
    c.store.hold(&[Kind::FindDuplicate]);
    let found = c.send(ann, &timed);
    c.advance_ms(KEPT_MS + 1);
    c.advance_ms(RETENTION_PAUSE.as_millis() as u64);
    assert!(!c.is_answered(ann, found) && c.stored(ann, "c:tea").rows.is_empty());
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(ann, found).code(), ErrorCode::DedupeExpired);
    let again = c.send_now(ann, &old).ack();
    assert!(!again.duplicate);
}

#[test]
fn a_floor_that_no_checkpoint_explains_is_taken_to_be_as_late_as_it_can() {
    // The store has been told, as by an earlier version, and the boundary was never written down.
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
        c.advance_ms(10);
    }
    let key = c.key(ann, "c:tea");
    let through = c.store.logs[&key].checkpoint.as_ref().unwrap().0;
    let last_ms = c.store.logs[&key].rows[&through].time_ms();
    let log = c.store.logs.get_mut(&key).unwrap();
    log.floor = through - 5;
    log.rows = log.rows.split_off(&log.floor);
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    c.advance_ms(CLOCK_SKEW_MS_MAX);
    let possible = Draft::text("c:tea", c.new_id_at(last_ms + CLOCK_SKEW_MS_MAX), "possibly gone");
    refused(&mut c, ann, &possible);
    let impossible = Draft::text("c:tea", c.new_id_at(last_ms + CLOCK_SKEW_MS_MAX + 1), "certainly new");
    c.send_now(ann, &impossible).ack();
    assert_eq!(c.fetch(ann, "c:tea", 1, 0).page().floor, through - 5);
}

#[test]
fn an_unread_count_and_a_retention_change_do_not_move_the_boundary() {
    let (mut c, ann, bob, _) = aged(1, 2, 1);
    let update = control::ConversationUpdate {
        conversation: "tea".into(),
        retention_s: Some(2 * RETENTION_MIN_S),
        ..Default::default()
    };
    c.call(ann, FrameType::ConversationUpdate, &update).conversation();
    let gone = Draft::text("c:tea", c.new_id_at(START_MS), "from then");
    refused(&mut c, bob, &gone);
    let later = Draft::text("c:tea", c.new_id_at(START_MS + 1), "just after");
    c.send_now(bob, &later).ack();
}
