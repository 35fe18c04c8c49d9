//! FETCH of messages as they stand: a page of views, each the message's own row, the fold of what later events made of
//! it, and the beginning of what it answers.
//!
//! ```text
//! rows, in bounded reads, until enough messages    -> their records -> the reader's own reactions -+-> page
//!                                                                      what the messages answer   -+
//! ```
//!
//! Invariants: rows end at the head at which the request was authorized, and the page says so. Records are read after
//! that, so each holds at least what was durable then and says through where it is folded; what is not yet written comes
//! from memory as it was then. A record says that its message is redacted, whether or not the store has rewritten the row
//! already. The reader's reactions are read after the records, so that they are never behind them.
//! Before the page leaves, the reader is authorized again, because a record may hold what came after a removal.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_protocol::{
    Class, ErrorCode, EventKind, FrameType, Row,
    control::{self, MessageState, MessageView, MessagesPage},
    fold, frames,
    limits::PAGE_MESSAGES_MAX,
};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

use super::{
    Contents, Log, Purpose, State, answer,
    message_state::{Reacted, STATE_PREFIX, StateRecord, key_seq, reacted_key, reacted_prefix, state_key},
    page::{from_tail, range},
    redactions::one_row,
};
use crate::{
    actor::Actor,
    authority::authorize,
    effects::Effects,
    limits::{MESSAGES_READ_ROWS, MESSAGES_READS_MAX, PAGE_BYTES_TARGET},
    refusal::Refusal,
    seldom::Empty,
    shard_message::{Operation, Origin, Request, ShardMessage},
};

/// What a page of messages waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Rows of the range.
    Rows,
    /// Records of the messages.
    States,
    /// Records of the reader's reactions.
    Mine,
    /// A message that one of the page answers.
    Answered(u64),
    /// Its record.
    AnsweredState(u64),
}

/// Pages of messages that are being put together, by a number of their own. As many as FETCHes are in flight.
#[derive(Debug, Default)]
pub(super) struct Gatherings {
    open: BTreeMap<u64, Gathering>,
}

impl Empty for Gatherings {
    fn empty() -> &'static Self {
        static EMPTY: Gatherings = Gatherings { open: BTreeMap::new() };
        &EMPTY
    }
}

#[derive(Debug)]
struct Gathering {
    origin: Origin,
    actor: Arc<Actor>,
    /// What is left of the range.
    range: ReadRows,
    messages_max: usize,
    hidden: Vec<u64>,
    head: u64,
    floor: u64,
    epoch: u32,
    /// Records that the store may not have, as they were when the request was authorized.
    unsaved: BTreeMap<Bytes, Bytes>,
    reads: u32,
    rows_bytes: usize,
    /// Messages in the direction of the read, hidden ones left out.
    rows: Vec<Row>,
    /// First and last position between which messages were found.
    span: Option<(u64, u64)>,
    /// Messages in there, hidden or not.
    found: u32,
    states: BTreeMap<u64, MessageState>,
    mine: BTreeMap<u64, Vec<String>>,
    answered: BTreeMap<u64, Option<Row>>,
    /// Answers of the store that have not come.
    missing: u32,
}

impl Log {
    pub(super) fn fetch_messages(&mut self, fx: &mut Effects, request: &Request) {
        let Operation::FetchMessages { fetch, hidden } = &request.operation else { return };
        let (contents, floor) = match self.readable(request, FrameType::Fetch) {
            Ok(readable) => readable,
            Err(refusal) => return self.refuse(fx, request, &refusal),
        };
        let (id, gathering) = (fx.next_number(), Gathering::new(contents, floor, request, fetch, hidden.clone()));
        self.gatherings.open.insert(id, gathering);
        self.gather_rows(fx, id);
    }

    /// Takes rows from memory, or asks the store for them, until there are enough.
    fn gather_rows(&mut self, fx: &mut Effects, id: u64) {
        let Some(gathering) = self.gatherings.open.get_mut(&id) else { return };
        while gathering.wants_rows() {
            gathering.reads += 1;
            let range = ReadRows { rows_max: MESSAGES_READ_ROWS, ..gathering.range };
            let in_memory = match &self.state {
                State::Ready(contents) => from_tail(contents, &range),
                _ => None,
            };
            match in_memory {
                Some(rows) => gathering.take(rows),
                None => {
                    gathering.missing += 1;
                    fx.store(Op::Read { log: self.key, range }, Purpose::Gather(id, Part::Rows));
                    return;
                }
            }
        }
        self.gather_states(fx, id);
    }

    fn gather_states(&mut self, fx: &mut Effects, id: u64) {
        let Some(gathering) = self.gatherings.open.get_mut(&id) else { return };
        let is_untouched = |(first, last)| match &self.state {
            State::Ready(contents) => contents.messages.is_untouched(first, last + 1),
            _ => false,
        };
        match gathering.span.filter(|span| !is_untouched(*span)) {
            Some((first, _)) => {
                let prefix = Bytes::from_static(STATE_PREFIX);
                let (after, records_max) = (Some(state_key(first - 1)), gathering.found);
                gathering.missing += 1;
                let op = Op::ScanRecords { log: self.key, prefix, after, records_max };
                fx.store(op, Purpose::Gather(id, Part::States));
            }
            None => self.gather_rest(fx, id),
        }
    }

    /// Everything that depends on the records: the reader's reactions, and what the messages answer.
    fn gather_rest(&mut self, fx: &mut Effects, id: u64) {
        let Some(gathering) = self.gatherings.open.get_mut(&id) else { return };
        gathering.cut_to_size();
        let log = self.key;
        if let (Some((first, _)), true) = (gathering.span, gathering.has_reactions()) {
            let user = gathering.actor.user.as_str();
            let (prefix, after) = (reacted_prefix(user), Some(reacted_key(user, first - 1)));
            gathering.missing += 1;
            let op = Op::ScanRecords { log, prefix, after, records_max: gathering.found };
            fx.store(op, Purpose::Gather(id, Part::Mine));
        }
        let State::Ready(contents) = &self.state else { return self.send_page(fx, id) };
        for seq in gathering.answered_elsewhere() {
            gathering.answered.insert(seq, contents.tail.get(seq).cloned());
            if contents.tail.get(seq).is_none() {
                gathering.missing += 1;
                fx.store(Op::Read { log, range: one_row(seq) }, Purpose::Gather(id, Part::Answered(seq)));
            }
            if !contents.messages.is_untouched(seq, seq + 1) {
                gathering.missing += 1;
                let op = Op::GetRecord { log, key: state_key(seq) };
                fx.store(op, Purpose::Gather(id, Part::AnsweredState(seq)));
            }
        }
        if gathering.missing == 0 {
            self.send_page(fx, id);
        }
    }

    /// The store has answered for a page of messages.
    pub(super) fn gathered(&mut self, fx: &mut Effects, id: u64, part: Part, result: Result<Outcome, StoreError>) {
        let Some(gathering) = self.gatherings.open.get_mut(&id) else { return };
        gathering.missing -= 1;
        if let State::Ready(contents) = &self.state {
            gathering.raise_floor(contents.floor());
        }
        match (part, result) {
            (Part::Rows, Ok(Outcome::Rows(rows))) => {
                if rows.is_empty() && gathering.range.from < gathering.range.to {
                    let refusal = Refusal::new(ErrorCode::StoreDegraded, "rows that should exist were not found");
                    return self.refuse_page(fx, id, &refusal);
                }
                gathering.take(rows);
                self.gather_rows(fx, id);
            }
            (Part::States, Ok(Outcome::Records(records))) => {
                gathering.take_states(&records);
                self.gather_rest(fx, id);
            }
            (Part::Mine, Ok(Outcome::Records(records))) => {
                gathering.take_mine(&records);
                self.page_part_done(fx, id);
            }
            (Part::Answered(seq), Ok(Outcome::Rows(rows))) => {
                gathering.answered.insert(seq, rows.into_iter().next());
                self.page_part_done(fx, id);
            }
            (Part::AnsweredState(seq), Ok(Outcome::Record(record))) => {
                if let Some(record) = record {
                    gathering.take_state(seq, &record);
                }
                self.page_part_done(fx, id);
            }
            (_, Ok(_)) => self.refuse_page(fx, id, &super::send::internal()),
            (_, Err(error)) => {
                let refusal = Refusal { is_outcome_unknown: false, ..Refusal::from(&error) };
                self.refuse_page(fx, id, &refusal);
            }
        }
    }

    fn page_part_done(&mut self, fx: &mut Effects, id: u64) {
        if self.gatherings.open.get(&id).is_some_and(|gathering| gathering.missing == 0) {
            self.send_page(fx, id);
        }
    }

    fn refuse_page(&mut self, fx: &mut Effects, id: u64, refusal: &Refusal) {
        let Some(gathering) = self.gatherings.open.remove(&id) else { return };
        fx.refused(refusal.code);
        answer(fx, gathering.origin, refusal.to_frame(gathering.origin.request_id));
    }

    fn send_page(&mut self, fx: &mut Effects, id: u64) {
        let Some(gathering) = self.gatherings.open.get(&id) else { return };
        let allowed = match &self.state {
            State::Ready(contents) => {
                let (actor, authority) = (&gathering.actor, FrameType::Fetch.authority());
                authorize(authority, actor, &actor.user, &self.name, &contents.conversation).map_err(Refusal::from)
            }
            _ => Err(Refusal::new(ErrorCode::Overloaded, "the log is being read")),
        };
        if let Err(refusal) = allowed {
            return self.refuse_page(fx, id, &refusal);
        }
        // A member may have been removed and have come back, and sees less now.
        let floor = self.floor_for(&gathering.actor, &gathering.actor.user);
        let Some(mut gathering) = self.gatherings.open.remove(&id) else { return };
        gathering.raise_floor(floor);
        fx.counters.pages += 1;
        let origin = gathering.origin;
        let frame = frames::control(FrameType::MessagesPage, origin.request_id, &gathering.into_page());
        fx.post(origin.shard, ShardMessage::Answer { origin, class: Class::Backfill, frame });
    }
}

impl Gathering {
    fn new(contents: &Contents, floor: u64, request: &Request, fetch: &control::Fetch, hidden: Vec<u64>) -> Self {
        let wanted = if fetch.limit == 0 { PAGE_MESSAGES_MAX } else { fetch.limit.min(PAGE_MESSAGES_MAX) };
        Self {
            origin: request.origin,
            actor: request.actor.clone(),
            range: range(contents.head, floor, fetch),
            messages_max: wanted as usize,
            hidden,
            head: contents.head,
            floor,
            epoch: contents.epoch,
            unsaved: contents.messages.unsaved().map(|(key, value)| (key.clone(), value.clone())).collect(),
            reads: 0,
            rows_bytes: 0,
            rows: Vec::new(),
            span: None,
            found: 0,
            states: BTreeMap::new(),
            mine: BTreeMap::new(),
            answered: BTreeMap::new(),
            missing: 0,
        }
    }

    /// The floor may have risen while the page was gathered: what lies below it is gone.
    fn raise_floor(&mut self, floor: u64) {
        if floor <= self.floor {
            return;
        }
        self.floor = floor;
        self.range.from = self.range.from.max(floor);
        self.rows.retain(|row| row.seq() >= floor);
        self.answered = self.answered.split_off(&floor);
    }

    fn wants_rows(&self) -> bool {
        self.range.from < self.range.to
            && self.rows.len() < self.messages_max
            && self.rows_bytes < PAGE_BYTES_TARGET
            && self.reads < MESSAGES_READS_MAX
    }

    /// Takes what the page still wants of some rows, and moves on in the range.
    fn take(&mut self, rows: Vec<Row>) {
        let floor = self.floor;
        for row in rows.into_iter().filter(|row| row.seq() >= floor) {
            let bytes = row.bytes().len();
            let is_full = self.rows.len() >= self.messages_max
                || (!self.rows.is_empty() && self.rows_bytes + bytes > PAGE_BYTES_TARGET);
            let is_message = row.kind() == EventKind::MESSAGE;
            if is_message && is_full {
                // Full for now; the page says that it goes on here.
                self.rows_bytes = self.rows_bytes.max(PAGE_BYTES_TARGET);
                return;
            }
            match self.range.direction {
                Direction::Forward => self.range.from = row.seq() + 1,
                Direction::Backward => self.range.to = row.seq(),
            }
            if !is_message {
                continue;
            }
            let (first, last) = self.span.unwrap_or((row.seq(), row.seq()));
            self.span = Some((first.min(row.seq()), last.max(row.seq())));
            self.found += 1;
            if self.hidden.binary_search(&row.seq()).is_err() {
                self.rows_bytes += bytes;
                self.rows.push(row);
            }
        }
    }

    fn take_states(&mut self, records: &[(Bytes, Bytes)]) {
        let last = self.span.map_or(0, |(_, last)| last);
        for (key, record) in records {
            let Some(seq) = key_seq(key).filter(|seq| *seq <= last) else { continue };
            self.take_state(seq, record);
        }
    }

    fn take_state(&mut self, seq: u64, record: &Bytes) {
        if let Some(state) = StateRecord::decode(&record[..]).ok().and_then(|record| record.state) {
            self.states.insert(seq, state);
        }
    }

    fn take_mine(&mut self, records: &[(Bytes, Bytes)]) {
        let user = self.actor.user.to_string();
        for row in &self.rows {
            let key = reacted_key(&user, row.seq());
            let stored = records.iter().find(|(found, _)| *found == key).map(|(_, record)| record);
            let records = stored.into_iter().chain(self.unsaved.get(&key));
            let newest = records.filter_map(|record| Reacted::decode(&record[..]).ok()).max_by_key(|r| r.through);
            self.mine.extend(newest.map(|reacted| (row.seq(), reacted.keys)));
        }
    }

    /// What later events made of the message: the store's record or one that was on its way there, whichever is newer.
    fn state(&self, seq: u64) -> Option<MessageState> {
        let unsaved = self.unsaved.get(&state_key(seq));
        let unsaved = unsaved.and_then(|record| StateRecord::decode(&record[..]).ok()?.state);
        unsaved.into_iter().chain(self.states.get(&seq).cloned()).max_by_key(|state| state.through)
    }

    /// Gives back messages that do not fit the page with what was made of them; the first one always fits.
    fn cut_to_size(&mut self) {
        let mut bytes = 0;
        let fitting = self.rows.iter().take_while(|row| {
            bytes += row.bytes().len() + self.state(row.seq()).map_or(0, |state| state.encoded_len());
            bytes <= 2 * PAGE_BYTES_TARGET
        });
        let fitting = fitting.count().max(1);
        let Some(next) = self.rows.get(fitting).map(Row::seq) else { return };
        self.rows.truncate(fitting);
        match self.range.direction {
            Direction::Forward => self.range.from = next,
            Direction::Backward => self.range.to = next + 1,
        }
    }

    fn has_reactions(&self) -> bool {
        self.rows.iter().any(|row| self.state(row.seq()).is_some_and(|state| !state.reactions.is_empty()))
    }

    /// Positions of messages that the page's messages answer, as far as they are not on it and may be seen.
    fn answered_elsewhere(&self) -> BTreeSet<u64> {
        let answered = self.rows.iter().filter_map(|row| Some((row, fold::reply_to(row)?.0)));
        let may_be_seen = |seq: &u64| *seq >= self.floor && self.hidden.binary_search(seq).is_err();
        let earlier = answered.filter(|(row, seq)| *seq < row.seq()).map(|(_, seq)| seq);
        earlier.filter(may_be_seen).filter(|seq| self.row(*seq).is_none()).collect()
    }

    /// A message of the page, or one that was read because it is answered.
    fn row(&self, seq: u64) -> Option<&Row> {
        let on_page = self.rows.iter().find(|row| row.seq() == seq);
        on_page.or_else(|| self.answered.get(&seq).and_then(Option::as_ref))
    }

    fn preview(&self, row: &Row) -> Option<control::ReplyPreview> {
        let (seq, event_id): (u64, Uuid) = fold::reply_to(row)?;
        let answered = self.row(seq).filter(|answered| answered.event_id() == event_id)?;
        (answered.kind() == EventKind::MESSAGE).then(|| fold::preview(answered, self.state(seq).as_ref()))
    }

    fn view(&self, row: &Row) -> MessageView {
        let mut state = self.state(row.seq());
        let is_redacted = row.is_redacted() || state.as_ref().is_some_and(|state| state.redacted.is_some());
        let mine = self.mine.get(&row.seq()).map_or(&[][..], Vec::as_slice);
        for reactions in state.iter_mut().flat_map(|state| &mut state.reactions) {
            reactions.mine = mine.contains(&reactions.key);
        }
        let row_bytes = if is_redacted { row.redacted().bytes().clone() } else { row.bytes().clone() };
        let reply = if is_redacted { None } else { self.preview(row) };
        MessageView { row: row_bytes, state, reply }
    }

    fn into_page(self) -> MessagesPage {
        let next = match self.range.direction {
            _ if self.range.from >= self.range.to => 0,
            Direction::Forward => self.range.from,
            Direction::Backward => self.range.to,
        };
        let messages = self.rows.iter().map(|row| self.view(row)).collect();
        MessagesPage { next, head: self.head, floor: self.floor, epoch: self.epoch, messages }
    }
}
