//! An operator's question: why a user got an event, or not.

use antiphon_core::{
    Input, ShardId,
    claims::Ability,
    explain::{Explanation, Found, Question, Verdict},
};
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType,
    control::{self, Block, Cursor, Hide, Role},
};
use antiphon_storage_contract::StoreError;

use super::{harness::*, members::remove};

fn question(log: &str, seq: u64, user: &str) -> Question {
    let (tenant, log, user) = ("acme".parse().unwrap(), log.parse().unwrap(), user.parse().unwrap());
    Question { ticket: 7, tenant, log, seq, epoch: None, event_id: None, user }
}

/// Asks each shard; whichever is asked, the answer is the same.
fn explain(c: &mut Cluster, log: &str, seq: u64, user: &str) -> Explanation {
    let mut answers = Vec::new();
    for shard in 0..c.shards.len() {
        c.input(shard, Input::Explain(Box::new(question(log, seq, user))));
        c.settle();
        let (answered, answer) = c.explained.pop().expect("a question is answered");
        assert_eq!((answered, c.explained.len()), (shard, 0), "once, where it was asked");
        answers.push(answer);
    }
    assert!(answers.windows(2).all(|two| two[0] == two[1]), "{answers:?}");
    answers.remove(0)
}

fn verdict(c: &mut Cluster, log: &str, seq: u64, user: &str) -> Verdict {
    explain(c, log, seq, user).verdict()
}

/// Two users in a group, on different shards; position 1 is its creation, 2 to 4 are messages.
fn group() -> (Cluster, Who, Who) {
    let mut c = Cluster::new(3);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    for n in 0..3 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    (c, ann, bob)
}

#[test]
fn from_the_subscription_to_what_was_read() {
    let (mut c, ann, bob) = group();
    assert_eq!(verdict(&mut c, "c:tea", 5, "bob"), Verdict::NoSuchEvent);
    assert_eq!(verdict(&mut c, "c:tea", 0, "bob"), Verdict::NoSuchEvent);
    assert_eq!(verdict(&mut c, "c:tea", 4, "bob"), Verdict::NotSubscribed);
    c.follow(bob, "c:tea");
    assert_eq!(verdict(&mut c, "c:tea", 4, "bob"), Verdict::BeforeSubscription);
    c.say(ann, "c:tea", "live").ack();
    assert_eq!(verdict(&mut c, "c:tea", 5, "bob"), Verdict::Sent);
    c.call(bob, FrameType::Cursor, &Cursor { log: "c:tea".into(), delivered: 5, read: 4, act_as: String::new() })
        .ok::<()>();
    assert_eq!(verdict(&mut c, "c:tea", 5, "bob"), Verdict::Delivered);
    assert_eq!(verdict(&mut c, "c:tea", 4, "bob"), Verdict::Read);
    c.say(ann, "c:tea", "nobody there").ack();
    c.disconnect(bob);
    assert_eq!(verdict(&mut c, "c:tea", 6, "bob"), Verdict::NotConnected);
}

#[test]
fn each_session_of_the_user_is_named_with_its_subscription() {
    let (mut c, ann, _bob) = group();
    let claims = c.granted("bob", "c:*", &[Ability::Read]);
    let tablet = c.connect_with(2, claims);
    c.follow(tablet, "c:tea");
    c.say(ann, "c:tea", "live").ack();
    let explanation = explain(&mut c, "c:tea", 5, "bob");
    let log = explanation.log.as_ref().unwrap();
    let Found::Event(event) = &log.event else { panic!("{log:?}") };
    assert_eq!((event.kind, event.sender.as_str(), event.is_redacted), (EventKind::MESSAGE, "ann", false));
    assert_eq!((log.epoch, log.head, log.floor, log.reads_from), (1, 5, 1, Ok(1)));
    assert_eq!(log.member.map(|member| (member.role, member.joined_seq)), Some((Role::Member, 1)));
    let sessions = explanation.sessions.iter();
    let sessions: Vec<_> = sessions.map(|s| (s.shard, s.device.as_str(), s.live_from, s.is_granted)).collect();
    assert_eq!(sessions, [(ShardId(1), "device-1", None, false), (ShardId(2), "device-2", Some(5), true)]);
    assert!(explanation.sessions.iter().all(|session| session.waiting_bytes == 0), "it has been written");
}

#[test]
fn what_waits_for_a_client_that_does_not_read_is_counted() {
    let (mut c, ann, bob) = group();
    c.follow(bob, "c:tea");
    if super::ON_TRUNKS {
        return;
    }
    c.client_mut(bob).reads = [false; 5];
    c.say(ann, "c:tea", &"x".repeat(500)).ack();
    assert!(explain(&mut c, "c:tea", 5, "bob").sessions[0].waiting_bytes > 500);
}

#[test]
fn who_may_not_read_is_told_apart() {
    let (mut c, ann, bob) = group();
    assert_eq!(verdict(&mut c, "c:tea", 4, "eve"), Verdict::Refused(ErrorCode::NotFound));
    assert_eq!(verdict(&mut c, "c:absent", 1, "eve"), Verdict::NoSuchEvent);
    let claims = c.granted("guest", "c:tea", &[Ability::Read]);
    let guest = c.connect_with(2, claims);
    c.follow(guest, "c:tea");
    assert_eq!(verdict(&mut c, "c:tea", 4, "guest"), Verdict::BeforeSubscription);
    remove(&mut c, ann, "tea", "bob").ok::<control::Conversation>();
    let explanation = explain(&mut c, "c:tea", 4, "bob");
    assert_eq!(explanation.verdict(), Verdict::Refused(ErrorCode::Removed));
    assert_eq!(explanation.log.unwrap().removed_at, Some(5));
    // An inbox is its user's alone.
    c.disconnect(bob);
    assert_eq!(verdict(&mut c, "u:bob", 1, "ann"), Verdict::Refused(ErrorCode::NotFound));
    assert_eq!(verdict(&mut c, "u:bob", 1, "bob"), Verdict::NotConnected);
}

#[test]
fn what_the_user_did_with_the_event_and_its_sender_shows() {
    let (mut c, _ann, bob) = group();
    let hide = Hide { log: "c:tea".into(), event_id: vec![1; 16].into(), seq: 3 };
    c.call(bob, FrameType::Hide, &hide).ok::<()>();
    c.call(bob, FrameType::Block, &Block { user: "ann".into(), blocked: true }).ok::<()>();
    assert_eq!(verdict(&mut c, "c:tea", 3, "bob"), Verdict::Hidden);
    let explanation = explain(&mut c, "c:tea", 4, "bob");
    let inbox = explanation.inbox.unwrap();
    assert!(!inbox.is_hidden && inbox.blocks_sender);
    assert_eq!(explanation.question, question("c:tea", 4, "bob"));
}

#[test]
fn an_event_that_left_memory_is_read_and_a_store_that_fails_is_named() {
    let (mut c, ann, _bob) = group();
    for n in 0..400 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    assert_eq!(verdict(&mut c, "c:tea", 2, "bob"), Verdict::NotSubscribed);
    c.store.fail(Kind::Read, StoreError::Unavailable("test".into()), 3);
    assert_eq!(verdict(&mut c, "c:tea", 2, "bob"), Verdict::Unknown(ErrorCode::StoreUnavailable));
    c.restart(3, true);
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1);
    c.input(0, Input::Explain(Box::new(question("c:tea", 2, "bob"))));
    c.settle();
    let (_, explanation) = c.explained.pop().unwrap();
    assert_eq!(explanation.verdict(), Verdict::Unknown(ErrorCode::StoreUnavailable));
    assert_eq!(verdict(&mut c, "c:tea", 2, "bob"), Verdict::NotConnected);
}
