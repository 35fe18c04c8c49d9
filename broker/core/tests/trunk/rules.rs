//! What is a trunk's own: one copy for a group, its bounds, and what an edge may not do.

use antiphon_core::Input;
use antiphon_protocol::{
    ErrorCode, FrameType,
    control::{self, subscribe::From},
    frames,
    trunk::Prefix,
};
use bytes::Bytes;

use super::harness::*;

fn follow(c: &mut Cluster, who: Who, log: &str) {
    c.call(who, FrameType::Subscribe, &control::Subscribe { log: log.into(), from: Some(From::Tail(true)) }).attach();
}

/// A conversation and so many sessions of one trunk that follow it.
fn audience(c: &mut Cluster, log: &str, sessions: usize) -> (Who, Vec<Who>) {
    let ann = c.connect(0, "ann");
    c.group(ann, &log[2..], &["bob"]);
    let sessions: Vec<Who> = (0..sessions).map(|_| c.connect(0, "bob")).collect();
    sessions.iter().for_each(|session| follow(c, *session, log));
    (ann, sessions)
}

fn from_edge(c: &mut Cluster, bytes: Bytes) {
    let connection = c.edges[0].trunk;
    c.input(0, Input::Received { connection, bytes });
    c.settle();
}

#[test]
fn an_event_goes_down_a_trunk_once_for_all_its_readers() {
    let mut c = Cluster::new(2);
    let (ann, sessions) = audience(&mut c, "c:tea", 100);
    let deliveries = |c: &Cluster| c.shards.iter().map(|shard| shard.counters().deliveries).sum::<u64>();
    let (copies, delivered) = (c.edges[0].for_groups, deliveries(&c));
    for n in 0..10 {
        c.say(ann, "c:tea", &format!("{n}")).ack();
    }
    assert_eq!((c.edges[0].for_groups - copies, deliveries(&c) - delivered), (10, 1_000));
    assert!(sessions.iter().all(|session| c.client(*session).rows("c:tea").len() == 10));
}

#[test]
fn whoever_is_removed_gets_the_removal_and_nothing_after_it_while_the_group_goes_on() {
    let mut c = Cluster::new(2);
    let (ann, sessions) = audience(&mut c, "c:tea", 2);
    let cid = c.connect(0, "cid");
    let member = control::Member { user: "cid".into(), ..Default::default() };
    let add = control::MemberAdd { conversation: "tea".into(), members: vec![member], ..Default::default() };
    c.call(ann, FrameType::MemberAdd, &add).conversation();
    follow(&mut c, cid, "c:tea");
    let remove = control::MemberRemove { conversation: "tea".into(), user: "cid".into() };
    c.ask(ann, FrameType::MemberRemove, &remove);
    let signal = control::Signal { log: "c:tea".into(), kind: "typing".into(), ..Default::default() };
    c.settle();
    c.ask(ann, FrameType::Signal, &signal);
    c.say(ann, "c:tea", "without cid").ack();
    let rows = |who| c.client(who).rows("c:tea").len();
    assert_eq!(rows(cid) + 1, rows(sessions[0]) - 1, "of adding, removing and talking, cid missed the talking");
    assert!(c.client(cid).told.is_empty() && !c.client(sessions[1]).told.is_empty());
}

#[test]
fn a_trunk_that_is_not_read_costs_a_bounded_number_of_bytes_and_its_sessions_miss_nothing() {
    let mut c = Cluster::new(2);
    let (_, sessions) = audience(&mut c, "c:tea", 3);
    let ann = c.connect(1, "ann");
    c.edges[0].reads = false;
    let body = "x".repeat(30_000);
    for _ in 0..300 {
        c.say(ann, "c:tea", &body).ack();
    }
    let held = c.shards[0].outbox_bytes();
    assert!(held < 5 << 20, "{held} bytes wait");
    assert!(c.shards[0].counters().behind > 0);

    c.edges[0].reads = true;
    while c.read_trunk(0) {
        c.settle();
    }
    for session in sessions {
        let rows = c.client(session).rows("c:tea");
        assert!(c.client(session).followed().is_empty() && rows.windows(2).all(|w| w[0].seq() + 1 == w[1].seq()));
        follow(&mut c, session, "c:tea");
    }
    c.say(ann, "c:tea", "again").ack();
}

#[test]
fn the_end_of_a_trunk_is_the_end_of_its_sessions() {
    let mut c = Cluster::new(2);
    audience(&mut c, "c:tea", 10);
    c.lose_trunk(0);
    c.settle();
    let held = c.shards[0].held();
    assert_eq!((held.connections, held.subscriptions, held.outbox_bytes), (0, 0, 0));
    assert_eq!(c.shards.iter().map(|shard| shard.counters().sessions).sum::<u64>(), 0);
    let bob = c.connect(0, "bob");
    follow(&mut c, bob, "c:tea");
}

#[test]
fn an_edge_that_breaks_a_rule_loses_its_trunk_and_is_told_why() {
    let open =
        |remote: &str| frames::control(FrameType::ChannelOpen, 0, &control::ChannelOpen { remote: remote.into() });
    let good = open("192.0.2.1:5000");
    let on = |prefix: Prefix, frame: &[u8]| Bytes::from([&prefix.encode()[..], frame].concat());
    let cases = [
        (on(Prefix::channel(0), &good), ErrorCode::Malformed, "prefix"),
        (on(Prefix { channel: 9, is_group: true }, &good), ErrorCode::Malformed, "prefix"),
        (on(Prefix::channel(1), &good), ErrorCode::Malformed, "prefix"),
        (on(Prefix::channel(9), &open("nowhere")), ErrorCode::InvalidField, "remote"),
        (on(Prefix::channel(9), &frames::raw(FrameType::ChannelOpen, 0, &[0x78, 1])), ErrorCode::UnknownFields, ""),
        (Bytes::from(vec![0xff; 20]), ErrorCode::FrameTooLarge, "header.length"),
    ];
    for (bytes, code, field) in cases {
        let mut c = Cluster::new(2);
        audience(&mut c, "c:tea", 1);
        let other = c.connect(1, "ann");
        from_edge(&mut c, bytes);
        let farewell = c.edges[0].farewell.clone().expect("a reason");
        assert_eq!((ErrorCode::from_number(farewell.number), farewell.field.as_str()), (Some(code), field));
        assert_eq!(c.shards[0].held().connections, 0);
        c.say(other, "c:tea", "undisturbed").ack();
    }
}

#[test]
fn frames_for_channels_and_handles_that_are_not_known_are_ignored() {
    let mut c = Cluster::new(1);
    let (ann, sessions) = audience(&mut c, "c:tea", 1);
    for kind in [FrameType::Lag, FrameType::ChannelClose, FrameType::Bye] {
        from_edge(&mut c, carry(1_000, &frames::raw(kind, 5, b"")));
    }
    let channel = c.client(sessions[0]).channel;
    from_edge(&mut c, carry(channel, &frames::raw(FrameType::Lag, 12_345, b"")));
    c.say(ann, "c:tea", "hello").ack();
    assert_eq!(c.client(sessions[0]).rows("c:tea").len(), 1);
}

#[test]
fn a_trunk_carries_so_many_sessions_and_no_more() {
    let mut c = Cluster::new(1);
    let before = c.shards[0].held().connections;
    let open = frames::control(FrameType::ChannelOpen, 0, &control::ChannelOpen { remote: "192.0.2.1:1".into() });
    let mut bytes = Vec::new();
    for channel in 1..=antiphon_core::limits::CHANNELS_PER_TRUNK_MAX as u32 {
        bytes.extend_from_slice(&carry(channel, &open));
    }
    from_edge(&mut c, bytes.into());
    c.edges[0].channels = antiphon_core::limits::CHANNELS_PER_TRUNK_MAX as u32;
    let one_more = c.open(0);
    c.settle();
    assert_eq!(c.client(one_more).closed, Some(ErrorCode::Overloaded));
    assert_eq!(c.shards[0].held().connections - before, antiphon_core::limits::CHANNELS_PER_TRUNK_MAX);
}

#[test]
fn a_session_whose_requests_are_sent_too_far_ahead_ends_and_the_others_do_not() {
    let mut c = Cluster::new(2);
    let (ann, sessions) = audience(&mut c, "c:tea", 2);
    // Changes of a conversation are made one at a time, so these wait.
    c.held_mail.insert((0, 1));
    c.held_mail.insert((1, 0));
    let id = c.id_on(1);
    let channel = c.client(sessions[0]).channel;
    let get = frames::control(FrameType::ConversationGet, 7, &control::ConversationGet { conversation: id });
    let long = frames::raw(FrameType::Send, 8, &[0; 200_000]);
    from_edge(&mut c, carry(channel, &get));
    for _ in 0..7 {
        from_edge(&mut c, carry(channel, &long));
    }
    c.held_mail.clear();
    assert_eq!(c.client(sessions[0]).closed, Some(ErrorCode::LimitExceeded));
    c.say(ann, "c:tea", "hello").ack();
    assert_eq!(c.client(sessions[1]).rows("c:tea").len(), 1);
}
