//! The contents of a log that has been taken up: its positions, its fold, and the rows on their way to disk.

use std::collections::VecDeque;

use antiphon_protocol::{
    ContentType, EventKind, LogKey, NewRow, Row, UserId,
    frames::{self, Ack},
};
use antiphon_storage_contract::{Loaded, Op, Token};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    Purpose,
    checkpoint::{Checkpoint, Record as CheckpointRecord},
    conversation::Conversation,
    cursors::{self, Cursors, Saving},
    duplicates::Duplicates,
    message_state::MessageStates,
    redactions::Redactions,
    retention::Retention,
    tail::Tail,
};
use super::{
    across::{Across, OwedState},
    inbox::Inbox,
    last_message::Newest,
};
use crate::{
    effects::Effects,
    hash_key::HashKey,
    ids::Ids,
    limits::{APPEND_BYTES_MAX, CHECKPOINT_RECORD_BYTES_MAX, CHECKPOINT_ROWS, LOG_IN_FLIGHT_ROWS_MAX},
    seldom::Seldom,
    shard_message::{Origin, Record},
};

/// Who waits for a row to be durable, and for which answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiter {
    pub(super) origin: Origin,
    /// Its place among the sends of its connection; 0 = none.
    pub(super) dseq: u64,
    /// The record of a batch that it is.
    pub(super) record: Option<Record>,
    pub(super) answer: Answer,
}

/// The answer to a request that made a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// ACK.
    Ack { duplicate: bool },
    /// OK without a body.
    Done,
    /// To the source of an effect.
    Effect {
        /// Which log.
        source: LogKey,
        /// Position of its row there.
        seq: u64,
    },
    /// The conversation after the change.
    Conversation { created: bool },
}

/// A row on its way to disk.
#[derive(Debug)]
pub(super) struct PendingRow {
    /// The EVENT frame, encoded once for every reader.
    pub(super) frame: Bytes,
    pub(super) row: Row,
    pub(super) waiters: Vec<Waiter>,
    /// The message that it changes.
    pub(super) related: Option<Related>,
}

/// What a row does to an earlier message.
#[derive(Debug)]
pub(super) struct Related {
    /// The message's position.
    pub(super) seq: u64,
    /// Records of the message as they are after the row.
    pub(super) records: Vec<(Bytes, Bytes)>,
    /// The message as it was, if the row redacts it.
    pub(super) redacts: Option<Row>,
    /// Positions of its edits, which are redacted with it.
    pub(super) edits: Vec<u64>,
}

/// What a new row says; its place and time are the log's business.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) kind: EventKind,
    pub(super) content_type: ContentType,
    pub(super) client_message_id: Uuid,
    pub(super) sender: &'a UserId,
    pub(super) via: Option<&'a UserId>,
    pub(super) envelope: &'a [u8],
    pub(super) body: &'a [u8],
    /// Of an event that is imported.
    pub(super) original_time_ms: Option<u64>,
}

/// A log in memory. Positions up to `head` are durable; those up to `assigned` are given out.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) epoch: u32,
    pub(super) retention: Retention,
    pub(super) head: u64,
    pub(super) head_msgno: u64,
    assigned: u64,
    assigned_msgno: u64,
    /// Newest reading of the owner's clock in a row. Never goes back.
    last_time_ms: u64,
    head_time_ms: u64,
    checkpointed: u64,
    pub(super) conversation: Seldom<Conversation>,
    pub(super) inbox: Inbox,
    pub(super) newest: Newest,
    /// What the log owed when its checkpoint was written.
    pub(super) owed: Vec<OwedState>,
    pub(super) cursors: Seldom<Cursors>,
    pub(super) tail: Tail,
    pub(super) duplicates: Duplicates,
    pub(super) redactions: Redactions,
    pub(super) messages: MessageStates,
    pending: Vec<PendingRow>,
    in_flight: VecDeque<(Token, Vec<PendingRow>)>,
    in_flight_rows: usize,
}

impl Contents {
    /// Takes a log up as the store holds it.
    pub(super) fn new(loaded: Loaded, ids: &mut Ids, hash_key: HashKey) -> Result<Self, prost::DecodeError> {
        let mut checkpoint = Checkpoint::of(&loaded)?;
        let records = std::mem::take(&mut checkpoint.records);
        let records = records.into_iter().map(|record| (record.key, record.value)).collect();
        let through = loaded.checkpoint.as_ref().map_or(0, |(through, _)| *through);
        let mut contents = Self {
            epoch: loaded.epoch,
            retention: Retention::new(&loaded, &checkpoint),
            head: loaded.head,
            head_msgno: checkpoint.msgno,
            assigned: loaded.head,
            assigned_msgno: 0,
            last_time_ms: checkpoint.time_ms,
            head_time_ms: checkpoint.head_time_ms.unwrap_or(checkpoint.time_ms),
            checkpointed: through,
            conversation: checkpoint.conversation(ids).into(),
            inbox: checkpoint.inbox(ids),
            newest: Newest::restored(checkpoint.newest.take()),
            owed: std::mem::take(&mut checkpoint.owed),
            cursors: Seldom::default(),
            tail: Tail::default(),
            duplicates: Duplicates::new(checkpoint.time_ms, hash_key),
            redactions: Redactions::default(),
            messages: MessageStates::new(through + 1, records),
            pending: Vec::new(),
            in_flight: VecDeque::new(),
            in_flight_rows: 0,
        };
        if !checkpoint.cursors.is_empty() {
            *contents.cursors = Cursors::from_checkpoint(&checkpoint.cursors);
        }
        for row in loaded.tail {
            if let Some(sender) = ids.users.read(row.sender()) {
                contents.duplicates.insert(&row, &sender, loaded.epoch);
            }
            contents.fold(row);
        }
        #[cfg(feature = "mutants")]
        if crate::mutants::forgets_duplicates() {
            contents.duplicates = Duplicates::new(0, hash_key);
        }
        contents.forget_gone();
        contents.assigned_msgno = contents.head_msgno;
        Ok(contents)
    }

    /// Folds a durable row in.
    fn fold(&mut self, row: Row) {
        if Conversation::is_told_by(row.kind()) {
            self.conversation.apply(&row);
        }
        self.inbox.apply(&row);
        self.newest.apply(&row);
        self.head = row.seq();
        self.head_msgno = row.msgno();
        self.head_time_ms = row.time_ms();
        if row.is_imported() {
            self.retention.imported(row.time_ms());
        } else {
            self.last_time_ms = self.last_time_ms.max(row.time_ms());
        }
        self.tell_cursors(&row);
        self.tail.push(row);
    }

    /// First position that exists.
    pub(super) fn floor(&self) -> u64 {
        self.retention.floor()
    }

    /// Time of the last durable row, Unix milliseconds.
    pub(super) fn head_time_ms(&self) -> u64 {
        self.head_time_ms
    }

    /// Whether another row may be appended now.
    pub(super) fn has_room(&self) -> bool {
        self.in_flight_rows < LOG_IN_FLIGHT_ROWS_MAX
    }

    /// Gives the draft the next position and queues it for the store. Returns its position.
    pub(super) fn append(&mut self, fx: &mut Effects, handle: u32, draft: &Draft<'_>, waiter: Waiter) -> u64 {
        self.assigned += 1;
        self.assigned_msgno += u64::from(draft.kind == EventKind::MESSAGE);
        self.last_time_ms = self.last_time_ms.max(fx.now.unix_ms());
        let new_row = NewRow {
            seq: self.assigned,
            msgno: self.assigned_msgno,
            time_ms: draft.original_time_ms.unwrap_or(self.last_time_ms),
            event_id: fx.new_event_id(),
            client_message_id: draft.client_message_id,
            kind: draft.kind,
            content_type: draft.content_type,
            sender: draft.sender,
            via: draft.via,
            envelope: draft.envelope,
            body: draft.body,
        };
        let (mut frame, mut row) = frames::new_event(handle, &new_row);
        if draft.original_time_ms.is_some() {
            row = row.imported();
            frame = frames::event(handle, &row);
        }
        self.duplicates.insert(&row, draft.sender, self.epoch);
        self.in_flight_rows += 1;
        self.pending.push(PendingRow { frame, row, waiters: vec![waiter], related: None });
        self.assigned
    }

    /// Notes that the row appended last changes `target`, or would if it changed anything.
    pub(super) fn relate(&mut self, handle: u32, target: Row, is_unchanged: bool) {
        let Some(last) = self.pending.last_mut() else { return };
        if is_unchanged {
            last.row = last.row.unchanged();
            last.frame = frames::event(handle, &last.row);
        }
        let is_redaction = last.row.kind() == EventKind::REDACT;
        let seq = target.seq();
        last.related = Some(Related {
            seq,
            edits: if is_redaction { self.messages.edits(seq).to_vec() } else { Vec::new() },
            records: self.messages.fold(&last.row),
            redacts: is_redaction.then_some(target),
        });
    }

    /// A row that changes an earlier message is durable. A message that is gone meanwhile stays as it was.
    pub(super) fn change(&mut self, related: Related) {
        let Related { seq, mut records, redacts, edits } = related;
        if seq < self.floor() {
            records.clear();
        } else if let Some(target) = redacts {
            self.redact(seq, Some(target));
            edits.iter().for_each(|seq| self.redact(*seq, None));
        }
        self.messages.committed(seq, records);
    }

    /// A redaction is durable: empties the row that it names, here at once and in the store as soon as it can.
    pub(super) fn redact(&mut self, seq: u64, row: Option<Row>) {
        let row = self.tail.get(seq).cloned().or(row).map(|row| row.redacted());
        if let Some(row) = &row {
            self.tail.replace(row.clone());
        }
        self.redactions.add(seq, row);
    }

    /// Lets a repeated request wait for a row that is on its way to disk. False if it is not on its way.
    pub(super) fn join(&mut self, seq: u64, waiter: Waiter) -> bool {
        let in_flight = self.in_flight.iter_mut().flat_map(|(_, rows)| rows);
        match in_flight.chain(&mut self.pending).find(|pending| pending.row.seq() == seq) {
            Some(pending) => pending.waiters.push(waiter),
            None => return false,
        }
        true
    }

    /// Submits what was appended in this turn as one operation.
    pub(super) fn submit(&mut self, fx: &mut Effects, log: LogKey) {
        let mut pending = std::mem::take(&mut self.pending).into_iter().peekable();
        while pending.peek().is_some() {
            let mut bytes = 0;
            let mut rows: Vec<PendingRow> = Vec::new();
            while let Some(next) =
                pending.next_if(|next| rows.is_empty() || bytes + next.row.bytes().len() <= APPEND_BYTES_MAX)
            {
                bytes += next.row.bytes().len();
                rows.push(next);
            }
            let op = Op::Append { log, rows: rows.iter().map(|pending| pending.row.clone()).collect() };
            let token = fx.store(op, Purpose::Append);
            self.in_flight.push_back((token, rows));
        }
    }

    /// The oldest append is durable: folds its rows in and hands them out.
    pub(super) fn committed(&mut self, token: Token, now_ms: u64) -> Vec<PendingRow> {
        let Some((oldest, rows)) = self.in_flight.pop_front() else { return Vec::new() };
        debug_assert_eq!(oldest, token, "appends of one log complete in order");
        self.in_flight_rows -= rows.len();
        for pending in &rows {
            self.fold(pending.row.clone());
        }
        self.duplicates.prune(now_ms, self.head);
        rows
    }

    /// Everything that is not durable, and how many operations are still in flight besides the one that failed.
    pub(super) fn into_failed(self) -> (Vec<PendingRow>, usize) {
        let outstanding = self.in_flight.len().saturating_sub(1);
        (self.in_flight.into_iter().flat_map(|(_, rows)| rows).chain(self.pending).collect(), outstanding)
    }

    /// Writes a checkpoint if one is due, or if `force` and anything changed since the last one. `None`: it was not.
    pub(super) fn checkpoint(&mut self, fx: &mut Effects, log: LogKey, across: &Across, force: bool) -> Option<Token> {
        let rows = self.head - self.checkpointed;
        let is_due = rows >= CHECKPOINT_ROWS || (force && (rows > 0 || self.retention.is_deciding()));
        // A redaction behind a checkpoint would not be found again.
        if !is_due || !self.redactions.is_empty() {
            return None;
        }
        let records = self.messages.unsaved();
        if records.map(|(key, value)| key.len() + value.len()).sum::<usize>() > CHECKPOINT_RECORD_BYTES_MAX {
            return None;
        }
        let record = |(key, value): (&Bytes, &Bytes)| CheckpointRecord { key: key.clone(), value: value.clone() };
        let checkpoint = Checkpoint {
            msgno: self.head_msgno,
            time_ms: self.last_time_ms,
            head_time_ms: Some(self.head_time_ms).filter(|head| *head != self.last_time_ms),
            conversation: Some(self.conversation.to_state()),
            inbox: Some(self.inbox.to_state()),
            newest: self.newest.to_control(),
            owed: across.to_state(),
            records: self.messages.unsaved().map(record).collect(),
            gone: self.retention.to_state(),
            cursors: self.cursors.to_checkpoint(),
        };
        self.checkpointed = self.head;
        if rows >= CHECKPOINT_ROWS {
            // So that what checkpoints carry stays short.
            let saving = self.cursors.existing().map(Cursors::take_all_unsaved);
            save_cursors(fx, log, saving);
        }
        let op = Op::Checkpoint { log, through: self.head, value: checkpoint.to_bytes() };
        Some(fx.store(op, Purpose::Checkpoint))
    }

    /// Saves cursors that users moved.
    pub(super) fn write_cursors_behind(&mut self, fx: &mut Effects, log: LogKey) {
        save_cursors(fx, log, self.cursors.existing().map(Cursors::take_unsaved));
    }

    /// Whether something is to be written behind, or on its way.
    pub(super) fn owes_writes(&self) -> bool {
        self.cursors.has_unsaved() || !self.redactions.is_empty() || !self.messages.is_saved()
    }

    /// Whether nothing is on its way to disk, or still to go there.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty() && !self.owes_writes()
    }

    /// The answer to a send that was stored as `row`.
    pub(super) fn ack(&self, row: &Row, duplicate: bool) -> Ack {
        Ack::of(row, self.epoch, duplicate)
    }
}

fn save_cursors(fx: &mut Effects, log: LogKey, saving: Option<Saving>) {
    if let Some(saving) = saving.filter(|saving| !saving.is_empty()) {
        fx.store(Op::PutRecords { log, records: cursors::records(&saving) }, Purpose::SaveCursors(saving));
    }
}
