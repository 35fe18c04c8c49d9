//! The part of the duplicate index that is in memory: sends of the last minutes, by their ids' own time.
//!
//! Invariant: an id whose own time lies after [`Duplicates::complete_after_ms`] is in here if and only if it is stored
//! or on its way to the store. Any other id has to be looked up. This holds because an id is refused if its own time
//! lies more than a minute ahead of the clock at which it is stored: what was stored before a moment has an own time
//! before that moment plus a minute.

use std::{collections::VecDeque, hash::BuildHasher};

use antiphon_protocol::{Row, UserId, frames::Ack, limits::CLOCK_SKEW_MS_MAX};
use hashbrown::HashTable;
use uuid::Uuid;

use crate::{hash_key::HashKey, limits::DUPLICATES_IN_MEMORY_MS};

/// Sends of one log that are remembered at most. Full: the oldest durable ones are left to the store.
const ENTRIES_MAX: usize = 65_536;
/// Up to so many are looked through one by one; most logs have no more.
const SCANNED_MAX: usize = 8;

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

#[derive(Debug)]
struct Entry {
    id: Uuid,
    sender: UserId,
    /// When it was made: by the id's own time, or by that of the row if it has none.
    made_ms: u64,
    content_hash: u64,
    ack: Ack,
}

impl Entry {
    fn seq(&self) -> u64 {
        self.ack.position.seq
    }

    fn is_of(&self, id: Uuid, sender: &UserId) -> bool {
        self.id == id && self.sender == *sender
    }
}

/// Recent ids of one log.
#[derive(Debug)]
pub(super) struct Duplicates {
    /// By position.
    entries: VecDeque<Entry>,
    /// How many entries were before the first one.
    gone: u64,
    /// Numbers of the entries, counted with those that are gone; empty while they are few.
    index: HashTable<u64>,
    key: HashKey,
    complete_after_ms: u64,
}

impl Duplicates {
    /// For a log of which the rows stored after `stored_ms` are about to be inserted; 0 = all its rows.
    pub(super) fn new(stored_ms: u64, key: HashKey) -> Self {
        let complete_after_ms = if stored_ms == 0 { 0 } else { stored_ms + CLOCK_SKEW_MS_MAX };
        Self { entries: VecDeque::new(), gone: 0, index: HashTable::new(), key, complete_after_ms }
    }

    /// What is known about `id` as used by `sender`.
    pub(super) fn find(&self, id: Uuid, sender: &UserId) -> Known {
        match self.entry(id, sender) {
            Some(entry) => Known::At { seq: entry.seq(), content_hash: entry.content_hash },
            None if own_time_ms(id).is_some_and(|ms| ms > self.complete_after_ms) => Known::New,
            None if self.complete_after_ms == 0 => Known::New,
            None => Known::Unknown,
        }
    }

    /// The answer that was given for an id that is in here.
    pub(super) fn ack(&self, id: Uuid, sender: &UserId) -> Option<Ack> {
        self.entry(id, sender).map(|entry| Ack { duplicate: true, ..entry.ack })
    }

    fn entry(&self, id: Uuid, sender: &UserId) -> Option<&Entry> {
        if self.index.is_empty() {
            return self.entries.iter().find(|entry| entry.is_of(id, sender));
        }
        let is_it = |number: &u64| self.numbered(*number).is_some_and(|entry| entry.is_of(id, sender));
        self.index.find(hash(self.key, id, sender), is_it).and_then(|number| self.numbered(*number))
    }

    fn numbered(&self, number: u64) -> Option<&Entry> {
        self.entries.get((number - self.gone) as usize)
    }

    /// Remembers a row, which lies behind those that are remembered, and whose id is not among them. Rows without a client
    /// message id are not sends and not remembered.
    pub(super) fn insert(&mut self, row: &Row, sender: &UserId, epoch: u32) {
        let id = row.client_message_id();
        if id.is_nil() {
            return;
        }
        self.entries.push_back(Entry {
            id,
            sender: sender.clone(),
            made_ms: own_time_ms(id).unwrap_or(row.time_ms()),
            content_hash: row.content_hash(),
            ack: Ack::of(row, epoch, true),
        });
        if !self.index.is_empty() {
            self.index_entry(self.gone + self.entries.len() as u64 - 1);
        } else if self.entries.len() > SCANNED_MAX {
            (self.gone..self.gone + self.entries.len() as u64).for_each(|number| self.index_entry(number));
        }
    }

    fn index_entry(&mut self, number: u64) {
        let Self { entries, gone, index, key, .. } = self;
        let hash = |number: &u64| hash_of(entries, *gone, *key, *number);
        index.insert_unique(hash(&number), number, hash);
    }

    /// Forgets the rows below `floor`, which are gone.
    pub(super) fn forget_below(&mut self, floor: u64) {
        while self.entries.front().is_some_and(|entry| entry.seq() < floor) {
            self.forget_first();
        }
        self.shrink();
    }

    fn forget_first(&mut self) {
        let Some(Entry { id, sender, .. }) = self.entries.front() else { return };
        if let Ok(indexed) = self.index.find_entry(hash(self.key, *id, sender), |number| *number == self.gone) {
            indexed.remove();
        }
        self.entries.pop_front();
        self.gone += 1;
    }

    /// Forgets what is old by its own time and durable.
    pub(super) fn prune(&mut self, now_ms: u64, durable_head: u64) {
        while let Some(entry) = self.entries.front() {
            let is_old = entry.made_ms + DUPLICATES_IN_MEMORY_MS < now_ms || self.entries.len() > ENTRIES_MAX;
            if !is_old || entry.seq() > durable_head {
                break;
            }
            self.complete_after_ms = self.complete_after_ms.max(entry.made_ms).max(1);
            self.forget_first();
        }
        self.shrink();
    }

    /// Gives back what a burst took once most of it is forgotten.
    fn shrink(&mut self) {
        let wanted = 2 * self.entries.len().max(SCANNED_MAX);
        if self.entries.capacity() > 2 * wanted {
            self.entries.shrink_to(wanted);
            let Self { entries, gone, index, key, .. } = self;
            index.shrink_to(if index.is_empty() { 0 } else { wanted }, |number| hash_of(entries, *gone, *key, *number));
        }
    }
}

fn hash(key: HashKey, id: Uuid, sender: &UserId) -> u64 {
    key.hash_one((id.as_u128(), sender))
}

/// Hash of the entry with this number. Invariant: the index names no other numbers than those of entries.
fn hash_of(entries: &VecDeque<Entry>, gone: u64, key: HashKey, number: u64) -> u64 {
    entries.get((number - gone) as usize).map_or(0, |entry| hash(key, entry.id, &entry.sender))
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
        let duplicates = Duplicates::new(0, HashKey::fixed());
        assert_eq!(duplicates.find(id(5, 1), &ann()), Known::New);
        assert_eq!(duplicates.find(Uuid::from_u128(8 << 76), &ann()), Known::New);
    }

    #[test]
    fn an_id_that_an_unseen_row_may_have_used_is_asked_of_the_store() {
        let duplicates = Duplicates::new(NOW, HashKey::fixed());
        assert_eq!(duplicates.find(id(NOW + CLOCK_SKEW_MS_MAX, 1), &ann()), Known::Unknown);
        assert_eq!(duplicates.find(id(NOW + CLOCK_SKEW_MS_MAX + 1, 1), &ann()), Known::New);
        let version_8 = uuid::Builder::from_custom_bytes([9; 16]).into_uuid();
        assert_eq!(duplicates.find(version_8, &ann()), Known::Unknown);
    }

    #[test]
    fn the_same_id_of_another_sender_is_another_id() {
        let mut duplicates = Duplicates::new(0, HashKey::fixed());
        let row = row(1, id(NOW, 1));
        duplicates.insert(&row, &ann(), 1);
        assert_eq!(duplicates.find(id(NOW, 1), &ann()), Known::At { seq: 1, content_hash: row.content_hash() });
        assert_eq!(duplicates.find(id(NOW, 1), &"bob".parse().unwrap()), Known::New);
        assert_eq!(duplicates.ack(id(NOW, 1), &ann()).map(|ack| (ack.position.seq, ack.duplicate)), Some((1, true)));
    }

    #[test]
    fn a_forgotten_id_is_asked_of_the_store_and_one_in_flight_is_not_forgotten() {
        let mut duplicates = Duplicates::new(0, HashKey::fixed());
        duplicates.insert(&row(1, id(NOW, 1)), &ann(), 1);
        duplicates.insert(&row(2, id(NOW, 2)), &ann(), 1);
        duplicates.prune(NOW + DUPLICATES_IN_MEMORY_MS + 1, 1);
        assert_eq!(duplicates.find(id(NOW, 1), &ann()), Known::Unknown);
        assert!(matches!(duplicates.find(id(NOW, 2), &ann()), Known::At { seq: 2, .. }));
        assert_eq!(duplicates.find(id(NOW + 1, 3), &ann()), Known::New);
    }

    #[test]
    fn many_ids_are_found_while_old_ones_go() {
        let mut duplicates = Duplicates::new(0, HashKey::fixed());
        let count = 1_000;
        let id = |seq: u64| uuid::Builder::from_unix_timestamp_millis(NOW + seq, &[7; 10]).into_uuid();
        for seq in 1..=count {
            assert_eq!(duplicates.find(id(seq), &ann()), Known::New);
            duplicates.insert(&row(seq, id(seq)), &ann(), 1);
            let seqs = (1..=seq).filter(|seq| matches!(duplicates.find(id(*seq), &ann()), Known::At { .. }));
            assert!(seq % 100 > 12 || seqs.count() == seq as usize);
        }
        duplicates.prune(NOW + 500 + DUPLICATES_IN_MEMORY_MS, count);
        duplicates.forget_below(901);
        assert!(duplicates.entries.capacity() < 900, "most of it is forgotten");
        for seq in 1..=count {
            let known = duplicates.find(id(seq), &ann());
            match seq {
                ..500 => assert_eq!(known, Known::Unknown, "{seq} was old"),
                500..901 => assert_eq!(known, Known::New, "{seq} is gone"),
                _ => assert!(matches!(known, Known::At { seq: at, .. } if at == seq), "{seq}: {known:?}"),
            }
        }
    }
}
