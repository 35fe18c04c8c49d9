//! What is a user's own: the inbox, preferences, blocks, hidden events, revocation, and what conversations put there.

use antiphon_protocol::{
    ErrorCode, EventKind, FrameType, Row,
    control::{self, Role, conversation_removed::Reason},
    frames,
};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use super::{harness::*, members::remove};

/// What the inbox of a user holds, told in words.
pub(crate) fn inbox(c: &Cluster, who: Who, user: &str) -> Vec<String> {
    c.stored(who, &format!("u:{user}")).rows.values().map(told).collect()
}

fn told(row: &Row) -> String {
    let body = &row.body();
    match row.kind() {
        EventKind::CONVERSATION_ADDED => {
            let event: control::ConversationAdded = frames::decode_answer(body).unwrap();
            format!("added {}@{} by {}", event.conversation, event.joined_seq, row.sender())
        }
        EventKind::CONVERSATION_REMOVED => {
            let event: control::ConversationRemoved = frames::decode_answer(body).unwrap();
            format!("removed {}@{} {:?}", event.conversation, event.seq, event.reason())
        }
        kind => kind.name().to_owned(),
    }
}

fn add(c: &mut Cluster, who: Who, id: &str, user: &str) -> u32 {
    let members = vec![member(user, Role::Member)];
    c.ask(who, FrameType::MemberAdd, &control::MemberAdd { conversation: id.into(), members, ..Default::default() })
}

fn prefer(c: &mut Cluster, who: Who, id: &str, pinned: bool) -> Reply {
    let preferences = control::Preferences { conversation: id.into(), pinned: Some(pinned), muted: None };
    c.call(who, FrameType::Preferences, &preferences)
}

fn block(c: &mut Cluster, who: Who, user: &str, blocked: bool) -> Reply {
    c.call(who, FrameType::Block, &control::Block { user: user.into(), blocked })
}

fn revoke(c: &mut Cluster, who: Who, user: &str) -> u32 {
    c.ask(who, FrameType::Revoke, &control::Revoke { user: user.into() })
}

fn direct(c: &mut Cluster, who: Who, peer: &str) -> String {
    let create = control::ConversationCreate {
        kind: control::ConversationKind::Direct.into(),
        members: vec![member(peer, Role::Member)],
        ..Default::default()
    };
    c.call(who, FrameType::ConversationCreate, &create).conversation().conversation
}

#[test]
fn whoever_becomes_or_ceases_to_be_a_member_hears_of_it_in_the_inbox() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let (ann, bob) = (c.connect(0, "ann"), c.connect(shards - 1, "bob"));
        c.follow(bob, "u:bob");
        c.group(ann, "tea", &["bob"]);
        remove(&mut c, ann, "tea", "bob").conversation();
        add(&mut c, ann, "tea", "bob");
        c.settle();
        c.call(bob, FrameType::Leave, &control::Leave { conversation: "tea".into() }).ok::<()>();
        let expected = ["added tea@1 by ann", "removed tea@2 Removed", "added tea@3 by ann", "removed tea@4 Left"];
        assert_eq!(inbox(&c, bob, "bob"), expected);
        assert_eq!(c.client(bob).rows("u:bob").iter().map(told).collect::<Vec<_>>(), expected, "live too");
        assert_eq!(inbox(&c, ann, "ann"), ["added tea@1 by ann"]);
    }
}

#[test]
fn everybody_hears_of_a_deletion() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    let members: Vec<String> = (0..200).map(|n| format!("m{n}")).collect();
    c.group(ann, "tea", &members.iter().map(String::as_str).collect::<Vec<_>>());
    c.call(ann, FrameType::ConversationDelete, &control::ConversationDelete { conversation: "tea".into() })
        .conversation();
    for user in members.iter().map(String::as_str).chain(["ann"]) {
        let rows = c.stored(ann, &format!("u:{user}")).rows;
        let removed = format!("removed tea@2 {:?}", Reason::Deleted);
        assert_eq!(rows.values().map(told).collect::<Vec<_>>(), ["added tea@1 by ann".to_owned(), removed]);
    }
}

/// The process ends at every point between the request and the end of its consequences.
#[test]
fn a_crash_anywhere_between_a_membership_and_the_inbox_leaves_exactly_one_event() {
    let mut outcomes = [0, 0];
    for writes_survive in [false, true] {
        for turns in 0..14 {
            let mut c = Cluster::new(2);
            let ann = c.connect(0, "ann");
            c.group(ann, "tea", &[]);
            let id = add(&mut c, ann, "tea", "bob");
            for _ in 0..turns {
                c.turn();
            }
            let was_answered = c.is_answered(ann, id);
            c.restart(4, writes_survive);
            // Nobody uses the conversation: the journal alone has to bring it back.
            c.settle();
            let is_member = c.stored(ann, "c:tea").head() == 2;
            let rows = c.stored(ann, "u:bob").rows;
            let heard: Vec<String> = rows.values().map(told).collect();
            assert!(is_member || !was_answered, "what was answered stays");
            assert_eq!(heard, vec!["added tea@2 by ann"; usize::from(is_member)], "{turns} {writes_survive}");
            outcomes[usize::from(is_member)] += 1;
            c.restart(1, false);
            c.settle();
            let bob = c.connect(0, "bob");
            assert_eq!(inbox(&c, bob, "bob").len(), usize::from(is_member), "a further start adds nothing");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 0), "both sides of the moment were met: {outcomes:?}");
}

#[test]
fn an_inbox_that_cannot_be_written_gets_its_event_later_and_once() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.store.hold(&[Kind::Append]);
    add(&mut c, ann, "tea", "bob");
    c.settle();
    // The first append is the membership; then the inbox fails, once with the event stored all the same.
    let first = c.store.eligible_held(0);
    c.complete(first);
    c.store.faults.push(Fault {
        kind: Kind::Append,
        error: StoreError::Unavailable("test".into()),
        applies: true,
        times: 1,
    });
    c.store.fail(Kind::Append, StoreError::Full, 2);
    c.store.hold(&[]);
    for _ in 0..6 {
        c.advance_ms(2_001);
    }
    let rows = c.stored(ann, "u:bob").rows;
    assert_eq!(rows.values().map(told).collect::<Vec<_>>(), ["added tea@2 by ann"]);
}

#[test]
fn what_is_owed_outlives_a_checkpoint() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1_000);
    add(&mut c, ann, "tea", "bob");
    c.settle();
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    assert!(c.stored(ann, "c:tea").checkpoint.unwrap().0 > 2, "the checkpoint has passed the membership");
    c.store.faults.clear();
    c.restart(2, false);
    c.settle();
    let rows = c.stored(ann, "u:bob").rows;
    assert_eq!(rows.values().map(told).collect::<Vec<_>>(), ["added tea@2 by ann"]);
}

#[test]
fn preferences_are_events_of_the_inbox_and_only_members_have_them() {
    let mut c = Cluster::new(2);
    let (ann, phone, tablet) = (c.connect(0, "ann"), c.connect(0, "bob"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(tablet, "u:bob");
    prefer(&mut c, phone, "tea", true).ok::<()>();
    prefer(&mut c, phone, "tea", true).ok::<()>();
    assert_eq!(inbox(&c, phone, "bob"), ["added tea@1 by ann", "preferences"], "the same again is nothing new");
    assert_eq!(c.client(tablet).rows("u:bob").len(), 1, "the other device hears of it");
    let error = prefer(&mut c, phone, "coffee", true).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::NotFound as u32, "conversation"));
}

#[test]
fn hiding_is_for_members_bounded_and_checked() {
    let mut c = Cluster::new(1);
    let (ann, eve) = (c.connect(0, "ann"), c.connect(0, "eve"));
    c.group(ann, "tea", &[]);
    let hide = |seq: u64| control::Hide { log: "c:tea".into(), event_id: Bytes::from(vec![7; 16]), seq };
    c.call(ann, FrameType::Hide, &hide(1)).ok::<()>();
    c.call(ann, FrameType::Hide, &hide(1)).ok::<()>();
    assert_eq!(inbox(&c, ann, "ann"), ["added tea@1 by ann", "hide"]);
    assert_eq!(c.call(eve, FrameType::Hide, &hide(1)).code(), ErrorCode::NotFound);
    assert_eq!(c.call(ann, FrameType::Hide, &hide(0)).code(), ErrorCode::InvalidField);
    let short = control::Hide { event_id: Bytes::from_static(b"x"), ..hide(1) };
    assert_eq!(c.call(ann, FrameType::Hide, &short).error().field, "event_id");
    for seq in 2..=antiphon_core::limits::HIDDEN_PER_LOG_MAX as u64 {
        c.call(ann, FrameType::Hide, &hide(seq)).ok::<()>();
    }
    assert_eq!(c.call(ann, FrameType::Hide, &hide(9_999)).code(), ErrorCode::LimitExceeded);
}

#[test]
fn a_block_ends_a_direct_conversation_in_both_directions_and_nothing_else() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let (ann, bob) = (c.connect(0, "ann"), c.connect(shards - 1, "bob"));
        c.group(ann, "tea", &["bob"]);
        let log = format!("c:{}", direct(&mut c, ann, "bob"));
        let before = c.draft(&log, "hello");
        let first = c.send_now(bob, &before).ack();
        block(&mut c, ann, "bob", true).ok::<()>();
        assert_eq!(c.say(bob, &log, "still there?").code(), ErrorCode::Blocked);
        assert_eq!(c.say(ann, &log, "no").code(), ErrorCode::Blocked);
        assert_eq!(c.send_now(bob, &before).ack().position, first.position, "a repetition is answered as before");
        c.say(bob, "c:tea", "in a group").ack();
        c.restart(shards, false);
        let (ann, bob) = (c.connect(0, "ann"), c.connect(shards - 1, "bob"));
        assert_eq!(c.say(bob, &log, "and now?").code(), ErrorCode::Blocked, "it outlives a restart");
        block(&mut c, ann, "bob", false).ok::<()>();
        c.say(bob, &log, "thanks").ack();
        assert_eq!(block(&mut c, ann, "ann", true).code(), ErrorCode::InvalidField);
    }
}

#[test]
fn a_block_comes_before_the_first_message_too() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    block(&mut c, ann, "bob", true).ok::<()>();
    let log = format!("c:{}", direct(&mut c, bob, "ann"));
    assert_eq!(c.say(bob, &log, "hello").code(), ErrorCode::Blocked);
}

#[test]
fn a_revocation_ends_every_older_session_and_admits_newer_tokens_only() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let old = c.claims("ann");
        let (phone, tablet) = (c.connect(0, "ann"), c.connect(shards - 1, "ann"));
        let bob = c.connect(0, "bob");
        c.advance_ms(5_000);
        let id = revoke(&mut c, phone, "");
        c.settle();
        c.take(phone, id).ok::<()>();
        for who in [phone, tablet] {
            assert_eq!(c.client(who).closed, Some(ErrorCode::TokenRevoked));
        }
        assert_eq!(c.client(bob).closed, None);
        for _ in 0..2 {
            let who = c.open(0);
            c.tokens.insert("old".into(), Ok(old.clone()));
            c.ask(who, FrameType::Hello, &hello("old", "phone"));
            c.settle();
            assert_eq!(c.client(who).closed, Some(ErrorCode::TokenRevoked), "also after a restart");
            c.advance_ms(10);
            let fresh = c.connect(0, "ann");
            c.tokens.insert("old".into(), Ok(old.clone()));
            let renewal = c.call(fresh, FrameType::Auth, &control::Auth { token: "old".into() });
            assert_eq!(renewal.code(), ErrorCode::TokenRevoked, "AUTH does not go back");
            c.restart(shards, false);
        }
    }
}

#[test]
fn the_sessions_of_others_are_revoked_with_a_scope_only() {
    let mut c = Cluster::new(2);
    let (ann, eve) = (c.connect(0, "ann"), c.connect(1, "eve"));
    c.advance_ms(1_000);
    let id = revoke(&mut c, eve, "ann");
    c.settle();
    assert_eq!(c.take(eve, id).code(), ErrorCode::Forbidden);
    assert_eq!(c.client(ann).closed, None);
    let mut claims = c.claims("backend");
    claims.scopes = claims.scopes.with(antiphon_core::claims::Scope::AdminWrite);
    let admin = c.connect_with(0, claims);
    let id = revoke(&mut c, admin, "ann");
    c.settle();
    c.take(admin, id).ok::<()>();
    assert_eq!(c.client(ann).closed, Some(ErrorCode::TokenRevoked));
}

#[test]
fn an_effect_that_only_the_store_remembers_is_not_repeated() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, "tea", &[]);
    add(&mut c, ann, "tea", "bob");
    while c.stored(ann, "c:tea").head() < 2 {
        c.turn();
    }
    // The conversation stays in the journal although it owes nothing, as after a crash.
    c.store.fail(Kind::PutRecords, StoreError::Full, 1);
    c.settle();
    for n in 0..300 {
        prefer(&mut c, bob, "tea", n % 2 == 0).ok::<()>();
    }
    assert!(c.stored(bob, "u:bob").checkpoint.is_some());
    let before = c.store.count(Kind::FindDuplicate);
    c.restart(1, false);
    c.settle();
    assert!(c.store.count(Kind::FindDuplicate) > before, "it came again");
    let bob = c.connect(0, "bob");
    let added = inbox(&c, bob, "bob").into_iter().filter(|told| told.starts_with("added")).count();
    assert_eq!(added, 1);
}

#[test]
fn what_is_owed_since_before_a_restart_waits_for_the_store() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    add(&mut c, ann, "tea", "bob");
    while c.stored(ann, "c:tea").head() < 2 {
        c.turn();
    }
    c.restart(2, false);
    c.store.fail(Kind::ScanRecords, StoreError::Unavailable("test".into()), 64);
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 2);
    for _ in 0..4 {
        c.advance_ms(2_001);
    }
    let rows = c.stored(ann, "u:bob").rows;
    assert_eq!(rows.values().map(told).collect::<Vec<_>>(), ["added tea@2 by ann"]);
}

#[test]
fn an_inbox_that_cannot_be_read_keeps_its_user_out_for_now() {
    let mut c = Cluster::new(1);
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1);
    let who = c.open_established(0, "ann");
    c.settle();
    assert_eq!(c.client(who).closed, Some(ErrorCode::StoreUnavailable));
    c.connect(0, "ann");
}
