//! Retention: what a conversation has kept long enough goes, the oldest rows first, so many at a time.
//!
//! ```text
//! due -> read the oldest rows -> checkpoint that says what goes -> gone for readers -> their records -> the store's floor
//! ```
//!
//! Invariants:
//! - The checkpoint decides. Once it is durable its rows are gone for every reader, also after a crash, and what is left
//!   of them in the store is removed however often that is begun again. So a floor never goes back, and a checkpoint
//!   always describes the log through the row before it, which keeps what is loaded complete.
//! - It says with the floor how late the ids in the rows that are gone were made, so that a repeated send of one of them
//!   is refused and not stored again.
//! - A message's records go with the rows that changed it, each of which lies behind the message. The records that a
//!   message that is gone may still have go with later such rows, so none is left behind.
//!
//! Absent: who may set the retention (see `change`), and the clock: time is an input.

use std::{collections::BTreeSet, time::Duration};

use antiphon_protocol::{ErrorCode, EventKind, Row, fold, limits::CLOCK_SKEW_MS_MAX};
use antiphon_storage_contract::{Direction, Loaded, Op, Outcome, ReadRows, RecordWrite, StoreError, Token};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::{
    Contents, Log, Purpose, Stall, State,
    checkpoint::Checkpoint,
    duplicates::own_time_ms,
    message_state::{reacted_key, state_key},
    page::from_tail,
};
use crate::{
    effects::Effects,
    limits::{
        RETENTION_BATCH_BYTES_MAX, RETENTION_BATCH_ROWS_MAX, RETENTION_INTERVAL_MAX, RETENTION_INTERVAL_MIN,
        RETENTION_PAUSE, RETENTION_RETRY_AFTER,
    },
    refusal::Refusal,
    time::Time,
};

/// The rows of a log that are gone. Stored inside checkpoints, so its tags are never reused.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Gone {
    /// First position that still exists; at most 1 = nothing is gone.
    #[prost(uint64, tag = "1")]
    pub(super) floor: u64,
    /// `msgno` of the row before the floor.
    #[prost(uint64, tag = "2")]
    pub(super) msgno: u64,
    /// Newest own time of an id in the rows that are gone, Unix milliseconds; 0 = none of them had such an id.
    #[prost(uint64, tag = "3")]
    pub(super) id_ms: u64,
}

/// What goes next.
#[derive(Debug, PartialEq, Eq)]
struct Removal {
    /// Everything that is gone then.
    gone: Gone,
    /// First row that the store keeps.
    floor: u64,
    /// Records of messages that go with it.
    records: BTreeSet<Bytes>,
    /// Time of the first row that stays, Unix milliseconds, if it was read.
    next_ms: Option<u64>,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Idle,
    /// The oldest rows are being read.
    Reading(Token),
    /// The checkpoint that says what goes is being written.
    Deciding(Token, Box<Removal>),
    /// The records of what is gone are being deleted.
    Forgetting(Token, Box<Removal>),
    /// The store is being told.
    Raising(Token, Box<Removal>),
}

/// How a log keeps its retention.
#[derive(Debug)]
pub(super) struct Retention {
    gone: Gone,
    /// First row that the store still has.
    stored_floor: u64,
    /// The retention that `due` was reckoned with, seconds; 0 = for ever.
    seconds: u32,
    /// When the oldest rows are looked at; `None` while there is none.
    due: Option<Time>,
    /// The earliest wake-up that was asked for and has not come.
    wake: Option<Time>,
    step: Step,
}

impl Retention {
    /// For a log as the store has it.
    pub(super) fn new(loaded: &Loaded, checkpoint: &Checkpoint) -> Self {
        let mut gone = checkpoint.gone.unwrap_or_default();
        if loaded.floor > gone.floor.max(1) {
            // Nobody wrote down what these rows held. They are not newer than the row that the checkpoint describes, or
            // than the first one that is there.
            let described = loaded.checkpoint.as_ref().map(|_| (checkpoint.time_ms, checkpoint.msgno));
            // A row that was imported does not say when it was stored.
            let first = loaded.tail.iter().find(|row| !row.is_imported()).map(|row| (row.time_ms(), row.msgno()));
            let (time_ms, msgno) = described.or(first).unwrap_or_default();
            gone = Gone { floor: loaded.floor, msgno, id_ms: time_ms + CLOCK_SKEW_MS_MAX };
        }
        gone.floor = gone.floor.max(1);
        let is_unfinished = loaded.floor < gone.floor;
        Self {
            gone,
            stored_floor: loaded.floor,
            seconds: 0,
            due: is_unfinished.then_some(Time(0)),
            wake: None,
            step: Step::Idle,
        }
    }

    /// First position that exists for readers.
    pub(super) fn floor(&self) -> u64 {
        self.gone.floor
    }

    /// `msgno` of the row before the floor.
    pub(super) fn msgno_below(&self) -> u64 {
        self.gone.msgno
    }

    /// What a checkpoint that is written now has to say.
    pub(super) fn to_state(&self) -> Option<Gone> {
        let gone = match &self.step {
            Step::Deciding(_, removal) => removal.gone,
            _ => self.gone,
        };
        (gone.floor > 1).then_some(gone)
    }

    /// Whether a checkpoint is wanted that says what goes.
    pub(super) fn is_deciding(&self) -> bool {
        matches!(self.step, Step::Deciding(..))
    }

    /// Whether a row that is gone may have been sent with this id. Ids without a time of their own are forgotten.
    pub(super) fn may_have_held(&self, id: Uuid) -> bool {
        self.gone.floor > 1 && own_time_ms(id).is_some_and(|ms| ms <= self.gone.id_ms)
    }

    /// Takes note of the retention that holds now, and of rows that have come.
    fn reckon(&mut self, seconds: u32, has_rows: bool, now: Time) {
        if self.seconds != seconds {
            self.seconds = seconds;
            self.due = Some(now);
        } else if self.due.is_none() && seconds > 0 && has_rows && matches!(self.step, Step::Idle) {
            self.due = Some(now + self.kept());
        }
    }

    /// A row has come that may be older than the moment.
    pub(super) fn imported(&mut self, time_ms: u64) {
        if self.seconds > 0 {
            let too_old = Time::from_unix_ms(time_ms + 1) + self.kept();
            self.due = Some(self.due.map_or(too_old, |due| due.min(too_old)));
        }
    }

    fn kept(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Whether rows grow too old, or some that are gone are still in the store.
    fn has_work(&self) -> bool {
        self.seconds > 0 || self.stored_floor < self.gone.floor
    }

    /// What goes of these rows, which are the oldest that the store has. `None`: nothing.
    fn removal(&self, rows: &[Row], now: Time) -> Option<Box<Removal>> {
        let kept_ms = u64::from(self.seconds) * 1_000;
        let is_old = |row: &Row| self.seconds > 0 && row.time_ms() + kept_ms < now.unix_ms();
        let count = rows.iter().take_while(|row| row.seq() < self.gone.floor || is_old(row)).count();
        let (old, kept) = rows.split_at(count);
        let last = old.last()?;
        let mut gone = self.gone;
        if last.seq() >= gone.floor {
            let newest_id_ms = old.iter().filter_map(|row| own_time_ms(row.client_message_id())).max();
            let id_ms = gone.id_ms.max(newest_id_ms.unwrap_or(0));
            gone = Gone { floor: last.seq() + 1, msgno: last.msgno(), id_ms };
        }
        let records = old.iter().flat_map(records_with).collect();
        let next_ms = kept.first().map(Row::time_ms);
        Some(Box::new(Removal { gone, floor: last.seq() + 1, records, next_ms }))
    }

    /// These rows are the oldest that the store has, after all of them were asked for.
    fn found(&mut self, rows: &[Row]) {
        let oldest = rows.first().map_or(self.gone.floor, Row::seq);
        self.stored_floor = self.stored_floor.max(oldest);
    }

    /// When the oldest rows are to be looked at again, of which the first has this time.
    fn due_for(&self, first_ms: u64, now: Time) -> Option<Time> {
        let interval = (self.kept() / 64).clamp(RETENTION_INTERVAL_MIN, RETENTION_INTERVAL_MAX);
        let too_old = Time::from_unix_ms(first_ms + 1) + self.kept();
        self.has_work().then(|| too_old.max(now + interval))
    }
}

/// Records that go with a row: those of the message that it changed.
fn records_with(row: &Row) -> impl Iterator<Item = Bytes> {
    let seq = fold::target(row);
    let reacted = seq.filter(|_| row.kind() == EventKind::REACTION).map(|seq| reacted_key(row.sender(), seq));
    seq.map(state_key).into_iter().chain(reacted)
}

impl Log {
    /// Begins to remove what is too old, if it is time for that.
    pub(super) fn expire(&mut self, fx: &mut Effects) {
        let State::Ready(contents) = &mut self.state else { return };
        let retention = &mut contents.retention;
        let has_rows = contents.head >= retention.stored_floor;
        retention.reckon(contents.conversation.retention_s, has_rows, fx.now);
        if !matches!(retention.step, Step::Idle) {
            return;
        }
        if !has_rows || !retention.has_work() {
            retention.due = None;
            return;
        }
        if retention.due.is_some_and(|due| due > fx.now) {
            return self.wake_for_retention(fx);
        }
        let range = ReadRows {
            from: retention.stored_floor,
            to: contents.head + 1,
            direction: Direction::Forward,
            rows_max: RETENTION_BATCH_ROWS_MAX,
            bytes_max: RETENTION_BATCH_BYTES_MAX,
        };
        match from_tail(contents, &range) {
            Some(rows) => self.decide_removal(fx, &rows),
            None => {
                let token = fx.store(Op::Read { log: self.key, range }, Purpose::Expire);
                contents.retention.step = Step::Reading(token);
            }
        }
    }

    /// The log was taken up: what is too old is looked for first, and requests wait for that, but not for more than one
    /// round of it.
    pub(super) fn expire_first(&mut self, fx: &mut Effects) {
        self.expire(fx);
        let State::Ready(contents) = &self.state else { return };
        if !matches!(contents.retention.step, Step::Idle) && self.stall.is_none() {
            self.stall = Some(Stall::Expiry);
        }
    }

    /// Something that the store was asked for the sake of the retention has come to an end. Answers to a log that was
    /// read anew meanwhile are not looked at.
    pub(super) fn expiry_answered(&mut self, fx: &mut Effects, token: Token, result: Result<Outcome, StoreError>) {
        let State::Ready(contents) = &mut self.state else { return };
        match (std::mem::take(&mut contents.retention.step), result) {
            (Step::Reading(asked), Ok(Outcome::Rows(rows))) if asked == token => self.decide_removal(fx, &rows),
            (Step::Deciding(asked, removal), Ok(_)) if asked == token => self.remove(fx, removal),
            (Step::Forgetting(asked, removal), Ok(_)) if asked == token => self.raise(fx, removal),
            (Step::Raising(asked, removal), Ok(_)) if asked == token => self.raised(fx, &removal),
            (
                Step::Reading(asked) | Step::Deciding(asked, _) | Step::Forgetting(asked, _) | Step::Raising(asked, _),
                _,
            ) if asked == token => self.expiry_over(fx, Some(fx.now + RETENTION_RETRY_AFTER)),
            (step, _) => contents.retention.step = step,
        }
    }

    fn decide_removal(&mut self, fx: &mut Effects, rows: &[Row]) {
        let State::Ready(contents) = &mut self.state else { return };
        contents.retention.found(rows);
        let Some(removal) = contents.retention.removal(rows, fx.now) else {
            let due = rows.first().and_then(|first| contents.retention.due_for(first.time_ms(), fx.now));
            return self.expiry_over(fx, due);
        };
        if removal.gone == contents.retention.gone {
            // A checkpoint has said so already.
            return self.remove(fx, removal);
        }
        // The token is not known before the checkpoint is, which has to say what is decided.
        contents.retention.step = Step::Deciding(Token(0), removal);
        let token = contents.checkpoint(fx, self.key, &self.across, true);
        match (&mut contents.retention.step, token) {
            (Step::Deciding(asked, _), Some(token)) => *asked = token,
            // No checkpoint can be written now.
            _ => self.expiry_over(fx, Some(fx.now + RETENTION_RETRY_AFTER)),
        }
    }

    /// It is durable what goes: it is gone for readers. Its records are deleted before its rows, which name them.
    fn remove(&mut self, fx: &mut Effects, removal: Box<Removal>) {
        let State::Ready(contents) = &mut self.state else { return };
        contents.retention.gone = removal.gone;
        contents.forget_gone();
        if removal.records.is_empty() {
            return self.raise(fx, removal);
        }
        let records = removal.records.iter().map(|key| RecordWrite { key: key.clone(), value: None }).collect();
        let token = fx.store(Op::PutRecords { log: self.key, records }, Purpose::Expire);
        contents.retention.step = Step::Forgetting(token, removal);
    }

    fn raise(&mut self, fx: &mut Effects, removal: Box<Removal>) {
        let State::Ready(contents) = &mut self.state else { return };
        let token = fx.store(Op::SetFloor { log: self.key, floor: removal.floor }, Purpose::Expire);
        contents.retention.step = Step::Raising(token, removal);
    }

    fn raised(&mut self, fx: &mut Effects, removal: &Removal) {
        let State::Ready(contents) = &mut self.state else { return };
        let retention = &mut contents.retention;
        retention.stored_floor = removal.floor;
        let due = match removal.next_ms {
            Some(next_ms) => retention.due_for(next_ms, fx.now),
            None if removal.floor > contents.head => None,
            None => Some(fx.now + RETENTION_PAUSE),
        };
        self.expiry_over(fx, due);
    }

    /// One round is over.
    fn expiry_over(&mut self, fx: &mut Effects, due: Option<Time>) {
        let State::Ready(contents) = &mut self.state else { return };
        contents.retention.step = Step::Idle;
        contents.retention.due = due;
        self.wake_for_retention(fx);
        if self.stall == Some(Stall::Expiry) {
            self.stall = None;
            self.drain(fx);
        }
    }

    /// Asks to be woken when something is due, unless that has been asked already.
    fn wake_for_retention(&mut self, fx: &mut Effects) {
        let State::Ready(contents) = &mut self.state else { return };
        let retention = &mut contents.retention;
        let Some(due) = retention.due else { return };
        let asked = retention.wake.filter(|wake| *wake > fx.now);
        if asked.is_none_or(|asked| due < asked) {
            retention.wake = Some(due);
            fx.wake_at(self.key, due);
        }
    }
}

impl Contents {
    /// Lets go what memory holds of rows that are gone.
    pub(super) fn forget_gone(&mut self) {
        let floor = self.floor();
        self.tail.forget_below(floor);
        self.duplicates.forget_below(floor);
        self.newest.forget_below(floor);
        self.messages.forget_below(floor);
        self.redactions.forget_below(floor);
    }

    /// Refuses a send that may repeat one whose row is gone.
    pub(super) fn refuse_expired(&self, id: Uuid) -> Result<(), Refusal> {
        if self.retention.may_have_held(id) {
            let message = "the id is older than what this log keeps; a new event needs a new id";
            return Err(Refusal::field(ErrorCode::DedupeExpired, "client_message_id", message));
        }
        Ok(())
    }
}
