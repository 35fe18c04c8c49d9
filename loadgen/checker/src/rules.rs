//! Judging: what can only be decided when all is known, one log at a time.

use std::collections::{BTreeMap, btree_map::Entry};

use crate::{
    event::{At, Author, Instance, Log, Outcome, Row, Subscriber},
    history::{AttemptRecord, Checker, LogRecord},
    order::{Item, contradictions},
    stream::Stream,
    verdict::{Counts, Verdict, Violation},
};

/// Judges a finished recording.
pub(crate) fn judge(checker: Checker) -> Verdict {
    let Checker { attempts, logs, streams, mut verdict } = checker;
    count_outcomes(&attempts, &mut verdict.counts);

    let mut indexes: Vec<u32> = (0..attempts.len() as u32).collect();
    let attempt = |index: u32| &attempts[index as usize].attempt;
    indexes.sort_unstable_by_key(|&index| (attempt(index).log, attempt(index).author, index));

    let mut rest = indexes.as_slice();
    for (&log, record) in &logs {
        let own = rest.partition_point(|&index| attempt(index).log <= log);
        let (own, others) = rest.split_at(own);
        rest = others;
        let messages = messages(&attempts, own);
        let judged = LogJudge { log, record, truth: truth(log, record, &messages, &mut verdict), messages };
        judged.acknowledgements(&mut verdict);
        judged.origins(&mut verdict);
        judged.deliveries_are_kept(&mut verdict);
        judged.real_time(&mut verdict);
        judged.sender_order(&mut verdict);
        judged.streams(streams.range((log, Subscriber(0))..=(log, Subscriber(u32::MAX))), &mut verdict);
    }
    verdict
}

fn count_outcomes(attempts: &[AttemptRecord], counts: &mut Counts) {
    for attempt in attempts {
        match attempt.outcome {
            Some((_, Outcome::Ok { .. })) => counts.acked += 1,
            Some((_, Outcome::Refused)) => counts.refused += 1,
            Some((_, Outcome::Unknown)) | None => counts.unknown += 1,
        }
    }
}

/// All attempts at one message; not empty, in the order in which they were made.
#[derive(Debug, Clone)]
struct Message<'a>(Vec<(u32, &'a AttemptRecord)>);

impl Message<'_> {
    /// Attempts that may have had an effect.
    fn effective(&self) -> impl Iterator<Item = (u32, &AttemptRecord)> {
        self.0.iter().copied().filter(|(_, record)| !matches!(record.outcome, Some((_, Outcome::Refused))))
    }

    /// When, and at which positions, it was acknowledged.
    fn acks(&self) -> impl Iterator<Item = (At, u64, &AttemptRecord)> {
        self.0.iter().filter_map(|&(_, record)| match record.outcome {
            Some((at, Outcome::Ok { seq })) => Some((at, seq, record)),
            _ => None,
        })
    }

    /// The sender instance, if only one sent it: a retry by another one is free to come later.
    fn only_instance(&self) -> Option<Instance> {
        let (_, first) = self.0.first()?;
        let instance = first.attempt.instance;
        self.0.iter().all(|(_, record)| record.attempt.instance == instance).then_some(instance)
    }
}

fn messages<'a>(attempts: &'a [AttemptRecord], sorted: &[u32]) -> BTreeMap<Author, Message<'a>> {
    let record = |index: u32| &attempts[index as usize];
    sorted
        .chunk_by(|&a, &b| record(a).attempt.author == record(b).attempt.author)
        .map(|chunk| {
            let attempts: Vec<_> = chunk.iter().map(|&index| (index, record(index))).collect();
            (attempts[0].1.attempt.author, Message(attempts))
        })
        .collect()
}

/// What the log holds: its history; without one, whatever readers got and senders were told.
fn truth(
    log: Log,
    record: &LogRecord,
    messages: &BTreeMap<Author, Message<'_>>,
    verdict: &mut Verdict,
) -> BTreeMap<u64, Row> {
    let mut truth = BTreeMap::new();
    if let Some(history) = &record.history {
        verdict.counts.history_rows += history.len() as u64;
        for &row in history {
            if truth.insert(row.seq, row).is_some() {
                verdict.add(Violation::PositionTwice { log, seq: row.seq });
            }
        }
        let mut next = 1;
        for &seq in truth.keys() {
            if seq > next {
                verdict.add(Violation::Hole { log, from: next, to: seq - 1 });
            }
            next = seq + 1;
        }
    } else {
        verdict.counts.logs_without_history += 1;
        truth.extend(record.seen.iter().map(|(&seq, &(_, row))| (seq, row)));
        for (&author, message) in messages {
            for (_, seq, attempt) in message.acks() {
                truth.entry(seq).or_insert(Row { seq, author: Some(author), hash: attempt.attempt.hash });
            }
        }
    }
    truth
}

/// One log and everything known of it.
struct LogJudge<'a> {
    log: Log,
    record: &'a LogRecord,
    messages: BTreeMap<Author, Message<'a>>,
    truth: BTreeMap<u64, Row>,
}

impl LogJudge<'_> {
    /// Rules 1 to 3 as far as answers tell: each position for one message, one position for each, and it is there.
    fn acknowledgements(&self, verdict: &mut Verdict) {
        let log = self.log;
        let mut holders = BTreeMap::new();
        for (&author, message) in &self.messages {
            let mut first = None;
            for (_, seq, attempt) in message.acks() {
                let one = *holders.entry(seq).or_insert(author);
                if one != author {
                    verdict.add(Violation::AckedTwiceAt { log, seq, one, other: author });
                }
                let first = *first.get_or_insert(seq);
                if first != seq {
                    verdict.add(Violation::AckMoved { log, author, first, second: seq });
                }
                let expected = Row { seq, author: Some(author), hash: attempt.attempt.hash };
                match self.truth.get(&seq) {
                    None => verdict.add(Violation::AckedLost { log, seq, author }),
                    Some(row) if *row != expected => verdict.add(Violation::AckedDiffers { log, seq, author }),
                    Some(_) => {}
                }
            }
        }
    }

    /// Every row comes from a send that may have had an effect, and no two from the same message.
    fn origins(&self, verdict: &mut Verdict) {
        let log = self.log;
        let mut stored = BTreeMap::new();
        for (&seq, row) in &self.truth {
            let Some(author) = row.author else { continue };
            match stored.entry(author) {
                Entry::Vacant(entry) => {
                    entry.insert(seq);
                }
                Entry::Occupied(entry) => {
                    verdict.add(Violation::StoredTwice { log, author, first: *entry.get(), second: seq });
                }
            }
            let Some(message) = self.messages.get(&author) else {
                verdict.add(Violation::Invented { log, seq, author });
                continue;
            };
            if message.effective().next().is_none() {
                verdict.add(Violation::RefusedStored { log, seq, author });
            } else if message.effective().all(|(_, record)| record.attempt.hash != row.hash) {
                verdict.add(Violation::BodyChanged { log, seq, author });
            }
        }
    }

    /// What any reader saw is in the history, unchanged.
    fn deliveries_are_kept(&self, verdict: &mut Verdict) {
        let log = self.log;
        for (&seq, (_, seen)) in &self.record.seen {
            match self.truth.get(&seq) {
                None => verdict.add(Violation::SeenThenMissing { log, seq }),
                Some(row) if row != seen => verdict.add(Violation::SeenThenChanged { log, seq }),
                Some(_) => {}
            }
        }
    }

    /// Rules 4 and 6: rows and heads could have come about in their order within the times in which they were sent,
    /// became known, or were read. Rows rank even, a head odd, just above its row.
    fn real_time(&self, verdict: &mut Verdict) {
        let log = self.log;
        let mut items: Vec<Item> = self.truth.values().map(|row| self.row_item(row)).collect();
        for item in items.iter().filter(|item| item.end < item.start) {
            verdict.add(Violation::BeforeItsSend { log, seq: item.rank / 2 });
        }
        let end = self.end();
        for read in &self.record.heads {
            items.push(Item { start: read.invoked, end: read.returned, rank: read.head.saturating_mul(2) + 1 });
            if read.head > end {
                verdict.add(Violation::HeadBeyondEnd { log, head: read.head, end });
            }
        }
        contradictions(&items, |earlier, later| {
            let (before, now) = (earlier.rank / 2, later.rank / 2);
            verdict.add(match (earlier.rank % 2 == 1, later.rank % 2 == 1) {
                (false, false) => Violation::OrderAgainstTime { log, earlier: before, later: now },
                (false, true) => Violation::HeadStale { log, head: now, known: before },
                (true, false) => Violation::HeadAhead { log, head: before, later: now },
                (true, true) => Violation::HeadFellBack { log, before, now },
            });
        });
    }

    /// A row came about after its send began and before anybody knew of it.
    fn row_item(&self, row: &Row) -> Item {
        let message = row.author.and_then(|author| self.messages.get(&author));
        let start = message.and_then(|message| message.effective().map(|(_, record)| record.invoked).min());
        let acked =
            message.and_then(|message| message.acks().filter(|&(_, seq, _)| seq == row.seq).map(|(at, _, _)| at).min());
        let seen = self.record.seen.get(&row.seq).filter(|(_, seen)| seen == row).map(|&(at, _)| at);
        let end = [acked, seen].into_iter().flatten().min();
        Item { start: start.unwrap_or(At(0)), end: end.unwrap_or(At(u64::MAX)), rank: row.seq.saturating_mul(2) }
    }

    /// Rule 5, with the numbers of the attempts in place of times. A message that was tried several times counts from
    /// its first to its last attempt.
    fn sender_order(&self, verdict: &mut Verdict) {
        let mut instances: BTreeMap<Instance, Vec<Item>> = BTreeMap::new();
        for row in self.truth.values() {
            let Some(message) = row.author.and_then(|author| self.messages.get(&author)) else { continue };
            let Some(instance) = message.only_instance() else { continue };
            let mut numbers = message.effective().map(|(index, _)| At(u64::from(index)));
            let Some(start) = numbers.next() else { continue };
            let end = numbers.last().unwrap_or(start);
            instances.entry(instance).or_default().push(Item { start, end, rank: row.seq });
        }
        for items in instances.values() {
            contradictions(items, |earlier, later| {
                verdict.add(Violation::SenderOrder { log: self.log, earlier: earlier.rank, later: later.rank });
            });
        }
    }

    /// Rule 7: nothing stayed missing.
    fn streams<'s>(&self, streams: impl Iterator<Item = (&'s (Log, Subscriber), &'s Stream)>, verdict: &mut Verdict) {
        let end = self.end();
        for (&(log, reader), stream) in streams {
            for missing in stream.missing(end) {
                let (from, to) = missing.into_inner();
                verdict.add(Violation::NeverDelivered { log, reader, from, to });
            }
        }
    }

    /// The last position of the log.
    fn end(&self) -> u64 {
        self.truth.last_key_value().map_or(0, |(&seq, _)| seq)
    }
}
