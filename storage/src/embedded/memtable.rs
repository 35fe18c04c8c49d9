//! What was written to a table and is in none of its files yet.
//!
//! A write is an append, whatever its key: most of what is written is flushed before anybody reads it, and sorted only then.
//! A reader has what came since the last one sorted into a run, and runs of similar length merged, so that n writes are in
//! log(n) runs and each is moved log(n) times at most. A run never changes; whoever holds it goes on seeing it.

use std::{cmp::Ordering, sync::Arc};

use antiphon_storage_contract::Direction;
use bytes::{Bytes, BytesMut};

use super::table::KeyRange;

/// Keys and values are copied into chunks of so many bytes, or one of their own.
const CHUNK_BYTES: usize = 16 << 10;

/// A key and what it was set to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Write {
    /// The key, then the value.
    bytes: Bytes,
    key_bytes: u32,
    is_removal: bool,
}

impl Write {
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    /// Nothing if the key was removed.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        (!self.is_removal).then(|| &self.bytes[self.key_bytes as usize..])
    }

    /// The same, sharing its memory.
    pub(crate) fn shared_value(&self) -> Option<Bytes> {
        (!self.is_removal).then(|| self.bytes.slice(self.key_bytes as usize..))
    }
}

/// Writes in the order of their keys, one of each.
pub(crate) type Run = Arc<[Write]>;

/// Writes to a table.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    chunk: BytesMut,
    /// The newest, in the order of their coming.
    newest: Vec<Write>,
    /// So many of the newest are shown to readers.
    shown: usize,
    /// All others, the oldest first.
    runs: Vec<Run>,
    bytes: u64,
}

impl Memtable {
    /// Sets a key, or removes it.
    pub(crate) fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let len = key.len() + value.map_or(0, <[u8]>::len);
        if self.chunk.capacity() < len {
            self.chunk = BytesMut::with_capacity(len.max(CHUNK_BYTES));
        }
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value.unwrap_or_default());
        let write = Write {
            bytes: self.chunk.split().freeze(),
            // Keys are shorter than 64 KiB by the limits of the protocol and of lsm-tree.
            key_bytes: key.len() as u32,
            is_removal: value.is_none(),
        };
        self.newest.push(write);
        self.bytes += (len + size_of::<Write>()) as u64;
    }

    /// Shows readers everything written so far.
    pub(crate) fn show(&mut self) {
        self.shown = self.newest.len();
    }

    /// Memory that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All that is shown, the oldest run first.
    pub(crate) fn runs(&mut self) -> &[Run] {
        if self.shown > 0 {
            let rest = self.newest.split_off(self.shown);
            self.runs.push(sorted(std::mem::replace(&mut self.newest, rest)));
            self.shown = 0;
        }
        while let [.., older, newer] = &*self.runs
            && older.len() <= 2 * newer.len()
        {
            let merged = Merged::new([&**older, newer], Direction::Forward).cloned().collect();
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(merged);
        }
        &self.runs
    }
}

fn sorted(mut writes: Vec<Write>) -> Run {
    writes.sort_by(|one, other| one.key().cmp(other.key()));
    // Of equal keys the last write counts.
    writes.dedup_by(|later, kept| {
        let is_same = later.key() == kept.key();
        if is_same {
            std::mem::swap(later, kept);
        }
        is_same
    });
    writes.into()
}

/// The writes of several runs in the order of their keys, or in reverse; of each key the newest.
#[derive(Debug)]
pub(crate) struct Merged<'a> {
    /// What is left of each, the oldest first.
    runs: Vec<&'a [Write]>,
    direction: Direction,
}

impl<'a> Merged<'a> {
    /// Of whole runs, the oldest first.
    pub(crate) fn new(runs: impl IntoIterator<Item = &'a [Write]>, direction: Direction) -> Self {
        Self { runs: runs.into_iter().filter(|run| !run.is_empty()).collect(), direction }
    }

    /// Of the part within a range.
    pub(crate) fn within(runs: &'a [Run], range: KeyRange<'_>, direction: Direction) -> Self {
        let within = |run: &'a Run| {
            let before = |bound: &[u8]| run.partition_point(|write| write.key() < bound);
            &run[before(range.from)..before(range.to)]
        };
        Self::new(runs.iter().map(within), direction)
    }
}

impl<'a> Iterator for Merged<'a> {
    type Item = &'a Write;

    fn next(&mut self) -> Option<&'a Write> {
        let direction = self.direction;
        let head = |run: &&'a [Write]| match direction {
            Direction::Forward => run.first(),
            Direction::Backward => run.last(),
        };
        let mut next = None::<&Write>;
        for write in self.runs.iter().filter_map(head) {
            if next.is_none_or(|next| in_order(direction, write.key(), next.key()).is_le()) {
                next = Some(write);
            }
        }
        let next = next?;
        for run in self.runs.iter_mut().filter(|run| head(run).is_some_and(|write| write.key() == next.key())) {
            *run = match direction {
                Direction::Forward => &run[1..],
                Direction::Backward => &run[..run.len() - 1],
            };
        }
        Some(next)
    }
}

/// Which key comes first in a scan.
pub(crate) fn in_order(direction: Direction, one: &[u8], other: &[u8]) -> Ordering {
    match direction {
        Direction::Forward => one.cmp(other),
        Direction::Backward => other.cmp(one),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::dice::Dice;

    fn everything() -> KeyRange<'static> {
        KeyRange { from: b"", to: &[0xff; 4] }
    }

    fn seen(runs: &[Run], range: KeyRange<'_>, direction: Direction) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let pair = |write: &Write| (write.key().to_vec(), write.value().map(<[u8]>::to_vec));
        Merged::within(runs, range, direction).map(pair).collect()
    }

    #[test]
    fn it_is_an_ordered_map_whenever_somebody_looks() {
        let mut dice = Dice::new(7);
        for _ in 0..50 {
            let (mut memtable, mut model) = (Memtable::default(), BTreeMap::new());
            let mut held = Vec::new();
            for number in 0..400_u64 {
                let key = vec![dice.below(40) as u8; 1 + dice.below(2) as usize];
                let value = (dice.below(4) > 0).then(|| number.to_be_bytes().to_vec());
                memtable.write(&key, value.as_deref());
                memtable.show();
                model.insert(key, value);
                if dice.below(10) == 0 {
                    let runs = memtable.runs().to_vec();
                    let (from, to) = ([dice.below(40) as u8], [dice.below(40) as u8]);
                    let range = KeyRange { from: from.as_slice().min(&to), to: from.as_slice().max(&to) };
                    let mut expected: Vec<_> = model
                        .range(range.from.to_vec()..range.to.to_vec())
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect();
                    assert_eq!(seen(&runs, range, Direction::Forward), expected);
                    expected.reverse();
                    assert_eq!(seen(&runs, range, Direction::Backward), expected);
                    held.push((runs, model.clone()));
                }
            }
            for (runs, model) in held {
                assert_eq!(seen(&runs, everything(), Direction::Forward), model.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn runs_are_few_and_long() {
        let mut memtable = Memtable::default();
        for number in 0..10_000_u32 {
            memtable.write(&number.to_be_bytes(), Some(b"value"));
            memtable.show();
            assert!(memtable.runs().len() <= 14, "{number}");
        }
        assert_eq!(memtable.runs().iter().map(|run| run.len()).sum::<usize>(), 10_000);
    }

    #[test]
    fn what_is_not_shown_is_not_seen() {
        let mut memtable = Memtable::default();
        memtable.write(b"a", Some(b"1"));
        memtable.show();
        memtable.write(b"a", Some(b"2"));
        assert_eq!(seen(memtable.runs(), everything(), Direction::Forward), [(b"a".to_vec(), Some(b"1".to_vec()))]);
        memtable.show();
        assert_eq!(seen(memtable.runs(), everything(), Direction::Forward), [(b"a".to_vec(), Some(b"2".to_vec()))]);
    }

    #[test]
    fn large_values_have_memory_of_their_own() {
        let mut memtable = Memtable::default();
        let large = vec![7; 3 * CHUNK_BYTES];
        memtable.write(b"large", Some(&large));
        memtable.write(b"small", Some(b""));
        memtable.write(b"removed", None);
        memtable.show();
        assert!(memtable.bytes() > large.len() as u64);
        let runs = memtable.runs();
        let values: Vec<_> = runs[0].iter().map(Write::shared_value).collect();
        assert_eq!(values, [Some(Bytes::from(large)), None, Some(Bytes::new())]);
    }
}
