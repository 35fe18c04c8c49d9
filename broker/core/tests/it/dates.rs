//! FETCH at a date: a page begins, or ends, where the date lies, and is else like any other.

use antiphon_protocol::{
    ErrorCode, FrameType, Row,
    control::{self, ConversationCreate, Fetch, Hide, History, Role, fetch::View},
    limits::PAGES_IN_FLIGHT_MAX,
};
use antiphon_storage_contract::StoreError;

use super::{
    harness::*,
    import::{importer, old, send_history},
    members::{add, remove},
    messages_view::{events, redact},
    retention::{KEPT_MS, short_lived},
};

fn at(at_ms: u64, backward: bool) -> Fetch {
    Fetch { log: "c:tea".into(), at_ms, backward, ..Default::default() }
}

fn of(fetch: Fetch, view: View) -> Fetch {
    Fetch { view: view.into(), ..fetch }
}

/// ann and bob talk: two messages, a pause of ten milliseconds, two messages, ...
fn talk(messages: usize) -> (Cluster, Who, Who) {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    for n in 0..messages {
        if n % 2 == 0 {
            c.advance_ms(10);
        }
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    (c, ann, bob)
}

/// The positions of what a fetch goes through; the date goes along from page to page, or only with the first one.
fn walk(c: &mut Cluster, who: Who, mut fetch: Fetch, keeps_date: bool) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let reply = c.call(who, FrameType::Fetch, &fetch);
        let next = match fetch.view() {
            View::Events => {
                let page = reply.page();
                seqs.extend(page.rows.iter().map(Row::seq));
                page.next
            }
            View::Messages => {
                let page = reply.messages();
                seqs.extend(page.messages.iter().map(|view| Row::new(view.row.clone()).unwrap().seq()));
                page.next
            }
        };
        match (next, fetch.backward) {
            (0, _) => return seqs,
            (next, false) => fetch.from = next,
            (next, true) => fetch.to = next,
        }
        fetch.at_ms *= u64::from(keeps_date);
    }
}

/// Every row with its time, and whether it is a message.
fn rows(c: &mut Cluster, who: Who) -> Vec<(u64, u64, bool)> {
    events(c, who).iter().map(|row| (row.seq(), row.time_ms(), row.msgno_counts())).collect()
}

#[test]
fn a_page_begins_or_ends_at_a_date_wherever_it_lies() {
    let (mut c, _, mut bob) = talk(600);
    for is_restarted in [false, true] {
        if is_restarted {
            c.restart(1, false);
            bob = c.connect(0, "bob");
        }
        let rows = rows(&mut c, bob);
        let (oldest, newest) = (rows[0].1, rows[rows.len() - 1].1);
        let dates =
            [1, oldest, oldest + 1, newest - 1_000, newest - 995, newest - 10, newest, newest + 1, newest + 1_000_000];
        let anywhere = (0..20).map(|n| oldest + n * (newest - oldest) / 20);
        for (n, at_ms) in dates.into_iter().chain(anywhere).enumerate() {
            for view in [View::Events, View::Messages] {
                let is_shown = |is_message: bool| is_message || view == View::Events;
                let later = rows.iter().filter(|(_, ms, is_message)| *ms >= at_ms && is_shown(*is_message));
                let later: Vec<u64> = later.map(|(seq, ..)| *seq).collect();
                let earlier = rows.iter().rev().filter(|(_, ms, is_message)| *ms < at_ms && is_shown(*is_message));
                let earlier: Vec<u64> = earlier.map(|(seq, ..)| *seq).collect();
                assert_eq!(
                    walk(&mut c, bob, of(at(at_ms, false), view), n % 2 == 0),
                    later,
                    "{view:?} from {at_ms} on"
                );
                assert_eq!(
                    walk(&mut c, bob, of(at(at_ms, true), view), n % 2 == 0),
                    earlier,
                    "{view:?} before {at_ms}"
                );
            }
        }
    }
}

#[test]
fn a_date_and_positions_narrow_the_page_together() {
    let (mut c, _, bob) = talk(40);
    let rows = rows(&mut c, bob);
    let at_ms = rows[20].1;
    let first = rows.iter().find(|(_, ms, _)| *ms >= at_ms).unwrap().0;
    for (from, to) in [(0, 0), (1, first + 3), (first + 2, 0), (first + 2, first + 5), (3, first - 2), (3, 9_999)] {
        let end = if to == 0 { 42 } else { to.min(42) };
        let fetch = |backward| Fetch { from, to, ..at(at_ms, backward) };
        let later: Vec<u64> = (from.max(first)..end).collect();
        assert_eq!(walk(&mut c, bob, fetch(false), true), later, "{from}..{to}");
        let earlier: Vec<u64> = (from.max(1)..end.min(first)).rev().collect();
        assert_eq!(walk(&mut c, bob, fetch(true), true), earlier, "{from}..{to} backward");
    }
    let page = c.call(bob, FrameType::Fetch, &Fetch { limit: 2, ..at(at_ms, false) }).page();
    assert_eq!((page.rows.len(), page.next, page.head), (2, first + 2, 41));
    let page = c.call(bob, FrameType::Fetch, &Fetch { limit: 2, ..at(at_ms, true) }).page();
    assert_eq!((page.rows.len(), page.next, page.head), (2, first - 2, 41));
}

#[test]
fn a_date_among_the_rows_in_memory_is_not_looked_for_in_the_store() {
    let (mut c, ann, bob) = talk(600);
    let rows = rows(&mut c, bob);
    let asked = c.store.count(Kind::FindTime);
    for (seq, ms, _) in &rows[rows.len() - 100..] {
        let page = c.call(bob, FrameType::Fetch, &Fetch { limit: 2, ..at(*ms, false) }).page();
        assert!(page.rows[0].seq() == *seq || page.rows[1].seq() == *seq);
    }
    let newest = rows[rows.len() - 1].1;
    assert_eq!(c.call(bob, FrameType::Fetch, &at(newest + 1, false)).page().rows, []);
    assert_eq!(c.call(bob, FrameType::Fetch, &at(newest + 1, true)).page().rows[0].seq(), 601);
    c.group(ann, "coffee", &[]);
    let coffee = Fetch { log: "c:coffee".into(), ..at(1, false) };
    assert_eq!(c.call(ann, FrameType::Fetch, &coffee).page().rows.len(), 1);
    assert_eq!(c.store.count(Kind::FindTime), asked);
    c.call(bob, FrameType::Fetch, &at(rows[40].1, false)).page();
    assert_eq!(c.store.count(Kind::FindTime), asked + 1);
}

#[test]
fn a_reader_who_is_removed_while_a_date_is_looked_for_gets_nothing() {
    for view in [View::Events, View::Messages] {
        let (mut c, ann, bob) = talk(400);
        c.store.hold(&[Kind::FindTime]);
        let id = c.ask(bob, FrameType::Fetch, &of(at(START_MS, false), view));
        c.settle();
        remove(&mut c, ann, "tea", "bob").conversation();
        c.say(ann, "c:tea", "about bob").ack();
        c.store.hold(&[]);
        c.settle();
        assert_eq!(c.take(bob, id).code(), ErrorCode::Removed);
        let asked = c.store.count(Kind::FindTime);
        assert_eq!(c.call(bob, FrameType::Fetch, &of(at(START_MS, false), view)).code(), ErrorCode::Removed);
        let eve = c.connect(0, "eve");
        assert_eq!(c.call(eve, FrameType::Fetch, &of(at(START_MS, false), view)).code(), ErrorCode::NotFound);
        assert_eq!(c.store.count(Kind::FindTime), asked, "nothing is looked for in the name of a stranger");
    }
}

#[test]
fn a_date_in_a_conversation_that_is_deleted_meanwhile_is_answered_like_any_fetch_of_it() {
    let (mut c, ann, bob) = talk(400);
    c.store.hold(&[Kind::FindTime]);
    let id = c.ask(bob, FrameType::Fetch, &at(START_MS, false));
    c.settle();
    let delete = control::ConversationDelete { conversation: "tea".into() };
    c.call(ann, FrameType::ConversationDelete, &delete);
    c.store.hold(&[]);
    c.settle();
    let code = c.take(bob, id).code();
    assert_eq!(code, c.fetch(bob, "c:tea", 1, 0).code());
}

#[test]
fn a_page_at_a_date_holds_what_came_while_the_date_was_looked_for() {
    let (mut c, ann, bob) = talk(400);
    c.store.hold(&[Kind::FindTime]);
    let id = c.ask(bob, FrameType::Fetch, &at(START_MS + 1, true));
    let later = c.ask(bob, FrameType::Fetch, &Fetch { from: 395, ..at(START_MS + 1, false) });
    c.settle();
    c.say(ann, "c:tea", "meanwhile").ack();
    c.store.hold(&[]);
    c.settle();
    let page = c.take(bob, id).page();
    assert_eq!((page.rows.iter().map(Row::seq).collect::<Vec<_>>(), page.head), (vec![1], 402));
    assert_eq!(c.take(bob, later).page().rows.last().map(Row::seq), Some(402));
}

#[test]
fn a_date_that_is_looked_for_while_the_log_fails_is_found_when_it_is_back() {
    let (mut c, ann, bob) = talk(400);
    c.store.hold(&[Kind::FindTime, Kind::Load]);
    let id = c.ask(bob, FrameType::Fetch, &at(START_MS + 15, false));
    c.settle();
    c.store.fail(Kind::Append, StoreError::Unavailable("test".into()), 1);
    assert_eq!(c.say(ann, "c:tea", "lost").code(), ErrorCode::StoreUnavailable);
    c.store.hold(&[Kind::Load]);
    c.settle();
    assert!(!c.is_answered(bob, id), "the log is being read");
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.take(bob, id).page().rows[0].seq(), 4);
}

#[test]
fn dates_that_are_looked_for_take_the_places_of_pages_and_failures_give_them_back() {
    let (mut c, _, bob) = talk(400);
    for times in 0..PAGES_IN_FLIGHT_MAX as u32 * 2 {
        c.store.fail(Kind::FindTime, StoreError::Unavailable("test".into()), 1);
        let view = if times % 2 == 0 { View::Events } else { View::Messages };
        let error = c.call(bob, FrameType::Fetch, &of(at(START_MS + 1, false), view)).code();
        assert_eq!(error, ErrorCode::StoreUnavailable, "{times}");
    }
    c.store.hold(&[Kind::FindTime]);
    let fetch = Fetch { limit: 3, ..at(START_MS + 1, false) };
    let ids: Vec<u32> = (0..=PAGES_IN_FLIGHT_MAX).map(|_| c.ask(bob, FrameType::Fetch, &fetch)).collect();
    c.settle();
    assert_eq!(c.take(bob, ids[PAGES_IN_FLIGHT_MAX]).code(), ErrorCode::RateLimited);
    c.store.hold(&[]);
    c.settle();
    for id in &ids[..PAGES_IN_FLIGHT_MAX] {
        assert_eq!(c.take(bob, *id).page().rows.len(), 3);
    }
}

#[test]
fn a_date_opens_nothing_from_before_a_joining() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    let create =
        ConversationCreate { conversation: "tea".into(), history: History::Joined.into(), ..Default::default() };
    c.call(ann, FrameType::ConversationCreate, &create).conversation();
    for n in 0..300 {
        c.advance_ms(10);
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    let joined = add(&mut c, ann, "tea", "bob", Role::Member).conversation().head;
    c.say(ann, "c:tea", "welcome").ack();
    for at_ms in [1, START_MS + 55, START_MS + 2_000] {
        let page = c.call(bob, FrameType::Fetch, &at(at_ms, false)).page();
        assert_eq!((page.rows[0].seq(), page.floor), (joined, joined));
        let page = c.call(bob, FrameType::Fetch, &at(at_ms, true)).page();
        assert_eq!((page.rows.len(), page.next), (0, 0));
        let views = walk(&mut c, bob, of(at(at_ms, false), View::Messages), true);
        assert_eq!(views, [joined + 1]);
    }
}

#[test]
fn rows_that_are_gone_when_the_date_is_found_are_not_on_the_page() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    short_lived(&mut c, ann, "tea");
    for n in 0..300 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    c.advance_ms(KEPT_MS / 2);
    c.say(ann, "c:tea", "stays").ack();
    c.store.hold(&[Kind::FindTime]);
    let ids = [false, true].map(|backward| c.ask(bob, FrameType::Fetch, &at(START_MS, backward)));
    c.settle();
    c.advance_ms(KEPT_MS / 2 + 1);
    for _ in 0..20 {
        c.advance_ms(antiphon_core::limits::RETENTION_PAUSE.as_millis() as u64);
    }
    c.store.hold(&[]);
    c.settle();
    let [forward, backward] = ids.map(|id| c.take(bob, id).page());
    let floor = c.stored(bob, "c:tea").floor;
    assert!(floor > 300, "the floor is {floor}");
    assert_eq!((forward.rows.iter().map(Row::seq).collect::<Vec<_>>(), forward.floor), (vec![floor], floor));
    assert_eq!((backward.rows.len(), backward.next), (0, 0));
}

#[test]
fn what_is_hidden_or_redacted_is_at_a_date_as_on_any_page() {
    let (mut c, ann, bob) = talk(0);
    c.advance_ms(50);
    let acks: Vec<_> = (0..6).map(|n| c.say(ann, "c:tea", &n.to_string()).ack()).collect();
    redact(&mut c, ann, &acks[1]);
    let event_id = acks[2].event_id.as_bytes().to_vec().into();
    let hide = Hide { log: "c:tea".into(), seq: acks[2].position.seq, event_id };
    c.call(bob, FrameType::Hide, &hide);
    for n in 0..300 {
        c.say(ann, "c:tea", &format!("later {n}")).ack();
    }
    let fetch = Fetch { limit: 5, ..of(at(START_MS + 50, false), View::Messages) };
    let page = c.call(bob, FrameType::Fetch, &fetch).messages();
    let rows: Vec<Row> = page.messages.iter().map(|view| Row::new(view.row.clone()).unwrap()).collect();
    let seqs: Vec<u64> = rows.iter().map(Row::seq).collect();
    let shown = [0, 1, 3, 4, 5].map(|n: usize| acks[n].position.seq);
    assert_eq!((&seqs[..], rows[1].is_redacted()), (&shown[..], true));
    let page = c.call(bob, FrameType::Fetch, &at(START_MS + 50, false)).page();
    assert_eq!(page.rows[0].seq(), acks[0].position.seq);
    assert!(page.rows[1].is_redacted() && page.rows[2].seq() == acks[2].position.seq, "events are all there");
}

#[test]
fn a_date_is_found_in_a_history_that_was_brought_in() {
    const THEN_MS: u64 = 1_500_000_000_000;
    let (mut c, ann, bob) = talk(0);
    let mover = importer(&c, "c:tea");
    let mover = c.connect_with(0, mover);
    let history = |n: u64| (THEN_MS + n * 1_000, old("c:tea", &n.to_string(), "eve", "long ago"));
    for n in 0..5 {
        let drafts: Vec<_> = (n * 100..n * 100 + 100).map(history).collect();
        send_history(&mut c, mover, &drafts);
    }
    let live = c.say(ann, "c:tea", "today").ack();
    let first = live.position.seq - 500;
    for who in [bob, ann] {
        for n in [10, 250, 499] {
            let page = c.call(who, FrameType::Fetch, &at(THEN_MS + n * 1_000, false)).page();
            assert_eq!((page.rows[0].seq(), page.rows[0].time_ms()), (first + n, THEN_MS + n * 1_000));
            let page = c.call(who, FrameType::Fetch, &at(THEN_MS + n * 1_000, true)).page();
            assert_eq!(page.rows[0].seq(), first + n - 1);
        }
        let page = c.call(who, FrameType::Fetch, &at(THEN_MS + 500_000, false)).page();
        assert_eq!(page.rows[0].seq(), live.position.seq);
    }
}
