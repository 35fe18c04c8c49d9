//! The duplicate index: which row a sender stored under an id.
//!
//! Entries lie in slices of a log, so that many are written together and a lookup reads one partition: an id that tells
//! its time (UUIDv7) lies in the slice of that hour, any other in one of sixteen by its own bits. Entries are written
//! after their rows, at the latest before a checkpoint that describes those rows; what a crash leaves unwritten is found
//! among the rows after the checkpoint.

use std::collections::BTreeMap;

use antiphon_protocol::Row;
use uuid::Uuid;

use crate::request::Duplicate;

const HOUR_MS: u64 = 3_600_000;
const SLICES_WITHOUT_TIME: i32 = 16;

/// The slice that an id lies in. Stored with every entry, so this never changes.
pub(crate) fn slice(id: Uuid) -> i32 {
    let bytes = id.as_bytes();
    if id.get_version_num() == 7 {
        let ms = bytes[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte));
        // 48 bits of milliseconds are fewer than 2^27 hours.
        (ms / HOUR_MS) as i32
    } else {
        -1 - i32::from(bytes[15]) % SLICES_WITHOUT_TIME
    }
}

/// The entry of a row, if it has an id.
pub(crate) fn entry(row: &Row) -> Option<Duplicate> {
    let client_message_id = row.client_message_id();
    let entry = || Duplicate { sender: row.sender().to_owned(), client_message_id, seq: row.seq() };
    (!client_message_id.is_nil()).then(entry)
}

/// Entries by slice.
pub(crate) fn by_slice(entries: impl IntoIterator<Item = Duplicate>) -> BTreeMap<i32, Vec<Duplicate>> {
    let mut slices: BTreeMap<i32, Vec<Duplicate>> = BTreeMap::new();
    for entry in entries {
        slices.entry(slice(entry.client_message_id)).or_default().push(entry);
    }
    slices
}

/// Entries of durable rows that are not in the index yet.
#[derive(Debug, Default)]
pub(crate) struct Waiting(BTreeMap<(Uuid, String), u64>);

impl Waiting {
    pub(crate) fn add(&mut self, row: &Row) {
        if let Some(Duplicate { sender, client_message_id, seq }) = entry(row) {
            self.0.insert((client_message_id, sender), seq);
        }
    }

    pub(crate) fn find(&self, sender: &str, id: Uuid) -> Option<u64> {
        self.0.get(&(id, sender.to_owned())).copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that waits. It goes on waiting until it is written.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Duplicate> {
        self.0.iter().map(|((id, sender), seq)| Duplicate { sender: sender.clone(), client_message_id: *id, seq: *seq })
    }

    /// Everything that waited has been written.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_with_a_time_lies_in_its_hour_and_any_other_in_one_of_sixteen() {
        let ms = 1_700_000_000_000_u64;
        let v7 = |ms: u64| uuid::Builder::from_unix_timestamp_millis(ms, &[7; 10]).into_uuid();
        assert_eq!(slice(v7(ms)), (ms / HOUR_MS) as i32);
        assert_eq!(slice(v7(0)), 0);
        assert!(slice(v7((1 << 48) - 1)) > 0);
        let others: Vec<i32> = (0..64).map(|n| slice(Uuid::from_u128(n))).collect();
        assert!(others.iter().all(|slice| (-16..0).contains(slice)));
        assert_eq!(others.iter().collect::<std::collections::BTreeSet<_>>().len(), 16);
    }
}
