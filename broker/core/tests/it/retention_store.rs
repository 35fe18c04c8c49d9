//! Retention and its store: one round at a time, through crashes, failures, and reads that are under way.

use antiphon_core::limits::{RETENTION_BATCH_ROWS_MAX, RETENTION_PAUSE, RETENTION_RETRY_AFTER};
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType, Row,
    control::{attach::Reset, subscribe::From},
};
use antiphon_storage_contract::StoreError;

use super::{
    harness::*,
    messages_view::{edit, fetch, messages, react, redact, related, target},
    retention::{KEPT_MS, aged, is_of_message, short_lived},
};

/// A log of which `count` messages will be too old in a moment, and nothing is going on.
fn about_to_age(c: &mut Cluster, who: Who, count: usize) {
    for n in 0..count {
        c.say(who, "c:tea", &n.to_string()).ack();
    }
    c.advance_ms(KEPT_MS / 2);
    c.say(who, "c:tea", "stays").ack();
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_brings_nothing_back() {
    for step in [Kind::Checkpoint, Kind::PutRecords, Kind::SetFloor] {
        for writes_survive in [false, true] {
            let mut c = Cluster::new(1);
            let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
            short_lived(&mut c, ann, "tea");
            let old = c.draft("c:tea", "old");
            let ack = c.send_now(ann, &old).ack();
            react(&mut c, bob, &ack, "+1");
            about_to_age(&mut c, ann, 3);
            c.advance_ms(1_001);
            c.store.hold(&[step]);
            c.advance_ms(KEPT_MS / 2);
            let is_decided = step != Kind::Checkpoint;
            let floor = c.fetch(bob, "c:tea", 0, 0).page().floor;
            assert_eq!(floor, if is_decided { 7 } else { 1 }, "{step:?}: the checkpoint decides");
            assert_eq!(c.stored(ann, "c:tea").rows.len(), 7, "{step:?}");
            c.restart(1, writes_survive);
            // It is still so before anything else is written.
            let held = [Kind::Checkpoint, Kind::PutRecords, Kind::SetFloor];
            c.store.hold(&held[..]);
            let bob = c.open_established(0, "bob");
            let attach = c.ask(
                bob,
                FrameType::Subscribe,
                &antiphon_protocol::control::Subscribe { log: "c:tea".into(), from: Some(after(2)) },
            );
            c.settle();
            let is_finished = step == Kind::SetFloor && writes_survive;
            assert_eq!(c.is_answered(bob, attach), is_finished, "requests wait until what is due is gone");
            c.store.hold(&[]);
            c.settle();
            let attach = c.take(bob, attach).attach();
            assert_eq!((attach.reset(), attach.floor), (Reset::HistoryGone, 7));
            assert_eq!(c.send_now(bob, &old).code(), ErrorCode::DedupeExpired, "also of another user, while not found");
            let ann = c.connect(0, "ann");
            assert_eq!(c.send_now(ann, &old).code(), ErrorCode::DedupeExpired);
            c.settle();
            let stored = c.stored(ann, "c:tea");
            assert_eq!((stored.floor, stored.rows.len()), (7, 1), "{step:?}");
            assert!(!stored.records.keys().any(is_of_message), "{step:?} {writes_survive}");
        }
    }
}

#[test]
fn what_the_store_does_not_do_is_done_later() {
    for step in [Kind::Read, Kind::Checkpoint, Kind::PutRecords, Kind::SetFloor] {
        for applies in [false, true] {
            let mut c = Cluster::new(1);
            let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
            short_lived(&mut c, ann, "tea");
            let ack = c.say(ann, "c:tea", "old").ack();
            react(&mut c, bob, &ack, "+1");
            // More than memory holds, so that the rows have to be read.
            about_to_age(&mut c, ann, 300);
            c.advance_ms(1_001);
            let error = StoreError::Unavailable("test".into());
            c.store.faults.push(Fault { kind: step, error, applies, times: 2 });
            c.advance_ms(KEPT_MS / 2);
            for _ in 0..10 {
                c.advance_ms(RETENTION_RETRY_AFTER.as_millis() as u64);
            }
            let stored = c.stored(ann, "c:tea");
            assert_eq!((stored.floor, stored.rows.len()), (304, 1), "{step:?} {applies}");
            assert!(!stored.records.keys().any(is_of_message), "{step:?} {applies}");
            assert_eq!(c.fetch(bob, "c:tea", 0, 0).page().floor, 304);
        }
    }
}

#[test]
fn a_long_backlog_goes_in_rounds_and_the_log_serves_meanwhile() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    about_to_age(&mut c, ann, 1_000);
    c.advance_ms(KEPT_MS / 2 + 1);
    let mut floors = vec![c.stored(ann, "c:tea").floor];
    while *floors.last().unwrap() < 1_002 {
        assert!(floors.len() < 20, "{floors:?}");
        c.say(ann, "c:tea", "meanwhile").ack();
        c.advance_ms(RETENTION_PAUSE.as_millis() as u64);
        floors.push(c.stored(ann, "c:tea").floor);
    }
    let batch = u64::from(RETENTION_BATCH_ROWS_MAX);
    assert!(floors.windows(2).all(|pair| pair[1] - pair[0] <= batch), "{floors:?}");
    assert!(floors.len() >= 4, "{floors:?}");
    let before = c.store.submitted.clone();
    c.advance_ms(5_000);
    assert_eq!(c.store.count(Kind::Read), before[&Kind::Read], "nothing is looked at before it is due");
}

#[test]
fn a_log_that_is_taken_up_late_shows_nothing_that_is_too_old() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    about_to_age(&mut c, ann, 10);
    c.restart(1, false);
    c.now = antiphon_core::Time(c.now.0 + 100 * KEPT_MS * 1_000);
    let bob = c.connect(0, "bob");
    let attach = c.subscribe(bob, "c:tea", From::Last(64)).attach();
    assert_eq!((attach.replay_from, attach.live_from, attach.floor), (13, 13, 13));
    assert!(c.heard(bob, "c:tea").is_empty());
}

#[test]
fn pages_that_are_read_while_the_floor_rises_hold_nothing_below_it() {
    let (mut c, _, bob, _) = {
        let mut c = Cluster::new(1);
        let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
        short_lived(&mut c, ann, "tea");
        about_to_age(&mut c, ann, 300);
        (c, ann, bob, ())
    };
    c.store.hold(&[Kind::Read]);
    let events = |from, to, backward| antiphon_protocol::control::Fetch { from, to, ..fetch_events(backward) };
    let forward = c.ask(bob, FrameType::Fetch, &events(40, 0, false));
    // Such a read returns only rows that are gone by then, and what is left lies behind them.
    let limited = antiphon_protocol::control::Fetch { limit: 10, ..events(40, 0, false) };
    let limited = c.ask(bob, FrameType::Fetch, &limited);
    let backward = c.ask(bob, FrameType::Fetch, &events(0, 40, true));
    let views = c.ask(bob, FrameType::Fetch, &fetch(0, false));
    c.settle();
    // The reads of the pages have been made; those of the retention come after them and are let through.
    c.now = antiphon_core::Time(c.now.0 + (KEPT_MS / 2 + 1) * 1_000);
    c.turn();
    for _ in 0..20 {
        let nth_of_retention = 4;
        if c.store.pending_held() > nth_of_retention {
            let index = c.store.eligible_held(nth_of_retention);
            c.complete(index);
        }
        c.advance_ms(RETENTION_PAUSE.as_millis() as u64);
    }
    assert_eq!(c.stored(bob, "c:tea").floor, 302);
    c.store.hold(&[]);
    c.settle();
    let page = c.take(bob, forward).page();
    assert_eq!((page.rows.iter().map(Row::seq).collect::<Vec<_>>(), page.floor, page.next), (vec![302], 302, 0));
    let page = c.take(bob, limited).page();
    assert_eq!((page.rows.iter().map(Row::seq).collect::<Vec<_>>(), page.floor, page.next), (vec![302], 302, 0));
    let page = c.take(bob, backward).page();
    assert_eq!((page.rows.len(), page.floor, page.next), (0, 302, 0));
    let page = c.take(bob, views).messages();
    assert!(page.floor == 302 && page.messages.iter().all(|view| row(view).seq() >= 302));
}

fn row(view: &antiphon_protocol::control::MessageView) -> Row {
    Row::new(view.row.clone()).unwrap()
}

fn fetch_events(backward: bool) -> antiphon_protocol::control::Fetch {
    antiphon_protocol::control::Fetch { log: "c:tea".into(), backward, ..Default::default() }
}

#[test]
fn a_relation_whose_message_goes_while_it_is_looked_up_is_refused() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    let old = c.say(ann, "c:tea", "old").ack();
    // Behind a checkpoint, so that nothing of the message is in memory after the restart.
    about_to_age(&mut c, ann, 300);
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    c.say(ann, "c:tea", "taken up").ack();
    c.store.hold(&[Kind::GetRecord]);
    let draft = related(&mut c, EventKind::EDIT, target(&old), "", false, "new text");
    let id = c.send(ann, &draft);
    c.settle();
    c.advance_ms(KEPT_MS / 2 + 1);
    assert!(!c.is_answered(ann, id) && c.stored(ann, "c:tea").floor > old.position.seq);
    c.store.hold(&[]);
    c.settle();
    match c.take(ann, id) {
        Reply::Error(error) => assert_eq!(error.number, ErrorCode::InvalidRelation as u32),
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_in_flight_to_what_goes_leave_nothing_behind() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    let (edited, redacted) = (c.say(ann, "c:tea", "one").ack(), c.say(ann, "c:tea", "two").ack());
    edit(&mut c, ann, &edited, "uno");
    c.advance_ms(KEPT_MS);
    // Their rows are on the way to disk, behind which their messages go.
    c.store.hold(&[Kind::Append]);
    let drafts = [
        related(&mut c, EventKind::EDIT, target(&edited), "", false, "eins"),
        related(&mut c, EventKind::REDACT, target(&redacted), "", false, ""),
    ];
    let ids = drafts.map(|draft| c.send(ann, &draft));
    c.settle();
    c.advance_ms(1);
    assert_eq!(c.stored(ann, "c:tea").floor, 0, "behind the rows in flight");
    c.store.hold(&[]);
    c.settle();
    for id in ids {
        c.take(ann, id).ack();
    }
    c.advance_ms(2_000);
    assert!(c.stored(ann, "c:tea").floor >= 5 && messages(&mut c, ann).is_empty());
    c.advance_ms(2 * KEPT_MS);
    let stored = c.stored(ann, "c:tea");
    assert_eq!((stored.rows.len(), stored.records.keys().filter(|key| is_of_message(key)).count()), (0, 0));
}

#[test]
fn a_redaction_that_is_not_durable_holds_the_floor_back() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    c.say(ann, "c:tea", "old").ack();
    c.advance_ms(KEPT_MS / 2);
    let kept = c.say(ann, "c:tea", "kept").ack();
    c.store.fail(Kind::Rewrite, StoreError::Unavailable("test".into()), 3);
    redact(&mut c, ann, &kept);
    c.store.hold(&[Kind::Rewrite]);
    c.advance_ms(KEPT_MS / 2 + 1);
    assert_eq!(c.stored(ann, "c:tea").floor, 0, "a checkpoint would hide the redaction from a restart");
    c.store.hold(&[]);
    for _ in 0..6 {
        c.advance_ms(RETENTION_RETRY_AFTER.as_millis() as u64);
    }
    let stored = c.stored(ann, "c:tea");
    assert_eq!(stored.floor, 3);
    assert!(stored.rows[&3].is_redacted());
}

#[test]
fn an_append_that_fails_meanwhile_changes_nothing() {
    let (mut c, ann, bob, _) = aged(1, 3, 1);
    c.advance_ms(KEPT_MS / 2 - 1_000);
    c.store.hold(&[Kind::SetFloor, Kind::Append]);
    c.advance_ms(1_000);
    let draft = c.draft("c:tea", "fails");
    let id = c.send(ann, &draft);
    c.settle();
    c.store.fail(Kind::Append, StoreError::Full, 1);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(ann, id).code(), ErrorCode::StoreFull);
    c.advance_ms(RETENTION_RETRY_AFTER.as_millis() as u64);
    assert_eq!(c.subscribe(bob, "c:tea", after(1)).attach().floor, 6);
    assert_eq!(c.stored(ann, "c:tea").floor, 6);
    assert_eq!(c.send_now(ann, &draft).ack().position.seq, 6);
}
