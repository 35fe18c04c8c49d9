//! In a conversation with history JOINED a member sees nothing of what was before its joining, on no path.

use antiphon_core::claims::Ability;
use antiphon_protocol::{
    ErrorCode, EventKind, FrameType, Row,
    control::{
        self, ConversationCreate, ConversationUpdate, Fetch, History, Role, attach::Reset, fetch::View, subscribe::From,
    },
    envelope::EventRef,
    frames,
    frames::Ack,
    limits::RETENTION_MIN_S,
};
use uuid::Uuid;

use super::{
    digests::{connect_following, digests},
    harness::*,
    members::{add, remove},
    messages_view::{edit, events, fetch, messages, react, related, reply, target, walk},
    retention::KEPT_MS,
};

/// ann owns "tea", in which cid is from the beginning and reads what ann writes; bob joins at position 5.
struct Tea {
    c: Cluster,
    ann: Who,
    bob: Who,
    cid: Who,
    /// Positions 2 to 4: a message, its edit, a message.
    before: [Ack; 3],
}

const JOINED: u64 = 5;

fn tea(shards: usize) -> Tea {
    let mut c = Cluster::new(shards);
    let (ann, bob, cid) = (c.connect(0, "ann"), c.connect(shards - 1, "bob"), c.connect(0, "cid"));
    let create = ConversationCreate {
        conversation: "tea".into(),
        members: vec![member("cid", Role::Member)],
        history: History::Joined.into(),
        ..Default::default()
    };
    assert!(c.call(ann, FrameType::ConversationCreate, &create).conversation().created);
    let first = c.say(ann, "c:tea", "secret").ack();
    let edited = edit(&mut c, ann, &first, "edited secret");
    let second = c.say(ann, "c:tea", "another secret").ack();
    add(&mut c, ann, "tea", "bob", Role::Member).conversation();
    Tea { c, ann, bob, cid, before: [first, edited, second] }
}

fn set_history(c: &mut Cluster, who: Who, history: History) -> control::Conversation {
    let update = ConversationUpdate { conversation: "tea".into(), history: Some(history.into()), ..Default::default() };
    c.call(who, FrameType::ConversationUpdate, &update).conversation()
}

fn seqs(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(Row::seq).collect()
}

#[test]
fn a_conversation_says_what_its_members_may_read() {
    let Tea { mut c, ann, cid, .. } = tea(2);
    c.follow(cid, "c:tea");
    assert_eq!(c.get(cid, "tea").conversation().history(), History::Joined);
    assert_eq!(set_history(&mut c, ann, History::Full).history(), History::Full);
    let titled = ConversationUpdate { conversation: "tea".into(), title: Some("Tea".into()), ..Default::default() };
    c.call(ann, FrameType::ConversationUpdate, &titled).conversation();
    set_history(&mut c, ann, History::Joined);
    let body = |row: &Row| frames::decode_answer::<control::ConversationEvent>(&row.body()).unwrap().history();
    let told: Vec<_> = c.client(cid).rows("c:tea").iter().map(body).collect();
    assert_eq!(told, [History::Full, History::Full, History::Joined]);
    c.restart(2, false);
    let cid = c.connect(0, "cid");
    assert_eq!(c.get(cid, "tea").conversation().history(), History::Joined);
}

#[test]
fn a_member_reads_from_its_joining_on_and_nothing_before() {
    for (shards, restarted) in [(1, false), (2, false), (2, true)] {
        let Tea { mut c, ann, mut bob, mut cid, .. } = tea(shards);
        c.say(ann, "c:tea", "welcome").ack();
        if restarted {
            // Behind a checkpoint, so that rows are read from the store.
            for n in 0..300 {
                c.say(ann, "c:tea", &n.to_string()).ack();
            }
            c.restart(shards, false);
            (bob, cid) = (c.connect(0, "bob"), c.connect(0, "cid"));
        }
        let starts = [(after(0), Reset::None), (after(1), Reset::HistoryGone), (after(JOINED - 2), Reset::HistoryGone)];
        for (start, reset) in starts.into_iter().chain([(From::Last(1_000), Reset::None)]) {
            let attach = c.subscribe(bob, "c:tea", start).attach();
            assert_eq!((attach.reset(), attach.replay_from, attach.floor), (reset, JOINED, JOINED), "{start:?}");
        }
        assert_eq!(c.subscribe(bob, "c:tea", after(JOINED - 1)).attach().reset(), Reset::None);
        assert!(c.client(bob).rows("c:tea").iter().all(|row| row.seq() >= JOINED));
        for (from, to) in [(0, 0), (1, 0), (2, 8), (JOINED, 0)] {
            let page = c.fetch(bob, "c:tea", from, to).page();
            assert_eq!((page.rows[0].seq(), page.floor), (JOINED, JOINED), "from {from} to {to}");
        }
        let below = c.fetch(bob, "c:tea", 1, JOINED).page();
        assert_eq!((below.rows.len(), below.next), (0, 0));
        let backward = Fetch { log: "c:tea".into(), to: JOINED + 2, backward: true, ..Default::default() };
        let page = c.call(bob, FrameType::Fetch, &backward).page();
        assert_eq!((seqs(&page.rows), page.next), (vec![JOINED + 1, JOINED], 0));
        for backward in [false, true] {
            let views = walk(&mut c, bob, fetch(0, backward));
            let seqs: Vec<u64> = views.iter().map(|view| Row::new(view.row.clone()).unwrap().seq()).collect();
            assert_eq!(seqs.iter().min(), Some(&(JOINED + 1)));
        }
        let one = Fetch { from: 2, to: 3, view: View::Messages.into(), ..fetch(0, false) };
        assert!(c.call(bob, FrameType::Fetch, &one).messages().messages.is_empty());
        // Everybody who was there from the beginning sees everything.
        assert_eq!(events(&mut c, cid)[0].seq(), 1);
        assert_eq!(messages(&mut c, cid).len(), messages(&mut c, bob).len() + 2);
    }
}

#[test]
fn what_is_not_seen_cannot_be_related_to() {
    let Tea { mut c, ann, bob, cid, before } = tea(2);
    for kind in [EventKind::EDIT, EventKind::REDACT, EventKind::REACTION, EventKind::PIN] {
        // It makes no difference whether the id is right, nor what stands there.
        let right = target(&before[0]);
        for target in [right, EventRef { event_id: Uuid::from_u128(9), ..right }, EventRef { seq: 1, ..right }] {
            let draft = related(&mut c, kind, target, "+1", false, "");
            assert_eq!(c.send_now(bob, &draft).code(), ErrorCode::InvalidRelation, "{}", kind.name());
        }
    }
    react(&mut c, cid, &before[0], "+1");
    // A service that acts for bob sees what bob sees.
    let crm = c.service("crm");
    let grants = c.granted("crm", "c:tea", &[Ability::Send]).grants;
    let crm = c.connect_with(0, antiphon_core::Claims { grants, ..crm });
    let as_user = |draft: Draft, user: &str| Draft { act_as: Some(user.into()), ..draft };
    let draft = related(&mut c, EventKind::PIN, target(&before[0]), "", false, "");
    assert_eq!(c.send_now(crm, &as_user(draft, "bob")).code(), ErrorCode::InvalidRelation);
    let draft = related(&mut c, EventKind::PIN, target(&before[0]), "", false, "");
    c.send_now(crm, &as_user(draft, "cid")).ack();
    let welcome = c.say(ann, "c:tea", "welcome").ack();
    react(&mut c, bob, &welcome, "+1");
}

#[test]
fn previews_lists_and_digests_show_nothing_from_before() {
    for restarted in [false, true] {
        let Tea { mut c, mut ann, mut bob, mut cid, before } = tea(2);
        let sync = |c: &mut Cluster, who| -> control::SyncedLog {
            c.call(who, FrameType::Sync, &control::Sync::default()).ok::<control::Synced>().entries.remove(0)
        };
        if restarted {
            c.advance_ms(1_001);
            c.restart(2, false);
            (ann, bob, cid) = (c.connect(0, "ann"), c.connect(1, "bob"), c.connect(0, "cid"));
        }
        let (bobs, cids) = (sync(&mut c, bob), sync(&mut c, cid));
        assert_eq!((bobs.last, bobs.head, bobs.head_msgno), (None, JOINED, 2));
        assert_eq!((bobs.head_msgno - bobs.read_msgno, cids.head_msgno - cids.read_msgno), (0, 2), "unread");
        assert_eq!(cids.last.unwrap().body, "another secret");
        // Something happens that is no message, so that a digest shows the newest one again.
        c.advance_ms(2_000);
        let following = [connect_following(&mut c, 1, "bob"), connect_following(&mut c, 0, "cid")];
        c.call(ann, FrameType::ConversationUpdate, &titled("Tea")).conversation();
        c.advance_ms(2_000);
        let texts = following.map(|who| digests(&mut c, who).into_iter().map(|(_, _, text)| text).collect::<Vec<_>>());
        assert_eq!(texts, [vec![String::new()], vec!["another secret".into()]]);
        // A message that answers one from before.
        reply(&mut c, cid, target(&before[0]), "an answer");
        let (bobs, cids) = (messages(&mut c, bob), messages(&mut c, cid));
        assert_eq!((bobs.len(), &bobs[0].reply), (1, &None));
        assert_eq!(cids[2].reply.as_ref().unwrap().body, "edited secret");
        assert_eq!(sync(&mut c, bob).last.unwrap().body, "an answer");
    }
}

fn titled(title: &str) -> ConversationUpdate {
    ConversationUpdate { conversation: "tea".into(), title: Some(title.into()), ..Default::default() }
}

#[test]
fn a_grant_opens_the_log_from_its_beginning() {
    let Tea { mut c, .. } = tea(2);
    for user in ["auditor", "bob"] {
        let claims = c.granted(user, "c:tea", &[Ability::Read]);
        let who = c.connect_with(0, claims);
        assert_eq!(seqs(&c.fetch(who, "c:tea", 0, 0).page().rows), [1, 2, 3, 4, 5], "{user}");
        assert_eq!(c.subscribe(who, "c:tea", after(0)).attach().replay_from, 1);
        assert_eq!(messages(&mut c, who).len(), 2);
    }
}

#[test]
fn whoever_comes_back_reads_from_the_new_joining_on() {
    let Tea { mut c, ann, bob, .. } = tea(2);
    let own = c.say(bob, "c:tea", "mine").ack();
    remove(&mut c, ann, "tea", "bob").conversation();
    c.say(ann, "c:tea", "about bob").ack();
    assert_eq!(c.fetch(bob, "c:tea", 0, 0).code(), ErrorCode::Removed);
    add(&mut c, ann, "tea", "bob", Role::Member).conversation();
    let joined = 9;
    let attach = c.subscribe(bob, "c:tea", after(own.position.seq)).attach();
    assert_eq!((attach.reset(), attach.replay_from, attach.floor), (Reset::HistoryGone, joined, joined));
    assert_eq!(seqs(&c.fetch(bob, "c:tea", 1, 0).page().rows), [joined]);
    // Not even the own message of the time before.
    let draft = related(&mut c, EventKind::EDIT, target(&own), "", false, "better");
    assert_eq!(c.send_now(bob, &draft).code(), ErrorCode::InvalidRelation);
    // A change of role is no joining.
    let set = control::MemberSetRole { conversation: "tea".into(), user: "bob".into(), role: Role::Admin.into() };
    c.call(ann, FrameType::MemberSetRole, &set).conversation();
    assert_eq!(c.fetch(bob, "c:tea", 0, 0).page().floor, joined);
}

#[test]
fn a_page_that_is_gathered_while_its_reader_is_removed_and_added_again_holds_the_new_interval() {
    let Tea { mut c, ann, bob, .. } = tea(1);
    c.say(ann, "c:tea", "while bob was there").ack();
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    c.store.hold(&[Kind::Read]);
    let page = c.ask(bob, FrameType::Fetch, &fetch(0, false));
    c.settle();
    remove(&mut c, ann, "tea", "bob").conversation();
    let joined = add(&mut c, ann, "tea", "bob", Role::Member).conversation().head;
    c.store.hold(&[]);
    c.settle();
    let page = c.take(bob, page).messages();
    assert_eq!((page.floor, page.messages.len(), page.next), (joined, 0, 0));
}

#[test]
fn opening_the_history_opens_it_and_closing_it_closes_it() {
    let Tea { mut c, ann, bob, .. } = tea(2);
    set_history(&mut c, ann, History::Full);
    assert_eq!(c.fetch(bob, "c:tea", 0, 0).page().rows.len(), 6);
    assert_eq!(messages(&mut c, bob).len(), 2);
    set_history(&mut c, ann, History::Joined);
    assert_eq!(seqs(&c.fetch(bob, "c:tea", 0, 0).page().rows), [5, 6, 7]);
}

#[test]
fn the_higher_of_both_floors_counts() {
    let Tea { mut c, ann, bob, cid, .. } = tea(1);
    let update =
        ConversationUpdate { conversation: "tea".into(), retention_s: Some(RETENTION_MIN_S), ..Default::default() };
    c.call(ann, FrameType::ConversationUpdate, &update).conversation();
    assert_eq!((c.fetch(bob, "c:tea", 0, 0).page().floor, c.fetch(cid, "c:tea", 0, 0).page().floor), (JOINED, 1));
    c.advance_ms(KEPT_MS / 2);
    c.say(ann, "c:tea", "later").ack();
    c.advance_ms(KEPT_MS / 2 + 1);
    assert_eq!((c.fetch(bob, "c:tea", 0, 0).page().floor, c.fetch(cid, "c:tea", 0, 0).page().floor), (7, 7));
}
