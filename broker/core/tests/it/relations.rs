//! Edit, redact, react, pin: what may relate to what, and that a redaction reaches the stored row.

use antiphon_protocol::{
    ErrorCode, EventKind, Rel, Relation,
    envelope::{EventRef, NewEnvelope},
    frames::Ack,
};
use antiphon_storage_contract::StoreError;
use uuid::Uuid;

use super::harness::*;

pub(crate) fn related(c: &mut Cluster, kind: EventKind, target: &Ack, body: &str) -> Draft {
    let target = EventRef { event_id: target.event_id, seq: target.position.seq };
    let key = (kind == EventKind::REACTION).then_some("+1");
    let relation = Relation { rel: Rel(kind.0), target, key, remove: false };
    let envelope = NewEnvelope { relates_to: Some(relation), ..Default::default() }.to_bytes();
    Draft { kind, envelope, ..c.draft("c:tea", body) }
}

/// ann owns the group, bob and eve are members.
fn group() -> (Cluster, Who, Who, Who) {
    let mut c = Cluster::new(2);
    let (ann, bob, eve) = (c.connect(0, "ann"), c.connect(1, "bob"), c.connect(0, "eve"));
    c.group(ann, "tea", &["bob", "eve"]);
    (c, ann, bob, eve)
}

#[test]
fn authors_edit_managers_redact_and_members_react_and_pin() {
    let (mut c, ann, bob, eve) = group();
    let target = c.say(bob, "c:tea", "hello").ack();
    let who = |kind| match kind {
        EventKind::EDIT => [false, true, false],
        EventKind::REDACT => [true, true, false],
        _ => [true, true, true],
    };
    for kind in [EventKind::EDIT, EventKind::REACTION, EventKind::PIN, EventKind::REDACT] {
        for (actor, may) in [eve, bob, ann].into_iter().zip([who(kind)[2], who(kind)[1], who(kind)[0]]) {
            // A redacted message is no target any more, so each redaction gets a message of its own.
            let target = if kind == EventKind::REDACT { c.say(bob, "c:tea", "again").ack() } else { target };
            let draft = related(&mut c, kind, &target, "");
            match c.send_now(actor, &draft) {
                Reply::Ack(_) => assert!(may, "{}", kind.name()),
                refused => assert!(!may && refused.code() == ErrorCode::Forbidden, "{}", kind.name()),
            }
        }
    }
}

#[test]
fn a_relation_needs_a_message_of_that_id_at_that_place() {
    let (mut c, ann, _, _) = group();
    let ack = c.say(ann, "c:tea", "hello").ack();
    let edit = related(&mut c, EventKind::EDIT, &ack, "better");
    let edited = c.send_now(ann, &edit).ack();
    let at = |seq| Ack { position: antiphon_protocol::Position { epoch: 1, seq }, ..ack };
    let cases = [
        (Ack { event_id: Uuid::from_u128(9), ..ack }, ErrorCode::NotFound),
        (at(1), ErrorCode::NotFound),
        (at(99), ErrorCode::InvalidRelation),
        (edited, ErrorCode::InvalidRelation),
    ];
    for (target, code) in cases {
        let draft = related(&mut c, EventKind::REACTION, &target, "");
        let error = c.send_now(ann, &draft).error();
        assert_eq!((error.number, error.field.as_str()), (code as u32, "envelope.relates_to"));
    }
    let unrelated = Draft { kind: EventKind::EDIT, ..c.draft("c:tea", "to nothing") };
    assert!(matches!(c.send_now(ann, &unrelated), Reply::Error(_)));
}

#[test]
fn a_redaction_empties_the_row_for_every_later_reader() {
    let (mut c, ann, bob, _) = group();
    c.follow(bob, "c:tea");
    let ack = c.say(bob, "c:tea", "secret").ack();
    let redaction = related(&mut c, EventKind::REDACT, &ack, "");
    c.send_now(ann, &redaction).ack();
    let rows = c.fetch(ann, "c:tea", ack.position.seq, 0).page().rows;
    assert!(rows[0].is_redacted() && rows[0].body().is_empty());
    assert_eq!(rows[1].kind(), EventKind::REDACT);
    assert!(c.stored(ann, "c:tea").rows[&ack.position.seq].is_redacted());
    let again = related(&mut c, EventKind::REDACT, &ack, "");
    assert_eq!(c.send_now(ann, &again).code(), ErrorCode::InvalidRelation);
    let reaction = related(&mut c, EventKind::REACTION, &ack, "");
    assert_eq!(c.send_now(bob, &reaction).code(), ErrorCode::InvalidRelation);
}

fn is_redacted_in_store(c: &Cluster, who: Who, seq: u64) -> bool {
    c.stored(who, "c:tea").rows[&seq].is_redacted()
}

#[test]
fn a_redaction_whose_rewrite_was_lost_with_the_process_is_repaired() {
    for fill in [0, 400] {
        let (mut c, ann, bob, _) = group();
        let ack = c.say(bob, "c:tea", "secret").ack();
        for n in 0..fill {
            c.say(ann, "c:tea", &format!("fill {n}")).ack();
        }
        c.store.hold(&[Kind::Rewrite]);
        let redaction = related(&mut c, EventKind::REDACT, &ack, "");
        c.send_now(ann, &redaction).ack();
        assert!(!is_redacted_in_store(&c, ann, ack.position.seq));
        c.restart(2, false);
        c.store.hold(&[]);
        let ann = c.connect(0, "ann");
        c.get(ann, "tea").conversation();
        assert!(is_redacted_in_store(&c, ann, ack.position.seq), "{fill} rows between");
        let page = c.fetch(ann, "c:tea", ack.position.seq, ack.position.seq + 1).page();
        assert!(page.rows[0].is_redacted());
    }
}

#[test]
fn a_rewrite_that_failed_is_tried_again_and_readers_do_not_see_the_body_meanwhile() {
    let (mut c, ann, bob, _) = group();
    let ack = c.say(bob, "c:tea", "secret").ack();
    for n in 0..400 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    c.store.fail(Kind::Rewrite, StoreError::Full, 2);
    let redaction = related(&mut c, EventKind::REDACT, &ack, "");
    c.send_now(ann, &redaction).ack();
    assert!(!is_redacted_in_store(&c, ann, ack.position.seq));
    let page = c.fetch(bob, "c:tea", ack.position.seq, ack.position.seq + 1).page();
    assert!(page.rows[0].is_redacted(), "a page holds what the log says, not what the store has not done yet");
    for _ in 0..4 {
        c.advance_ms(1_100);
    }
    assert!(is_redacted_in_store(&c, ann, ack.position.seq));
}

#[test]
fn no_checkpoint_hides_a_redaction_whose_rewrite_is_outstanding() {
    let (mut c, ann, bob, _) = group();
    let ack = c.say(bob, "c:tea", "secret").ack();
    c.store.fail(Kind::Rewrite, StoreError::Unavailable("test".into()), u32::MAX);
    let redaction = related(&mut c, EventKind::REDACT, &ack, "");
    c.send_now(ann, &redaction).ack();
    for n in 0..600 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    c.restart(1, false);
    c.store.faults.clear();
    let ann = c.connect(0, "ann");
    c.get(ann, "tea").conversation();
    assert!(is_redacted_in_store(&c, ann, ack.position.seq));
    // Once it is done, checkpoints go on.
    for n in 0..300 {
        c.say(ann, "c:tea", &format!("more {n}")).ack();
    }
    let through = c.stored(ann, "c:tea").checkpoint.map(|(through, _)| through);
    assert!(through.is_some_and(|through| through > 600), "{through:?}");
}

#[test]
fn a_target_that_left_memory_is_read_from_the_store() {
    let (mut c, ann, bob, _) = group();
    let ack = c.say(bob, "c:tea", "old").ack();
    for n in 0..400 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    let reads = c.store.count(Kind::Read);
    let edit = related(&mut c, EventKind::EDIT, &ack, "better");
    c.send_now(bob, &edit).ack();
    assert_eq!(c.store.count(Kind::Read), reads + 1);
    let foreign = Draft { id: c.new_id(), ..edit };
    assert_eq!(c.send_now(ann, &foreign).code(), ErrorCode::Forbidden);
    let wrong = Ack { event_id: Uuid::from_u128(3), ..ack };
    let wrong = related(&mut c, EventKind::EDIT, &wrong, "better");
    assert_eq!(c.send_now(bob, &wrong).code(), ErrorCode::NotFound);
    c.store.fail(Kind::Read, StoreError::Unavailable("test".into()), 1);
    let retry = related(&mut c, EventKind::EDIT, &ack, "best");
    let error = c.send_now(bob, &retry).error();
    assert_eq!(error.outcome(), antiphon_protocol::control::error::Outcome::NotApplied);
    c.send_now(bob, &retry).ack();
}
