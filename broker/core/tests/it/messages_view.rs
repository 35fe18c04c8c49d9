//! FETCH of messages as they stand, against the fold of every event of the log.

use antiphon_core::limits::MESSAGE_STATES_MAX;
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType, Rel, Relation, Row,
    control::{self, Fetch, MessageView, MessagesPage, fetch::View},
    envelope::EventRef,
    envelope::NewEnvelope,
    fold,
    frames::Ack,
    limits::{EDITS_MAX, PAGE_MESSAGES_MAX, REACTION_KEYS_MAX, REACTIONS_MAX},
};
use antiphon_storage_contract::StoreError;

use super::harness::*;

pub(crate) fn group() -> (Cluster, Who, Who) {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    (c, ann, bob)
}

pub(crate) fn target(ack: &Ack) -> EventRef {
    EventRef { event_id: ack.event_id, seq: ack.position.seq }
}

pub(crate) fn related(
    c: &mut Cluster,
    kind: EventKind,
    target: EventRef,
    key: &str,
    remove: bool,
    body: &str,
) -> Draft {
    let key = (kind == EventKind::REACTION).then_some(key);
    let relation = Relation { rel: Rel(kind.0), target, key, remove };
    let envelope = NewEnvelope { relates_to: Some(relation), ..Default::default() }.to_bytes();
    Draft { kind, envelope, ..c.draft("c:tea", body) }
}

pub(crate) fn react(c: &mut Cluster, who: Who, to: &Ack, key: &str) -> Ack {
    let draft = related(c, EventKind::REACTION, target(to), key, false, "");
    c.send_now(who, &draft).ack()
}

fn unreact(c: &mut Cluster, who: Who, to: &Ack, key: &str) -> Ack {
    let draft = related(c, EventKind::REACTION, target(to), key, true, "");
    c.send_now(who, &draft).ack()
}

pub(crate) fn edit(c: &mut Cluster, who: Who, to: &Ack, body: &str) -> Ack {
    let draft = related(c, EventKind::EDIT, target(to), "", false, body);
    c.send_now(who, &draft).ack()
}

pub(crate) fn redact(c: &mut Cluster, who: Who, to: &Ack) -> Ack {
    let draft = related(c, EventKind::REDACT, target(to), "", false, "");
    c.send_now(who, &draft).ack()
}

pub(crate) fn reply(c: &mut Cluster, who: Who, to: EventRef, body: &str) -> Ack {
    let envelope = NewEnvelope { reply_to: Some(to), ..Default::default() }.to_bytes();
    let draft = Draft { envelope, ..c.draft("c:tea", body) };
    c.send_now(who, &draft).ack()
}

pub(crate) fn fetch(limit: u32, backward: bool) -> Fetch {
    Fetch { log: "c:tea".into(), limit, backward, view: View::Messages.into(), ..Default::default() }
}

pub(crate) fn messages(c: &mut Cluster, who: Who) -> Vec<MessageView> {
    walk(c, who, fetch(0, false))
}

pub(crate) fn walk(c: &mut Cluster, who: Who, mut fetch: Fetch) -> Vec<MessageView> {
    let mut views = Vec::new();
    for _ in 0..10_000 {
        let page = c.call(who, FrameType::Fetch, &fetch).messages();
        views.extend(page.messages);
        match (page.next, fetch.backward) {
            (0, _) => return views,
            (next, false) => fetch.from = next,
            (next, true) => fetch.to = next,
        }
    }
    panic!("the pages do not end");
}

/// Every event of the log, by FETCH of events.
pub(crate) fn events(c: &mut Cluster, who: Who) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut from = 1;
    loop {
        let page = c.fetch(who, "c:tea", from, 0).page();
        rows.extend(page.rows);
        match page.next {
            0 => return rows,
            next => from = next,
        }
    }
}

pub(crate) fn folded(rows: &[Row], reader: &str) -> Vec<MessageView> {
    let mut views = Vec::new();
    rows.iter().for_each(|row| fold::page(&mut views, row, reader));
    views
}

/// The pages are what the fold of every event gives.
pub(crate) fn check(c: &mut Cluster, who: Who, reader: &str) {
    let expected = folded(&events(c, who), reader);
    assert_same(&messages(c, who), &expected);
    let mut backward = walk(c, who, fetch(7, true));
    backward.reverse();
    assert_same(&backward, &expected);
}

/// One by one, so that a failure shows the message that differs.
pub(crate) fn assert_same(found: &[MessageView], expected: &[MessageView]) {
    found.iter().zip(expected).for_each(|(found, expected)| assert_eq!(found, expected));
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_message_shows_what_later_events_made_of_it() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "tea?").ack();
    let answer = reply(&mut c, bob, target(&first), "yes");
    let edited = edit(&mut c, ann, &first, "tea at five?");
    for (who, key) in [(ann, "+1"), (bob, "+1"), (bob, "heart")] {
        react(&mut c, who, &first, key);
    }
    let pin = related(&mut c, EventKind::PIN, target(&answer), "", false, "");
    c.send_now(ann, &pin).ack();

    let views = messages(&mut c, bob);
    let state = views[0].state.clone().unwrap();
    let shown: Vec<_> = state.reactions.iter().map(|r| (r.key.as_str(), r.count, r.mine, r.users.join(" "))).collect();
    assert_eq!(shown, [("+1", 2, true, "ann bob".into()), ("heart", 1, true, "bob".into())]);
    assert_eq!(state.edits, [edited.position.seq]);
    assert_eq!(state.edit.unwrap().body, "tea at five?");
    assert_eq!(Row::new(views[0].row.clone()).unwrap().body(), "tea?");
    let preview = views[1].reply.clone().unwrap();
    assert_eq!((preview.sender.as_str(), &preview.body[..]), ("ann", &b"tea at five?"[..]));
    assert_eq!(views[1].state.clone().unwrap().pinned.unwrap().user, "ann");
    check(&mut c, ann, "ann");
    check(&mut c, bob, "bob");

    redact(&mut c, ann, &first);
    let views = messages(&mut c, bob);
    assert!(Row::new(views[0].row.clone()).unwrap().is_redacted(), "a redacted message keeps its place");
    let state = views[0].state.clone().unwrap();
    assert_eq!((state.edit, state.reactions.len(), state.redacted.unwrap().user), (None, 0, "ann".into()));
    assert!(views[1].reply.clone().unwrap().redacted);
    check(&mut c, bob, "bob");
}

#[test]
fn what_was_there_already_is_an_event_that_changes_nothing() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "tea?").ack();
    let seqs = [
        (react(&mut c, bob, &first, "+1"), false),
        (react(&mut c, bob, &first, "+1"), true),
        (unreact(&mut c, bob, &first, "heart"), true),
        (unreact(&mut c, bob, &first, "+1"), false),
        (unreact(&mut c, bob, &first, "+1"), true),
        (react(&mut c, bob, &first, "+1"), false),
    ];
    let rows = c.stored(ann, "c:tea").rows;
    for (ack, is_unchanged) in seqs {
        assert_eq!(rows[&ack.position.seq].is_unchanged(), is_unchanged, "{ack:?}");
    }
    for (remove, is_unchanged) in [(true, true), (false, false), (false, true), (true, false), (true, true)] {
        let pin = related(&mut c, EventKind::PIN, target(&first), "", remove, "");
        let ack = c.send_now(ann, &pin).ack();
        assert_eq!(c.stored(ann, "c:tea").rows[&ack.position.seq].is_unchanged(), is_unchanged);
    }
    check(&mut c, bob, "bob");
}

#[test]
fn reactions_in_flight_count_before_they_are_durable() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "tea?").ack();
    c.store.hold(&[Kind::Append]);
    let mut ids = Vec::new();
    for (who, remove) in [(bob, false), (bob, false), (ann, false), (bob, true), (bob, true)] {
        let draft = related(&mut c, EventKind::REACTION, target(&first), "+1", remove, "");
        ids.push((who, c.send(who, &draft)));
        c.settle();
    }
    let redaction = related(&mut c, EventKind::REDACT, target(&first), "", false, "");
    ids.push((ann, c.send(ann, &redaction)));
    c.settle();
    let late = related(&mut c, EventKind::EDIT, target(&first), "", false, "too late");
    assert_eq!(c.send_now(ann, &late).code(), ErrorCode::InvalidRelation);
    c.store.hold(&[]);
    c.settle();
    let rows = c.stored(ann, "c:tea").rows;
    let unchanged = |(who, id): (Who, u32), c: &mut Cluster| rows[&c.take(who, id).ack().position.seq].is_unchanged();
    let found: Vec<bool> = ids.into_iter().map(|id| unchanged(id, &mut c)).collect();
    assert_eq!(found, [false, true, false, false, true, false]);
    check(&mut c, ann, "ann");
}

#[test]
fn what_is_known_of_a_message_survives_restarts_however_writes_end() {
    for survive in [false, true] {
        for hold in [&[][..], &[Kind::PutRecords], &[Kind::PutRecords, Kind::Rewrite], &[Kind::Checkpoint]] {
            let (mut c, ann, bob) = group();
            let first = c.say(ann, "c:tea", "first").ack();
            let second = c.say(ann, "c:tea", "second").ack();
            react(&mut c, bob, &first, "+1");
            edit(&mut c, ann, &second, "secret");
            // Later writes of the log wait behind one that is held back, so these may get no answer.
            c.store.hold(hold);
            let drafts = [
                (ann, related(&mut c, EventKind::REACTION, target(&first), "+1", false, "")),
                (bob, related(&mut c, EventKind::REACTION, target(&first), "+1", true, "")),
                (ann, related(&mut c, EventKind::REDACT, target(&second), "", false, "")),
            ];
            for (who, draft) in &drafts {
                c.send(*who, draft);
                c.settle();
            }
            c.restart(2, survive);
            c.store.hold(&[]);
            let (ann, bob) = (c.connect(1, "ann"), c.connect(0, "bob"));
            check(&mut c, bob, "bob");
            // What did not get that far is sent again; then everything is exact per user, still.
            for (who, (_, draft)) in [ann, bob, ann].into_iter().zip(&drafts) {
                c.send_now(who, draft).ack();
            }
            let again = react(&mut c, ann, &first, "+1");
            let back = react(&mut c, bob, &first, "+1");
            let rows = c.stored(ann, "c:tea").rows;
            assert!(rows[&again.position.seq].is_unchanged() && !rows[&back.position.seq].is_unchanged());
            check(&mut c, ann, "ann");
            assert!(
                c.stored(ann, "c:tea").rows.values().all(|row| row.body() != "secret"),
                "edits go with their message"
            );
        }
    }
}

#[test]
fn records_that_cannot_be_written_are_answered_from_memory_and_carried_by_checkpoints() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    c.store.fail(Kind::PutRecords, StoreError::Full, u32::MAX);
    react(&mut c, bob, &first, "+1");
    edit(&mut c, ann, &first, "better");
    check(&mut c, bob, "bob");
    for n in 0..600 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    assert!(c.stored(ann, "c:tea").checkpoint.is_some_and(|(through, _)| through > 256), "checkpoints go on");
    assert!(c.stored(ann, "c:tea").records.keys().all(|key| !key.starts_with(b"state/")));
    c.restart(2, false);
    let (_, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    check(&mut c, bob, "bob");
    react(&mut c, bob, &first, "+1");
    c.store.faults.clear();
    c.advance_ms(2_500);
    assert!(c.stored(bob, "c:tea").records.keys().any(|key| key.starts_with(b"state/")), "the write is repeated");
    c.restart(1, false);
    let bob = c.connect(0, "bob");
    check(&mut c, bob, "bob");
}

#[test]
fn a_message_that_left_memory_is_read_with_its_record_in_one_round() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    react(&mut c, bob, &first, "+1");
    for n in 0..MESSAGE_STATES_MAX + 10 {
        let other = c.say(ann, "c:tea", &format!("fill {n}")).ack();
        react(&mut c, ann, &other, "+1");
    }
    let (reads, others) = (c.store.count(Kind::Read), c.store.count(Kind::GetRecord));
    c.store.hold(&[Kind::Read, Kind::GetRecord]);
    let again = related(&mut c, EventKind::REACTION, target(&first), "+1", false, "");
    let again = c.send(bob, &again);
    c.settle();
    assert_eq!((c.store.count(Kind::Read), c.store.count(Kind::GetRecord)), (reads + 1, others + 2), "together");
    let behind = c.draft("c:tea", "behind it");
    let behind = c.send(ann, &behind);
    c.settle();
    assert!(!c.is_answered(ann, behind));
    c.store.hold(&[]);
    c.settle();
    let (again, behind) = (c.take(bob, again).ack().position.seq, c.take(ann, behind).ack().position.seq);
    assert_eq!(behind, again + 1, "sends keep their order");
    assert!(c.stored(ann, "c:tea").rows[&again].is_unchanged());
    c.store.fail(Kind::GetRecord, StoreError::Unavailable("test".into()), 1);
    let second = c.stored(ann, "c:tea").rows[&4].clone();
    let second = EventRef { event_id: second.event_id(), seq: 4 };
    let failing = related(&mut c, EventKind::REACTION, second, "heart", false, "");
    assert_eq!(c.send_now(bob, &failing).code(), ErrorCode::StoreUnavailable);
    c.send_now(bob, &failing).ack();
    check(&mut c, bob, "bob");
}

#[test]
fn a_message_has_so_many_reactions_keys_and_edits_and_no_more() {
    let (mut c, ann, _) = group();
    let service = c.service("bot");
    let bot = c.connect_with(0, service);
    let first = c.say(ann, "c:tea", "first").ack();
    let keys: Vec<String> = (0..REACTION_KEYS_MAX).map(|n| format!("key-{n}")).collect();
    let users = REACTIONS_MAX as usize / keys.len() + 1;
    let (mut stored, mut refused) = (0, 0);
    for n in 0..users {
        let user = format!("user-{n}");
        let add = control::MemberAdd {
            conversation: "tea".into(),
            members: vec![member(&user, control::Role::Member)],
            ..Default::default()
        };
        c.call(ann, FrameType::MemberAdd, &add).conversation();
        let mut ids = Vec::new();
        for key in &keys {
            let draft = related(&mut c, EventKind::REACTION, target(&first), key, false, "");
            ids.push(c.send(bot, &Draft { act_as: Some(user.clone()), ..draft }));
        }
        c.settle();
        for id in ids {
            match c.take(bot, id) {
                Reply::Ack(_) => stored += 1,
                refusal => {
                    assert_eq!(refusal.code(), ErrorCode::LimitExceeded);
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((stored, refused), (REACTIONS_MAX, (users * keys.len()) as u32 - REACTIONS_MAX));
    let over = related(&mut c, EventKind::REACTION, target(&first), "one more", false, "");
    assert_eq!(c.send_now(ann, &over).code(), ErrorCode::LimitExceeded);
    for n in 0..EDITS_MAX {
        edit(&mut c, ann, &first, &n.to_string());
    }
    let over = related(&mut c, EventKind::EDIT, target(&first), "", false, "once more");
    assert_eq!(c.send_now(ann, &over).code(), ErrorCode::LimitExceeded);
    check(&mut c, ann, "ann");
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    check(&mut c, ann, "ann");
}

#[test]
fn pages_walk_over_everything_in_both_directions() {
    let (mut c, ann, bob) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    for n in 0..300 {
        let body = "x".repeat(if n % 50 == 0 { 20_000 } else { 20 });
        let ack = c.say(ann, "c:tea", &body).ack();
        if n % 3 == 0 {
            react(&mut c, bob, &ack, "+1");
        }
        if n % 40 == 0 {
            reply(&mut c, bob, target(&first), "an answer from far away");
        }
    }
    edit(&mut c, ann, &first, "the first");
    for n in 0..2 {
        let who = if n == 0 { bob } else { c.connect(0, "bob") };
        let expected = folded(&events(&mut c, who), "bob");
        for limit in [0, 1, 9, PAGE_MESSAGES_MAX + 9] {
            assert_same(&walk(&mut c, who, fetch(limit, false)), &expected);
            let mut backward = walk(&mut c, who, fetch(limit, true));
            backward.reverse();
            assert_same(&backward, &expected);
        }
        let page: MessagesPage = c.call(who, FrameType::Fetch, &fetch(2, true)).messages();
        assert_eq!(page.messages.len(), 2);
        assert_eq!((page.head, page.floor, page.epoch), (events(&mut c, who).len() as u64, 1, 1));
        if n == 0 {
            c.restart(2, false);
        }
    }
}

#[test]
fn a_page_goes_on_behind_a_long_stretch_without_messages() {
    let (mut c, ann, _) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    let mut remove = false;
    for _ in 0..50 {
        for _ in 0..100 {
            let draft = related(&mut c, EventKind::REACTION, target(&first), "+1", remove, "");
            c.send(ann, &draft);
            remove = !remove;
        }
        c.settle();
    }
    c.say(ann, "c:tea", "last").ack();
    let page = c.call(ann, FrameType::Fetch, &Fetch { from: 3, ..fetch(0, false) }).messages();
    assert!(page.messages.is_empty() && page.next > 2_000, "bounded work for one page");
    assert_eq!(walk(&mut c, ann, Fetch { from: 3, ..fetch(0, false) }).len(), 1);
    check(&mut c, ann, "ann");
}

#[test]
fn whoever_is_removed_while_a_page_is_put_together_does_not_get_it() {
    let (mut c, ann, _) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    react(&mut c, ann, &first, "+1");
    c.restart(2, false);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.get(ann, "tea").conversation();
    c.store.hold(&[Kind::ScanRecords]);
    let page = c.ask(bob, FrameType::Fetch, &fetch(0, false));
    c.settle();
    let remove = control::MemberRemove { conversation: "tea".into(), user: "bob".into() };
    c.call(ann, FrameType::MemberRemove, &remove).conversation();
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(bob, page).code(), ErrorCode::Removed);
}

#[test]
fn a_page_that_the_store_cannot_give_is_refused_and_gives_its_place_back() {
    let (mut c, ann, _) = group();
    let first = c.say(ann, "c:tea", "first").ack();
    react(&mut c, ann, &first, "+1");
    for n in 0..300 {
        c.say(ann, "c:tea", &format!("fill {n}")).ack();
    }
    for kind in [Kind::Read, Kind::ScanRecords].into_iter().cycle().take(10) {
        c.store.fail(kind, StoreError::Unavailable("test".into()), 1);
        let error = c.call(ann, FrameType::Fetch, &fetch(0, false)).error();
        assert_eq!(
            (error.number, error.outcome()),
            (ErrorCode::StoreUnavailable as u32, control::error::Outcome::NotApplied)
        );
    }
    check(&mut c, ann, "ann");
}

#[test]
fn a_number_that_stands_for_nothing_is_refused_by_its_field() {
    let (mut c, ann, _) = group();
    let wrong = Fetch { view: 7, ..fetch(0, false) };
    for _ in 0..10 {
        let error = c.call(ann, FrameType::Fetch, &wrong).error();
        assert_eq!((error.number, error.field.as_str()), (ErrorCode::InvalidField as u32, "view"));
    }
    let create =
        |create: control::ConversationCreate| control::ConversationCreate { conversation: "x".into(), ..create };
    let wrong_member = control::Member { role: 9, ..member("eve", control::Role::Member) };
    let cases = [
        (FrameType::ConversationCreate, create(control::ConversationCreate { kind: 7, ..Default::default() }), "kind"),
        (
            FrameType::ConversationCreate,
            create(control::ConversationCreate { join_policy: 9, ..Default::default() }),
            "join_policy",
        ),
        (
            FrameType::ConversationCreate,
            create(control::ConversationCreate { members: vec![wrong_member.clone()], ..Default::default() }),
            "members.role",
        ),
    ];
    for (frame, body, field) in cases {
        let error = c.call(ann, frame, &body).error();
        assert_eq!((error.number, error.field.as_str()), (ErrorCode::InvalidField as u32, field));
    }
    let add = control::MemberAdd { conversation: "tea".into(), members: vec![wrong_member], ..Default::default() };
    assert_eq!(c.call(ann, FrameType::MemberAdd, &add).error().field, "members.role");
    let set = control::MemberSetRole { conversation: "tea".into(), user: "bob".into(), role: 9 };
    assert_eq!(c.call(ann, FrameType::MemberSetRole, &set).error().field, "role");
    let update = control::ConversationUpdate { conversation: "tea".into(), join_policy: Some(9), ..Default::default() };
    assert_eq!(c.call(ann, FrameType::ConversationUpdate, &update).error().field, "join_policy");
    let update = control::ConversationUpdate { conversation: "tea".into(), history: Some(2), ..Default::default() };
    assert_eq!(c.call(ann, FrameType::ConversationUpdate, &update).error().field, "history");
}
