//! SEND_BATCH: a result per record, one place in the order of sends.

use antiphon_core::limits::LOG_WAITING_MAX;
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType,
    control::{self, BatchResult, error::Outcome},
    frames,
};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use super::harness::*;

/// A session that has offered to send batches.
fn connect(c: &mut Cluster, shard: usize, user: &str) -> Who {
    let claims = c.claims(user);
    let who = c.open(shard);
    let token = format!("token {}", who.0);
    c.tokens.insert(token.clone(), Ok(claims));
    let hello = control::Hello {
        capabilities: vec!["later".into(), "batch".into()],
        ..hello(&token, &format!("device-{}", who.0))
    };
    let Reply::Welcome(welcome) = c.call(who, FrameType::Hello, &hello) else { panic!("the session begins") };
    assert_eq!(welcome.capabilities, ["batch"]);
    who
}

fn group() -> (Cluster, Who) {
    let mut c = Cluster::new(2);
    let ann = connect(&mut c, 0, "ann");
    c.group(ann, "tea", &["bob"]);
    (c, ann)
}

/// A group whose older sends only the store knows.
fn woken() -> (Cluster, Who) {
    let (mut c, ann) = group();
    for _ in 0..300 {
        c.say(ann, "c:tea", "old").ack();
    }
    c.restart(2, false);
    // Ids of now cannot be among the rows that are not in memory.
    c.advance_ms(120_000);
    let ann = connect(&mut c, 0, "ann");
    c.say(ann, "c:tea", "awake").ack();
    (c, ann)
}

fn drafts(c: &mut Cluster, dseq: u64, bodies: &[&str]) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = bodies.iter().map(|body| c.draft("c:tea", body)).collect();
    drafts[0].dseq = dseq;
    drafts
}

fn begin(c: &mut Cluster, who: Who, drafts: &[Draft]) -> u32 {
    let id = c.client_mut(who).next_request_id();
    c.client_mut(who).unanswered.insert(id, None);
    c.raw(who, Draft::to_batch(drafts, id));
    id
}

fn send(c: &mut Cluster, who: Who, drafts: &[Draft]) -> Vec<BatchResult> {
    let id = begin(c, who, drafts);
    c.settle();
    c.take(who, id).batch()
}

fn codes(results: &[BatchResult]) -> Vec<u32> {
    results.iter().map(|result| result.error.as_ref().map_or(0, |error| error.number)).collect()
}

fn seqs(results: &[BatchResult]) -> Vec<u64> {
    results.iter().filter_map(|result| Some(result.position.as_ref()?.seq)).collect()
}

fn stored_texts(c: &Cluster, who: Who) -> Vec<String> {
    let rows = c.stored(who, "c:tea").rows;
    let messages = rows.values().filter(|row| row.kind() == EventKind::MESSAGE);
    messages.map(text).filter(|text| text != "old").collect()
}

#[test]
fn without_the_capability_a_batch_is_an_unexpected_frame() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let drafts = drafts(&mut c, 1, &["one"]);
    begin(&mut c, ann, &drafts);
    c.settle();
    assert_eq!(c.client(ann).closed, Some(ErrorCode::UnexpectedFrame));
}

#[test]
fn records_are_stored_in_order_and_answered_when_the_last_is_durable() {
    for shard in [0, 1] {
        let mut c = Cluster::new(2);
        let ann = connect(&mut c, shard, "ann");
        c.group(ann, "tea", &["bob"]);
        let bob = c.connect(1 - shard, "bob");
        c.follow(bob, "c:tea");
        let bodies: Vec<String> = (0..100).map(|n| format!("record {n}")).collect();
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        let drafts = drafts(&mut c, 1, &bodies);
        c.store.hold(&[Kind::Append]);
        let id = begin(&mut c, ann, &drafts);
        c.settle();
        assert!(!c.is_answered(ann, id), "nothing is durable yet");
        c.store.hold(&[]);
        c.settle();
        let results = c.take(ann, id).batch();
        assert_eq!(seqs(&results), (2..102).collect::<Vec<_>>());
        let rows = c.stored(ann, "c:tea").rows;
        for (result, draft) in results.iter().zip(&drafts) {
            let row = &rows[&result.position.as_ref().unwrap().seq];
            assert_eq!(row.client_message_id(), draft.id);
            assert_eq!(
                (&result.event_id[..], result.msgno, result.time_ms),
                (&row.event_id().as_bytes()[..], row.msgno(), row.time_ms())
            );
            assert!(!result.duplicate && result.error.is_none());
        }
        assert_eq!(c.heard(bob, "c:tea"), bodies);
    }
}

#[test]
fn a_refusal_for_good_stops_nothing_and_the_batch_consumes_its_place() {
    let (mut c, ann) = group();
    let mut batch = drafts(&mut c, 1, &["one", "two", "three", "four"]);
    batch[1].kind = EventKind::MEMBER;
    batch[2].id = batch[0].id;
    let results = send(&mut c, ann, &batch);
    let expected = [0, ErrorCode::InvalidField as u32, ErrorCode::IdReused as u32, 0];
    assert_eq!(codes(&results), expected);
    assert_eq!(seqs(&results), [2, 3]);
    let next = c.draft("c:tea", "next").dseq(2);
    assert_eq!(c.send_now(ann, &next).ack().position.seq, 4);
    // All of it refused for good: consumed as well.
    let mut batch = drafts(&mut c, 3, &["a", "b"]);
    batch.iter_mut().for_each(|draft| draft.kind = EventKind::MEMBER);
    assert_eq!(codes(&send(&mut c, ann, &batch)), [ErrorCode::InvalidField as u32; 2]);
    let next = c.draft("c:tea", "next").dseq(4);
    c.send_now(ann, &next).ack();
}

#[test]
fn a_repeated_batch_gets_the_first_answers_again() {
    let (mut c, ann) = group();
    let mut batch = drafts(&mut c, 1, &["one", "two", "three"]);
    let first = send(&mut c, ann, &batch[..2]);
    for restarts in [false, true] {
        if restarts {
            c.restart(2, false);
            c.advance_ms(3_600_000);
        }
        let ann = if restarts { connect(&mut c, 0, "ann") } else { ann };
        let again = send(&mut c, ann, &batch[..2]);
        assert!(again.iter().all(|result| result.duplicate));
        let same = |result: &BatchResult| BatchResult { duplicate: false, ..result.clone() };
        assert_eq!(again.iter().map(same).collect::<Vec<_>>(), first);
        let mixed = send(&mut c, ann, &batch);
        assert_eq!(mixed.iter().map(|result| result.duplicate).collect::<Vec<_>>(), [true, true, restarts]);
    }
    batch.truncate(1);
    assert_eq!(stored_texts(&c, ann), ["one", "two", "three"]);
}

#[test]
fn a_refusal_for_now_stops_the_rest_and_the_batch_is_sent_again() {
    let (mut c, ann) = woken();
    let mut batch = drafts(&mut c, 1, &["one", "two", "three"]);
    // An old id has to be looked up, which fails.
    batch[1].id = c.new_id_at(START_MS - 7_200_000);
    c.store.fail(Kind::FindDuplicate, StoreError::Unavailable("test".into()), 1);
    let id = begin(&mut c, ann, &batch);
    let after = c.draft("c:tea", "after").dseq(2);
    let after_id = c.send(ann, &after);
    c.settle();
    let results = c.take(ann, id).batch();
    let expected = [0, ErrorCode::StoreUnavailable as u32, ErrorCode::NotApplied as u32];
    assert_eq!(codes(&results), expected);
    assert!(
        results.iter().filter_map(|result| result.error.as_ref()).all(|error| error.outcome() == Outcome::NotApplied)
    );
    assert_eq!(c.take(ann, after_id).code(), ErrorCode::OutOfOrder);
    let results = send(&mut c, ann, &batch);
    assert_eq!(codes(&results), [0, 0, 0]);
    assert_eq!(results.iter().map(|result| result.duplicate).collect::<Vec<_>>(), [true, false, false]);
    c.send_now(ann, &after).ack();
    assert_eq!(stored_texts(&c, ann), ["awake", "one", "two", "three", "after"]);
}

#[test]
fn a_failed_append_is_the_outcome_of_its_records() {
    for (error, applies) in [(StoreError::Unavailable("test".into()), true), (StoreError::Full, false)] {
        let (mut c, ann) = group();
        let batch = drafts(&mut c, 1, &["one", "two"]);
        c.store.faults.push(Fault { kind: Kind::Append, error: error.clone(), applies, times: 1 });
        let results = send(&mut c, ann, &batch);
        match error {
            StoreError::Full => {
                assert_eq!(codes(&results), [ErrorCode::StoreFull as u32, ErrorCode::NotApplied as u32]);
            }
            _ => {
                assert_eq!(codes(&results), [ErrorCode::StoreUnavailable as u32; 2]);
                let outcomes = results.iter().filter_map(|result| result.error.as_ref()).map(control::Error::outcome);
                assert_eq!(outcomes.collect::<Vec<_>>(), [Outcome::Unknown; 2]);
            }
        }
        let early = c.draft("c:tea", "too early").dseq(2);
        assert_eq!(c.send_now(ann, &early).code(), ErrorCode::OutOfOrder);
        let again = send(&mut c, ann, &batch);
        assert_eq!(again.iter().map(|result| result.duplicate).collect::<Vec<_>>(), [applies; 2]);
        assert_eq!(stored_texts(&c, ann), ["one", "two"]);
    }
}

#[test]
fn nothing_comes_between_two_records_although_one_has_to_be_looked_up() {
    let (mut c, ann) = woken();
    let bob = c.connect(1, "bob");
    let mut batch = drafts(&mut c, 1, &["one", "two", "three"]);
    batch[1].id = c.new_id_at(START_MS - 7_200_000);
    c.store.hold(&[Kind::FindDuplicate]);
    let id = begin(&mut c, ann, &batch);
    c.settle();
    let other = c.draft("c:tea", "of bob");
    let other = c.send(bob, &other);
    c.settle();
    assert!(!c.is_answered(ann, id) && !c.is_answered(bob, other));
    c.store.hold(&[]);
    c.settle();
    c.take(bob, other).ack();
    assert_eq!(seqs(&c.take(ann, id).batch()).len(), 3);
    assert_eq!(stored_texts(&c, ann), ["awake", "one", "two", "three", "of bob"]);
}

#[test]
fn batches_that_find_no_room_are_refused_as_a_whole() {
    let (mut c, _) = group();
    c.restart(1, false);
    let ann = connect(&mut c, 0, "ann");
    c.store.hold(&[Kind::Load]);
    let fitting = LOG_WAITING_MAX / 100;
    let mut ids = Vec::new();
    for n in 0..=fitting {
        let bodies: Vec<String> = (0..100).map(|k| format!("{n}/{k}")).collect();
        let mut batch = drafts(&mut c, 0, &bodies.iter().map(String::as_str).collect::<Vec<_>>());
        batch[0].dseq = n as u64 + 1;
        ids.push(begin(&mut c, ann, &batch));
    }
    c.settle();
    assert_eq!(c.take(ann, ids[fitting]).code(), ErrorCode::Overloaded);
    c.store.hold(&[]);
    c.settle();
    for id in &ids[..fitting] {
        assert_eq!(seqs(&c.take(ann, *id).batch()).len(), 100);
    }
}

#[test]
fn a_log_that_cannot_be_read_refuses_each_record_once() {
    let (mut c, _) = group();
    c.restart(1, false);
    let ann = connect(&mut c, 0, "ann");
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1);
    let batch = drafts(&mut c, 1, &["one", "two"]);
    let results = send(&mut c, ann, &batch);
    assert_eq!(codes(&results), [ErrorCode::StoreUnavailable as u32, ErrorCode::NotApplied as u32]);
    assert_eq!(codes(&send(&mut c, ann, &batch)), [0, 0]);
}

#[test]
fn a_batch_that_cannot_be_read_is_refused_in_its_place() {
    let (mut c, ann) = group();
    let first = c.draft("c:tea", "first").dseq(1);
    c.send_now(ann, &first).ack();
    let batch = drafts(&mut c, 2, &["one", "two"]);
    let id = c.client_mut(ann).next_request_id();
    c.client_mut(ann).unanswered.insert(id, None);
    let frame = Draft::to_batch(&batch, id);
    let body = frame.slice(antiphon_protocol::header::HEADER_BYTES..frame.len() - 30);
    c.raw(ann, frames::raw(FrameType::SendBatch, id, &body));
    c.settle();
    assert_eq!(c.take(ann, id).code(), ErrorCode::Malformed);
    let next = c.draft("c:tea", "next").dseq(3);
    c.send_now(ann, &next).ack();
    let id = c.client_mut(ann).next_request_id();
    c.client_mut(ann).unanswered.insert(id, None);
    c.raw(ann, frames::raw(FrameType::SendBatch, id, &Bytes::new()));
    c.settle();
    assert_eq!(c.take(ann, id).code(), ErrorCode::Malformed);
}

#[test]
fn a_member_who_is_removed_meanwhile_is_refused_record_by_record() {
    let (mut c, ann) = group();
    let bob = connect(&mut c, 1, "bob");
    let remove = control::MemberRemove { conversation: "tea".into(), user: "bob".into() };
    c.store.hold(&[Kind::Append]);
    c.ask(ann, FrameType::MemberRemove, &remove);
    c.settle();
    let batch = drafts(&mut c, 1, &["one", "two"]);
    let id = begin(&mut c, bob, &batch);
    c.settle();
    c.store.hold(&[]);
    c.settle();
    assert_eq!(codes(&c.take(bob, id).batch()), [ErrorCode::Removed as u32; 2]);
}
