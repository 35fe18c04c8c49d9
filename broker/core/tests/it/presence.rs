//! Who is there: first and last session, the grace between them, what the user set, and who may see it.

use antiphon_core::{ShardId, ShardMessage};
use antiphon_protocol::{
    ErrorCode, FrameType,
    control::{self, PresenceStatus},
};

use super::{harness::*, members::remove};

pub(crate) fn watch(c: &mut Cluster, who: Who, users: &[&str]) {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    c.call(who, FrameType::PresenceSubscribe, &control::PresenceSubscribe { users }).ok::<()>();
}

pub(crate) fn set(c: &mut Cluster, who: Who, status: PresenceStatus, text: &str) {
    let set = control::PresenceSet { status: status.into(), text: text.into() };
    c.call(who, FrameType::PresenceSet, &set).ok::<()>();
}

/// What came since the last call.
pub(crate) fn seen(c: &mut Cluster, who: Who) -> Vec<String> {
    let told = std::mem::take(&mut c.client_mut(who).told);
    let presence = |told| match told {
        Told::Presence(presence) => {
            Some(format!("{} {:?} {}", presence.user, presence.status(), presence.text).trim_end().to_owned())
        }
        _ => None,
    };
    told.into_iter().filter_map(presence).collect()
}

#[test]
fn watchers_get_the_state_and_then_transitions_only() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let ann = c.connect(0, "ann");
        c.group(ann, "tea", &["bob"]);
        watch(&mut c, ann, &["bob"]);
        assert_eq!(seen(&mut c, ann), ["bob Offline"]);
        let phone = c.connect(shards - 1, "bob");
        let tablet = c.connect(0, "bob");
        assert_eq!(seen(&mut c, ann), ["bob Online"], "a second device is no transition");
        set(&mut c, tablet, PresenceStatus::Busy, "in a meeting");
        set(&mut c, phone, PresenceStatus::Busy, "in a meeting");
        assert_eq!(seen(&mut c, ann), ["bob Busy in a meeting"]);
        c.disconnect(phone);
        c.disconnect(tablet);
        c.settle();
        c.advance_ms(20_000);
        assert_eq!(seen(&mut c, ann), ["bob Offline"]);
        c.connect(0, "bob");
        assert_eq!(seen(&mut c, ann), ["bob Online"], "what was set went with the presence");
    }
}

#[test]
fn a_background_session_is_no_presence() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    watch(&mut c, ann, &["bob"]);
    let in_background = |c: &mut Cluster, device: &str| {
        let who = c.open(1);
        let token = format!("token of {device}");
        // The token of a phone, used by a program that calls for its user.
        let claims = antiphon_core::Claims { device: Some("device-phone".parse().unwrap()), ..c.claims("bob") };
        c.tokens.insert(token.clone(), Ok(claims));
        let hello = control::Hello { background: true, ..hello(&token, device) };
        assert!(matches!(c.call(who, FrameType::Hello, &hello), Reply::Welcome(_)));
        who
    };
    let robot = in_background(&mut c, "robot");
    assert_eq!(seen(&mut c, ann), ["bob Offline"]);
    let phone = c.connect(0, "bob");
    assert_eq!(seen(&mut c, ann), ["bob Online"]);
    c.disconnect(phone);
    c.settle();
    c.advance_ms(20_000);
    assert_eq!(seen(&mut c, ann), ["bob Offline"], "although the robot is still there");
    c.disconnect(robot);
    c.settle();
    c.advance_ms(20_000);
    assert!(seen(&mut c, ann).is_empty());
}

#[test]
fn a_reconnect_within_the_grace_is_no_transition() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let bob = c.connect(1, "bob");
    watch(&mut c, ann, &["bob"]);
    set(&mut c, bob, PresenceStatus::Away, "");
    assert_eq!(seen(&mut c, ann), ["bob Online", "bob Away"]);
    c.disconnect(bob);
    c.settle();
    c.advance_ms(9_999);
    let bob = c.connect(0, "bob");
    c.advance_ms(60_000);
    assert_eq!(seen(&mut c, ann), Vec::<String>::new());
    c.disconnect(bob);
    c.settle();
    c.advance_ms(9_999);
    assert_eq!(seen(&mut c, ann), Vec::<String>::new());
    c.advance_ms(1);
    assert_eq!(seen(&mut c, ann), ["bob Offline"]);
}

#[test]
fn a_new_list_takes_the_place_of_the_one_before() {
    let mut c = Cluster::new(4);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob", "eve"]);
    watch(&mut c, ann, &["bob"]);
    watch(&mut c, ann, &["eve"]);
    assert_eq!(seen(&mut c, ann), ["bob Offline", "eve Offline"]);
    c.connect(1, "bob");
    c.connect(2, "eve");
    assert_eq!(seen(&mut c, ann), ["eve Online"]);
    watch(&mut c, ann, &[]);
    watch(&mut c, ann, &["bob"]);
    assert_eq!(seen(&mut c, ann), ["bob Online"]);
}

#[test]
fn strangers_and_blocked_users_see_nobody_there() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob", "carl"]);
    let (carl, eve) = (c.connect(0, "carl"), c.connect(1, "eve"));
    for who in [carl, eve] {
        watch(&mut c, who, &["bob", "nobody"]);
    }
    assert_eq!(seen(&mut c, eve).iter().filter(|told| told.ends_with("Offline")).count(), 2);
    let mut carl_sees = seen(&mut c, carl);
    carl_sees.sort();
    assert_eq!(carl_sees, ["bob Online", "nobody Offline"]);
    c.call(bob, FrameType::Block, &control::Block { user: "carl".into(), blocked: true }).ok::<()>();
    assert_eq!(seen(&mut c, carl), ["bob Offline"], "a block is heeded at once");
    set(&mut c, bob, PresenceStatus::Away, "");
    watch(&mut c, carl, &["bob"]);
    assert_eq!((seen(&mut c, carl), seen(&mut c, eve)), (vec!["bob Offline".to_owned()], vec![]));
    remove(&mut c, ann, "tea", "bob").conversation();
    watch(&mut c, ann, &["bob"]);
    assert_eq!(seen(&mut c, ann), ["bob Offline"], "they share no conversation any more");
    watch(&mut c, bob, &["bob"]);
    assert_eq!(seen(&mut c, bob), ["bob Away"], "everybody sees themselves");
}

#[test]
fn another_tenant_sees_nobody_there() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    c.connect(0, "bob");
    let mut claims = c.claims("ann");
    claims.tenant = "other".parse().unwrap();
    let foreign = c.connect_with(0, claims);
    c.group(foreign, "tea", &["bob"]);
    watch(&mut c, foreign, &["bob"]);
    assert_eq!(seen(&mut c, foreign), ["bob Offline"]);
}

/// A user whose inbox this shard owns.
fn user_on(c: &Cluster, who: Who, shard: usize) -> String {
    let owner = |user: &String| usize::from(c.key(who, &format!("u:{user}")).partition()) % c.shards.len();
    (0..).map(|n| format!("user-{n}")).find(|user| owner(user) == shard).unwrap()
}

#[test]
fn a_session_that_ended_while_it_was_admitted_is_not_present() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    c.restart(2, false);
    let ann = c.connect(0, "ann");
    c.store.hold(&[Kind::Load]);
    let bob = c.open_established(0, "bob");
    c.settle();
    c.disconnect(bob);
    c.settle();
    c.store.hold(&[]);
    c.advance_ms(1);
    c.advance_ms(10_000);
    watch(&mut c, ann, &["bob"]);
    assert_eq!(seen(&mut c, ann), ["bob Offline"]);
}

#[test]
fn a_watcher_that_left_while_its_wish_was_under_way_is_forgotten() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    let target = user_on(&c, ann, 1);
    c.group(ann, "tea", &[&target]);
    c.restart(2, false);
    let ann = c.connect(0, "ann");
    c.store.hold(&[Kind::Load]);
    c.ask(ann, FrameType::PresenceSubscribe, &control::PresenceSubscribe { users: vec![target.clone()] });
    c.settle();
    c.disconnect(ann);
    c.settle();
    c.store.hold(&[]);
    c.settle();
    c.held_mail.insert((1, 0));
    c.connect(1, &target);
    let mail = std::iter::from_fn(|| c.shards[1].take_mail(ShardId(0)));
    assert_eq!(mail.filter(|message| matches!(message, ShardMessage::PresenceTold { .. })).count(), 0);
}

#[test]
fn an_older_list_that_arrives_late_does_not_end_a_newer_one() {
    let mut c = Cluster::new(3);
    let probe = c.connect(0, "probe");
    let (watcher, target) = (user_on(&c, probe, 2), user_on(&c, probe, 1));
    let ann = c.connect(0, &watcher);
    c.group(ann, "tea", &[&target]);
    watch(&mut c, ann, &[&target]);
    // What goes straight to the target's owner is late; what goes through the watcher's inbox is not.
    c.held_mail.insert((0, 1));
    watch(&mut c, ann, &[]);
    watch(&mut c, ann, &[&target]);
    c.held_mail.clear();
    c.settle();
    seen(&mut c, ann);
    c.connect(1, &target);
    assert_eq!(seen(&mut c, ann), [format!("{target} Online")]);
}

#[test]
fn wrong_wishes_are_refused() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    let users = |count: usize| control::PresenceSubscribe { users: (0..count).map(|n| format!("u{n}")).collect() };
    let limit = antiphon_core::limits::PRESENCE_WATCHED_MAX;
    assert_eq!(c.call(ann, FrameType::PresenceSubscribe, &users(limit + 1)).code(), ErrorCode::LimitExceeded);
    let invalid = control::PresenceSubscribe { users: vec!["no id".into()] };
    assert_eq!(c.call(ann, FrameType::PresenceSubscribe, &invalid).error().field, "users");
    let unknown = control::PresenceSet { status: 9, text: String::new() };
    assert_eq!(c.call(ann, FrameType::PresenceSet, &unknown).error().field, "status");
    let long = control::PresenceSet { status: 1, text: "x".repeat(129) };
    assert_eq!(c.call(ann, FrameType::PresenceSet, &long).error().field, "text");
}
