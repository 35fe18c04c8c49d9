//! History of a long log: a page lies in two partitions at most, at any depth, and lacks nothing.

mod support;

use antiphon_protocol::Row;
use antiphon_storage::{
    Direction, EventLog, Op, Outcome, ReadRows, Token,
    conformance::{
        Backend,
        rows::{append, log},
    },
    dice::Dice,
};
use support::{Open, config};

const ROWS_PER_APPEND: u64 = 100;
const APPENDS_IN_FLIGHT: u64 = 32;
const PAGE_ROWS: u32 = 50;
const PAGES: u64 = 300;

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
    assert!(counters.buckets > rows / 20_000, "buckets are capped");
    assert_eq!((partitions_max, counters.misses), (2, 0));
}
