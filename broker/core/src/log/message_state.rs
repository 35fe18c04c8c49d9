//! `msg_state`: what later events made of each message, kept as one record per touched message next to the log.
//!
//! ```text
//! state/<seq>            StateRecord: the fold (antiphon_protocol::fold), and where its edits lie
//! reacted/<user>/<seq>   Reacted: the keys of this user's reactions to it
//! ```
//!
//! Flow: a send that relates to a message needs its record (and, to react, the user's) before it gets its place. For
//! messages that are new or were touched lately that is in memory; otherwise the log waits for one round of reads, made
//! together with that of the message itself. The send is judged by the fold of everything that has a place, so reactions
//! in flight count; the resulting records wait with the row and are written when it is durable.
//!
//! Invariants:
//! - A record is never ahead of the durable rows, and says through which row it is folded.
//! - What is not yet known to be written stays in `unsaved`, which answers before the store does, and goes into every
//!   checkpoint. So checkpoint + tail always give the exact records, whatever became of the writes.
//! - A message at or above `untouched_from` without an entry has no record.
//! - An entry with rows in flight is not let go, so no record in the store is older than what is not in memory.
//!
//! Absent: pages of messages (see `messages`), and the reading of records, which is the log's business.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{
    ErrorCode, EventKind, LogKey, Row, UserId,
    control::MessageState,
    fold,
    limits::{EDITS_MAX, REACTION_KEYS_MAX, REACTIONS_MAX},
};
use antiphon_storage_contract::{Op, RecordWrite, Token};
use bytes::Bytes;
use prost::Message;

use super::Purpose;
use crate::{
    effects::Effects,
    limits::{MESSAGE_STATES_BYTES_MAX, MESSAGE_STATES_MAX},
    refusal::Refusal,
};

/// Prefix of the records of messages.
pub(super) const STATE_PREFIX: &[u8] = b"state/";

/// A message's record. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Message)]
pub(super) struct StateRecord {
    /// The fold.
    #[prost(message, optional, tag = "1")]
    pub(super) state: Option<MessageState>,
    /// Positions of its edits, which a redaction has to empty too; the fold forgets them then.
    #[prost(uint64, repeated, tag = "2")]
    pub(super) edits: Vec<u64>,
}

/// One user's reactions to one message. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Reacted {
    /// Last event that is folded in.
    #[prost(uint64, tag = "1")]
    pub(super) through: u64,
    /// Sorted.
    #[prost(string, repeated, tag = "2")]
    pub(super) keys: Vec<String>,
}

/// Key of a message's record.
pub(super) fn state_key(seq: u64) -> Bytes {
    [STATE_PREFIX, &seq.to_be_bytes()].concat().into()
}

/// Prefix of the records of a user's reactions.
pub(super) fn reacted_prefix(user: &str) -> Bytes {
    [b"reacted/", user.as_bytes(), b"/"].concat().into()
}

/// Key of the record of a user's reactions to a message.
pub(super) fn reacted_key(user: &str, seq: u64) -> Bytes {
    [&reacted_prefix(user)[..], &seq.to_be_bytes()].concat().into()
}

/// The position that a key of either kind ends with.
pub(super) fn key_seq(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|seq| u64::from_be_bytes(*seq))
}

/// What a related send would change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change<'a> {
    pub(super) kind: EventKind,
    /// Position of the message.
    pub(super) seq: u64,
    pub(super) user: &'a UserId,
    /// Of a reaction.
    pub(super) key: &'a str,
    pub(super) remove: bool,
}

/// A message as of the last position that was given out.
#[derive(Debug, Default)]
struct Entry {
    record: StateRecord,
    /// What is known of each user's reactions.
    reacted: BTreeMap<UserId, BTreeSet<String>>,
    /// Whoever is not in `reacted` has not reacted.
    is_complete: bool,
    /// Rows about it that are not durable yet.
    in_flight: u32,
    last_used: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Unsaved {
    value: Bytes,
    /// The write that carries it, while that is under way.
    token: Option<Token>,
}

/// The touched messages of one log, as far as memory holds them.
#[derive(Debug, Default)]
pub(super) struct MessageStates {
    entries: BTreeMap<u64, Entry>,
    untouched_from: u64,
    unsaved: BTreeMap<Bytes, Unsaved>,
    bytes: usize,
    uses: u64,
}

impl MessageStates {
    /// For a log whose messages from `untouched_from` on have nothing in the store. `records` may not be written yet.
    pub(super) fn new(untouched_from: u64, records: Vec<(Bytes, Bytes)>) -> Self {
        let unsaved = |(key, value)| (key, Unsaved { value, token: None });
        Self { untouched_from, unsaved: records.into_iter().map(unsaved).collect(), ..Self::default() }
    }

    /// Keys of the records that have to be read before these rows can be folded in.
    pub(super) fn missing_for<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> BTreeSet<Bytes> {
        let keys = rows.filter_map(|row| {
            let seq = fold::target(row)?;
            let reacted = (row.kind() == EventKind::REACTION).then(|| reacted_key(row.sender(), seq));
            Some([Some(state_key(seq)), reacted])
        });
        keys.flatten().flatten().filter(|key| !self.unsaved.contains_key(key)).collect()
    }

    /// Folds the rows behind a checkpoint in, now that `found` holds the records that were missing.
    pub(super) fn restore(&mut self, rows: &[Row], found: &BTreeMap<Bytes, Bytes>) {
        for row in rows {
            let (Some(seq), Ok(user)) = (fold::target(row), row.sender().parse::<UserId>()) else { continue };
            self.learn_state(seq, found.get(&state_key(seq)));
            if row.kind() == EventKind::REACTION {
                self.learn_reacted(seq, &user, found.get(&reacted_key(row.sender(), seq)));
            }
            let records = self.fold(row);
            self.committed(seq, records);
        }
    }

    /// Whether the message's record has to be read.
    pub(super) fn needs_state(&self, seq: u64) -> bool {
        seq < self.untouched_from && !self.entries.contains_key(&seq) && !self.unsaved.contains_key(&state_key(seq))
    }

    /// Whether the record of the user's reactions to the message has to be read.
    pub(super) fn needs_reacted(&self, seq: u64, user: &UserId) -> bool {
        let is_known =
            self.entries.get(&seq).is_some_and(|entry| entry.is_complete || entry.reacted.contains_key(user));
        seq < self.untouched_from && !is_known && !self.unsaved.contains_key(&reacted_key(user.as_str(), seq))
    }

    /// Takes up the message's record as the store has it, unless memory knows better.
    pub(super) fn learn_state(&mut self, seq: u64, stored: Option<&Bytes>) {
        self.uses += 1;
        if !self.entries.contains_key(&seq) {
            self.make_room();
            let value = self.unsaved.get(&state_key(seq)).map(|unsaved| &unsaved.value).or(stored);
            let record = value.and_then(|value| StateRecord::decode(&value[..]).ok()).unwrap_or_default();
            let entry = Entry { record, is_complete: seq >= self.untouched_from, ..Entry::default() };
            self.entries.insert(seq, entry);
        }
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.last_used = self.uses;
        }
    }

    /// The same for the record of a user's reactions to the message. Its own record must have been learnt.
    pub(super) fn learn_reacted(&mut self, seq: u64, user: &UserId, stored: Option<&Bytes>) {
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        if entry.is_complete || entry.reacted.contains_key(user) {
            return;
        }
        let value = self.unsaved.get(&reacted_key(user.as_str(), seq)).map(|unsaved| &unsaved.value).or(stored);
        let reacted = value.and_then(|value| Reacted::decode(&value[..]).ok()).unwrap_or_default();
        entry.reacted.insert(user.clone(), reacted.keys.into_iter().collect());
    }

    /// Whether the change would change nothing; or why it is refused. What it needs must have been learnt.
    pub(super) fn judge(&self, change: &Change<'_>) -> Result<bool, Refusal> {
        let refuse = |code, message: String| Err(Refusal::field(code, "envelope.relates_to", message));
        let Some(entry) = self.entries.get(&change.seq) else { return Ok(false) };
        let untouched = MessageState::default();
        let state = entry.record.state.as_ref().unwrap_or(&untouched);
        if state.redacted.is_some() {
            return refuse(ErrorCode::InvalidRelation, "the message is redacted".into());
        }
        match change.kind {
            EventKind::EDIT if state.edits.len() >= EDITS_MAX => {
                refuse(ErrorCode::LimitExceeded, format!("a message is edited at most {EDITS_MAX} times"))
            }
            EventKind::PIN => Ok(state.pinned.is_some() != change.remove),
            EventKind::REACTION => {
                let has = entry.reacted.get(change.user).is_some_and(|keys| keys.contains(change.key));
                if has != change.remove {
                    return Ok(true);
                }
                let count: u32 = state.reactions.iter().map(|reactions| reactions.count).sum();
                let is_new_key = state.reactions.iter().all(|reactions| reactions.key != change.key);
                if !change.remove && count >= REACTIONS_MAX {
                    return refuse(
                        ErrorCode::LimitExceeded,
                        format!("a message has at most {REACTIONS_MAX} reactions"),
                    );
                }
                if !change.remove && is_new_key && state.reactions.len() >= REACTION_KEYS_MAX {
                    let message = format!("a message has at most {REACTION_KEYS_MAX} different reactions");
                    return refuse(ErrorCode::LimitExceeded, message);
                }
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    /// Positions of the message's edits.
    pub(super) fn edits(&self, seq: u64) -> &[u64] {
        self.entries.get(&seq).map_or(&[], |entry| &entry.record.edits)
    }

    /// Folds in a row that has its place; returns the records as they are after it, for when it is durable.
    pub(super) fn fold(&mut self, row: &Row) -> Vec<(Bytes, Bytes)> {
        let Some((seq, entry)) = fold::target(row).and_then(|seq| Some((seq, self.entries.get_mut(&seq)?))) else {
            return Vec::new();
        };
        entry.in_flight += 1;
        if !row.is_unchanged() && row.kind() == EventKind::REACTION {
            entry.react(row);
        }
        if !fold::event(entry.record.state.get_or_insert_default(), row, "") {
            // It is in the record; the user's own record may still lack it.
            return entry.reacted_record(seq, row).into_iter().collect();
        }
        if row.kind() == EventKind::EDIT {
            entry.record.edits.push(row.seq());
        }
        let value = Bytes::from(entry.record.encode_to_vec());
        let bytes = value.len() + entry.reacted.len() * 96;
        self.bytes = self.bytes - entry.bytes + bytes;
        entry.bytes = bytes;
        entry.reacted_record(seq, row).into_iter().chain([(state_key(seq), value)]).collect()
    }

    /// A row about the message is durable: its records may be written.
    pub(super) fn committed(&mut self, seq: u64, records: Vec<(Bytes, Bytes)>) {
        if let Some(entry) = self.entries.get_mut(&seq) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
        self.unsaved.extend(records.into_iter().map(|(key, value)| (key, Unsaved { value, token: None })));
    }

    /// Writes what is not under way.
    pub(super) fn save(&mut self, fx: &mut Effects, log: LogKey) {
        let due = self.unsaved.iter_mut().filter(|(_, unsaved)| unsaved.token.is_none());
        let mut due: Vec<_> = due.collect();
        if due.is_empty() {
            return;
        }
        let write = |(key, unsaved): &(&Bytes, &mut Unsaved)| RecordWrite {
            key: (*key).clone(),
            value: Some(unsaved.value.clone()),
        };
        let records = due.iter().map(write).collect();
        let token = fx.store(Op::PutRecords { log, records }, Purpose::SaveStates);
        due.iter_mut().for_each(|(_, unsaved)| unsaved.token = Some(token));
    }

    /// A write has ended. What failed is written again by the next `save`.
    pub(super) fn saved(&mut self, token: Token, is_written: bool) {
        if is_written {
            self.unsaved.retain(|_, unsaved| unsaved.token != Some(token));
        } else {
            let failed = self.unsaved.values_mut().filter(|unsaved| unsaved.token == Some(token));
            failed.for_each(|unsaved| unsaved.token = None);
        }
    }

    /// Records that the store may not have.
    pub(super) fn unsaved(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.unsaved.iter().map(|(key, unsaved)| (key, &unsaved.value))
    }

    /// Whether everything is written.
    pub(super) fn is_saved(&self) -> bool {
        self.unsaved.is_empty()
    }

    /// Whether no message in `from..to` has a record.
    pub(super) fn is_untouched(&self, from: u64, to: u64) -> bool {
        from >= self.untouched_from && self.entries.range(from..to).next().is_none()
    }

    /// Forgets messages below `floor`, which are gone; those with rows in flight go as any idle one does.
    pub(super) fn forget_below(&mut self, floor: u64) {
        self.unsaved.retain(|key, _| key_seq(key).is_none_or(|seq| seq >= floor));
        let gone = self.entries.extract_if(..floor, |_, entry| entry.in_flight == 0);
        self.bytes -= gone.map(|(_, entry)| entry.bytes).sum::<usize>();
    }

    /// Lets entries go, least recently used first, until another one fits.
    fn make_room(&mut self) {
        while self.entries.len() >= MESSAGE_STATES_MAX || self.bytes > MESSAGE_STATES_BYTES_MAX {
            let idle = self.entries.iter().filter(|(_, entry)| entry.in_flight == 0);
            let Some(seq) = idle.min_by_key(|(_, entry)| entry.last_used).map(|(seq, _)| *seq) else { return };
            if let Some(entry) = self.entries.remove(&seq) {
                self.bytes -= entry.bytes;
                self.untouched_from = self.untouched_from.max(seq + 1);
            }
        }
    }
}

impl Entry {
    fn react(&mut self, row: &Row) {
        let envelope = row.envelope();
        let relation = antiphon_protocol::Envelope::trusted(&envelope).ok().and_then(|envelope| envelope.relates_to());
        let (Some(relation), Ok(user)) = (relation, row.sender().parse::<UserId>()) else { return };
        let Some(key) = relation.key else { return };
        let keys = self.reacted.entry(user).or_default();
        if relation.remove {
            keys.remove(key);
        } else {
            keys.insert(key.to_owned());
        }
    }

    fn reacted_record(&self, seq: u64, row: &Row) -> Option<(Bytes, Bytes)> {
        if row.kind() != EventKind::REACTION || row.is_unchanged() {
            return None;
        }
        let keys = self.reacted.get(&row.sender().parse::<UserId>().ok()?)?;
        let record = Reacted { through: row.seq(), keys: keys.iter().cloned().collect() };
        Some((reacted_key(row.sender(), seq), record.encode_to_vec().into()))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, NewEnvelope, NewRow, Rel, Relation, envelope::EventRef};
    use uuid::Uuid;

    use super::*;

    fn reaction(seq: u64, target: u64) -> Row {
        let target = EventRef { event_id: Uuid::from_u128(target.into()), seq: target };
        let relation = Relation { rel: Rel::REACTION, target, key: Some("+1"), remove: false };
        NewRow {
            seq,
            msgno: 0,
            time_ms: 0,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id: Uuid::nil(),
            kind: EventKind::REACTION,
            content_type: ContentType::Text,
            sender: &ann(),
            via: None,
            envelope: &NewEnvelope { relates_to: Some(relation), ..Default::default() }.to_bytes(),
            body: b"",
        }
        .to_row()
    }

    fn ann() -> UserId {
        "ann".parse().unwrap()
    }

    fn is_unchanged(states: &MessageStates, seq: u64) -> bool {
        let change = Change { kind: EventKind::REACTION, seq, user: &ann(), key: "+1", remove: false };
        states.judge(&change).unwrap()
    }

    /// Touches so many other messages that every idle one is let go.
    fn crowd(states: &mut MessageStates) {
        (100..=100 + MESSAGE_STATES_MAX as u64).for_each(|seq| states.learn_state(seq, None));
    }

    #[test]
    fn a_message_with_rows_in_flight_stays_and_an_idle_one_is_read_again() {
        let mut states = MessageStates::new(1_000, Vec::new());
        assert!(states.needs_state(1) && states.needs_reacted(1, &ann()));
        states.learn_state(1, None);
        states.learn_reacted(1, &ann(), None);
        let records = states.fold(&reaction(1_000, 1));
        crowd(&mut states);
        assert!(!states.needs_state(1) && is_unchanged(&states, 1), "nothing but memory knows of it yet");
        states.committed(1, records.clone());
        crowd(&mut states);
        assert!(!states.needs_state(1), "what is not written is known all the same");
        states.learn_state(1, None);
        states.learn_reacted(1, &ann(), None);
        assert!(is_unchanged(&states, 1));
        states.unsaved.clear();
        crowd(&mut states);
        assert!(states.needs_state(1) && states.needs_reacted(1, &ann()));
        let stored: BTreeMap<Bytes, Bytes> = records.into_iter().collect();
        states.learn_state(1, stored.get(&state_key(1)));
        states.learn_reacted(1, &ann(), stored.get(&reacted_key("ann", 1)));
        assert!(is_unchanged(&states, 1));
    }

    #[test]
    fn a_new_message_is_known_to_be_untouched_until_it_is_let_go() {
        let mut states = MessageStates::new(1_000, Vec::new());
        assert!(!states.needs_state(1_000) && states.is_untouched(1_000, 2_000));
        states.learn_state(1_000, None);
        assert!(!states.needs_reacted(1_000, &ann()) && !states.is_untouched(1_000, 1_001));
        crowd(&mut states);
        assert!(states.needs_state(1_000) && states.needs_reacted(1_000, &ann()));
        assert!(!states.needs_state(1_001));
    }

    #[test]
    fn rows_behind_a_checkpoint_are_folded_in_once_whatever_was_written() {
        let rows = [reaction(1_000, 1), reaction(1_001, 2)];
        let mut before = MessageStates::new(1_000, Vec::new());
        before.restore(&rows, &BTreeMap::new());
        let written: BTreeMap<Bytes, Bytes> = before.unsaved().map(|(k, v)| (k.clone(), v.clone())).collect();
        assert_eq!(written.len(), 4);
        for kept in 0..16_u32 {
            let is_kept = |index: usize| kept >> index & 1 == 1;
            let kept = written.clone().into_iter().enumerate().filter(|(index, _)| is_kept(*index));
            let found: BTreeMap<Bytes, Bytes> = kept.map(|(_, record)| record).collect();
            let mut again = MessageStates::new(1_000, Vec::new());
            assert_eq!(again.missing_for(rows.iter()).len(), 4);
            again.restore(&rows, &found);
            let mut known = found;
            known.extend(again.unsaved().map(|(key, value)| (key.clone(), value.clone())));
            assert_eq!(known, written);
        }
    }
}
