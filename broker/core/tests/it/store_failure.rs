//! A store that fails: every waiter is answered, memory never runs ahead of the store, nothing is stored twice.

use antiphon_protocol::{ErrorCode, control::error::Outcome};
use antiphon_storage_contract::StoreError;

use super::harness::*;

fn group() -> (Cluster, Who, Who) {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    (c, ann, bob)
}

/// Three appends of two sends each, all in flight.
fn pipeline(c: &mut Cluster, who: Who) -> Vec<(u32, Draft)> {
    c.store.hold(&[Kind::Append]);
    let mut sent = Vec::new();
    for turn in 0..3 {
        for n in 1..=2 {
            let dseq = turn * 2 + n;
            let draft = c.draft("c:tea", &dseq.to_string()).dseq(dseq);
            sent.push((c.send(who, &draft), draft));
        }
        c.settle();
    }
    sent
}

#[test]
fn a_failure_in_the_middle_of_a_pipeline_is_answered_and_resent_in_order() {
    let errors = [
        (StoreError::Full, false, ErrorCode::StoreFull),
        (StoreError::Unavailable("test".into()), false, ErrorCode::StoreUnavailable),
        (StoreError::Unavailable("test".into()), true, ErrorCode::StoreUnavailable),
    ];
    for (error, applies, code) in errors {
        let (mut c, ann, bob) = group();
        let sent = pipeline(&mut c, ann);
        // The first append succeeds, the second fails.
        let first = c.store.eligible_held(0);
        c.complete(first);
        c.store.faults.push(Fault { kind: Kind::Append, error, applies, times: 1 });
        c.store.hold(&[]);
        c.settle();
        for (id, _) in &sent[..2] {
            c.take(ann, *id).ack();
        }
        for (id, _) in &sent[2..] {
            let error = c.take(ann, *id).error();
            assert_eq!(error.number, code as u32);
            assert_eq!(error.outcome() == Outcome::Unknown, code == ErrorCode::StoreUnavailable);
        }
        let later = c.draft("c:tea", "7").dseq(7);
        assert_eq!(c.send_now(ann, &later).code(), ErrorCode::OutOfOrder);
        for (_, draft) in &sent[2..] {
            assert_eq!(c.send_now(ann, draft).ack().duplicate, applies, "the outcome was unknown");
        }
        c.send_now(ann, &later).ack();
        let log = c.stored(ann, "c:tea");
        assert_eq!(log.rows.keys().copied().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        let texts: Vec<String> = log.rows.values().filter(|row| row.msgno_counts()).map(text).collect();
        assert_eq!(texts, ["1", "2", "3", "4", "5", "6", "7"]);
        let missed = c.client(bob).rows("c:tea").last().map_or(0, |row| row.seq());
        assert_eq!(missed, 8, "a live reader misses nothing, however the rows became durable");
    }
}

#[test]
fn a_damaged_partition_refuses_for_good_and_still_serves_reads() {
    let (mut c, ann, bob) = group();
    c.say(ann, "c:tea", "before").ack();
    c.store.fail(Kind::Append, StoreError::Degraded("test".into()), 2);
    let first = c.draft("c:tea", "x").dseq(1);
    assert_eq!(c.send_now(ann, &first).code(), ErrorCode::StoreDegraded);
    let second = c.draft("c:tea", "y").dseq(2);
    assert_eq!(c.send_now(ann, &second).code(), ErrorCode::StoreDegraded, "a refusal for good is consumed");
    assert_eq!(c.fetch(bob, "c:tea", 0, 0).page().rows.len(), 2);
    let third = c.draft("c:tea", "z").dseq(3);
    c.send_now(ann, &third).ack();
    assert_eq!(c.heard(bob, "c:tea"), ["before", "z"]);
}

#[test]
fn a_log_that_cannot_be_read_is_tried_again_by_the_next_request() {
    for kind in [Kind::Load, Kind::ScanRecords] {
        let (mut c, ann, _) = group();
        c.say(ann, "c:tea", "before").ack();
        c.restart(2, false);
        let ann = c.connect(1, "ann");
        c.store.fail(kind, StoreError::Unavailable("test".into()), 2);
        let drafts = [c.draft("c:tea", "1").dseq(1), c.draft("c:tea", "2").dseq(2)];
        for _ in 0..2 {
            let ids = drafts.each_ref().map(|draft| c.send(ann, draft));
            c.settle();
            let refused = ids.map(|id| c.take(ann, id).error());
            assert_eq!(refused[0].number, ErrorCode::StoreUnavailable as u32);
            assert_eq!(refused[0].outcome(), Outcome::NotApplied, "nothing was written");
        }
        for draft in &drafts {
            c.send_now(ann, draft).ack();
        }
        assert_eq!(c.stored(ann, "c:tea").head(), 4);
    }
}

#[test]
fn a_late_answer_to_an_earlier_load_is_not_taken_for_a_later_one() {
    let (mut c, ann, _) = group();
    c.restart(1, false);
    let ann_again = c.connect(0, "ann");
    let _ = ann;
    // The first load's rows are read, its answer is late; its cursors fail.
    c.store.hold(&[Kind::Load]);
    c.store.fail(Kind::ScanRecords, StoreError::Unavailable("test".into()), 1);
    assert_eq!(c.get(ann_again, "tea").code(), ErrorCode::StoreUnavailable);
    let waits = c.ask(
        ann_again,
        antiphon_protocol::FrameType::ConversationGet,
        &antiphon_protocol::control::ConversationGet { conversation: "tea".into() },
    );
    c.settle();
    // The second load's answer overtakes the first's.
    let second = c.store.eligible_held(1);
    c.complete(second);
    c.settle();
    c.take(ann_again, waits).conversation();
    let draft = c.draft("c:tea", "new");
    c.send_now(ann_again, &draft).ack();
    c.store.fail(Kind::Append, StoreError::Full, 1);
    c.store.hold(&[Kind::Load]);
    assert_eq!(c.say(ann_again, "c:tea", "x").code(), ErrorCode::StoreFull);
    let first = c.store.eligible_held(0);
    c.complete(first);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.say(ann_again, "c:tea", "y").ack().position.seq, 3);
}

#[test]
fn a_failed_lookup_is_no_failed_send() {
    let (mut c, ann, _) = group();
    c.say(ann, "c:tea", "old").ack();
    c.advance_ms(antiphon_core::limits::DUPLICATES_IN_MEMORY_MS + 1_000);
    c.say(ann, "c:tea", "prunes").ack();
    c.store.fail(Kind::FindDuplicate, StoreError::Unavailable("test".into()), 1);
    let late = Draft::text("c:tea", c.new_id_at(START_MS - 1), "late").dseq(1);
    let behind = c.draft("c:tea", "behind").dseq(2);
    let ids = [c.send(ann, &late), c.send(ann, &behind)];
    c.settle();
    let error = c.take(ann, ids[0]).error();
    assert_eq!((error.number, error.outcome()), (ErrorCode::StoreUnavailable as u32, Outcome::NotApplied));
    assert_eq!(c.take(ann, ids[1]).code(), ErrorCode::OutOfOrder);
    c.send_now(ann, &late).ack();
    c.send_now(ann, &behind).ack();
}

#[test]
fn another_log_does_not_notice() {
    let (mut c, ann, _) = group();
    c.group(ann, "calm", &[]);
    c.store.hold(&[Kind::Append]);
    let busy = c.draft("c:tea", "busy");
    let calm = c.draft("c:calm", "calm");
    let (busy, calm) = (c.send(ann, &busy), c.send(ann, &calm));
    c.settle();
    c.store.fail(Kind::Append, StoreError::Full, 1);
    c.store.hold(&[]);
    c.settle();
    let outcomes = [c.take(ann, busy), c.take(ann, calm)];
    assert_eq!(outcomes.iter().filter(|reply| matches!(reply, Reply::Ack(_))).count(), 1);
}
