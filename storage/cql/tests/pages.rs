//! History of a long log: a page lies in two partitions at most, at any depth, and lacks nothing; a date costs one more.

mod support;

use antiphon_cql_engine::{
    Counters,
    limits::{APPEND_ROWS_MAX, BUCKET_ROWS_MAX, SEARCH_REQUESTS_MAX},
};
use antiphon_protocol::Row;
use antiphon_storage::{
    Direction, EventLog, Op, Outcome, ReadRows, Token,
    conformance::{
        Backend,
        rows::{append, find_time, log},
    },
    dice::Dice,
};
use support::{Open, config};

const ROWS_PER_APPEND: u64 = 100;
const APPENDS_IN_FLIGHT: u64 = 32;
const PAGE_ROWS: u32 = 50;
const PAGES: u64 = 300;
const JUMPS: u64 = 200;
/// Rows of a bucket: one that is full has taken one more append.
const BUCKET_MAX: u64 = BUCKET_ROWS_MAX + APPEND_ROWS_MAX as u64;

/// Rows of the log; see `./test --long cql`.
fn rows() -> u64 {
    std::env::var("ANTIPHON_CQL_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(50_000)
}

/// Waits for so many completions and answers with them.
fn completions(store: &mut Open, count: usize) -> Vec<antiphon_storage::Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        store.poll_completions(&mut done);
        if done.len() < count {
            store.wait();
        }
    }
    done
}

fn fill(store: &mut Open, rows: u64) {
    let appends: Vec<u64> = (0..rows / ROWS_PER_APPEND).collect();
    for chunk in appends.chunks(APPENDS_IN_FLIGHT as usize) {
        for n in chunk {
            let first = n * ROWS_PER_APPEND + 1;
            store.submit(append(1, first..first + ROWS_PER_APPEND), Token(*n));
        }
        for completion in completions(store, chunk.len()) {
            assert_eq!(completion.result, Ok(Outcome::Done));
        }
    }
}

#[test]
fn a_page_at_any_depth_lies_in_two_partitions_at_most() {
    let config = config("antiphon_pages");
    let rows = rows();
    let mut store = Open::fresh(&config);
    fill(&mut store, rows);
    let mut dice = Dice::new(1);
    let mut partitions_max = 0;
    // Where the second bucket begins is not known, but it is one page's middle: no append ends in tens.
    let around_an_edge = (0..PAGES / 2).map(|n| 19_990 + n * u64::from(PAGE_ROWS));
    let anywhere = (0..PAGES / 2).map(|_| 1 + u64::from(PAGE_ROWS) + dice.below(rows));
    for (n, to) in (0..).zip(around_an_edge.chain(anywhere)) {
        let to = to.min(rows + 1);
        let range =
            ReadRows { from: 1, to, direction: Direction::Backward, rows_max: PAGE_ROWS, bytes_max: usize::MAX };
        let before = store.shard().counters().page_partitions;
        store.submit(Op::Read { log: log(1), range }, Token(n));
        let page = completions(&mut store, 1).remove(0).result;
        let Ok(Outcome::Rows(page)) = page else { panic!("expected a page before {to}, got {page:?}") };
        let seqs: Vec<u64> = page.iter().map(Row::seq).collect();
        let expected: Vec<u64> = (to.saturating_sub(PAGE_ROWS.into()).max(1)..to).rev().collect();
        assert_eq!(seqs, expected);
        partitions_max = partitions_max.max(store.shard().counters().page_partitions - before);
    }
    let counters = store.shard().counters();
    eprintln!("{rows} rows, {} buckets, {PAGES} pages, at most {partitions_max} partitions", counters.buckets);
    assert!(counters.buckets * BUCKET_MAX >= rows, "buckets are capped");
    assert_eq!((partitions_max, counters.misses), (2, 0));
}

#[test]
fn a_jump_to_a_date_and_the_page_there_ask_three_partitions_at_most() {
    let config = config("antiphon_dates");
    let rows = rows();
    let mut store = Open::fresh(&config);
    fill(&mut store, rows);
    let mut dice = Dice::new(2);
    let (mut partitions_max, mut requests_max) = (0, 0);
    let edges = [0, 1, 19_999, 20_000, 20_001, rows, rows + 1];
    let anywhere: Vec<u64> = (0..JUMPS).map(|_| dice.below(rows + 2)).collect();
    for (n, ms) in (0..).zip(edges.into_iter().chain(anywhere)) {
        let before = store.shard().counters();
        store.submit(find_time(1, ms), Token(n));
        let found = completions(&mut store, 1).remove(0).result;
        // Row n of the log came n milliseconds after its beginning.
        let expected = ms.clamp(1, rows + 1);
        assert_eq!(found, Ok(Outcome::Position(expected)), "{ms} ms");
        let direction = Direction::Backward;
        let range = ReadRows { from: 1, to: expected, direction, rows_max: PAGE_ROWS, bytes_max: usize::MAX };
        store.submit(Op::Read { log: log(1), range }, Token(n));
        let page = completions(&mut store, 1).remove(0).result;
        let Ok(Outcome::Rows(page)) = page else { panic!("expected a page before {expected}, got {page:?}") };
        let seqs: Vec<u64> = page.iter().map(Row::seq).collect();
        let wanted: Vec<u64> = (expected.saturating_sub(PAGE_ROWS.into()).max(1)..expected).rev().collect();
        assert_eq!(seqs, wanted);
        let after = store.shard().counters();
        let partitions = |it: &Counters| it.page_partitions + it.search_partitions;
        partitions_max = partitions_max.max(partitions(&after) - partitions(&before));
        requests_max = requests_max.max(after.search_requests - before.search_requests);
    }
    let misses = store.shard().counters().misses;
    eprintln!("{rows} rows, {JUMPS} jumps, at most {partitions_max} partitions, {requests_max} requests for a date");
    assert!(partitions_max <= 3 && requests_max <= u64::from(SEARCH_REQUESTS_MAX));
    assert_eq!(misses, 0);
}
