//! A reader that does not keep up loses its subscription and nothing else; others do not notice.

use antiphon_core::{
    Shard, ShardId,
    limits::{DELIVERIES_PER_PEER_MAX, OUTBOX_CONTROL_BYTES_MAX, OUTBOX_EVENT_BYTES_MAX},
};
use antiphon_protocol::{Class, FrameType, control};
use prost::Message;

use super::harness::*;

fn behinds(c: &Cluster, who: Who) -> usize {
    c.client(who).events.iter().filter(|(_, event)| matches!(event, Event::Behind)).count()
}

#[test]
fn a_slow_reader_is_told_behind_once_and_resumes_without_loss() {
    let mut c = Cluster::new(2);
    let (ann, bob, eve) = (c.connect(0, "ann"), c.connect(1, "bob"), c.connect(1, "eve"));
    c.group(ann, "tea", &["bob", "eve"]);
    for who in [ann, bob, eve] {
        c.follow(who, "c:tea");
    }
    c.client_mut(bob).reads[Class::Events as usize] = false;
    let all: Vec<String> = (0..40).map(|n| format!("{n} {}", "x".repeat(4_000))).collect();
    for body in &all {
        c.say(ann, "c:tea", body).ack();
    }
    assert_eq!(c.heard(eve, "c:tea"), all);
    assert_eq!(c.heard(ann, "c:tea"), all);
    // Its requests are answered all the while.
    c.say(bob, "c:tea", "I am slow").ack();
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    assert_eq!(behinds(&c, bob), 1);
    let heard = c.heard(bob, "c:tea");
    assert!(heard.len() * 4_000 <= OUTBOX_EVENT_BYTES_MAX && !heard.is_empty());
    let have = c.client(bob).rows("c:tea").last().unwrap().seq();
    let attach = c.subscribe(bob, "c:tea", after(have)).attach();
    assert_eq!(attach.replay_from, have + 1);
    let mut pulled = heard;
    let mut from = attach.replay_from;
    while from != 0 && !attach.inlined {
        let page = c.fetch(bob, "c:tea", from, attach.live_from).page();
        pulled.extend(page.rows.iter().map(text));
        from = page.next;
    }
    assert_eq!(pulled.len(), all.len() + 1);
    assert_eq!(pulled[..all.len()], all);
    c.say(ann, "c:tea", "live").ack();
    assert_eq!(c.heard(bob, "c:tea").last().unwrap(), "live");
}

#[test]
fn being_behind_in_one_log_ends_no_other_subscription() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    for id in ["busy", "calm"] {
        c.group(ann, id, &["bob"]);
        c.follow(bob, &format!("c:{id}"));
    }
    c.client_mut(bob).reads[Class::Events as usize] = false;
    for _ in 0..20 {
        c.say(ann, "c:busy", &"x".repeat(5_000)).ack();
    }
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    assert_eq!(c.client(bob).followed().into_iter().collect::<Vec<_>>(), ["c:calm"]);
    c.say(ann, "c:calm", "still here").ack();
    assert_eq!(c.heard(bob, "c:calm"), ["still here"]);
}

#[test]
fn live_copies_over_the_mailbox_become_behind_and_nothing_is_lost() {
    let mut c = Cluster::new(2);
    let id = c.id_on(0);
    let log = format!("c:{id}");
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, &id, &["bob"]);
    c.follow(bob, &log);
    c.held_mail.insert((0, 1));
    let count = DELIVERIES_PER_PEER_MAX + 500;
    for n in 0..count {
        let draft = c.draft(&log, &n.to_string());
        c.send(ann, &draft);
        if n % 500 == 0 {
            c.settle();
        }
    }
    c.settle();
    assert_eq!(c.client(ann).unanswered.len(), 0, "the sender does not notice");
    c.held_mail.clear();
    c.settle();
    assert_eq!(behinds(&c, bob), 1);
    let heard = c.heard(bob, &log).len() as u64;
    assert!(heard > 0 && heard < count as u64);
    let attach = c.subscribe(bob, &log, after(heard + 1)).attach();
    assert_eq!((attach.replay_from, attach.live_from), (heard + 2, count as u64 + 2));
    c.say(ann, &log, "live").ack();
    assert_eq!(c.heard(bob, &log).last().unwrap(), "live");
}

#[test]
fn whoever_subscribes_behind_lost_copies_misses_none_of_the_later_ones() {
    let mut c = Cluster::new(2);
    let id = c.id_on(0);
    let log = format!("c:{id}");
    let (ann, bob, eve) = (c.connect(0, "ann"), c.connect(1, "bob"), c.connect(1, "eve"));
    c.group(ann, &id, &["bob", "eve"]);
    c.follow(bob, &log);
    c.held_mail.insert((0, 1));
    for n in 0..DELIVERIES_PER_PEER_MAX + 10 {
        let draft = c.draft(&log, &n.to_string());
        c.send(ann, &draft);
        if n % 500 == 0 {
            c.settle();
        }
    }
    c.settle();
    // Some copies leave, so that there is room again behind the mark of the lost ones.
    for _ in 0..100 {
        assert!(c.carry_one(0, 1));
    }
    c.ask(
        eve,
        FrameType::Subscribe,
        &control::Subscribe { log: log.clone(), from: Some(control::subscribe::From::Tail(true)) },
    );
    c.settle();
    for n in 0..50 {
        c.say(ann, &log, &format!("later {n}")).ack();
    }
    while c.carry_one(0, 1) {
        c.settle();
    }
    assert_eq!(behinds(&c, bob), 1);
    assert_eq!(c.heard(eve, &log), (0..50).map(|n| format!("later {n}")).collect::<Vec<_>>());
}

#[test]
fn state_that_is_not_read_gives_way_to_newer_state() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    c.client_mut(bob).reads[Class::State as usize] = false;
    for n in 0..2_000_u32 {
        let data = n.to_be_bytes().to_vec().into();
        c.ask(ann, FrameType::Signal, &control::Signal { log: "c:tea".into(), kind: "typing".into(), data, ttl_ms: 0 });
    }
    c.settle();
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    let told = &c.client(bob).told;
    let Some(Told::Signal(last)) = told.last() else { panic!("the newest is told") };
    assert_eq!(&last.data[..], 1_999_u32.to_be_bytes());
    assert!(told.len() < 2_000);
    assert!(c.shards[1].counters().state_dropped > 0);
}

#[test]
fn signals_do_not_pile_up_before_a_shard_that_is_busy() {
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let ann = c.connect(0, "ann");
    c.group(ann, &id, &[]);
    c.held_mail.insert((0, 1));
    let signal = control::Signal { log: format!("c:{id}"), kind: "typing".into(), ..Default::default() };
    for _ in 0..DELIVERIES_PER_PEER_MAX * 2 {
        c.ask(ann, FrameType::Signal, &signal);
    }
    c.settle();
    let mut waiting = 0;
    while c.shards[0].take_mail(ShardId(1)).is_some() {
        waiting += 1;
    }
    assert!(waiting <= DELIVERIES_PER_PEER_MAX, "{waiting} signals wait");
}

#[test]
fn marks_do_not_pile_up_for_a_reader_that_never_reads() {
    let mut c = Cluster::new(1);
    let bob = c.connect(0, "bob");
    c.group(bob, "tea", &[]);
    c.follow(bob, "c:tea");
    let handle = c.client(bob).handle("c:tea").unwrap();
    c.client_mut(bob).reads[Class::Events as usize] = false;
    for _ in 0..20_000 {
        c.ask(
            bob,
            FrameType::Subscribe,
            &control::Subscribe { log: "c:tea".into(), from: Some(control::subscribe::From::Tail(true)) },
        );
        c.ask(bob, FrameType::Unsubscribe, &control::Unsubscribe { handle });
    }
    c.settle();
    let connection = c.client(bob).connection;
    let waiting = c.shards[0].outbox_mut(connection).unwrap().bytes();
    assert!(waiting <= OUTBOX_EVENT_BYTES_MAX * 4, "{waiting} bytes wait");
    c.client_mut(bob).reads = [true; 5];
    c.settle();
    assert_eq!(c.client(bob).unanswered.len(), 0, "once it reads, everything is answered");
}

#[test]
fn long_answers_are_made_one_at_a_time() {
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let ann = c.connect(0, "ann");
    c.group(ann, &id, &[]);
    let member = |n| control::Member { user: format!("{}{n}", "m".repeat(60)), ..Default::default() };
    let members = (0..250).map(member).collect();
    let add = control::MemberAdd { conversation: id.clone(), members, ..Default::default() };
    c.call(ann, FrameType::MemberAdd, &add).conversation();
    let get = control::ConversationGet { conversation: id };
    let answer = c.call(ann, FrameType::ConversationGet, &get).conversation();
    assert!(answer.members.len() == 251 && answer.encoded_len() > 16_000);

    c.client_mut(ann).reads[Class::Control as usize] = false;
    let asked: Vec<u32> = (0..100).map(|_| c.ask(ann, FrameType::ConversationGet, &get)).collect();
    c.settle();
    let held: usize = c.shards.iter().map(Shard::outbox_bytes).sum();
    assert!(held < OUTBOX_CONTROL_BYTES_MAX + answer.encoded_len() + 100, "{held} bytes wait");
    c.client_mut(ann).reads = [true; 5];
    c.settle();
    assert!(asked.into_iter().all(|request| c.take(ann, request).conversation() == answer));
}
