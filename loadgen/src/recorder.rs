//! The run's one book: the checker, the histograms and the counts, shared by all sessions.
//!
//! All sessions run on one thread, so the lock is never contended; it is there because the SDK's tasks may move.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use antiphon_checker::{
    At, Attempt, Author, Checker, Instance, Log, OpId, Outcome, Row, Subscriber, Verdict, body_hash,
};
use antiphon_sdk::{Event, Item};
use uuid::Uuid;

use crate::{
    names::{MessageNumber, Names, Seat, message_number},
    report::Latencies,
};

/// What sessions report to.
#[derive(Debug)]
pub struct Recorder {
    /// The origin of all times of the checker.
    origin: Instant,
    names: Names,
    book: Mutex<Book>,
}

#[derive(Debug)]
struct Book {
    checker: Checker,
    /// When each message falls due, by its number, since `start`.
    due: Vec<Duration>,
    start: Instant,
    /// The last position known of each group's log, and the group's size.
    heads: Vec<(u64, u32)>,
    progress: Progress,
    latencies: RunLatencies,
}

/// How far the run is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Messages that were sent.
    pub sent: u64,
    /// Messages whose fate is known.
    pub ended: u64,
    /// Copies of events that reached members.
    pub delivered: u64,
    /// Copies that all members together must get by what is known now.
    pub expected: u64,
    /// Times that a session lost its connection.
    pub reconnects: u64,
}

/// Times since the planned send.
#[derive(Debug, Clone, Default)]
pub struct RunLatencies {
    /// Until a member got the message.
    pub delivery: Latencies,
    /// Until its sender got the acknowledgement.
    pub ack: Latencies,
    /// Until it was in fact sent.
    pub lag: Latencies,
}

impl Recorder {
    /// A book for groups of these sizes; `due` is when each message falls due, by its number.
    pub fn new(names: Names, sizes: impl IntoIterator<Item = u32>, due: Vec<Duration>) -> Self {
        let now = Instant::now();
        let book = Book {
            checker: Checker::new(),
            due,
            start: now,
            heads: sizes.into_iter().map(|size| (0, size)).collect(),
            progress: Progress::default(),
            latencies: RunLatencies::default(),
        };
        Self { origin: now, names, book: Mutex::new(book) }
    }

    /// The names of the run.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The schedule begins at `start`.
    pub fn begin(&self, start: Instant) {
        self.book().start = start;
    }

    /// Now, for the checker.
    pub fn now(&self) -> At {
        At(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A member follows its group's log from the first position on. `invoked` is when it asked for that, `head` what
    /// it was told.
    pub fn subscribed(&self, seat: Seat, invoked: At, head: u64) {
        let now = self.now();
        let mut book = self.book();
        book.checker.subscribe(self.reader(seat), Log(seat.group), 1);
        book.checker.read_head(Log(seat.group), invoked, now, head);
        book.learn_head(seat.group, head);
    }

    /// A member is about to send.
    pub fn sending(&self, seat: Seat, number: MessageNumber, id: Uuid, body: &[u8]) -> OpId {
        let user = self.names.number(seat);
        let attempt = Attempt {
            log: Log(seat.group),
            author: Author { user, message: id.as_u128() },
            instance: Instance(user.0),
            hash: body_hash(body),
        };
        let mut book = self.book();
        book.progress.sent += 1;
        let late = book.late(number);
        book.latencies.lag.record(late);
        // Last, so that the time is as close before the send as can be.
        book.checker.invoke(self.now(), attempt)
    }

    /// A send ended.
    pub fn sent(&self, seat: Seat, number: MessageNumber, op: OpId, outcome: Outcome) {
        let now = self.now();
        let mut book = self.book();
        book.progress.ended += 1;
        if let Outcome::Ok { seq } = outcome {
            let late = book.late(number);
            book.latencies.ack.record(late);
            book.learn_head(seat.group, seq);
        }
        book.checker.complete(now, op, outcome);
    }

    /// Something reached a member; false if its subscription is over.
    pub fn received(&self, seat: Seat, item: &Item) -> bool {
        let (now, log, reader) = (self.now(), Log(seat.group), self.reader(seat));
        let mut book = self.book();
        match item {
            Item::Event(event) => {
                book.progress.delivered += 1;
                book.learn_head(seat.group, event.seq());
                if let Some(id) = event.client_message_id() {
                    let late = book.late(message_number(id));
                    book.latencies.delivery.record(late);
                }
                book.checker.deliver(now, reader, log, self.row(event));
            }
            Item::Skipped { first, last } => book.checker.skip(reader, log, first.seq..=last.seq),
            Item::Reset { after, .. } => book.checker.reset(reader, log, after.seq + 1),
            Item::Detached(_) => return false,
            Item::Attached(_) | Item::Cursor(_) | Item::Signal(_) => {}
        }
        true
    }

    /// A part of a group's final history.
    pub fn row(&self, event: &Event) -> Row {
        let user = || self.names.number_of(event.sender());
        let author = event.client_message_id().map(|id| Author { user: user(), message: id.as_u128() });
        Row { seq: event.seq(), author, hash: body_hash(&event.body()) }
    }

    /// A session has lost its connection and makes another.
    pub fn disconnected(&self) {
        self.book().progress.reconnects += 1;
    }

    /// How far the run is.
    pub fn progress(&self) -> Progress {
        let book = self.book();
        let expected = book.heads.iter().map(|&(head, size)| head * u64::from(size)).sum();
        Progress { expected, ..book.progress }
    }

    /// The last position known of a group's log.
    pub fn head(&self, group: u32) -> u64 {
        self.book().heads[group as usize].0
    }

    /// The whole history of a group's log, read when all is over.
    pub fn history(&self, group: u32, rows: Vec<Row>) {
        let mut book = self.book();
        book.learn_head(group, rows.iter().map(|row| row.seq).max().unwrap_or(0));
        book.checker.history(Log(group), rows);
    }

    /// Judges the run: every one of `seats` has waited long enough and must have everything.
    pub fn finish(&self, seats: impl IntoIterator<Item = Seat>) -> (Verdict, RunLatencies) {
        let mut book = self.book();
        for seat in seats {
            book.checker.settle(self.reader(seat), Log(seat.group));
        }
        (std::mem::take(&mut book.checker).finish(), book.latencies.clone())
    }

    fn reader(&self, seat: Seat) -> Subscriber {
        Subscriber(self.names.number(seat).0)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// How long ago a message fell due; an unknown one, now.
    fn late(&self, number: MessageNumber) -> Duration {
        self.due.get(number.0 as usize).map_or(Duration::ZERO, |&due| self.start.elapsed().saturating_sub(due))
    }

    fn learn_head(&mut self, group: u32, seq: u64) {
        if let Some((head, _)) = self.heads.get_mut(group as usize) {
            *head = seq.max(*head);
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_sdk::{DetachReason, Position};

    use super::*;
    use crate::{merge::Group, names::message_id};

    const SEAT: Seat = Seat { group: 0, member: 1 };

    fn recorder() -> Recorder {
        let names = Names::new("r".into(), &[Group { members: 2, messages: Vec::new() }]);
        Recorder::new(names, [2], vec![Duration::ZERO])
    }

    fn position(seq: u64) -> Position {
        Position { epoch: 1, seq }
    }

    #[test]
    fn every_member_is_expected_to_get_what_was_acknowledged() {
        let recorder = recorder();
        let number = MessageNumber(0);
        let op = recorder.sending(SEAT, number, message_id(number, 1), b"x");
        assert_eq!(recorder.progress(), Progress { sent: 1, ..Progress::default() });
        recorder.sent(SEAT, number, op, Outcome::Ok { seq: 3 });
        assert_eq!(recorder.progress(), Progress { sent: 1, ended: 1, delivered: 0, expected: 6, reconnects: 0 });
        assert_eq!(recorder.head(0), 3);
    }

    #[test]
    fn a_reader_that_got_nothing_is_found_out() {
        let recorder = recorder();
        let number = MessageNumber(0);
        recorder.subscribed(SEAT, At(0), 0);
        let op = recorder.sending(SEAT, number, message_id(number, 1), b"x");
        recorder.sent(SEAT, number, op, Outcome::Ok { seq: 1 });
        let (verdict, latencies) = recorder.finish([SEAT]);
        assert_eq!(verdict.counts.lost, 1);
        assert!(latencies.ack.summary().is_some() && latencies.delivery.summary().is_none());
    }

    #[test]
    fn what_a_reader_was_told_to_skip_is_not_missing() {
        let recorder = recorder();
        recorder.subscribed(SEAT, At(0), 0);
        assert!(recorder.received(SEAT, &Item::Skipped { first: position(1), last: position(4) }));
        assert!(!recorder.received(SEAT, &Item::Detached(DetachReason::Unsubscribed)));
        let (verdict, _) = recorder.finish([SEAT]);
        assert!(verdict.holds(), "{verdict}");
        assert_eq!(verdict.counts.skipped, 4);
    }
}
