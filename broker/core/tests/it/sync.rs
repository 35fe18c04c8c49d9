//! SYNC: own conversations, page by page, with what is unread, from whatever shard owns them.

use antiphon_core::limits::SYNC_ENTRIES_MAX;
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType,
    control::{self, Synced},
};
use antiphon_storage_contract::StoreError;

use super::{harness::*, relations::related};

fn sync(c: &mut Cluster, who: Who, after: &str, limit: u32) -> Synced {
    c.call(who, FrameType::Sync, &control::Sync { after: after.into(), limit }).ok()
}

#[test]
fn every_page_comes_once_in_order_and_the_last_says_so() {
    for shards in [1, 2, 4] {
        let mut c = Cluster::new(shards);
        let ann = c.connect(0, "ann");
        for n in 0..25 {
            c.group(ann, &format!("g{n:02}"), &["bob"]);
        }
        c.restart(shards, false);
        let bob = c.connect(shards - 1, "bob");
        let (mut after, mut logs, mut pages) = (String::new(), Vec::new(), 0);
        loop {
            let page = sync(&mut c, bob, &after, 10);
            logs.extend(page.entries.iter().map(|entry| entry.log.clone()));
            assert!(page.entries.iter().all(|entry| entry.error == 0 && entry.head == 1));
            pages += 1;
            after = page.next;
            if after.is_empty() {
                break;
            }
        }
        assert_eq!((logs, pages), ((0..25).map(|n| format!("c:g{n:02}")).collect(), 3));
        assert_eq!(sync(&mut c, bob, "", 0).entries.len(), 25);
    }
}

#[test]
fn an_entry_says_what_is_unread_and_what_is_the_users_own() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    for n in 1..=3 {
        c.say(ann, "c:tea", &format!("message {n}")).ack();
    }
    c.call(
        bob,
        FrameType::Cursor,
        &control::Cursor { log: "c:tea".into(), delivered: 4, read: 2, act_as: String::new() },
    )
    .ok::<()>();
    let pinned = control::Preferences { conversation: "tea".into(), pinned: Some(true), muted: Some(true) };
    c.call(bob, FrameType::Preferences, &pinned).ok::<()>();
    let hide = control::Hide { log: "c:tea".into(), event_id: vec![1; 16].into(), seq: 3 };
    c.call(bob, FrameType::Hide, &hide).ok::<()>();
    c.call(bob, FrameType::Block, &control::Block { user: "eve".into(), blocked: true }).ok::<()>();
    for restarted in [false, true] {
        let bob = if restarted {
            c.advance_ms(1_001);
            c.restart(1, false);
            c.connect(0, "bob")
        } else {
            bob
        };
        let synced = sync(&mut c, bob, "", 0);
        assert_eq!((synced.blocked.clone(), synced.next.as_str()), (vec!["eve".to_owned()], ""));
        let [entry] = synced.entries.as_slice() else { panic!("one conversation: {synced:?}") };
        assert_eq!((entry.log.as_str(), entry.pinned, entry.muted), ("c:tea", true, true));
        assert_eq!((entry.head, entry.head_msgno - entry.read_msgno), (4, 2), "two are unread");
        assert_eq!((entry.delivered, entry.read, &entry.hidden[..]), (4, 2, &[3][..]));
        let last = entry.last.as_ref().unwrap();
        assert_eq!((last.seq, last.sender.as_str(), &last.body[..]), (4, "ann", &b"message 3"[..]));
    }
}

#[test]
fn a_redacted_message_is_not_shown_by_lists_either() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let draft = c.draft("c:tea", "secret");
    let secret = c.send_now(ann, &draft).ack();
    let redaction = related(&mut c, EventKind::REDACT, &secret, "");
    c.send_now(ann, &redaction).ack();
    let last = |c: &mut Cluster, who| sync(c, who, "", 0).entries[0].last.clone().unwrap();
    let shown = last(&mut c, ann);
    assert!(shown.redacted && shown.body.is_empty());
    c.restart(1, false);
    let ann = c.connect(0, "ann");
    assert_eq!(last(&mut c, ann), shown);
}

#[test]
fn an_owner_that_cannot_answer_keeps_back_its_own_part_only() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    for id in ["a", "b", "c"] {
        c.group(ann, id, &[]);
    }
    c.restart(2, false);
    let ann = c.connect(0, "ann");
    c.store.fail(Kind::Load, StoreError::Unavailable("test".into()), 1);
    let synced = sync(&mut c, ann, "", 0);
    let errors: Vec<u32> = synced.entries.iter().map(|entry| entry.error).filter(|error| *error != 0).collect();
    assert_eq!((synced.entries.len(), errors), (3, vec![ErrorCode::StoreUnavailable as u32]));
    assert!(sync(&mut c, ann, "", 0).entries.iter().all(|entry| entry.error == 0));
}

#[test]
fn one_sync_of_a_session_is_carried_out_at_a_time_and_wrong_ones_are_refused() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.restart(2, false);
    let ann = c.connect(0, "ann");
    c.store.hold(&[Kind::Load]);
    let ask = |c: &mut Cluster| c.ask(ann, FrameType::Sync, &control::Sync::default());
    let (first, second) = (ask(&mut c), ask(&mut c));
    c.settle();
    assert_eq!(c.take(ann, second).code(), ErrorCode::RateLimited);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(ann, first).ok::<Synced>().entries.len(), 1);
    let limit = SYNC_ENTRIES_MAX as u32 + 1;
    assert_eq!(c.call(ann, FrameType::Sync, &control::Sync { after: String::new(), limit }).error().field, "limit");
    let after = "no id".to_owned();
    assert_eq!(c.call(ann, FrameType::Sync, &control::Sync { after, limit: 0 }).error().field, "after");
    c.say(ann, "c:tea", "the session goes on").ack();
}

#[test]
fn a_session_that_leaves_during_a_sync_leaves_nothing_behind() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    for n in 0..40 {
        c.group(ann, &format!("g{n}"), &[]);
    }
    c.restart(2, false);
    let (ann, other) = (c.connect(0, "ann"), c.connect(0, "ann"));
    c.store.hold(&[Kind::Load]);
    c.ask(ann, FrameType::Sync, &control::Sync::default());
    c.settle();
    c.disconnect(ann);
    c.store.hold(&[]);
    c.settle();
    assert_eq!(sync(&mut c, other, "", 0).entries.len(), 40);
}
