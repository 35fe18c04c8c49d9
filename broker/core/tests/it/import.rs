//! IMPORT: histories of other systems come in with their own times, once, and nothing that goes by time is misled.

use antiphon_core::claims::{Abilities, Ability, Claims, Grant, GrantPattern};
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType,
    control::{self, BatchResult, Synced},
    frames::{self, Ack},
    limits::RETENTION_MIN_S,
};

use super::{
    harness::*,
    relations::related,
    retention::{KEPT_MS, short_lived},
};

/// Some day of an older system.
const THEN_MS: u64 = 1_500_000_000_000;

pub(crate) fn importer(c: &Cluster, on: &str) -> Claims {
    let can: Abilities = [Ability::Manage].into_iter().collect();
    Claims { grants: vec![Grant { on: GrantPattern::new(on).unwrap(), can }], ..c.service("mover") }
}

/// A group of ann's, with bob, and the service that brings its history in.
fn group(shards: usize) -> (Cluster, Who, Who) {
    let mut c = Cluster::new(shards);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    let claims = importer(&c, "c:tea");
    let mover = c.connect_with(shards - 1, claims);
    (c, ann, mover)
}

/// An event that `sender` made in another system, where it is called `id`.
pub(crate) fn old(log: &str, id: &str, sender: &str, body: &str) -> Draft {
    Draft { act_as: Some(sender.into()), ..Draft::text(log, frames::imported_id(id), body) }
}

/// Brings events in, each with its time.
pub(crate) fn send_history(c: &mut Cluster, who: Who, drafts: &[(u64, Draft)]) {
    assert!(results(import(c, who, drafts)).iter().all(|result| result.error.is_none()));
}

fn import(c: &mut Cluster, who: Who, drafts: &[(u64, Draft)]) -> Reply {
    let id = c.client_mut(who).next_request_id();
    c.client_mut(who).unanswered.insert(id, None);
    c.raw(who, Draft::to_import(drafts, id));
    c.settle();
    c.take(who, id)
}

fn results(reply: Reply) -> Vec<BatchResult> {
    match reply {
        Reply::Batch(batch) => batch.results,
        other => panic!("a BATCH_ACK was expected, not {other:?}"),
    }
}

fn code(result: &BatchResult) -> (u32, &str) {
    result.error.as_ref().map_or((0, ""), |error| (error.number, error.field.as_str()))
}

fn ack(result: &BatchResult) -> Ack {
    let position = result.position.unwrap();
    Ack {
        position: antiphon_protocol::Position { epoch: position.epoch, seq: position.seq },
        msgno: result.msgno,
        time_ms: result.time_ms,
        event_id: uuid::Uuid::from_slice(&result.event_id).unwrap(),
        duplicate: result.duplicate,
    }
}

fn sync(c: &mut Cluster, who: Who) -> Synced {
    c.call(who, FrameType::Sync, &control::Sync::default()).ok()
}

#[test]
fn a_history_comes_in_with_its_senders_and_times_and_a_second_time_it_is_there_already() {
    let (mut c, ann, mover) = group(2);
    c.follow(ann, "c:tea");
    // eve has left long ago, and was no member here.
    let history: Vec<_> = [("m1", "eve", 5), ("m2", "bob", 3), ("m3", "ann", 9)]
        .map(|(id, sender, ms)| (THEN_MS + ms, old("c:tea", id, sender, id)))
        .into();
    let first = results(import(&mut c, mover, &history));
    let rows = c.client(ann).rows("c:tea");
    let seen: Vec<_> = rows.iter().map(|row| (row.time_ms() - THEN_MS, row.sender(), row.via(), row.seq())).collect();
    assert_eq!(seen, [(5, "eve", Some("mover"), 2), (3, "bob", Some("mover"), 3), (9, "ann", Some("mover"), 4)]);
    assert!(rows.iter().all(antiphon_protocol::Row::is_imported));
    for restarted in [false, true] {
        let mover = if restarted {
            c.restart(1, false);
            let claims = importer(&c, "c:tea");
            c.connect_with(0, claims)
        } else {
            mover
        };
        let again = results(import(&mut c, mover, &history));
        for (first, again) in first.iter().zip(&again) {
            assert_eq!(*again, BatchResult { duplicate: true, ..first.clone() });
        }
    }
    let bob = c.connect(0, "bob");
    let now = c.say(bob, "c:tea", "now").ack();
    assert_eq!((now.position.seq, now.time_ms), (5, c.now.unix_ms()), "the clock of the log goes on");
}

#[test]
fn what_happened_to_messages_comes_in_too_whoever_may_do_it_today() {
    let (mut c, _, mover) = group(2);
    let sent = results(import(&mut c, mover, &[(THEN_MS, old("c:tea", "m1", "eve", "hello"))]));
    let target = ack(&sent[0]);
    let mut event = |kind, id: &str, sender: &str| {
        let draft = related(&mut c, kind, &target, if kind == EventKind::EDIT { "better" } else { "" });
        (THEN_MS + 1, Draft { id: frames::imported_id(id), act_as: Some(sender.into()), ..draft })
    };
    let events = [
        event(EventKind::EDIT, "e1", "eve"),
        event(EventKind::EDIT, "e2", "bob"),
        event(EventKind::REACTION, "r1", "mallory"),
        event(EventKind::REDACT, "d1", "bob"),
    ];
    let results = results(import(&mut c, mover, &events));
    let forbidden = (ErrorCode::Forbidden as u32, "");
    assert_eq!(results.iter().map(code).collect::<Vec<_>>(), [(0, ""), forbidden, (0, ""), (0, "")]);
    assert!(c.stored(mover, "c:tea").rows[&2].is_redacted());
}

#[test]
fn only_a_service_that_acts_for_users_and_manages_the_log_brings_histories_in() {
    let (mut c, ann, mover) = group(2);
    let good = (THEN_MS, old("c:tea", "m1", "bob", "hi"));
    let not_found = (ErrorCode::NotFound as u32, "");
    let forbidden = (ErrorCode::Forbidden as u32, "");
    let own = (THEN_MS, Draft { act_as: None, ..good.1.clone() });
    assert_eq!(code(&results(import(&mut c, ann, std::slice::from_ref(&own)))[0]), not_found, "an owner is no service");
    let (claims, bare) = (c.service("crm"), c.granted("boss", "c:tea", &[Ability::Manage]));
    let crm = c.connect_with(0, claims);
    assert_eq!(code(&results(import(&mut c, crm, std::slice::from_ref(&good)))[0]), not_found);
    let boss = c.connect_with(0, bare);
    assert_eq!(code(&results(import(&mut c, boss, &[own]))[0]), forbidden);
    let later = c.now.unix_ms() + 120_000;
    let now_id = c.new_id();
    let cases = [
        ((THEN_MS, Draft { log: "c:other".into(), ..good.1.clone() }), not_found),
        ((THEN_MS, Draft { log: "u:bob".into(), ..good.1.clone() }), not_found),
        ((THEN_MS, Draft { id: now_id, ..good.1.clone() }), (ErrorCode::InvalidField as u32, "client_message_id")),
        ((later, good.1.clone()), (ErrorCode::ClockSkew as u32, "time_ms")),
        ((THEN_MS, Draft { kind: EventKind::MEMBER, ..good.1.clone() }), (ErrorCode::InvalidField as u32, "kind")),
    ];
    for (draft, expected) in cases {
        assert_eq!(code(&results(import(&mut c, mover, std::slice::from_ref(&draft)))[0]), expected, "{draft:?}");
    }
    let error = import(&mut c, mover, &[(0, good.1)]).error();
    assert_eq!((error.number, error.field.as_str()), (ErrorCode::Malformed as u32, "time_ms"));
    assert_eq!(c.stored(ann, "c:tea").head(), 1);
}

#[test]
fn old_times_do_not_make_a_recent_send_forgotten() {
    let (mut c, ann, mover) = group(1);
    let draft = c.draft("c:tea", "once");
    c.send_now(ann, &draft).ack();
    // More rows than a log in memory keeps behind its checkpoint.
    for batch in 0..5 {
        let rows: Vec<_> =
            (0..100).map(|n| (THEN_MS + n, old("c:tea", &format!("{batch}/{n}"), "bob", "old"))).collect();
        assert!(results(import(&mut c, mover, &rows)).iter().all(|result| result.error.is_none()));
    }
    c.restart(1, true);
    let ann = c.connect(0, "ann");
    let again = c.send_now(ann, &draft).ack();
    assert!(again.duplicate && again.position.seq == 2, "{again:?}");
}

#[test]
fn lists_show_when_the_newest_message_was_sent_after_a_restart_too() {
    let (mut c, ann, mover) = group(2);
    import(&mut c, mover, &[(THEN_MS, old("c:tea", "m1", "bob", "hi"))]);
    let entry = sync(&mut c, ann).entries.remove(0);
    let last = entry.last.clone().unwrap();
    assert_eq!((entry.time_ms, last.time_ms, last.imported), (THEN_MS, THEN_MS, true));
    c.restart(1, true);
    let ann = c.connect(0, "ann");
    assert_eq!(sync(&mut c, ann).entries, [entry]);
}

#[test]
fn a_service_moves_the_cursors_of_members() {
    let (mut c, ann, mover) = group(2);
    import(&mut c, mover, &[(THEN_MS, old("c:tea", "m1", "ann", "hi")), (THEN_MS, old("c:tea", "m2", "ann", "hi"))]);
    let cursor = |user: &str| control::Cursor { log: "c:tea".into(), delivered: 3, read: 2, act_as: user.into() };
    c.call(mover, FrameType::Cursor, &cursor("bob")).ok::<()>();
    assert_eq!(c.call(mover, FrameType::Cursor, &cursor("eve")).code(), ErrorCode::NotFound);
    assert_eq!(c.call(ann, FrameType::Cursor, &cursor("bob")).error().field, "act_as");
    let bob = c.connect(1, "bob");
    let entry = sync(&mut c, bob).entries.remove(0);
    assert_eq!((entry.delivered, entry.read, entry.head_msgno - entry.read_msgno), (3, 2, 1));
}

#[test]
fn what_is_imported_is_kept_as_long_as_its_own_time_says() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    short_lived(&mut c, ann, "tea");
    let claims = importer(&c, "c:tea");
    let mover = c.connect_with(0, claims);
    let recent = c.now.unix_ms() - KEPT_MS / 2;
    c.advance_ms(KEPT_MS + 1);
    let now = c.now.unix_ms();
    import(&mut c, mover, &[(recent, old("c:tea", "m1", "bob", "gone")), (now, old("c:tea", "m2", "bob", "stays"))]);
    c.advance_ms(1_000 * u64::from(RETENTION_MIN_S) / 2);
    let page = c.fetch(ann, "c:tea", 1, 0).page();
    assert_eq!(page.rows.iter().map(text).collect::<Vec<_>>(), ["stays"]);
}
