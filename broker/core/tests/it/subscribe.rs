//! The hand-over from history to live events.

use antiphon_core::limits::DELIVERIES_PER_TURN;
use antiphon_protocol::{
    ErrorCode, FrameType,
    control::{self, attach::Reset, subscribe::From},
    limits::{INLINE_BYTES_MAX, INLINE_ROWS_MAX, SUBSCRIPTIONS_MAX},
};

use super::harness::*;

/// ann owns a group of which row 1 is the creation and rows 2 to `n + 1` are messages.
fn filled(shards: usize, n: u64) -> (Cluster, Who) {
    let mut c = Cluster::new(shards);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    for n in 0..n {
        let draft = c.draft("c:tea", &format!("m{n}"));
        c.send(ann, &draft);
    }
    c.settle();
    (c, ann)
}

fn seqs(c: &Cluster, who: Who) -> Vec<u64> {
    c.client(who).rows("c:tea").iter().map(antiphon_protocol::Row::seq).collect()
}

#[test]
fn tail_begins_with_what_comes() {
    let (mut c, ann) = filled(2, 3);
    let bob = c.connect(1, "bob");
    let attach = c.subscribe(bob, "c:tea", From::Tail(true)).attach();
    assert_eq!((attach.replay_from, attach.live_from, attach.head, attach.head_msgno), (5, 5, 4, 3));
    assert_eq!((attach.inlined, attach.reset(), attach.epoch, attach.floor), (true, Reset::None, 1, 1));
    c.say(ann, "c:tea", "live").ack();
    assert_eq!(seqs(&c, bob), [5]);
}

#[test]
fn last_and_after_owe_exactly_what_is_missing() {
    let (mut c, ann) = filled(2, 9);
    let cases = [
        (From::Last(3), 8),
        (From::Last(0), 11),
        (From::Last(1_000), 1),
        (after(0), 1),
        (after(4), 5),
        (after(9), 10),
        (after(10), 11),
    ];
    for (from, replay_from) in cases {
        let bob = c.connect(1, "bob");
        let attach = c.subscribe(bob, "c:tea", from).attach();
        assert_eq!((attach.replay_from, attach.live_from, attach.reset()), (replay_from, 11, Reset::None), "{from:?}");
        assert!(attach.inlined);
        assert_eq!(seqs(&c, bob), (replay_from..11).collect::<Vec<_>>());
    }
    c.say(ann, "c:tea", "live").ack();
}

#[test]
fn a_large_deficit_is_pulled_while_live_events_come() {
    let (mut c, ann) = filled(2, 700);
    let bob = c.connect(1, "bob");
    let attach = c.subscribe(bob, "c:tea", after(0)).attach();
    assert_eq!((attach.inlined, attach.replay_from, attach.live_from), (false, 1, 702));
    let mut from = attach.replay_from;
    let mut pulled = Vec::new();
    while from != 0 {
        let page = c.fetch(bob, "c:tea", from, attach.live_from).page();
        pulled.extend(page.rows.iter().map(antiphon_protocol::Row::seq));
        from = page.next;
        c.say(ann, "c:tea", "meanwhile").ack();
    }
    assert_eq!(pulled, (1..702).collect::<Vec<_>>());
    let live = seqs(&c, bob);
    assert_eq!((live[0], live.len() as u64), (702, c.stored(ann, "c:tea").head() - 701));
}

#[test]
fn the_bounds_of_inlining_are_exact() {
    let (mut c, _) = filled(1, INLINE_ROWS_MAX + 5);
    let head = INLINE_ROWS_MAX + 6;
    for (missing, inlined) in [(INLINE_ROWS_MAX, true), (INLINE_ROWS_MAX + 1, false)] {
        let bob = c.connect(0, "bob");
        let attach = c.subscribe(bob, "c:tea", after(head - missing)).attach();
        assert_eq!(attach.inlined, inlined, "{missing} rows");
    }
    let ann = c.connect(0, "ann");
    for _ in 0..3 {
        c.say(ann, "c:tea", &"x".repeat(INLINE_BYTES_MAX / 2)).ack();
    }
    let bob = c.connect(0, "bob");
    assert!(c.subscribe(bob, "c:tea", From::Last(1)).attach().inlined);
    let eve = c.connect(0, "bob");
    assert!(!c.subscribe(eve, "c:tea", From::Last(2)).attach().inlined);
}

#[test]
fn a_position_of_another_history_begins_anew_at_the_floor() {
    let (mut c, ann) = filled(1, 3);
    let other_epoch = From::After(control::Position { epoch: 7, seq: 2 });
    for (from, reset) in [(other_epoch, Reset::EpochChanged), (after(5), Reset::EpochChanged)] {
        let bob = c.connect(0, "bob");
        let attach = c.subscribe(bob, "c:tea", from).attach();
        assert_eq!((attach.reset(), attach.replay_from, attach.live_from), (reset, 1, 5));
        assert_eq!(seqs(&c, bob), [1, 2, 3, 4]);
    }
    let key = c.key(ann, "c:tea");
    c.restart(1, false);
    let log = c.store.logs.get_mut(&key).unwrap();
    log.floor = 3;
    log.rows = log.rows.split_off(&3);
    let bob = c.connect(0, "bob");
    // The fold is gone with the first row, so a grant lets bob read.
    assert_eq!(c.subscribe(bob, "c:tea", after(1)).code(), ErrorCode::NotFound);
    let claims = c.granted("bob", "c:tea", &[antiphon_core::claims::Ability::Read]);
    let bob = c.connect_with(0, claims);
    for (from, reset) in [(after(1), Reset::HistoryGone), (after(2), Reset::None), (after(0), Reset::None)] {
        let attach = c.subscribe(bob, "c:tea", from).attach();
        assert_eq!((attach.reset(), attach.replay_from, attach.floor), (reset, 3, 3), "{from:?}");
    }
}

#[test]
fn events_around_the_hand_over_come_exactly_once() {
    let (mut c, ann) = filled(2, 2);
    c.held_mail.insert((1, 0));
    c.held_mail.insert((0, 1));
    let bob = c.connect_held(1, "bob");
    c.store.hold(&[Kind::Append]);
    let draft = c.draft("c:tea", "in flight");
    c.send(ann, &draft);
    let subscribe = control::Subscribe { log: "c:tea".into(), from: Some(after(1)) };
    let id = c.ask(bob, FrameType::Subscribe, &subscribe);
    c.settle();
    c.held_mail.clear();
    c.settle();
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(bob, id).attach().live_from, 4, "what is not durable is not part of the hand-over");
    assert_eq!(seqs(&c, bob), [2, 3, 4]);
}

#[test]
fn unsubscribing_ends_with_detach_and_silence() {
    let (mut c, ann) = filled(2, 1);
    c.follow(ann, "c:tea");
    let handle = c.client(ann).handle("c:tea").unwrap();
    c.say(ann, "c:tea", "one").ack();
    let unsubscribe = control::Unsubscribe { handle };
    assert!(matches!(c.call(ann, FrameType::Unsubscribe, &unsubscribe), Reply::Ok(_)));
    c.say(ann, "c:tea", "two").ack();
    assert_eq!(c.heard(ann, "c:tea"), ["one"]);
    let Some((_, Event::Detached(detach))) = c.client(ann).events.last() else { panic!("DETACH is last") };
    assert_eq!(detach.reason(), control::detach::Reason::Unsubscribed);
    // Again, and for a handle that it never had: nothing to do.
    for handle in [handle, 77] {
        assert!(matches!(c.call(ann, FrameType::Unsubscribe, &control::Unsubscribe { handle }), Reply::Ok(_)));
    }
    assert_eq!(c.subscribe(ann, "c:tea", after(3)).attach().handle, handle);
    assert_eq!(c.heard(ann, "c:tea"), ["one", "two"]);
}

#[test]
fn subscribing_again_takes_the_place_of_the_first_subscription() {
    let (mut c, ann) = filled(2, 1);
    c.follow(ann, "c:tea");
    c.subscribe(ann, "c:tea", after(1)).attach();
    c.say(ann, "c:tea", "once").ack();
    assert_eq!(seqs(&c, ann), [2, 3]);
    let handle = c.client(ann).handle("c:tea").unwrap();
    c.call(ann, FrameType::Unsubscribe, &control::Unsubscribe { handle });
    c.say(ann, "c:tea", "not heard").ack();
    assert_eq!(seqs(&c, ann), [2, 3]);
}

#[test]
fn many_subscribers_get_every_event_once_while_some_come_and_go() {
    let (mut c, ann) = filled(2, 0);
    let count = DELIVERIES_PER_TURN * 2 + 40;
    let readers: Vec<Who> = (0..count).map(|n| c.connect(n % 2, "bob")).collect();
    for reader in &readers {
        c.follow(*reader, "c:tea");
    }
    let mut dice = Dice(5);
    let mut gone = std::collections::BTreeSet::new();
    for n in 0..12 {
        let draft = c.draft("c:tea", &n.to_string());
        c.send(ann, &draft);
        // A few turns only, so that some copies are handed out and some are not.
        for _ in 0..3 {
            c.turn();
        }
        let one = readers[dice.roll(count as u64) as usize];
        if gone.insert(one) {
            match (n % 2, c.client(one).handle("c:tea")) {
                (0, Some(handle)) => {
                    c.ask(one, FrameType::Unsubscribe, &control::Unsubscribe { handle });
                }
                _ => c.disconnect(one),
            }
        }
        let late = c.open_established(1, "bob");
        c.ask(late, FrameType::Subscribe, &control::Subscribe { log: "c:tea".into(), from: Some(after(1)) });
        gone.remove(&late);
    }
    c.settle();
    let all: Vec<String> = (0..12).map(|n| n.to_string()).collect();
    for reader in readers.iter().filter(|reader| !gone.contains(reader)) {
        assert_eq!(c.heard(*reader, "c:tea"), all);
    }
    for late in (0..c.clients.len()).map(Who).filter(|who| who.0 > readers.len()) {
        assert_eq!(c.heard(late, "c:tea"), all, "one who came in between");
    }
}

#[test]
fn a_session_follows_a_bounded_number_of_logs_and_refusals_take_no_place() {
    let mut c = Cluster::new(2);
    let claims = c.granted("bot", "c:*", &[antiphon_core::claims::Ability::Read]);
    let bot = c.connect_with(0, claims);
    let ann = c.connect(1, "ann");
    for n in 0..SUBSCRIPTIONS_MAX + 50 {
        assert_eq!(c.subscribe(ann, &format!("c:not-mine-{n}"), From::Tail(true)).code(), ErrorCode::NotFound);
    }
    for n in 0..SUBSCRIPTIONS_MAX {
        c.follow(bot, &format!("c:room-{n}"));
    }
    assert_eq!(c.client(bot).followed().len(), SUBSCRIPTIONS_MAX);
    let error = c.subscribe(bot, "c:one-more", From::Tail(true)).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::LimitExceeded as u32, "log"));
    let handle = c.client(bot).handle("c:room-0").unwrap();
    c.call(bot, FrameType::Unsubscribe, &control::Unsubscribe { handle });
    c.follow(bot, "c:one-more");
    c.group(ann, "mine", &[]);
    c.follow(ann, "c:mine");
}

#[test]
fn a_subscription_without_a_beginning_is_refused() {
    let (mut c, ann) = filled(1, 3);
    let subscribe = control::Subscribe { log: "c:tea".into(), from: None };
    assert_eq!(c.call(ann, FrameType::Subscribe, &subscribe).code(), ErrorCode::InvalidField);
}

#[test]
fn resuming_after_a_restart_needs_no_reset() {
    let (mut c, ann) = filled(2, 10);
    c.follow(ann, "c:tea");
    c.say(ann, "c:tea", "before").ack();
    c.restart(4, false);
    let (ann, bob) = (c.connect(3, "ann"), c.connect(2, "bob"));
    c.say(bob, "c:tea", "while away").ack();
    let attach = c.subscribe(ann, "c:tea", after(12)).attach();
    assert_eq!((attach.reset(), attach.replay_from), (Reset::None, 13));
    c.say(bob, "c:tea", "after").ack();
    assert_eq!(c.heard(ann, "c:tea"), ["while away", "after"]);
}
