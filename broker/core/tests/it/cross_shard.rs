//! What two shards owe each other: every request one answer, whoever is gone, slow or full.

use antiphon_core::{ShardId, ShardMessage, limits::REQUESTS_PER_PEER_MAX};
use antiphon_protocol::{FrameType, control, limits::REQUESTS_IN_FLIGHT_MAX};

use super::harness::*;

#[test]
fn thousands_of_requests_to_one_shard_wait_and_are_all_answered() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let log = format!("c:{id}");
    let sessions: Vec<Who> = (0..8).map(|_| c.connect(0, "ann")).collect();
    c.group(sessions[0], &id, &[]);
    c.held_mail.insert((0, 1));
    let each = REQUESTS_IN_FLIGHT_MAX + 100;
    for n in 0..each {
        for session in &sessions {
            let draft = c.draft(&log, &n.to_string()).dseq(n as u64 + 1);
            c.send(*session, &draft);
        }
    }
    c.settle();
    let mut waiting = Vec::new();
    while let Some(message) = c.shards[0].take_mail(ShardId(1)) {
        waiting.push(message);
    }
    assert_eq!(waiting.len(), REQUESTS_PER_PEER_MAX, "no more than that wait at a time");
    assert!(sessions.iter().any(|who| !c.client(*who).outgoing.is_empty()), "the rest stays with the clients");
    for message in waiting.into_iter().rev() {
        c.shards[0].untake_mail(ShardId(1), message);
    }
    c.held_mail.clear();
    c.settle();
    let mut overloaded = 0;
    for session in &sessions {
        assert!(c.client(*session).unanswered.is_empty(), "each has its answer");
        overloaded += c.client(*session).replies.values().filter(|reply| matches!(reply, Reply::Error(_))).count();
    }
    assert_eq!(overloaded, 0);
    assert_eq!(c.stored(sessions[0], &log).head() as usize, 1 + sessions.len() * each);
}

#[test]
fn a_connection_that_waits_and_goes_does_not_hold_up_others() {
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let log = format!("c:{id}");
    let sessions: Vec<Who> = (0..6).map(|_| c.connect(0, "ann")).collect();
    c.group(sessions[0], &id, &[]);
    c.held_mail.insert((0, 1));
    for _ in 0..REQUESTS_IN_FLIGHT_MAX {
        for session in &sessions {
            let draft = c.draft(&log, "x");
            c.send(*session, &draft);
        }
    }
    c.settle();
    for session in &sessions[..5] {
        c.disconnect(*session);
    }
    c.held_mail.clear();
    c.settle();
    assert!(c.client(sessions[5]).unanswered.is_empty());
    c.say(sessions[5], &log, "still here").ack();
}

#[test]
fn a_subscription_granted_to_a_connection_that_is_gone_is_given_back() {
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let log = format!("c:{id}");
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, &id, &["bob"]);
    c.held_mail.insert((1, 0));
    c.ask(bob, FrameType::Subscribe, &control::Subscribe { log: log.clone(), from: Some(after(0)) });
    c.settle();
    c.disconnect(bob);
    c.held_mail.clear();
    c.settle();
    c.held_mail.insert((1, 0));
    let draft = c.draft(&log, "nobody listens");
    let id = c.send(ann, &draft);
    c.settle();
    let mut waiting = Vec::new();
    while let Some(message) = c.shards[1].take_mail(ShardId(0)) {
        assert!(!matches!(message, ShardMessage::Deliver { .. }), "no copy goes to a shard without readers");
        waiting.push(message);
    }
    for message in waiting.into_iter().rev() {
        c.shards[1].untake_mail(ShardId(0), message);
    }
    c.held_mail.clear();
    c.settle();
    c.take(ann, id).ack();
}

#[test]
fn delayed_mail_changes_nothing_but_the_moment() {
    let mut c = Cluster::new(3);
    let id = c.id_on(2);
    let log = format!("c:{id}");
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, &id, &["bob"]);
    c.follow(bob, &log);
    let mut dice = Dice(9);
    for n in 0..200 {
        let draft = c.draft(&log, &n.to_string()).dseq(n + 1);
        c.send(ann, &draft);
        c.held_mail = (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|_| dice.chance(60)).collect();
        c.turn();
    }
    c.held_mail.clear();
    c.settle();
    assert_eq!(c.heard(bob, &log), (0..200).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_a_connection_held_is_given_back_when_it_closes() {
    let mut c = Cluster::new(4);
    let ann = c.connect(0, "ann");
    for n in 0..20 {
        c.group(ann, &format!("g{n}"), &["bob"]);
    }
    for round in 0..30 {
        let who = c.connect(round % 4, "bob");
        for n in 0..20 {
            c.follow(who, &format!("c:g{n}"));
        }
        match round % 3 {
            0 => c.disconnect(who),
            1 => {
                c.ask(who, FrameType::Bye, &control::Bye {});
            }
            _ => c.ask_and_leave(who),
        }
        c.settle();
    }
    c.disconnect(ann);
    c.settle();
    // Once to save cursors, once to see that nothing is left to save.
    c.advance_ms(10_000);
    c.advance_ms(10_000);
    for shard in &c.shards {
        let counters = shard.counters();
        assert_eq!((counters.connections, counters.sessions), (0, 0));
        assert!(shard.poll_timeout().is_none() && !shard.has_work());
    }
    // Nobody is left in any fan-out.
    let ann = c.connect(1, "ann");
    let before: u64 = c.shards.iter().map(|shard| shard.counters().deliveries).sum();
    for n in 0..20 {
        c.say(ann, &format!("c:g{n}"), "anybody?").ack();
    }
    assert_eq!(c.shards.iter().map(|shard| shard.counters().deliveries).sum::<u64>(), before);
}

#[test]
fn a_log_that_is_let_go_answers_first() {
    use antiphon_core::{claims::Ability, limits::LOGS_RESIDENT_MAX};
    let mut c = Cluster::new(1);
    let claims = c.granted("bot", "c:*", &[Ability::Read, Ability::Send]);
    let bot = c.connect_with(0, claims);
    for n in 0..300 {
        c.say(bot, "c:first", &n.to_string()).ack();
    }
    c.store.hold(&[Kind::Read]);
    let page =
        c.ask(bot, FrameType::Fetch, &control::Fetch { log: "c:first".into(), from: 1, to: 9, ..Default::default() });
    c.settle();
    for n in 0..LOGS_RESIDENT_MAX + 8_000 {
        c.ask(bot, FrameType::Cursor, &control::Cursor { log: format!("c:r{n}"), ..Default::default() });
        if n % 1_000 == 0 {
            c.settle();
        }
    }
    c.settle();
    assert!(c.shards[0].counters().logs_resident <= LOGS_RESIDENT_MAX as u64);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(bot, page).page().rows.len(), 8);
    assert_eq!(c.say(bot, "c:first", "again").ack().position.seq, 301);
}
