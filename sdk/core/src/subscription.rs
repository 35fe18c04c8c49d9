//! One followed log: each event once and in order, whatever way it comes.
//!
//! ```text
//! Idle -> Subscribing -> (Pulling ->) Live
//!   ^         |              |         |
//!   +- Backoff+--------------+---------+   lost connection, BEHIND, a gap: subscribe again after the last position
//! ```
//!
//! The last position is the only thing that survives an attachment, so resuming, falling behind and repairing a gap
//! are the same path. Deliberately absent: frames and ids of the wire (see `subscriptions`).

use std::collections::VecDeque;

use antiphon_protocol::{
    LogName, Position, Row,
    control::{Attach, attach::Reset},
};

use crate::{
    error::Refusal,
    event::Event,
    input::From,
    limits::HELD_EVENTS_MAX,
    output::{Attached, Cursor, DetachReason, Item, ResetReason},
};

/// What is to be done next for a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    Nothing,
    /// Pull positions `from..to`.
    Pull {
        from: u64,
        to: u64,
    },
    /// The live part ended at the client's wish: UNSUBSCRIBE, the pull goes on.
    Detach {
        handle: u32,
    },
    /// Subscribe again after the last position. The handle is still attached if there is one.
    Repair {
        handle: Option<u32>,
    },
    /// It is over.
    Over(DetachReason),
}

#[derive(Debug)]
pub(crate) enum Phase {
    /// There is no connection, or another attachment of the log has to end first.
    Idle,
    /// A refusal or a fruitless repair; the timer runs.
    Backoff,
    Subscribing,
    Live {
        handle: u32,
    },
    Pulling(Pull),
}

/// Owed rows on their way, and what has come live meanwhile.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) number: u64,
    handle: u32,
    from: u64,
    to: u64,
    held: VecDeque<Held>,
    end: Option<End>,
}

#[derive(Debug)]
enum Held {
    Row(Row),
    Skip { first: u64, last: u64 },
}

/// How the live part ended before the pull did.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Behind,
    /// Too much would have been held.
    Dropped,
    Detached(DetachReason),
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) log: LogName,
    pub(crate) from: From,
    /// The last position that the application knows of; None before the first attachment.
    pub(crate) last: Option<Position>,
    pub(crate) phase: Phase,
    /// Repairs since the last event.
    pub(crate) fruitless: u32,
}

impl Subscription {
    pub(crate) fn new(log: LogName, from: From) -> Self {
        let last = match from {
            From::Position(position) => Some(position),
            _ => None,
        };
        Self { log, from, last, phase: Phase::Idle, fruitless: 0 }
    }

    /// The handle that is attached, and stays so unless it is unsubscribed.
    pub(crate) fn attached_handle(&self) -> Option<u32> {
        match &self.phase {
            Phase::Live { handle } => Some(*handle),
            Phase::Pulling(pull) if pull.end.is_none() => Some(pull.handle),
            _ => None,
        }
    }

    fn expected(&self) -> u64 {
        self.last.unwrap_or_default().seq + 1
    }

    /// ATTACH: what the application is told, and whether rows have to be pulled.
    pub(crate) fn attach(&mut self, attach: &Attach, pull_number: u64, items: &mut Vec<Item>) -> Next {
        let begin = Position { epoch: attach.epoch, seq: attach.replay_from.saturating_sub(1) };
        let reset = self.reset_reason(attach);
        let last = match (self.last, reset) {
            (Some(last), None) => Position { epoch: attach.epoch, seq: last.seq },
            _ => begin,
        };
        #[cfg(feature = "mutants")]
        let last =
            Position { seq: last.seq + u64::from(self.last.is_some() && crate::mutants::resumes_off_by_one()), ..last };
        self.last = Some(last);
        items.push(Item::Attached(Attached {
            after: last,
            head: Position { epoch: attach.epoch, seq: attach.head },
            floor: attach.floor,
            head_msgno: attach.head_msgno,
            cursors: attach.cursors.iter().map(Cursor::from_wire).collect(),
        }));
        if let Some(reason) = reset {
            items.push(Item::Reset { reason, after: last });
        }
        let (from, to, handle) = (self.expected(), attach.live_from, attach.handle);
        if attach.inlined || from >= to {
            self.phase = Phase::Live { handle };
            return Next::Nothing;
        }
        self.phase = Phase::Pulling(Pull { number: pull_number, handle, from, to, held: VecDeque::new(), end: None });
        Next::Pull { from, to }
    }

    /// Why the last position cannot be resumed, if it cannot. What the broker does not say but does is said here:
    /// nothing is ever left out silently.
    fn reset_reason(&self, attach: &Attach) -> Option<ResetReason> {
        match attach.reset() {
            Reset::EpochChanged => return Some(ResetReason::EpochChanged),
            Reset::HistoryGone => return Some(ResetReason::HistoryGone),
            Reset::None => {}
        }
        let last = self.last?;
        if last.seq > 0 && last.epoch != attach.epoch {
            Some(ResetReason::EpochChanged)
        } else {
            (attach.replay_from > last.seq + 1).then_some(ResetReason::HistoryGone)
        }
    }

    /// EVENT.
    pub(crate) fn event(&mut self, row: Row, items: &mut Vec<Item>) -> Next {
        match &mut self.phase {
            Phase::Live { handle } => {
                let handle = *handle;
                if self.accept(row, items) { Next::Nothing } else { Next::Repair { handle: Some(handle) } }
            }
            Phase::Pulling(pull) => pull.hold(Held::Row(row)),
            _ => Next::Nothing,
        }
    }

    /// SKIP.
    pub(crate) fn skip(&mut self, first: u64, last: u64, items: &mut Vec<Item>) -> Next {
        match &mut self.phase {
            Phase::Live { handle } => {
                let handle = *handle;
                if self.accept_skip(first, last, items) { Next::Nothing } else { Next::Repair { handle: Some(handle) } }
            }
            Phase::Pulling(pull) => pull.hold(Held::Skip { first, last }),
            _ => Next::Nothing,
        }
    }

    /// BEHIND: the live part is over.
    pub(crate) fn behind(&mut self) -> Next {
        match &mut self.phase {
            Phase::Live { .. } => Next::Repair { handle: None },
            Phase::Pulling(pull) => {
                pull.end.get_or_insert(End::Behind);
                Next::Nothing
            }
            _ => Next::Nothing,
        }
    }

    /// DETACH. A pull that is under way may still bring what the reader was owed.
    pub(crate) fn detach(&mut self, reason: DetachReason) -> Next {
        match &mut self.phase {
            Phase::Live { .. } => Next::Over(reason),
            Phase::Pulling(pull) => {
                if pull.end != Some(End::Dropped) {
                    pull.end = Some(End::Detached(reason));
                }
                Next::Nothing
            }
            _ => Next::Nothing,
        }
    }

    /// PAGE.
    pub(crate) fn page(&mut self, page: antiphon_protocol::frames::Page, items: &mut Vec<Item>) -> Next {
        let Phase::Pulling(pull) = &mut self.phase else { return Next::Nothing };
        let (from, to) = (pull.from, pull.to);
        let epoch = self.last.unwrap_or_default().epoch;
        let stuck = page.next != 0 && page.next <= from;
        if page.epoch != epoch || stuck {
            return Next::Repair { handle: self.attached_handle() };
        }
        let more = page.next != 0 && page.next < to;
        if more {
            pull.from = page.next;
        }
        for row in page.rows {
            self.miss_before(row.seq(), items);
            self.accept(row, items);
        }
        if more {
            return Next::Pull { from: page.next, to };
        }
        self.miss_before(to, items);
        self.finish_pull(items)
    }

    /// FETCH was refused.
    pub(crate) fn page_refused(&mut self, refusal: Refusal, items: &mut Vec<Item>) -> Next {
        let Phase::Pulling(pull) = &self.phase else { return Next::Nothing };
        if refusal.is_transient() {
            self.fruitless = self.fruitless.max(1);
            return Next::Repair { handle: self.attached_handle() };
        }
        if !matches!(pull.end, Some(End::Detached(_))) {
            return Next::Over(DetachReason::Refused(refusal));
        }
        // The reader was removed meanwhile: the rest of the pull is out of reach, but what had come live is not.
        let first = self.expected();
        let to = pull.to;
        if first < to {
            self.accept_skip(first, to - 1, items);
        }
        self.finish_pull(items)
    }

    /// Everything owed is here: on with what was held.
    fn finish_pull(&mut self, items: &mut Vec<Item>) -> Next {
        let Phase::Pulling(pull) = std::mem::replace(&mut self.phase, Phase::Idle) else { return Next::Nothing };
        let attached = pull.end.is_none().then_some(pull.handle);
        for held in pull.held {
            let fits = match held {
                Held::Row(row) => self.accept(row, items),
                Held::Skip { first, last } => self.accept_skip(first, last, items),
            };
            if !fits {
                return Next::Repair { handle: attached };
            }
        }
        match pull.end {
            None => {
                self.phase = Phase::Live { handle: pull.handle };
                Next::Nothing
            }
            Some(End::Behind | End::Dropped) => Next::Repair { handle: None },
            Some(End::Detached(reason)) => Next::Over(reason),
        }
    }

    /// Hands an event over if it is the next one. False on a gap.
    fn accept(&mut self, row: Row, items: &mut Vec<Item>) -> bool {
        let Position { epoch, seq } = self.last.unwrap_or_default();
        if row.seq() <= seq {
            return true;
        }
        if row.seq() > seq + 1 {
            return false;
        }
        self.last = Some(Position { epoch, seq: row.seq() });
        self.fruitless = 0;
        items.push(Item::Event(Event::new(epoch, row)));
        true
    }

    fn accept_skip(&mut self, first: u64, last: u64, items: &mut Vec<Item>) -> bool {
        let expected = self.expected();
        if last < expected {
            return true;
        }
        if first > expected {
            return false;
        }
        let epoch = self.last.unwrap_or_default().epoch;
        let last = Position { epoch, seq: last };
        self.last = Some(last);
        self.fruitless = 0;
        items.push(Item::Skipped { first: Position { epoch, seq: expected }, last });
        true
    }

    /// A page goes on at `seq`: what lies before it and has not come no longer exists.
    fn miss_before(&mut self, seq: u64, items: &mut Vec<Item>) {
        if seq > self.expected() {
            let after = Position { epoch: self.last.unwrap_or_default().epoch, seq: seq - 1 };
            self.last = Some(after);
            items.push(Item::Reset { reason: ResetReason::HistoryGone, after });
        }
    }
}

impl Pull {
    fn hold(&mut self, held: Held) -> Next {
        if self.end.is_some() {
            return Next::Nothing;
        }
        if self.held.len() < HELD_EVENTS_MAX {
            self.held.push_back(held);
            return Next::Nothing;
        }
        self.held = VecDeque::new();
        self.end = Some(End::Dropped);
        Next::Detach { handle: self.handle }
    }
}
