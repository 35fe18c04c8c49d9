//! The part of the duplicate index that is in memory: sends of the last minutes, by their ids' own time.
//!
//! Invariant: an id whose own time lies after [`Duplicates::complete_after_ms`] is in here if and only if it is stored
//! or on its way to the store. Any other id has to be looked up. This holds because an id is refused if its own time
//! lies more than a minute ahead of the clock at which it is stored: what was stored before a moment has an own time
//! before that moment plus a minute.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{Row, UserId, frames::Ack, limits::CLOCK_SKEW_MS_MAX};
use uuid::Uuid;

use crate::limits::DUPLICATES_IN_MEMORY_MS;

/// Sends of one log that are remembered at most. Full: the oldest durable ones are left to the store.
const ENTRIES_MAX: usize = 65_536;

/// What is known about an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// It was used for the row at this position, which may still be on its way to disk.
    At {
        /// Position of the row.
        seq: u64,
        /// Hash of its content.
        content_hash: u64,
    },
    /// It was never used.
    New,
    /// Only the store knows.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    seq: u64,
    content_hash: u64,
    ack: Ack,
}

/// Recent ids of one log.
#[derive(Debug)]
pub(super) struct Duplicates {
    entries: BTreeMap<(Uuid, UserId), Entry>,
    by_age: VecDeque<(u64, (Uuid, UserId))>,
    complete_after_ms: u64,
}

impl Duplicates {
    /// For a log of which the rows stored after `stored_ms` are about to be inserted; 0 = all its rows.
    pub(super) fn new(stored_ms: u64) -> Self {
        let complete_after_ms = if stored_ms == 0 { 0 } else { stored_ms + CLOCK_SKEW_MS_MAX };
        Self { entries: BTreeMap::new(), by_age: VecDeque::new(), complete_after_ms }
    }

    /// What is known about `id` as used by `sender`.
    pub(super) fn find(&self, id: Uuid, sender: &UserId) -> Known {
        match self.entries.get(&(id, sender.clone())) {
            Some(entry) => Known::At { seq: entry.seq, content_hash: entry.content_hash },
            None if own_time_ms(id).is_some_and(|ms| ms > self.complete_after_ms) => Known::New,
            None if self.complete_after_ms == 0 => Known::New,
            None => Known::Unknown,
        }
    }

    /// The answer that was given for an id that is in here.
    pub(super) fn ack(&self, id: Uuid, sender: &UserId) -> Option<Ack> {
        self.entries.get(&(id, sender.clone())).map(|entry| Ack { duplicate: true, ..entry.ack })
    }

    /// Remembers a row. Rows without a client message id are not sends and not remembered.
    pub(super) fn insert(&mut self, row: &Row, epoch: u32) {
        let id = row.client_message_id();
        let Ok(sender) = row.sender().parse::<UserId>() else { return };
        if id.is_nil() {
            return;
        }
        let entry = Entry { seq: row.seq(), content_hash: row.content_hash(), ack: Ack::of(row, epoch, true) };
        let key = (id, sender);
        if self.entries.insert(key.clone(), entry).is_none() {
            // An id without a time of its own ages by the time of its row.
            self.by_age.push_back((own_time_ms(id).unwrap_or(row.time_ms()), key));
        }
    }

    /// Forgets the rows below `floor`, which are gone.
    pub(super) fn forget_below(&mut self, floor: u64) {
        self.entries.retain(|_, entry| entry.seq >= floor);
    }

    /// Forgets what is old by its own time and durable.
    pub(super) fn prune(&mut self, now_ms: u64, durable_head: u64) {
        while let Some((id_ms, key)) = self.by_age.front() {
            let is_old = id_ms + DUPLICATES_IN_MEMORY_MS < now_ms || self.entries.len() > ENTRIES_MAX;
            let is_durable = self.entries.get(key).is_none_or(|entry| entry.seq <= durable_head);
            if !is_old || !is_durable {
                return;
            }
            self.complete_after_ms = self.complete_after_ms.max(*id_ms).max(1);
            self.entries.remove(key);
            self.by_age.pop_front();
        }
    }
}

/// The Unix milliseconds inside a UUIDv7 (RFC 9562); `None` for any other version.
pub(super) fn own_time_ms(id: Uuid) -> Option<u64> {
    (id.get_version_num() == 7).then(|| (id.as_u128() >> 80) as u64)
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, EventKind, NewRow};

    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn id(ms: u64, n: u8) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(ms, &[n; 10]).into_uuid()
    }

    fn ann() -> UserId {
        "ann".parse().unwrap()
    }

    fn row(seq: u64, client_message_id: Uuid) -> Row {
        NewRow {
            seq,
            msgno: seq,
            time_ms: NOW,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender: &ann(),
            via: None,
            envelope: b"",
            body: b"hi",
        }
        .to_row()
    }

    #[test]
    fn a_log_without_history_never_asks_the_store() {
        let duplicates = Duplicates::new(0);
        assert_eq!(duplicates.find(id(5, 1), &ann()), Known::New);
        assert_eq!(duplicates.find(Uuid::from_u128(8 << 76), &ann()), Known::New);
    }

    #[test]
    fn an_id_that_an_unseen_row_may_have_used_is_asked_of_the_store() {
        let duplicates = Duplicates::new(NOW);
        assert_eq!(duplicates.find(id(NOW + CLOCK_SKEW_MS_MAX, 1), &ann()), Known::Unknown);
        assert_eq!(duplicates.find(id(NOW + CLOCK_SKEW_MS_MAX + 1, 1), &ann()), Known::New);
        let version_8 = uuid::Builder::from_custom_bytes([9; 16]).into_uuid();
        assert_eq!(duplicates.find(version_8, &ann()), Known::Unknown);
    }

    #[test]
    fn the_same_id_of_another_sender_is_another_id() {
        let mut duplicates = Duplicates::new(0);
        let row = row(1, id(NOW, 1));
        duplicates.insert(&row, 1);
        assert_eq!(duplicates.find(id(NOW, 1), &ann()), Known::At { seq: 1, content_hash: row.content_hash() });
        assert_eq!(duplicates.find(id(NOW, 1), &"bob".parse().unwrap()), Known::New);
        assert_eq!(duplicates.ack(id(NOW, 1), &ann()).map(|ack| (ack.position.seq, ack.duplicate)), Some((1, true)));
    }

    #[test]
    fn a_forgotten_id_is_asked_of_the_store_and_one_in_flight_is_not_forgotten() {
        let mut duplicates = Duplicates::new(0);
        duplicates.insert(&row(1, id(NOW, 1)), 1);
        duplicates.insert(&row(2, id(NOW, 2)), 1);
        duplicates.prune(NOW + DUPLICATES_IN_MEMORY_MS + 1, 1);
        assert_eq!(duplicates.find(id(NOW, 1), &ann()), Known::Unknown);
        assert!(matches!(duplicates.find(id(NOW, 2), &ann()), Known::At { seq: 2, .. }));
        assert_eq!(duplicates.find(id(NOW + 1, 3), &ann()), Known::New);
    }
}
