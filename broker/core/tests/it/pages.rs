//! FETCH: history in both directions.

use antiphon_core::limits::PAGE_BYTES_TARGET;
use antiphon_protocol::{
    ErrorCode, FrameType, Row,
    control::Fetch,
    limits::{BODY_BYTES_MAX, PAGE_ROWS_MAX, PAGES_IN_FLIGHT_MAX},
};
use antiphon_storage_contract::StoreError;

use super::harness::*;

fn filled(n: usize, body: &str) -> (Cluster, Who) {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    c.group(ann, "tea", &["bob"]);
    for _ in 0..n {
        let draft = c.draft("c:tea", body);
        c.send(ann, &draft);
    }
    c.settle();
    (c, ann)
}

fn walk(c: &mut Cluster, who: Who, mut fetch: Fetch) -> Vec<u64> {
    let mut seqs = Vec::new();
    loop {
        let page = c.call(who, FrameType::Fetch, &fetch).page();
        assert!(!page.rows.is_empty() || page.next == 0, "a page with a successor is not empty");
        seqs.extend(page.rows.iter().map(Row::seq));
        match (page.next, fetch.backward) {
            (0, _) => return seqs,
            (next, false) => fetch.from = next,
            (next, true) => fetch.to = next,
        }
    }
}

#[test]
fn both_directions_cover_every_row_once() {
    for (n, body) in [(5, "short"), (1_400, "short"), (90, &"x".repeat(2_000))] {
        let (mut c, ann) = filled(n, body);
        let all: Vec<u64> = (1..=n as u64 + 1).collect();
        let mut reversed = all.clone();
        reversed.reverse();
        for limit in [0, 1, 7, PAGE_ROWS_MAX + 5] {
            if limit == 1 && n > 100 {
                continue;
            }
            let fetch = Fetch { log: "c:tea".into(), limit, ..Default::default() };
            assert_eq!(walk(&mut c, ann, fetch.clone()), all, "{n} rows, limit {limit}");
            assert_eq!(walk(&mut c, ann, Fetch { backward: true, ..fetch }), reversed, "{n} rows, limit {limit}");
        }
        // The same from the store alone.
        c.restart(2, false);
        let ann = c.connect(0, "ann");
        let fetch = Fetch { log: "c:tea".into(), ..Default::default() };
        assert_eq!(walk(&mut c, ann, fetch.clone()), all);
        assert_eq!(walk(&mut c, ann, Fetch { backward: true, ..fetch }), reversed);
    }
}

#[test]
fn a_range_holds_its_first_and_not_its_last_position() {
    let (mut c, ann) = filled(300, "x");
    for (from, to) in [(3, 9), (250, 260), (290, 302), (290, 9_999), (9, 9), (12, 4), (400, 500)] {
        let expected: Vec<u64> = (from..to.min(302)).collect();
        let fetch = Fetch { log: "c:tea".into(), from, to, ..Default::default() };
        assert_eq!(walk(&mut c, ann, fetch.clone()), expected, "{from}..{to}");
        let backward: Vec<u64> = expected.into_iter().rev().collect();
        assert_eq!(walk(&mut c, ann, Fetch { backward: true, ..fetch }), backward, "{from}..{to} backward");
    }
    let page = c.fetch(ann, "c:tea", 3, 5).page();
    assert_eq!((page.head, page.floor, page.epoch, page.next), (301, 1, 1, 0));
}

#[test]
fn a_page_is_bounded_in_rows_and_bytes_but_holds_the_largest_row() {
    let (mut c, ann) = filled(0, "");
    for _ in 0..4 {
        c.say(ann, "c:tea", &"x".repeat(BODY_BYTES_MAX)).ack();
    }
    let page = c.fetch(ann, "c:tea", 2, 0).page();
    assert_eq!((page.rows.len(), page.next), (1, 3));
    let page = c.fetch(ann, "c:tea", 5, 0).page();
    assert_eq!((page.rows.len(), page.next), (1, 0), "from memory too");
    let (mut c, ann) = filled(1_500, "x");
    let page = c.fetch(ann, "c:tea", 0, 0).page();
    let bytes: usize = page.rows.iter().map(|row| row.bytes().len()).sum();
    assert!(bytes <= PAGE_BYTES_TARGET && page.rows.len() <= PAGE_ROWS_MAX as usize);
}

#[test]
fn pages_in_flight_are_bounded_and_refusals_take_no_place() {
    let (mut c, ann) = filled(400, "x");
    for _ in 0..PAGES_IN_FLIGHT_MAX * 3 {
        assert_eq!(c.fetch(ann, "c:not-mine", 0, 0).code(), ErrorCode::NotFound);
        assert_eq!(c.fetch(ann, "x:bad", 0, 0).code(), ErrorCode::InvalidField);
    }
    for times in 0..PAGES_IN_FLIGHT_MAX as u32 * 2 {
        c.store.fail(Kind::Read, StoreError::Unavailable("test".into()), 1);
        assert_eq!(c.fetch(ann, "c:tea", 1, 5).code(), ErrorCode::StoreUnavailable, "{times}");
    }
    c.store.hold(&[Kind::Read]);
    let fetch = Fetch { log: "c:tea".into(), from: 1, to: 10, ..Default::default() };
    let ids: Vec<u32> = (0..=PAGES_IN_FLIGHT_MAX).map(|_| c.ask(ann, FrameType::Fetch, &fetch)).collect();
    c.settle();
    assert_eq!(c.take(ann, ids[PAGES_IN_FLIGHT_MAX]).code(), ErrorCode::RateLimited);
    c.store.hold(&[]);
    c.settle();
    for id in &ids[..PAGES_IN_FLIGHT_MAX] {
        assert_eq!(c.take(ann, *id).page().rows.len(), 9);
    }
    // Pages that were answered and not read count too.
    c.client_mut(ann).reads[antiphon_protocol::Class::Backfill as usize] = false;
    let ids: Vec<u32> = (0..=PAGES_IN_FLIGHT_MAX).map(|_| c.ask(ann, FrameType::Fetch, &fetch)).collect();
    c.settle();
    assert_eq!(c.take(ann, ids[PAGES_IN_FLIGHT_MAX]).code(), ErrorCode::RateLimited);
    c.client_mut(ann).reads = [true; 5];
    c.settle();
    assert!(ids[..PAGES_IN_FLIGHT_MAX].iter().all(|id| c.is_answered(ann, *id)));
    c.fetch(ann, "c:tea", 1, 10).page();
}

#[test]
fn rows_that_should_exist_and_do_not_are_said_aloud() {
    let (mut c, ann) = filled(600, "x");
    let key = c.key(ann, "c:tea");
    c.store.logs.get_mut(&key).unwrap().rows = c.stored(ann, "c:tea").rows.split_off(&200);
    assert_eq!(c.fetch(ann, "c:tea", 10, 20).code(), ErrorCode::StoreDegraded);
}

#[test]
fn a_page_asked_for_before_a_removal_holds_nothing_from_behind_it() {
    let (mut c, ann) = filled(400, "x");
    let bob = c.connect(0, "bob");
    c.store.hold(&[Kind::Read]);
    let fetch = Fetch { log: "c:tea".into(), from: 1, ..Default::default() };
    let id = c.ask(bob, FrameType::Fetch, &fetch);
    c.settle();
    super::members::remove(&mut c, ann, "tea", "bob").conversation();
    c.say(ann, "c:tea", "about bob").ack();
    c.store.hold(&[]);
    c.settle();
    let page = c.take(bob, id).page();
    assert!(page.head == 401 && page.rows.iter().all(|row| row.seq() <= 401));
    let error = c.fetch(bob, "c:tea", 1, 0).error();
    assert_eq!((error.number, error.removed_at), (ErrorCode::Removed as u32, 402));
}
