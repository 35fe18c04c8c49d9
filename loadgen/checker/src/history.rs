//! Recording: what clients did and saw, checked at once where that is possible.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::RangeInclusive,
};

use crate::{
    event::{At, Attempt, Log, OpId, Outcome, Row, Subscriber},
    rules,
    stream::{Arrival, Stream},
    verdict::{Verdict, Violation},
};

/// Records a run and judges it.
///
/// Calls may interleave clients in any way, with two conditions: attempts of one sender instance are recorded in the
/// order in which they were made, and what reaches one reader in the order in which it arrived. Times decide what came
/// before what across clients, so `invoke` takes the time *before* the request leaves and `complete` and `deliver`
/// take one *after* the answer arrived; anything later is safe, anything earlier may accuse an honest broker.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) logs: BTreeMap<Log, LogRecord>,
    pub(crate) streams: BTreeMap<(Log, Subscriber), Stream>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptRecord {
    pub(crate) attempt: Attempt,
    pub(crate) invoked: At,
    /// Later answers do not replace the first one.
    pub(crate) outcome: Option<(At, Outcome)>,
}

/// What is known of one log from outside.
#[derive(Debug, Default)]
pub(crate) struct LogRecord {
    /// The first copy of each row that reached any reader, and when.
    pub(crate) seen: BTreeMap<u64, (At, Row)>,
    pub(crate) heads: Vec<HeadRead>,
    pub(crate) history: Option<Vec<Row>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadRead {
    pub(crate) invoked: At,
    pub(crate) returned: At,
    pub(crate) head: u64,
}

impl Checker {
    /// Nothing has happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A send begins; `at` is before its first byte leaves.
    ///
    /// A run of more than 2^32 attempts must be split.
    pub fn invoke(&mut self, at: At, attempt: Attempt) -> OpId {
        let op = OpId(self.attempts.len() as u32);
        self.logs.entry(attempt.log).or_default();
        self.attempts.push(AttemptRecord { attempt, invoked: at, outcome: None });
        self.verdict.counts.invoked += 1;
        op
    }

    /// A send ended; `at` is after its answer arrived. Only the first outcome of an attempt counts.
    pub fn complete(&mut self, at: At, op: OpId, outcome: Outcome) {
        if let Some(record) = self.attempts.get_mut(op.0 as usize) {
            record.outcome.get_or_insert((at, outcome));
        }
    }

    /// `reader` begins to read `log`, and `next` is the first position that it must get.
    pub fn subscribe(&mut self, reader: Subscriber, log: Log, next: u64) {
        self.logs.entry(log).or_default();
        self.streams.insert((log, reader), Stream::starting_at(next));
    }

    /// `row` reached `reader`; `at` is after it arrived.
    pub fn deliver(&mut self, at: At, reader: Subscriber, log: Log, row: Row) {
        self.verdict.counts.delivered += 1;
        self.arrive(reader, log, row.seq..=row.seq);
        match self.logs.entry(log).or_default().seen.entry(row.seq) {
            Entry::Vacant(entry) => {
                entry.insert((at, row));
            }
            Entry::Occupied(mut entry) => {
                let (first, seen) = entry.get_mut();
                *first = at.min(*first);
                if *seen != row {
                    self.verdict.add(Violation::Disagreement { log, reader, seq: row.seq });
                }
            }
        }
    }

    /// `reader` was told that the positions of `range` hold nothing for it.
    pub fn skip(&mut self, reader: Subscriber, log: Log, range: RangeInclusive<u64>) {
        if !range.is_empty() {
            self.verdict.counts.skipped += range.end() - range.start() + 1;
            self.arrive(reader, log, range);
        }
    }

    /// `reader` was told that what lies before `next` is gone, and goes on from there.
    pub fn reset(&mut self, reader: Subscriber, log: Log, next: u64) {
        self.verdict.counts.resets += 1;
        if let Some(stream) = self.streams.get_mut(&(log, reader)) {
            stream.reset(next);
        }
    }

    /// `reader` waited until nothing more came: from now on it must have everything up to the end of `log`.
    pub fn settle(&mut self, reader: Subscriber, log: Log) {
        if let Some(stream) = self.streams.get_mut(&(log, reader)) {
            stream.settle();
        }
    }

    /// A client asked for the position of the newest row of `log`, from `invoked` to `returned`, and got `head`.
    pub fn read_head(&mut self, log: Log, invoked: At, returned: At, head: u64) {
        self.logs.entry(log).or_default().heads.push(HeadRead { invoked, returned, head });
    }

    /// The whole history of `log`, read after everything else has ended. A second one replaces the first.
    pub fn history(&mut self, log: Log, rows: impl IntoIterator<Item = Row>) {
        self.logs.entry(log).or_default().history = Some(rows.into_iter().collect());
    }

    /// Judges what was recorded.
    pub fn finish(self) -> Verdict {
        rules::judge(self)
    }

    fn arrive(&mut self, reader: Subscriber, log: Log, range: RangeInclusive<u64>) {
        let seq = *range.end();
        let violation = match self.streams.get_mut(&(log, reader)).map(|stream| stream.arrive(range)) {
            Some(Arrival::Ahead) => return,
            Some(Arrival::Late) => Violation::OutOfOrder { log, reader, seq },
            Some(Arrival::Repeated) => Violation::DeliveredTwice { log, reader, seq },
            None => Violation::Unsolicited { log, reader, seq },
        };
        self.verdict.add(violation);
    }
}
