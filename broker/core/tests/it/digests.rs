//! HEAD: what a session hears of conversations that it does not subscribe to.

use antiphon_protocol::{
    Class, FrameType,
    control::{self, Head},
};

use super::{harness::*, members::remove};

pub(crate) fn connect_following(c: &mut Cluster, shard: usize, user: &str) -> Who {
    let who = c.open(shard);
    let token = format!("{user} {}", who.0);
    let claims = c.claims(user);
    c.tokens.insert(token.clone(), Ok(claims));
    let capabilities = vec!["follow".to_owned()];
    let hello = control::Hello { follow_mine: true, capabilities, ..hello(&token, &token.replace(' ', "-")) };
    let id = c.ask(who, FrameType::Hello, &hello);
    c.settle();
    let Reply::Welcome(welcome) = c.take(who, id) else { panic!("the session begins") };
    assert_eq!(welcome.capabilities, ["follow"]);
    who
}

/// Digests that came since the last call: log, position, text of the last message.
pub(crate) fn digests(c: &mut Cluster, who: Who) -> Vec<(String, u64, String)> {
    let told = std::mem::take(&mut c.client_mut(who).told);
    let digest = |told| match told {
        Told::Head(Head { log, seq, last, .. }) => {
            let text = last.map(|last| String::from_utf8(last.body.to_vec()).unwrap()).unwrap_or_default();
            Some((log, seq, text))
        }
        _ => None,
    };
    told.into_iter().filter_map(digest).collect()
}

fn told(log: &str, seq: u64, text: &str) -> (String, u64, String) {
    (log.into(), seq, text.into())
}

#[test]
fn each_membership_is_told_once_a_second_at_most_and_the_newest_wins() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let ann = c.connect(0, "ann");
        c.group(ann, "tea", &["bob"]);
        c.advance_ms(2_000);
        let bob = connect_following(&mut c, shards - 1, "bob");
        let silent = c.connect(0, "bob");
        c.say(ann, "c:tea", "one").ack();
        assert_eq!(digests(&mut c, bob), [told("c:tea", 2, "one")]);
        c.say(ann, "c:tea", "two").ack();
        c.say(ann, "c:tea", "three").ack();
        c.advance_ms(900);
        assert_eq!(digests(&mut c, bob), []);
        c.advance_ms(101);
        assert_eq!(digests(&mut c, bob), [told("c:tea", 4, "three")]);
        c.advance_ms(5_000);
        assert_eq!(digests(&mut c, bob), [], "nothing new, nothing told");
        assert_eq!(digests(&mut c, silent), []);
    }
}

#[test]
fn a_future_membership_is_followed_too_and_a_removed_user_hears_nothing_more() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    let bob = connect_following(&mut c, 1, "bob");
    c.group(ann, "tea", &["bob"]);
    c.say(ann, "c:tea", "welcome").ack();
    assert_eq!(digests(&mut c, bob), [told("c:tea", 2, "welcome")]);
    c.say(ann, "c:tea", "a secret is coming").ack();
    remove(&mut c, ann, "tea", "bob").conversation();
    c.say(ann, "c:tea", "the secret").ack();
    c.advance_ms(2_000);
    assert_eq!(digests(&mut c, bob), [], "what was due was dropped with the membership");
}

#[test]
fn a_removed_user_whose_inbox_lags_behind_hears_nothing_more_either() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let bob = connect_following(&mut c, 1, "bob");
    c.say(ann, "c:tea", "one").ack();
    assert_eq!(digests(&mut c, bob).len(), 1);
    c.store.hold(&[Kind::Append]);
    let remove = control::MemberRemove { conversation: "tea".into(), user: "bob".into() };
    c.ask(ann, FrameType::MemberRemove, &remove);
    c.settle();
    let removal = c.store.eligible_held(0);
    c.complete(removal);
    c.settle();
    let draft = c.draft("c:tea", "the secret");
    let id = c.send(ann, &draft);
    c.settle();
    // The inbox's event is the older of the two that are held back.
    let message = c.store.eligible_held(1);
    c.complete(message);
    c.settle();
    c.take(ann, id).ack();
    c.advance_ms(2_000);
    assert_eq!(digests(&mut c, bob), []);
}

#[test]
fn a_subscribed_conversation_is_not_told_twice() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let (bob, tablet) = (connect_following(&mut c, 1, "bob"), connect_following(&mut c, 0, "bob"));
    c.follow(bob, "c:tea");
    c.say(ann, "c:tea", "one").ack();
    assert_eq!((digests(&mut c, bob), digests(&mut c, tablet)), (vec![], vec![told("c:tea", 2, "one")]));
    assert_eq!(c.heard(bob, "c:tea"), ["one"]);
}

#[test]
fn when_the_last_following_session_has_left_nothing_is_told() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let bob = connect_following(&mut c, 1, "bob");
    c.disconnect(bob);
    c.settle();
    c.say(ann, "c:tea", "one").ack();
    c.advance_ms(2_000);
    let again = connect_following(&mut c, 0, "bob");
    c.say(ann, "c:tea", "two").ack();
    assert_eq!(digests(&mut c, again), [told("c:tea", 3, "two")]);
}

#[test]
fn a_session_that_does_not_read_keeps_the_newest_digests_within_its_bound() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    let bob = connect_following(&mut c, 0, "bob");
    for n in 0..150 {
        c.group(ann, &format!("g{n}"), &["bob"]);
    }
    c.client_mut(bob).reads[Class::State as usize] = false;
    for n in 0..150 {
        c.say(ann, &format!("c:g{n}"), &"x".repeat(128)).ack();
    }
    assert!(c.shards[0].counters().state_dropped > 0);
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    let digests = digests(&mut c, bob);
    assert!(digests.len() < 150);
    assert_eq!(digests.last().unwrap().0, "c:g149");
}
