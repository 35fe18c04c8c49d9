//! Presence that brokers share: what the store is told, and what watchers are told of what it says. The test is the store.

use antiphon_core::Input;
use antiphon_protocol::{
    FrameType,
    control::{self, PresenceStatus},
};
use antiphon_storage_contract::presence::{PresenceEvent, PresenceOp, Seen, UserKey};

use super::{
    harness::*,
    presence::{seen, set, watch},
};

/// What the shards stated since the last call, in short.
fn stated(c: &mut Cluster) -> Vec<String> {
    let stated = std::mem::take(&mut c.stated);
    let short = |op| match op {
        PresenceOp::Here { seat, look } => {
            let look = format!("{:?} {}", look.status, look.text);
            format!("here {} {} {}", seat.owner.user, seat.device, look.trim_end())
        }
        PresenceOp::Left(seat) => format!("left {} {}", seat.owner.user, seat.device),
        PresenceOp::Watch(user) => format!("watch {}", user.user),
        PresenceOp::Unwatch(user) => format!("unwatch {}", user.user),
        other => panic!("nobody states {other:?}"),
    };
    stated.into_iter().map(|(_, op)| short(op)).collect()
}

/// The store says how a user is, to the shard that asked.
fn store_says(c: &mut Cluster, user: &str, seen: Seen) {
    let user = UserKey { tenant: c.claims(user).tenant, user: user.parse().unwrap() };
    // Shards that did not ask have no use for it.
    for shard in 0..c.shards.len() {
        c.input(shard, Input::Presence(PresenceEvent::Seen { user: user.clone(), seen: seen.clone() }));
    }
    c.settle();
}

fn all_are_told(c: &mut Cluster, event: &PresenceEvent) {
    for shard in 0..c.shards.len() {
        c.input(shard, Input::Presence(event.clone()));
    }
    c.settle();
}

fn known(status: PresenceStatus, text: &str) -> Seen {
    Seen::Known { status, text: text.into() }
}

#[test]
fn devices_are_stated_as_they_come_and_the_last_one_goes_after_the_grace() {
    for shards in [1, 3] {
        let mut c = Cluster::sharing_presence(shards);
        let bob = c.connect(0, "bob");
        assert_eq!(stated(&mut c), ["here bob device-0 Online"]);
        set(&mut c, bob, PresenceStatus::Busy, "in a meeting");
        assert_eq!(stated(&mut c), ["here bob device-0 Busy in a meeting"]);
        let second = c.connect(shards - 1, "bob");
        assert_eq!(stated(&mut c), ["here bob device-1 Busy in a meeting"]);
        c.disconnect(bob);
        c.settle();
        assert_eq!(stated(&mut c), ["left bob device-0"]);
        c.disconnect(second);
        c.settle();
        c.advance_ms(9_000);
        assert!(stated(&mut c).is_empty());
        let third = c.connect(0, "bob");
        assert_eq!(stated(&mut c), ["here bob device-2 Busy in a meeting", "left bob device-1"]);
        c.disconnect(third);
        c.settle();
        c.advance_ms(10_000);
        assert_eq!(stated(&mut c), ["left bob device-2"]);
        c.connect(0, "bob");
        assert_eq!(stated(&mut c), ["here bob device-3 Online"], "what was set went with the presence");
    }
}

#[test]
fn watchers_are_told_what_the_store_says_and_nothing_else() {
    for shards in [1, 3] {
        let mut c = Cluster::sharing_presence(shards);
        let ann = c.connect(0, "ann");
        c.group(ann, "tea", &["bob"]);
        stated(&mut c);
        watch(&mut c, ann, &["bob"]);
        assert_eq!(stated(&mut c), ["watch bob"]);
        assert!(seen(&mut c, ann).is_empty(), "nobody knows yet");
        store_says(&mut c, "bob", Seen::offline());
        assert_eq!(seen(&mut c, ann), ["bob Offline"]);
        c.connect(0, "bob");
        assert!(seen(&mut c, ann).is_empty(), "the store decides who came first");
        store_says(&mut c, "bob", known(PresenceStatus::Online, ""));
        store_says(&mut c, "bob", known(PresenceStatus::Away, "tea"));
        store_says(&mut c, "bob", known(PresenceStatus::Away, "tea"));
        assert_eq!(seen(&mut c, ann), ["bob Online", "bob Away tea"]);
        // A further watcher needs no question.
        stated(&mut c);
        let other = c.connect(shards - 1, "ann");
        watch(&mut c, other, &["bob"]);
        assert_eq!(seen(&mut c, other), ["bob Away tea"]);
        assert!(!stated(&mut c).contains(&"watch bob".to_owned()));
        watch(&mut c, ann, &[]);
        c.settle();
        assert!(stated(&mut c).is_empty());
        watch(&mut c, other, &[]);
        c.settle();
        assert_eq!(stated(&mut c), ["unwatch bob"]);
    }
}

#[test]
fn strangers_are_shown_nothing_and_not_asked_about() {
    let mut c = Cluster::sharing_presence(2);
    let ann = c.connect(0, "ann");
    c.connect(0, "bob");
    stated(&mut c);
    watch(&mut c, ann, &["bob"]);
    assert_eq!(seen(&mut c, ann), ["bob Offline"]);
    assert!(stated(&mut c).is_empty());
}

#[test]
fn everybody_is_unknown_while_the_store_is_away() {
    for shards in [1, 3] {
        let mut c = Cluster::sharing_presence(shards);
        let ann = c.connect(0, "ann");
        c.group(ann, "tea", &["bob", "cem"]);
        watch(&mut c, ann, &["bob"]);
        store_says(&mut c, "bob", known(PresenceStatus::Busy, "writing"));
        seen(&mut c, ann);
        all_are_told(&mut c, &PresenceEvent::Stale);
        assert_eq!(seen(&mut c, ann), ["bob Unknown"]);
        watch(&mut c, ann, &["bob", "cem"]);
        let mut told = seen(&mut c, ann);
        told.sort();
        assert_eq!(told, ["bob Unknown", "cem Unknown"]);
        // What the store says before it is right again is not told yet.
        store_says(&mut c, "cem", Seen::Unknown);
        store_says(&mut c, "cem", known(PresenceStatus::Online, ""));
        store_says(&mut c, "bob", known(PresenceStatus::Away, ""));
        store_says(&mut c, "bob", known(PresenceStatus::Busy, "writing"));
        assert!(seen(&mut c, ann).is_empty());
        all_are_told(&mut c, &PresenceEvent::Fresh);
        let mut told = seen(&mut c, ann);
        told.sort();
        assert_eq!(told, ["bob Busy writing", "cem Online"]);
    }
}

#[test]
fn many_are_told_over_several_turns() {
    let mut c = Cluster::sharing_presence(1);
    let names: Vec<String> = (0..60).map(|n| format!("friend-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &names);
    let devices: Vec<Who> = (0..40).map(|_| c.connect(0, "ann")).collect();
    for device in &devices {
        watch(&mut c, *device, &names);
    }
    for name in &names {
        store_says(&mut c, name, known(PresenceStatus::Online, ""));
    }
    for device in &devices {
        assert_eq!(seen(&mut c, *device).len(), names.len());
    }
    let now = c.now;
    c.input(0, Input::Presence(PresenceEvent::Stale));
    let mut turns = 0;
    while c.shards[0].has_work() || turns == 0 {
        c.shards[0].end_turn(now);
        turns += 1;
    }
    assert!(turns >= devices.len() * names.len() / antiphon_core::limits::PRESENCES_RETOLD_PER_TURN, "{turns}");
    c.settle();
    for device in &devices {
        let told = seen(&mut c, *device);
        assert_eq!(told.len(), names.len());
        assert!(told.iter().all(|told| told.ends_with("Unknown")));
    }
}

#[test]
fn nobody_is_shown_as_unknown_by_wish() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    let unknown = control::PresenceSet { status: PresenceStatus::Unknown.into(), text: String::new() };
    assert_eq!(c.call(ann, FrameType::PresenceSet, &unknown).error().field, "status");
}

#[test]
fn nothing_is_kept_of_those_who_are_gone() {
    let mut c = Cluster::sharing_presence(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let bob = c.connect(1, "bob");
    watch(&mut c, ann, &["bob"]);
    store_says(&mut c, "bob", known(PresenceStatus::Online, ""));
    c.disconnect(ann);
    c.disconnect(bob);
    c.settle();
    c.advance_ms(20_000);
    for shard in &c.shards {
        assert_eq!((shard.held().users, shard.held().watchers), (0, 0));
    }
}
