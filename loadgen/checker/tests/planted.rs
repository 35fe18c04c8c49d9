//! Plants one fault at a time into a correct run; the checker must name the rule that it breaks.

use antiphon_checker::{
    At, Attempt, Author, Checker, Instance, Log, OpId, Outcome, Row, Rule, Subscriber, User, Verdict, body_hash,
};

const LOG: Log = Log(0);
const ANN: User = User(1);
const BEN: User = User(2);
const READER: Subscriber = Subscriber(7);
const OTHER: Subscriber = Subscriber(8);

fn author(user: User, message: u128) -> Author {
    Author { user, message }
}

fn row(seq: u64, user: User, message: u128) -> Row {
    Row { seq, author: Some(author(user, message)), hash: body_hash(&message.to_le_bytes()) }
}

/// A run against an imaginary broker; every call takes one tick.
#[derive(Default)]
struct Run {
    checker: Checker,
    now: u64,
}

impl Run {
    /// Two readers from the start of the log.
    fn new() -> Self {
        let mut run = Self::default();
        run.checker.subscribe(READER, LOG, 1);
        run.checker.subscribe(OTHER, LOG, 1);
        run
    }

    fn tick(&mut self) -> At {
        self.now += 1;
        At(self.now)
    }

    fn invoke(&mut self, user: User, message: u128) -> OpId {
        let hash = body_hash(&message.to_le_bytes());
        let attempt = Attempt { log: LOG, author: author(user, message), instance: Instance(user.0), hash };
        let at = self.tick();
        self.checker.invoke(at, attempt)
    }

    fn end(&mut self, op: OpId, outcome: Outcome) {
        let at = self.tick();
        self.checker.complete(at, op, outcome);
    }

    fn send(&mut self, user: User, message: u128, seq: u64) {
        let op = self.invoke(user, message);
        self.end(op, Outcome::Ok { seq });
    }

    fn deliver(&mut self, reader: Subscriber, row: Row) {
        let at = self.tick();
        self.checker.deliver(at, reader, LOG, row);
    }

    fn deliver_to_both(&mut self, row: Row) {
        self.deliver(READER, row);
        self.deliver(OTHER, row);
    }

    /// Three sends, acknowledged and delivered to both readers.
    fn three_sends(&mut self) {
        for (seq, user) in [(1, ANN), (2, BEN), (3, ANN)] {
            self.send(user, seq.into(), seq);
            self.deliver_to_both(row(seq, user, seq.into()));
        }
    }

    fn finish(mut self, history: &[Row]) -> Verdict {
        self.checker.settle(READER, LOG);
        self.checker.settle(OTHER, LOG);
        self.checker.history(LOG, history.iter().copied());
        self.checker.finish()
    }
}

fn three_rows() -> Vec<Row> {
    vec![row(1, ANN, 1), row(2, BEN, 2), row(3, ANN, 3)]
}

fn broken(verdict: &Verdict) -> Vec<Rule> {
    verdict.findings.keys().copied().collect()
}

#[test]
fn a_correct_run_holds() {
    let mut run = Run::new();
    run.three_sends();
    let refused = run.invoke(BEN, 9);
    run.end(refused, Outcome::Refused);
    let unknown = run.invoke(BEN, 10);
    run.end(unknown, Outcome::Unknown);
    run.checker.read_head(LOG, At(1), At(run.now), 2);
    let verdict = run.finish(&three_rows());
    assert_eq!(broken(&verdict), []);
    let counts = verdict.counts;
    assert_eq!((counts.invoked, counts.acked, counts.refused, counts.unknown), (5, 3, 1, 1));
    assert_eq!((counts.delivered, counts.lost, counts.duplicated, counts.history_rows), (6, 0, 0, 3));
}

#[test]
fn an_unknown_send_may_turn_out_stored() {
    let mut run = Run::new();
    run.three_sends();
    let op = run.invoke(BEN, 4);
    run.end(op, Outcome::Unknown);
    run.deliver_to_both(row(4, BEN, 4));
    let mut history = three_rows();
    history.push(row(4, BEN, 4));
    assert!(run.finish(&history).holds());
}

#[test]
fn a_hole_in_the_history_is_caught() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    let verdict = run.finish(&[row(1, ANN, 1), Row { seq: 3, author: None, hash: body_hash(b"member") }]);
    assert!(broken(&verdict).contains(&Rule::Positions));
}

#[test]
fn two_rows_at_one_position_are_caught() {
    let mut run = Run::new();
    run.three_sends();
    let op = run.invoke(BEN, 4);
    run.end(op, Outcome::Unknown);
    let mut history = three_rows();
    history.push(row(3, BEN, 4));
    assert!(broken(&run.finish(&history)).contains(&Rule::Positions));
}

#[test]
fn one_position_acknowledged_to_two_messages_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.send(BEN, 4, 3);
    let verdict = run.finish(&three_rows());
    assert_eq!(broken(&verdict), [Rule::Positions, Rule::Acknowledged]);
}

#[test]
fn an_acknowledged_send_that_is_lost_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.send(BEN, 4, 4);
    let verdict = run.finish(&three_rows());
    assert_eq!(broken(&verdict), [Rule::Acknowledged]);
    assert_eq!(verdict.counts.lost, 1);
}

#[test]
fn an_acknowledged_send_with_another_body_is_caught() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    let changed = Row { hash: body_hash(b"other"), ..row(1, ANN, 1) };
    run.deliver_to_both(changed);
    assert_eq!(broken(&run.finish(&[changed])), [Rule::Acknowledged, Rule::Origin]);
}

#[test]
fn a_message_stored_twice_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.deliver_to_both(row(4, ANN, 3));
    let mut history = three_rows();
    history.push(row(4, ANN, 3));
    let verdict = run.finish(&history);
    assert_eq!(broken(&verdict), [Rule::Once]);
    assert_eq!(verdict.counts.duplicated, 1);
}

#[test]
fn a_retry_that_is_answered_with_another_position_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.send(ANN, 3, 4);
    assert!(broken(&run.finish(&three_rows())).contains(&Rule::Once));
}

#[test]
fn a_retry_that_is_answered_with_the_first_position_holds() {
    let mut run = Run::new();
    run.three_sends();
    run.send(ANN, 1, 1);
    assert!(run.finish(&three_rows()).holds());
}

#[test]
fn an_order_against_real_time_is_caught() {
    let mut run = Run::new();
    run.send(ANN, 1, 2);
    run.send(BEN, 2, 1);
    let history = [row(1, BEN, 2), row(2, ANN, 1)];
    history.into_iter().for_each(|row| run.deliver_to_both(row));
    assert_eq!(broken(&run.finish(&history)), [Rule::RealTime]);
}

#[test]
fn a_row_that_was_seen_comes_before_what_was_sent_after_it() {
    let mut run = Run::new();
    let ann = run.invoke(ANN, 1);
    run.deliver(READER, row(2, ANN, 1));
    run.send(BEN, 2, 1);
    run.end(ann, Outcome::Unknown);
    let verdict = run.finish(&[row(1, BEN, 2), row(2, ANN, 1)]);
    assert!(broken(&verdict).contains(&Rule::RealTime));
}

#[test]
fn a_row_that_was_seen_before_its_send_is_caught() {
    let mut run = Run::new();
    run.deliver_to_both(row(1, ANN, 1));
    run.send(ANN, 1, 1);
    assert_eq!(broken(&run.finish(&[row(1, ANN, 1)])), [Rule::RealTime]);
}

#[test]
fn concurrent_sends_may_have_any_order() {
    let mut run = Run::new();
    let ann = run.invoke(ANN, 1);
    let ben = run.invoke(BEN, 2);
    run.end(ann, Outcome::Ok { seq: 2 });
    run.end(ben, Outcome::Ok { seq: 1 });
    let history = [row(1, BEN, 2), row(2, ANN, 1)];
    history.into_iter().for_each(|row| run.deliver_to_both(row));
    assert!(run.finish(&history).holds());
}

#[test]
fn a_stale_head_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    let (invoked, returned) = (run.tick(), run.tick());
    run.checker.read_head(LOG, invoked, returned, 2);
    assert_eq!(broken(&run.finish(&three_rows())), [Rule::Head]);
}

#[test]
fn a_head_ahead_of_its_time_is_caught() {
    let mut run = Run::new();
    let (invoked, returned) = (run.tick(), run.tick());
    run.three_sends();
    run.checker.read_head(LOG, invoked, returned, 1);
    assert_eq!(broken(&run.finish(&three_rows())), [Rule::Head]);
}

#[test]
fn a_head_that_falls_back_is_caught() {
    let mut run = Run::new();
    let ann = run.invoke(ANN, 1);
    for head in [1, 0] {
        let (invoked, returned) = (run.tick(), run.tick());
        run.checker.read_head(LOG, invoked, returned, head);
    }
    run.deliver_to_both(row(1, ANN, 1));
    run.end(ann, Outcome::Ok { seq: 1 });
    assert_eq!(broken(&run.finish(&[row(1, ANN, 1)])), [Rule::Head]);
}

#[test]
fn a_head_beyond_the_end_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    let (invoked, returned) = (run.tick(), run.tick());
    run.checker.read_head(LOG, invoked, returned, 4);
    assert_eq!(broken(&run.finish(&three_rows())), [Rule::Head]);
}

#[test]
fn an_inversion_of_one_senders_pipeline_is_caught() {
    let mut run = Run::new();
    let first = run.invoke(ANN, 1);
    let second = run.invoke(ANN, 2);
    run.end(second, Outcome::Ok { seq: 1 });
    run.end(first, Outcome::Ok { seq: 2 });
    let history = [row(1, ANN, 2), row(2, ANN, 1)];
    history.into_iter().for_each(|row| run.deliver_to_both(row));
    assert_eq!(broken(&run.finish(&history)), [Rule::SenderOrder]);
}

#[test]
fn a_message_retried_after_a_later_one_may_stand_behind_it() {
    let mut run = Run::new();
    let first = run.invoke(ANN, 1);
    run.end(first, Outcome::Unknown);
    run.send(ANN, 2, 1);
    run.send(ANN, 1, 2);
    let history = [row(1, ANN, 2), row(2, ANN, 1)];
    history.into_iter().for_each(|row| run.deliver_to_both(row));
    assert!(run.finish(&history).holds());
}

#[test]
fn a_position_that_one_reader_never_got_is_caught() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    run.send(BEN, 2, 2);
    run.deliver_to_both(row(1, ANN, 1));
    run.deliver(READER, row(2, BEN, 2));
    let verdict = run.finish(&[row(1, ANN, 1), row(2, BEN, 2)]);
    assert_eq!(broken(&verdict), [Rule::Stream]);
    assert_eq!(verdict.counts.lost, 1);
}

#[test]
fn a_gap_inside_a_stream_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.send(BEN, 4, 4);
    run.send(BEN, 5, 5);
    run.deliver_to_both(row(5, BEN, 5));
    let mut history = three_rows();
    history.extend([row(4, BEN, 4), row(5, BEN, 5)]);
    let verdict = run.finish(&history);
    assert_eq!(broken(&verdict), [Rule::Stream]);
    assert_eq!(verdict.counts.lost, 2);
}

#[test]
fn a_position_delivered_twice_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.deliver(READER, row(2, BEN, 2));
    let verdict = run.finish(&three_rows());
    assert_eq!(broken(&verdict), [Rule::Stream]);
    assert_eq!(verdict.counts.duplicated, 1);
}

#[test]
fn positions_delivered_out_of_order_are_caught() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    run.send(BEN, 2, 2);
    run.deliver(READER, row(1, ANN, 1));
    run.deliver(READER, row(2, BEN, 2));
    run.deliver(OTHER, row(2, BEN, 2));
    run.deliver(OTHER, row(1, ANN, 1));
    let verdict = run.finish(&[row(1, ANN, 1), row(2, BEN, 2)]);
    assert_eq!(broken(&verdict), [Rule::Stream]);
    assert_eq!((verdict.counts.out_of_order, verdict.counts.lost), (1, 0));
}

#[test]
fn an_explicit_reset_excuses_what_lies_before_it() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    run.send(BEN, 2, 2);
    run.send(ANN, 3, 3);
    three_rows().into_iter().for_each(|row| run.deliver(READER, row));
    run.checker.reset(OTHER, LOG, 3);
    run.deliver(OTHER, row(3, ANN, 3));
    let verdict = run.finish(&three_rows());
    assert!(verdict.holds());
    assert_eq!(verdict.counts.resets, 1);
}

#[test]
fn an_explicit_skip_excuses_what_it_names() {
    let mut run = Run::new();
    run.send(ANN, 1, 1);
    run.send(BEN, 2, 2);
    run.send(ANN, 3, 3);
    three_rows().into_iter().for_each(|row| run.deliver(READER, row));
    run.checker.skip(OTHER, LOG, 1..=2);
    run.deliver(OTHER, row(3, ANN, 3));
    let verdict = run.finish(&three_rows());
    assert!(verdict.holds());
    assert_eq!(verdict.counts.skipped, 2);
}

#[test]
fn a_delivery_without_a_subscription_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.deliver(Subscriber(99), row(1, ANN, 1));
    assert_eq!(broken(&run.finish(&three_rows())), [Rule::Stream]);
}

#[test]
fn two_readers_that_saw_different_rows_are_caught() {
    let mut run = Run::new();
    run.three_sends();
    let op = run.invoke(ANN, 4);
    let other = run.invoke(BEN, 5);
    run.deliver(READER, row(4, ANN, 4));
    run.deliver(OTHER, row(4, BEN, 5));
    run.end(op, Outcome::Ok { seq: 4 });
    run.end(other, Outcome::Unknown);
    let mut history = three_rows();
    history.push(row(4, ANN, 4));
    assert_eq!(broken(&run.finish(&history)), [Rule::Agreement]);
}

#[test]
fn a_row_that_was_seen_and_is_gone_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    let op = run.invoke(ANN, 4);
    run.deliver_to_both(row(4, ANN, 4));
    run.end(op, Outcome::Unknown);
    assert_eq!(broken(&run.finish(&three_rows())), [Rule::Kept]);
}

#[test]
fn a_row_that_was_seen_and_changed_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    let (ann, ben) = (run.invoke(ANN, 4), run.invoke(BEN, 5));
    run.deliver_to_both(row(4, ANN, 4));
    run.end(ann, Outcome::Unknown);
    run.end(ben, Outcome::Unknown);
    let mut history = three_rows();
    history.push(row(4, BEN, 5));
    assert_eq!(broken(&run.finish(&history)), [Rule::Kept]);
}

#[test]
fn a_row_that_nobody_sent_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    run.deliver_to_both(row(4, BEN, 66));
    let mut history = three_rows();
    history.push(row(4, BEN, 66));
    assert_eq!(broken(&run.finish(&history)), [Rule::Origin]);
}

#[test]
fn a_refused_send_that_is_stored_is_caught() {
    let mut run = Run::new();
    run.three_sends();
    let op = run.invoke(BEN, 4);
    run.deliver_to_both(row(4, BEN, 4));
    run.end(op, Outcome::Refused);
    let mut history = three_rows();
    history.push(row(4, BEN, 4));
    assert_eq!(broken(&run.finish(&history)), [Rule::Origin]);
}

#[test]
fn readers_are_compared_even_without_a_history() {
    let mut run = Run::new();
    run.three_sends();
    run.deliver(READER, row(4, ANN, 3));
    run.checker.settle(OTHER, LOG);
    let verdict = run.checker.finish();
    assert_eq!(broken(&verdict), [Rule::Once, Rule::Stream]);
    assert_eq!(verdict.counts.logs_without_history, 1);
}
