//! The contract, sentence by sentence.

use antiphon_protocol::Row;
use antiphon_storage_contract::{Direction, Loaded, Op, Outcome, ReadRows, StoreError};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Session, Test,
    rows::{ROWS_BEGIN_MS, TestRow, append, find_time, log, put, read, row, user},
};

pub(super) const TESTS: &[(&str, Test)] = &[
    ("rows are read back as they were appended", rows_are_read_back_as_they_were_appended),
    ("writes on one log complete in order", writes_on_one_log_complete_in_order),
    ("refused writes keep their place in the order", refused_writes_keep_their_place_in_the_order),
    ("a gap or a repetition is refused and stores nothing", a_gap_or_a_repetition_is_refused_and_stores_nothing),
    ("completed writes survive a stop", completed_writes_survive_a_stop),
    ("a read sees every completed write", a_read_sees_every_completed_write),
    ("a page has at least one row and keeps its bounds", a_page_has_at_least_one_row_and_keeps_its_bounds),
    ("pages walk both ways", pages_walk_both_ways),
    ("load gives the checkpoint and the tail", load_gives_the_checkpoint_and_the_tail),
    ("a time lies before the first row that is not earlier", a_time_lies_before_the_first_row_that_is_not_earlier),
    ("a time lies at or above the floor", a_time_lies_at_or_above_the_floor),
    (
        "a time that rows pass more than once is found at one place",
        a_time_that_rows_pass_more_than_once_is_found_at_one_place,
    ),
    ("duplicates are found by sender and id", duplicates_are_found_by_sender_and_id),
    ("a redaction replaces the row in place", a_redaction_replaces_the_row_in_place),
    ("rows below the floor are gone", rows_below_the_floor_are_gone),
    ("the floor only rises", the_floor_only_rises),
    ("a log that never had a row begins where its floor says", a_log_begins_where_its_floor_says),
    ("records are written, deleted and scanned", records_are_written_deleted_and_scanned),
    ("logs do not mix", logs_do_not_mix),
];

#[track_caller]
fn done(session: &mut Session, op: Op) {
    assert_eq!(session.perform(op), Ok(Outcome::Done));
}

#[track_caller]
fn misuse(session: &mut Session, op: Op) {
    let result = session.perform(op);
    assert!(matches!(result, Err(StoreError::Misuse(_))), "expected a misuse, got {result:?}");
}

#[track_caller]
fn rows_of(session: &mut Session, op: Op) -> Vec<Row> {
    match session.perform(op) {
        Ok(Outcome::Rows(rows)) => rows,
        other => panic!("expected rows, got {other:?}"),
    }
}

#[track_caller]
fn load(session: &mut Session, n: u64) -> Loaded {
    match session.perform(Op::Load { log: log(n) }) {
        Ok(Outcome::Loaded(loaded)) => loaded,
        other => panic!("expected a loaded log, got {other:?}"),
    }
}

fn page(from: u64, to: u64, direction: Direction, rows_max: u32, bytes_max: usize) -> Op {
    Op::Read { log: log(1), range: ReadRows { from, to, direction, rows_max, bytes_max } }
}

fn seqs(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(Row::seq).collect()
}

fn expected(seqs: impl IntoIterator<Item = u64>) -> Vec<Row> {
    seqs.into_iter().map(row).collect()
}

fn find(sender: u64, client_message_id: u128) -> Op {
    Op::FindDuplicate { log: log(1), sender: user(sender), client_message_id: Uuid::from_u128(client_message_id) }
}

fn checkpoint(through: u64, value: &'static str) -> Op {
    Op::Checkpoint { log: log(1), through, value: Bytes::from_static(value.as_bytes()) }
}

fn rows_are_read_back_as_they_were_appended(session: &mut Session) {
    done(session, append(1, 1..=3));
    done(session, append(1, []));
    done(session, append(1, 4..=4));
    assert_eq!(rows_of(session, read(1, 1, 5)), expected(1..=4));
    assert_eq!(rows_of(session, read(1, 2, 4)), expected(2..=3));
    assert_eq!(rows_of(session, read(1, 5, 9)), []);
    assert_eq!(rows_of(session, read(1, 4, 2)), []);
    assert_eq!(rows_of(session, read(2, 1, 9)), []);
}

fn writes_on_one_log_complete_in_order(session: &mut Session) {
    let ops = (1..=150).flat_map(|seq| [append(1, [seq]), put(1, "last", Some(&seq.to_string()))]);
    let tokens: Vec<_> = ops.map(|op| session.submit(op)).collect();
    for token in &tokens {
        assert_eq!(session.result(*token), Ok(Outcome::Done));
    }
    assert_eq!(session.completion_order(), tokens);
}

fn refused_writes_keep_their_place_in_the_order(session: &mut Session) {
    let tokens: Vec<_> = [append(1, [1]), append(1, [5]), append(1, [2]), checkpoint(9, ""), append(1, [3])]
        .into_iter()
        .map(|op| session.submit(op))
        .collect();
    let fine: Vec<bool> = tokens.iter().map(|token| session.result(*token).is_ok()).collect();
    assert_eq!(fine, [true, false, true, false, true]);
    assert_eq!(session.completion_order(), tokens);
}

fn a_gap_or_a_repetition_is_refused_and_stores_nothing(session: &mut Session) {
    misuse(session, append(1, [2]));
    misuse(session, append(1, [0]));
    done(session, append(1, 1..=2));
    misuse(session, append(1, [2]));
    misuse(session, append(1, [4]));
    misuse(session, append(1, [3, 5]));
    misuse(session, append(1, [3, 3]));
    misuse(session, checkpoint(3, "beyond the head"));
    misuse(session, Op::Rewrite { log: log(1), row: row(3).redacted() });
    misuse(session, Op::SetFloor { log: log(1), floor: 4 });
    misuse(session, put(1, &"k".repeat(257), Some("v")));
    let loaded = load(session, 1);
    assert_eq!((loaded.floor, loaded.head, loaded.checkpoint, loaded.tail), (1, 2, None, expected(1..=2)));
    done(session, append(1, [3]));
}

fn completed_writes_survive_a_stop(session: &mut Session) {
    done(session, append(1, 1..=5));
    done(session, checkpoint(2, "state"));
    done(session, put(1, "key", Some("value")));
    done(session, Op::Rewrite { log: log(1), row: row(4).redacted() });
    done(session, Op::SetFloor { log: log(1), floor: 2 });
    let before = load(session, 1);
    for _ in 0..2 {
        session.reopen();
        assert_eq!(load(session, 1), before);
        assert_eq!(session.perform(find(1, 1_003)), Ok(Outcome::Row(Some(row(3)))));
    }
    misuse(session, append(1, [5]));
    done(session, append(1, [6]));
    session.reopen();
    misuse(session, append(1, [6]));
    assert_eq!(seqs(&rows_of(session, read(1, 1, 9))), [2, 3, 4, 5, 6]);
    let record = session.perform(Op::GetRecord { log: log(1), key: Bytes::from_static(b"key") });
    assert_eq!(record, Ok(Outcome::Record(Some(Bytes::from_static(b"value")))));
}

fn a_read_sees_every_completed_write(session: &mut Session) {
    for seq in 1..=300 {
        done(session, append(1, [seq]));
        assert_eq!(rows_of(session, read(1, seq, seq + 1)), expected([seq]));
    }
}

fn a_page_has_at_least_one_row_and_keeps_its_bounds(session: &mut Session) {
    done(session, append(1, 1..=9));
    let len = row(1).bytes().len();
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(rows_of(session, page(1, 10, direction, 100, 0)).len(), 1);
        assert_eq!(rows_of(session, page(1, 10, direction, 100, len - 1)).len(), 1);
        assert_eq!(rows_of(session, page(1, 10, direction, 100, 2 * len)).len(), 2);
        assert_eq!(rows_of(session, page(1, 10, direction, 100, 3 * len - 1)).len(), 2);
        assert_eq!(rows_of(session, page(1, 10, direction, 4, usize::MAX)).len(), 4);
        assert_eq!(rows_of(session, page(1, 10, direction, 1, 0)).len(), 1);
        assert_eq!(rows_of(session, page(1, u64::MAX, direction, 100, usize::MAX)).len(), 9);
    }
}

fn pages_walk_both_ways(session: &mut Session) {
    done(session, append(1, 1..=9));
    assert_eq!(seqs(&rows_of(session, page(2, 9, Direction::Forward, 3, usize::MAX))), [2, 3, 4]);
    assert_eq!(seqs(&rows_of(session, page(2, 9, Direction::Backward, 3, usize::MAX))), [8, 7, 6]);
    assert_eq!(seqs(&rows_of(session, page(1, 3, Direction::Backward, 3, usize::MAX))), [2, 1]);
}

fn load_gives_the_checkpoint_and_the_tail(session: &mut Session) {
    let empty = load(session, 1);
    assert_eq!((empty.floor, empty.head, empty.checkpoint, empty.tail), (1, 0, None, vec![]));
    done(session, checkpoint(0, "empty"));
    done(session, append(1, 1..=4));
    let loaded = load(session, 1);
    assert_eq!((loaded.head, loaded.tail), (4, expected(1..=4)));
    assert_eq!(loaded.checkpoint, Some((0, Bytes::from_static(b"empty"))));
    done(session, checkpoint(3, "three"));
    let loaded = load(session, 1);
    assert_eq!((loaded.checkpoint, loaded.tail), (Some((3, Bytes::from_static(b"three"))), expected([4])));
    done(session, checkpoint(4, ""));
    let loaded = load(session, 1);
    assert_eq!((loaded.checkpoint, loaded.tail), (Some((4, Bytes::new())), vec![]));
}

/// Appends rows to log 1 that came at these times, in this order.
#[track_caller]
fn append_at(session: &mut Session, first: u64, times_ms: &[u64]) {
    let made = |(seq, ms): (u64, &u64)| {
        TestRow { seq, sender: 1, client_message_id: 1_000 + u128::from(seq), body: b"" }.row_at(ROWS_BEGIN_MS + ms)
    };
    done(session, Op::Append { log: log(1), rows: (first..).zip(times_ms).map(made).collect() });
}

#[track_caller]
fn position(session: &mut Session, ms: u64) -> u64 {
    match session.perform(find_time(1, ms)) {
        Ok(Outcome::Position(seq)) => seq,
        other => panic!("expected a position, got {other:?}"),
    }
}

fn a_time_lies_before_the_first_row_that_is_not_earlier(session: &mut Session) {
    assert_eq!(position(session, 5), 1);
    append_at(session, 1, &[10, 10, 20, 20, 20]);
    append_at(session, 6, &[30]);
    // Before the first, equal, between, equal to the last, after the last, never.
    let expected = [(0, 1), (10, 1), (11, 3), (20, 3), (21, 6), (30, 6), (31, 7), (1 << 40, 7)];
    for round in 0..2 {
        for (ms, seq) in expected {
            assert_eq!(position(session, ms), seq, "{ms} ms, round {round}");
        }
        session.reopen();
    }
    append_at(session, 7, &[31, 40]);
    assert_eq!([30, 31, 32, 41].map(|ms| position(session, ms)), [6, 7, 8, 9]);
    assert_eq!(session.perform(Op::FindTime { log: log(1), at_ms: 0 }), Ok(Outcome::Position(1)));
    assert_eq!(session.perform(Op::FindTime { log: log(1), at_ms: u64::MAX }), Ok(Outcome::Position(9)));
    assert_eq!(session.perform(find_time(2, 20)), Ok(Outcome::Position(1)));
}

fn a_time_lies_at_or_above_the_floor(session: &mut Session) {
    append_at(session, 1, &[10, 20, 20, 30, 30]);
    done(session, Op::SetFloor { log: log(1), floor: 3 });
    for _ in 0..2 {
        assert_eq!([5, 20, 21, 31].map(|ms| position(session, ms)), [3, 3, 4, 6]);
        session.reopen();
    }
    done(session, Op::SetFloor { log: log(1), floor: 6 });
    assert_eq!([5, 31].map(|ms| position(session, ms)), [6, 6]);
    append_at(session, 6, &[40]);
    assert_eq!([5, 40, 41].map(|ms| position(session, ms)), [6, 6, 7]);
}

fn a_time_that_rows_pass_more_than_once_is_found_at_one_place(session: &mut Session) {
    // Made today, then what was brought in from elsewhere, then today again.
    let times_ms: Vec<u64> =
        [900, 901].into_iter().chain((0..40).map(|n| 10 * n)).chain([905, 300, 310, 920]).collect();
    append_at(session, 1, &times_ms);
    let time = |seq: u64| times_ms[seq as usize - 1];
    let end = times_ms.len() as u64 + 1;
    for ms in (0..=1_000).step_by(5) {
        let seq = position(session, ms);
        assert!((1..=end).contains(&seq), "{ms} ms is found at {seq}");
        assert!(seq == 1 || time(seq - 1) < ms, "{ms} ms is found at {seq}, behind a row that is not earlier");
        assert!(seq == end || time(seq) >= ms, "{ms} ms is found at {seq}, where the row is earlier");
    }
}

fn duplicates_are_found_by_sender_and_id(session: &mut Session) {
    assert_eq!(session.perform(find(1, 1_001)), Ok(Outcome::Row(None)));
    done(session, append(1, 1..=3));
    assert_eq!(session.perform(find(1, 1_002)), Ok(Outcome::Row(Some(row(2)))));
    assert_eq!(session.perform(find(2, 1_002)), Ok(Outcome::Row(None)));
    assert_eq!(session.perform(find(1, 2_000)), Ok(Outcome::Row(None)));
    assert_eq!(session.perform(find(1, 0)), Ok(Outcome::Row(None)));
}

fn a_redaction_replaces_the_row_in_place(session: &mut Session) {
    done(session, append(1, 1..=3));
    let redacted = row(2).redacted();
    done(session, Op::Rewrite { log: log(1), row: redacted.clone() });
    assert_eq!(rows_of(session, read(1, 1, 4)), [row(1), redacted.clone(), row(3)]);
    assert_eq!(session.perform(find(1, 1_002)), Ok(Outcome::Row(Some(redacted.clone()))));
    assert_eq!(load(session, 1).tail, [row(1), redacted, row(3)]);
}

fn rows_below_the_floor_are_gone(session: &mut Session) {
    done(session, append(1, 1..=5));
    done(session, Op::SetFloor { log: log(1), floor: 4 });
    assert_eq!(seqs(&rows_of(session, read(1, 1, 9))), [4, 5]);
    assert_eq!(seqs(&rows_of(session, page(1, 9, Direction::Backward, 9, usize::MAX))), [5, 4]);
    assert_eq!(session.perform(find(1, 1_003)), Ok(Outcome::Row(None)));
    assert_eq!(session.perform(find(1, 1_004)), Ok(Outcome::Row(Some(row(4)))));
    misuse(session, Op::Rewrite { log: log(1), row: row(3).redacted() });
    let loaded = load(session, 1);
    assert_eq!((loaded.floor, loaded.head, seqs(&loaded.tail)), (4, 5, vec![4, 5]));
    done(session, Op::SetFloor { log: log(1), floor: 6 });
    let loaded = load(session, 1);
    assert_eq!((loaded.floor, loaded.head, loaded.tail), (6, 5, vec![]));
    done(session, append(1, [6]));
    assert_eq!(seqs(&rows_of(session, read(1, 1, 9))), [6]);
}

fn the_floor_only_rises(session: &mut Session) {
    done(session, append(1, 1..=5));
    done(session, Op::SetFloor { log: log(1), floor: 3 });
    done(session, Op::SetFloor { log: log(1), floor: 2 });
    assert_eq!(load(session, 1).floor, 3);
}

fn a_log_begins_where_its_floor_says(session: &mut Session) {
    done(session, Op::SetFloor { log: log(1), floor: 7 });
    let begun = load(session, 1);
    assert_eq!((begun.floor, begun.head, begun.tail), (7, 6, vec![]));
    misuse(session, Op::SetFloor { log: log(1), floor: 9 });
    misuse(session, append(1, [1]));
    session.reopen();
    done(session, append(1, 7..=8));
    assert_eq!(seqs(&rows_of(session, read(1, 1, 20))), [7, 8]);
    assert_eq!(session.perform(find(1, 1_007)), Ok(Outcome::Row(Some(row(7)))));
    let loaded = load(session, 1);
    assert_eq!((loaded.floor, loaded.head, seqs(&loaded.tail)), (7, 8, vec![7, 8]));
}

fn records_are_written_deleted_and_scanned(session: &mut Session) {
    let scan = |prefix: &'static str, after: Option<&'static str>, records_max| Op::ScanRecords {
        log: log(1),
        prefix: Bytes::from_static(prefix.as_bytes()),
        after: after.map(|after| Bytes::from_static(after.as_bytes())),
        records_max,
    };
    let keys = |session: &mut Session, op| match session.perform(op) {
        Ok(Outcome::Records(records)) => {
            records.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect::<Vec<_>>()
        }
        other => panic!("expected records, got {other:?}"),
    };
    for key in ["a", "b1", "b2", "b2x", "b3", "c"] {
        done(session, put(1, key, Some(key)));
    }
    done(session, put(1, "b2", Some("again")));
    done(session, put(1, "b3", None));
    done(session, put(1, "never", None));
    assert_eq!(keys(session, scan("b", None, 9)), ["b1", "b2", "b2x"]);
    assert_eq!(keys(session, scan("b", Some("b1"), 9)), ["b2", "b2x"]);
    assert_eq!(keys(session, scan("b", Some("b1"), 1)), ["b2"]);
    assert_eq!(keys(session, scan("b", Some("c"), 9)), [""; 0]);
    assert_eq!(keys(session, scan("b", Some("a"), 9)), ["b1", "b2", "b2x"]);
    assert_eq!(keys(session, scan("", None, 9)), ["a", "b1", "b2", "b2x", "c"]);
    assert_eq!(keys(session, scan("", None, 0)), [""; 0]);
    let get = |key: &'static str| Op::GetRecord { log: log(1), key: Bytes::from_static(key.as_bytes()) };
    assert_eq!(session.perform(get("b2")), Ok(Outcome::Record(Some(Bytes::from_static(b"again")))));
    assert_eq!(session.perform(get("b3")), Ok(Outcome::Record(None)));
}

fn logs_do_not_mix(session: &mut Session) {
    for n in 1..=70 {
        done(session, append(n, 1..=n));
        done(session, put(n, "n", Some(&n.to_string())));
    }
    for n in 1..=70 {
        let loaded = load(session, n);
        assert_eq!((loaded.head, loaded.tail.len() as u64), (n, n));
        let record = session.perform(Op::GetRecord { log: log(n), key: Bytes::from_static(b"n") });
        assert_eq!(record, Ok(Outcome::Record(Some(Bytes::from(n.to_string())))));
    }
}
