//! Finding where a time lies in a long log costs a few requests to one partition, whatever its buckets look like.

mod support;

use antiphon_cql_engine::{
    Failure, Request,
    limits::{BUCKET_SPAN_MS, SEARCH_REQUESTS_MAX},
};
use antiphon_storage::{
    EventLog, Op, Outcome, Token,
    conformance::rows::{ROWS_BEGIN_MS, TestRow, append, log},
    dice::Dice,
};
use support::Owner;

const ROWS: u64 = 50_000;
const ROWS_PER_APPEND: u64 = 500;
const SEARCHES: u64 = 400;

/// Answers an operation and says how many requests and partitions it took.
fn perform(owner: &mut Owner, op: Op) -> (Outcome, u64, u64) {
    let before = owner.counters();
    let mut completions = Vec::new();
    owner.submit(op, Token(1));
    owner.settle(&mut completions);
    let outcome = completions.remove(0).result.expect("nothing goes wrong here");
    let after = owner.counters();
    let requests = after.search_requests - before.search_requests;
    (outcome, requests, after.search_partitions - before.search_partitions)
}

fn fill(owner: &mut Owner, rows: std::ops::RangeInclusive<u64>) {
    let (mut next, last) = (*rows.start(), *rows.end());
    while next <= last {
        let end = last.min(next + ROWS_PER_APPEND - 1);
        assert_eq!(perform(owner, append(1, next..=end)).0, Outcome::Done);
        next = end + 1;
    }
}

/// Looks for the row that came `ms` after the beginning, which is the one at that position.
#[track_caller]
fn check(owner: &mut Owner, floor: u64, head: u64, ms: u64) -> u64 {
    let op = Op::FindTime { log: log(1), at_ms: ROWS_BEGIN_MS + ms };
    let (outcome, requests, partitions) = perform(owner, op);
    assert_eq!(outcome, Outcome::Position(ms.clamp(floor, head + 1)), "{ms} ms");
    assert!(partitions <= 1, "{partitions} partitions for {ms} ms");
    requests
}

#[test]
fn a_time_is_found_by_a_few_requests_to_one_partition() {
    let mut owner = Owner::fresh(1);
    fill(&mut owner, 1..=ROWS);
    let mut dice = Dice::new(1);
    let mut requests_max = 0;
    let edges = [0, 1, 2, 19_999, 20_000, 20_001, 20_002, ROWS, ROWS + 1, ROWS + 2, 1 << 40];
    for ms in edges.into_iter().chain((0..SEARCHES).map(|_| dice.below(ROWS + 2))) {
        requests_max = requests_max.max(check(&mut owner, 1, ROWS, ms));
    }
    let counters = owner.counters();
    assert!(counters.buckets >= 3, "{} buckets", counters.buckets);
    assert_eq!((requests_max, counters.misses), (u64::from(SEARCH_REQUESTS_MAX), 0));
}

#[test]
fn a_time_is_found_above_a_floor_in_the_middle_of_a_bucket() {
    let mut owner = Owner::fresh(2);
    fill(&mut owner, 1..=45_000);
    assert_eq!(perform(&mut owner, Op::SetFloor { log: log(1), floor: 30_000 }).0, Outcome::Done);
    for ms in [0, 1, 20_001, 29_999, 30_000, 30_001, 39_999, 40_000, 40_001, 40_002, 45_000, 45_001] {
        let requests = check(&mut owner, 30_000, 45_000, ms);
        assert!(requests <= u64::from(SEARCH_REQUESTS_MAX), "{requests} requests");
    }
}

#[test]
fn a_time_is_found_after_owners_have_copied_rows_and_left_buckets_behind() {
    let mut owner = Owner::fresh(3);
    let mut head = 0;
    // Few rows move into the next owner's bucket as a whole; of many, those that may lack a majority.
    for (term, rows) in [30, 20, 900, 1, 63, 2_000, 40].into_iter().enumerate() {
        fill(&mut owner, head + 1..=head + rows);
        head += rows;
        for ms in 0..head + 2 {
            check(&mut owner, 1, head, ms);
        }
        owner = owner.successor(term as u64);
    }
}

#[test]
fn a_bucket_of_rows_that_nobody_has_does_not_tell_where_a_time_lies() {
    const LATER_MS: u64 = 2 * BUCKET_SPAN_MS;
    let mut owner = Owner::fresh(4);
    fill(&mut owner, 1..=100);
    // So much later another bucket is opened. Only its entry in the index arrives, not its row.
    let row = TestRow { seq: 101, sender: 1, client_message_id: 7, body: b"" }.row_at(ROWS_BEGIN_MS + LATER_MS);
    owner.submit(Op::Append { log: log(1), rows: vec![row] }, Token(1));
    while let Some((id, request)) = owner.engine.poll_request(0) {
        let result = match request {
            Request::WriteRows { .. } => Err(Failure("lost".into())),
            _ => owner.cluster.borrow_mut().perform(&request),
        };
        owner.engine.answered(id, result);
    }
    let mut successor = owner.successor(5);
    for (ms, seq) in [(1, 1), (100, 100), (101, 101), (LATER_MS, 101), (LATER_MS + 1, 101), (1 << 40, 101)] {
        let op = Op::FindTime { log: log(1), at_ms: ROWS_BEGIN_MS + ms };
        assert_eq!(perform(&mut successor, op).0, Outcome::Position(seq), "{ms} ms");
    }
}
