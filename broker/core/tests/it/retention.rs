//! Rows that a conversation has kept long enough are gone on every path, and the log goes on.

use antiphon_protocol::{
    ErrorCode, EventKind, FrameType, Row,
    control::{self, Conversation, ConversationCreate, ConversationUpdate, Role, attach::Reset, subscribe::From},
    frames,
    frames::Ack,
    limits::RETENTION_MIN_S,
};

use super::{
    harness::*,
    messages_view::{edit, fetch, messages, react, related, reply, target},
};

/// The shortest retention.
pub(crate) const KEPT_MS: u64 = RETENTION_MIN_S as u64 * 1_000;

/// Creates a group that keeps its rows for the shortest time, with bob as a member.
pub(crate) fn short_lived(c: &mut Cluster, who: Who, id: &str) {
    let create = ConversationCreate {
        conversation: id.into(),
        members: vec![member("bob", Role::Member)],
        retention_s: RETENTION_MIN_S,
        ..Default::default()
    };
    assert!(c.call(who, FrameType::ConversationCreate, &create).conversation().created);
}

/// ann owns "tea", bob is a member; ann's messages "old 1" and so on at the beginning, "new 1" and so on half a minute
/// later, and then time goes on until the old ones are gone, the creation with them.
pub(crate) fn aged(shards: usize, old: usize, new: usize) -> (Cluster, Who, Who, Vec<Ack>) {
    let mut c = Cluster::new(shards);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(shards - 1, "bob"));
    short_lived(&mut c, ann, "tea");
    let mut acks: Vec<Ack> = (1..=old).map(|n| c.say(ann, "c:tea", &format!("old {n}")).ack()).collect();
    c.advance_ms(KEPT_MS / 2);
    acks.extend((1..=new).map(|n| c.say(ann, "c:tea", &format!("new {n}")).ack()));
    c.advance_ms(KEPT_MS / 2 + 1);
    (c, ann, bob, acks)
}

fn update(c: &mut Cluster, who: Who, retention_s: u32) -> Reply {
    let update =
        ConversationUpdate { conversation: "tea".into(), retention_s: Some(retention_s), ..Default::default() };
    c.call(who, FrameType::ConversationUpdate, &update)
}

fn seqs(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(Row::seq).collect()
}

#[test]
fn a_conversation_says_how_long_it_keeps_its_events() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    let create = |retention_s| ConversationCreate {
        conversation: "tea".into(),
        members: vec![member("bob", Role::Member)],
        retention_s,
        ..Default::default()
    };
    for too_short in [1, RETENTION_MIN_S - 1] {
        let error = c.call(ann, FrameType::ConversationCreate, &create(too_short)).error();
        assert_eq!((error.number, error.field.as_str()), (ErrorCode::InvalidField as u32, "retention_s"));
    }
    let created = c.call(ann, FrameType::ConversationCreate, &create(RETENTION_MIN_S)).conversation();
    assert_eq!(created.retention_s, RETENTION_MIN_S);
    c.follow(bob, "c:tea");
    assert_eq!(update(&mut c, ann, RETENTION_MIN_S - 1).error().field, "retention_s");
    assert_eq!(update(&mut c, bob, 0).code(), ErrorCode::Forbidden);
    let updated = update(&mut c, ann, 86_400).conversation();
    assert_eq!(updated.retention_s, 86_400);
    let titled = ConversationUpdate { conversation: "tea".into(), title: Some("Tea".into()), ..Default::default() };
    let kept = c.call(ann, FrameType::ConversationUpdate, &titled).conversation();
    assert_eq!(kept.retention_s, 86_400, "what is absent stays");
    let events = c.client(bob).rows("c:tea");
    let body = |row: &Row| frames::decode_answer::<control::ConversationEvent>(&row.body()).unwrap();
    assert_eq!(events.iter().map(|row| body(row).retention_s).collect::<Vec<_>>(), [86_400, 86_400]);
    c.restart(2, false);
    let bob = c.connect(0, "bob");
    assert_eq!(c.get(bob, "tea").conversation().retention_s, 86_400);
}

#[test]
fn what_is_gone_is_gone_on_every_path() {
    for restarted in [false, true] {
        let (mut c, mut ann, mut bob, acks) = aged(2, 5, 3);
        if restarted {
            c.restart(2, false);
            (ann, bob) = (c.connect(1, "ann"), c.connect(0, "bob"));
        }
        let (floor, head) = (7, 9);
        assert_eq!(c.stored(ann, "c:tea").rows.keys().copied().collect::<Vec<_>>(), [7, 8, 9]);
        // SUBSCRIBE.
        let attach = c.subscribe(bob, "c:tea", after(3)).attach();
        assert_eq!((attach.reset(), attach.replay_from, attach.floor), (Reset::HistoryGone, floor, floor));
        assert!(attach.inlined != restarted, "a checkpoint described the log to its head");
        assert_eq!(c.heard(bob, "c:tea").len(), if restarted { 0 } else { 3 });
        let at_floor = c.subscribe(bob, "c:tea", after(floor - 1)).attach();
        assert_eq!((at_floor.reset(), at_floor.replay_from), (Reset::None, floor), "nothing is missing");
        let everything = c.subscribe(bob, "c:tea", after(0)).attach();
        assert_eq!((everything.reset(), everything.replay_from), (Reset::None, floor));
        assert_eq!(c.subscribe(bob, "c:tea", From::Last(100)).attach().replay_from, floor);
        // FETCH.
        let page = c.fetch(bob, "c:tea", 1, 0).page();
        assert_eq!((seqs(&page.rows), page.floor, page.head), (vec![7, 8, 9], floor, head));
        let below = c.fetch(bob, "c:tea", 1, 7).page();
        assert_eq!((below.rows.len(), below.next, below.floor), (0, 0, floor));
        assert_eq!(messages(&mut c, bob).len(), 3);
        let backward = c.call(bob, FrameType::Fetch, &fetch(0, true)).messages();
        assert_eq!((backward.messages.len(), backward.next, backward.floor), (3, 0, floor));
        // Relations.
        for kind in [EventKind::EDIT, EventKind::REDACT, EventKind::REACTION, EventKind::PIN] {
            let draft = related(&mut c, kind, target(&acks[4]), "+1", false, "");
            let error = c.send_now(ann, &draft).error();
            assert_eq!(error.number, ErrorCode::InvalidRelation as u32, "{}", kind.name());
        }
        react(&mut c, bob, &acks[5], "+1");
        // The log goes on where it was.
        let next = c.say(ann, "c:tea", "goes on").ack();
        assert_eq!((next.position.seq, next.msgno), (head + 2, 9));
        let answer = c.get(bob, "tea").conversation();
        assert_eq!((answer.head, answer.members.len()), (head + 2, 2), "members and properties stay");
    }
}

#[test]
fn a_live_reader_keeps_its_stream_and_hears_nothing_of_it() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    short_lived(&mut c, ann, "tea");
    c.follow(bob, "c:tea");
    c.say(ann, "c:tea", "one").ack();
    c.advance_ms(KEPT_MS + 1);
    assert!(c.stored(ann, "c:tea").rows.is_empty());
    c.say(ann, "c:tea", "two").ack();
    assert_eq!(c.heard(bob, "c:tea"), ["one", "two"]);
    assert_eq!(c.client(bob).events.len(), 3, "ATTACH and two rows");
    assert!(c.client(bob).told.is_empty());
}

#[test]
fn a_log_of_which_everything_is_gone_goes_on_counting_after_a_restart() {
    for restarts in [0, 1, 2] {
        let (mut c, mut ann, mut bob, _) = aged(1, 5, 0);
        for _ in 0..restarts {
            c.restart(1, false);
            (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
            c.advance_ms(1);
        }
        let stored = c.stored(ann, "c:tea");
        assert_eq!((stored.floor, stored.rows.len()), (7, 0));
        let attach = c.subscribe(bob, "c:tea", after(6)).attach();
        assert_eq!((attach.reset(), attach.live_from, attach.floor, attach.head_msgno), (Reset::None, 7, 7, 5));
        assert_eq!(c.subscribe(bob, "c:tea", after(5)).attach().reset(), Reset::HistoryGone);
        let page = c.fetch(bob, "c:tea", 0, 0).page();
        assert_eq!((page.rows.len(), page.next, page.head), (0, 0, 6));
        let next = c.say(ann, "c:tea", "goes on").ack();
        assert_eq!((next.position.seq, next.msgno), (7, 6));
        assert_eq!(c.heard(bob, "c:tea"), ["goes on"]);
        let Conversation { head, head_msgno, .. } = c.get(bob, "tea").conversation();
        assert_eq!((head, head_msgno), (7, 6));
    }
}

#[test]
fn lists_and_digests_do_not_show_a_message_that_is_gone() {
    for restarted in [false, true] {
        let (mut c, mut ann, mut bob, _) = aged(2, 2, 0);
        if restarted {
            c.restart(2, false);
            (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
        }
        let synced: control::Synced = c.call(bob, FrameType::Sync, &control::Sync::default()).ok();
        let entry = &synced.entries[0];
        assert_eq!((entry.last.clone(), entry.head, entry.head_msgno), (None, 3, 2));
        c.say(ann, "c:tea", "here again").ack();
        let synced: control::Synced = c.call(bob, FrameType::Sync, &control::Sync::default()).ok();
        assert_eq!(synced.entries[0].last.as_ref().unwrap().body, "here again");
    }
}

#[test]
fn replies_and_states_hold_nothing_of_what_is_gone() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    short_lived(&mut c, ann, "tea");
    let old = c.say(ann, "c:tea", "secret").ack();
    let edited = edit(&mut c, ann, &old, "edited secret");
    react(&mut c, bob, &old, "+1");
    assert_eq!(c.stored(ann, "c:tea").records.keys().filter(|key| is_of_message(key)).count(), 2);
    c.advance_ms(KEPT_MS / 2);
    reply(&mut c, bob, target(&old), "an answer");
    assert!(messages(&mut c, bob).iter().any(|view| view.reply.is_some()));
    c.advance_ms(KEPT_MS / 2 + 1);
    assert!(edited.position.seq < c.stored(ann, "c:tea").floor);
    let views = messages(&mut c, bob);
    assert_eq!(views.len(), 1);
    assert_eq!((&views[0].reply, &views[0].state), (&None, &None));
    let records = c.stored(ann, "c:tea").records;
    assert!(!records.keys().any(is_of_message), "{records:?}");
}

/// Whether a record holds something of a message.
pub(crate) fn is_of_message(key: &bytes::Bytes) -> bool {
    key.starts_with(b"state/") || key.starts_with(b"reacted/")
}

#[test]
fn a_later_change_of_a_message_takes_its_records_along() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    short_lived(&mut c, ann, "tea");
    let old = c.say(ann, "c:tea", "hello").ack();
    react(&mut c, bob, &old, "+1");
    c.advance_ms(KEPT_MS / 2);
    // The message goes first, this event a while later; what it made of the message is of no use meanwhile.
    react(&mut c, bob, &old, "-1");
    c.advance_ms(KEPT_MS / 2 + 1);
    assert_eq!(seqs(&c.fetch(bob, "c:tea", 0, 0).page().rows), [4]);
    c.restart(1, false);
    let bob = c.connect(0, "bob");
    assert_eq!(seqs(&c.fetch(bob, "c:tea", 0, 0).page().rows), [4]);
    assert!(messages(&mut c, bob).is_empty());
    c.advance_ms(KEPT_MS);
    let stored = c.stored(bob, "c:tea");
    assert_eq!((stored.rows.len(), stored.records.keys().filter(|key| is_of_message(key)).count()), (0, 0));
}

#[test]
fn a_cursor_at_a_row_that_is_gone_leaves_nothing_unread_before_the_floor() {
    let (mut c, ann, bob, _) = aged(2, 5, 3);
    let cursor = control::Cursor { log: "c:tea".into(), delivered: 4, read: 4, act_as: String::new() };
    c.call(bob, FrameType::Cursor, &cursor).ok::<()>();
    let cursors = c.subscribe(ann, "c:tea", From::Tail(true)).attach().cursors;
    let bobs = cursors.iter().find(|cursor| cursor.user == "bob").unwrap();
    assert_eq!((bobs.read, bobs.read_msgno), (4, 5), "three of eight are unread, and can be read");
}

#[test]
fn a_longer_retention_stops_it_and_a_shorter_one_begins_it() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.say(ann, "c:tea", "one").ack();
    c.advance_ms(10 * KEPT_MS);
    assert_eq!(c.stored(ann, "c:tea").rows.len(), 2, "without a retention rows stay");
    update(&mut c, ann, RETENTION_MIN_S).conversation();
    c.settle();
    assert_eq!(seqs(&c.fetch(ann, "c:tea", 0, 0).page().rows), [3], "at once");
    update(&mut c, ann, 0).conversation();
    c.advance_ms(10 * KEPT_MS);
    assert_eq!(seqs(&c.fetch(ann, "c:tea", 0, 0).page().rows), [3, 4], "what is gone stays gone");
    let due = c.shards[0].poll_timeout().unwrap();
    assert!(due.unix_ms() > c.now.unix_ms() + 10 * KEPT_MS, "nothing is due but the end of a session");
}
