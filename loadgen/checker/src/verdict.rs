//! What the checker found.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;

use crate::event::{Author, Log, Subscriber};

/// Examples kept of each broken rule; all are counted.
pub const EXAMPLES_MAX: usize = 8;

/// What a log promises its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Positions are unique and dense from 1.
    Positions,
    /// Every acknowledged send is in the history, at the acknowledged position, with the same body.
    Acknowledged,
    /// A message of a user is stored at most once per log.
    Once,
    /// What was acknowledged or seen before a send began stands before it.
    RealTime,
    /// A head that was read includes all that was acknowledged or seen before, and nothing that began later.
    Head,
    /// One sender instance's sends to a log keep their order.
    SenderOrder,
    /// Every reader gets every position from its start on, once and in order, or an explicit reset.
    Stream,
    /// All readers see the same row at the same position.
    Agreement,
    /// What any client ever saw is in the final history, unchanged.
    Kept,
    /// Every row comes from a send that was made and not refused.
    Origin,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Positions => "positions are unique and dense",
            Self::Acknowledged => "acknowledged sends are kept",
            Self::Once => "a message is stored at most once",
            Self::RealTime => "order agrees with real time",
            Self::Head => "heads are current",
            Self::SenderOrder => "a sender's order is kept",
            Self::Stream => "streams are contiguous",
            Self::Agreement => "all readers agree",
            Self::Kept => "what was seen is kept",
            Self::Origin => "every row was sent",
        })
    }
}

/// One broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the message of each variant says what its fields are")]
pub enum Violation {
    #[error("log {}: history has nothing at positions {from} to {to}", log.0)]
    Hole { log: Log, from: u64, to: u64 },
    #[error("log {}: history has two rows at position {seq}", log.0)]
    PositionTwice { log: Log, seq: u64 },
    #[error("log {}: {one} and {other} were both acknowledged at position {seq}", log.0)]
    AckedTwiceAt { log: Log, seq: u64, one: Author, other: Author },
    #[error("log {}: {author} was acknowledged at position {seq} and is not there", log.0)]
    AckedLost { log: Log, seq: u64, author: Author },
    #[error("log {}: {author} was acknowledged at position {seq}, which holds something else", log.0)]
    AckedDiffers { log: Log, seq: u64, author: Author },
    #[error("log {}: {author} is stored at positions {first} and {second}", log.0)]
    StoredTwice { log: Log, author: Author, first: u64, second: u64 },
    #[error("log {}: {author} was acknowledged at positions {first} and {second}", log.0)]
    AckMoved { log: Log, author: Author, first: u64, second: u64 },
    #[error("log {}: position {earlier} was known before the send of position {later} began", log.0)]
    OrderAgainstTime { log: Log, earlier: u64, later: u64 },
    #[error("log {}: position {seq} was known before its own send began", log.0)]
    BeforeItsSend { log: Log, seq: u64 },
    #[error("log {}: head {head} was read after position {known} was known", log.0)]
    HeadStale { log: Log, head: u64, known: u64 },
    #[error("log {}: head {head} was read before the send of position {later} began", log.0)]
    HeadAhead { log: Log, head: u64, later: u64 },
    #[error("log {}: head {now} was read after head {before}", log.0)]
    HeadFellBack { log: Log, before: u64, now: u64 },
    #[error("log {}: head {head} was read and the history ends at {end}", log.0)]
    HeadBeyondEnd { log: Log, head: u64, end: u64 },
    #[error("log {}: position {earlier} was sent before position {later} by the same sender instance", log.0)]
    SenderOrder { log: Log, earlier: u64, later: u64 },
    #[error("log {}: reader {} never got positions {from} to {to}", log.0, reader.0)]
    NeverDelivered { log: Log, reader: Subscriber, from: u64, to: u64 },
    #[error("log {}: reader {} got position {seq} twice", log.0, reader.0)]
    DeliveredTwice { log: Log, reader: Subscriber, seq: u64 },
    #[error("log {}: reader {} got position {seq} after later ones", log.0, reader.0)]
    OutOfOrder { log: Log, reader: Subscriber, seq: u64 },
    #[error("log {}: reader {} got position {seq} without a subscription", log.0, reader.0)]
    Unsolicited { log: Log, reader: Subscriber, seq: u64 },
    #[error("log {}: reader {} got another row at position {seq} than those before it", log.0, reader.0)]
    Disagreement { log: Log, reader: Subscriber, seq: u64 },
    #[error("log {}: position {seq} was delivered and is not in the history", log.0)]
    SeenThenMissing { log: Log, seq: u64 },
    #[error("log {}: position {seq} was delivered with another content than the history has", log.0)]
    SeenThenChanged { log: Log, seq: u64 },
    #[error("log {}: position {seq} holds {author}, which nobody sent", log.0)]
    Invented { log: Log, seq: u64, author: Author },
    #[error("log {}: position {seq} holds {author} with a body that was not sent", log.0)]
    BodyChanged { log: Log, seq: u64, author: Author },
    #[error("log {}: position {seq} holds {author}, which was refused", log.0)]
    RefusedStored { log: Log, seq: u64, author: Author },
}

impl Violation {
    /// The rule that it breaks.
    pub fn rule(&self) -> Rule {
        match self {
            Self::Hole { .. } | Self::PositionTwice { .. } | Self::AckedTwiceAt { .. } => Rule::Positions,
            Self::AckedLost { .. } | Self::AckedDiffers { .. } => Rule::Acknowledged,
            Self::StoredTwice { .. } | Self::AckMoved { .. } => Rule::Once,
            Self::OrderAgainstTime { .. } | Self::BeforeItsSend { .. } => Rule::RealTime,
            Self::HeadStale { .. }
            | Self::HeadAhead { .. }
            | Self::HeadFellBack { .. }
            | Self::HeadBeyondEnd { .. } => Rule::Head,
            Self::SenderOrder { .. } => Rule::SenderOrder,
            Self::NeverDelivered { .. }
            | Self::DeliveredTwice { .. }
            | Self::OutOfOrder { .. }
            | Self::Unsolicited { .. } => Rule::Stream,
            Self::Disagreement { .. } => Rule::Agreement,
            Self::SeenThenMissing { .. } | Self::SeenThenChanged { .. } => Rule::Kept,
            Self::Invented { .. } | Self::BodyChanged { .. } | Self::RefusedStored { .. } => Rule::Origin,
        }
    }
}

/// How often a rule was broken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// All violations.
    pub count: u64,
    /// The first [`EXAMPLES_MAX`] of them.
    pub examples: Vec<Violation>,
}

/// What was checked, and the figures that a report prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts to send.
    pub invoked: u64,
    /// Attempts that were acknowledged.
    pub acked: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Attempts whose outcome was never learned.
    pub unknown: u64,
    /// Copies of rows that reached readers.
    pub delivered: u64,
    /// Acknowledged messages that the history lacks, plus positions that a reader never got.
    pub lost: u64,
    /// Messages stored twice, plus copies that reached a reader twice.
    pub duplicated: u64,
    /// Copies that reached a reader after later ones.
    pub out_of_order: u64,
    /// Explicit resets of streams.
    pub resets: u64,
    /// Positions that readers were told to skip.
    pub skipped: u64,
    /// Rows of the final histories.
    pub history_rows: u64,
    /// Logs that were used and whose final history was not read: their rows are known from readers and answers only.
    pub logs_without_history: u64,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Broken rules only.
    pub findings: BTreeMap<Rule, Finding>,
    /// What was checked.
    pub counts: Counts,
}

impl Verdict {
    /// No rule was broken.
    pub fn holds(&self) -> bool {
        self.findings.is_empty()
    }

    /// Violations of all rules.
    pub fn violations(&self) -> u64 {
        self.findings.values().map(|finding| finding.count).sum()
    }

    pub(crate) fn add(&mut self, violation: Violation) {
        let counts = &mut self.counts;
        match violation {
            Violation::AckedLost { .. } => counts.lost += 1,
            Violation::NeverDelivered { from, to, .. } => counts.lost += to - from + 1,
            Violation::StoredTwice { .. } | Violation::DeliveredTwice { .. } => counts.duplicated += 1,
            Violation::OutOfOrder { .. } => counts.out_of_order += 1,
            _ => {}
        }
        let finding = self.findings.entry(violation.rule()).or_default();
        finding.count += 1;
        if finding.examples.len() < EXAMPLES_MAX {
            finding.examples.push(violation);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, finding) in &self.findings {
            writeln!(f, "broken: {rule} ({} times)", finding.count)?;
            for example in &finding.examples {
                writeln!(f, "  {example}")?;
            }
        }
        Ok(())
    }
}
