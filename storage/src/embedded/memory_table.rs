//! An index partition in memory that remembers what a crash would leave of it; for the simulator and for tests.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_storage_contract::Direction;
use bytes::Bytes;

use super::table::{KeyRange, Table, TableError, View, Visit};

type Writes = Vec<(Bytes, Option<Bytes>)>;
type Map = BTreeMap<Bytes, Bytes>;

/// A [`Table`] of ordered maps. Views copy nothing: a view is the map as it was published.
#[derive(Debug, Default)]
pub struct MemoryTable {
    state: Mutex<State>,
}

#[derive(Debug, Default, Clone)]
struct State {
    unpublished: Writes,
    published: Arc<Map>,
    unsealed: Writes,
    sealed: Writes,
    durable: Map,
}

impl MemoryTable {
    /// The table as it stands after a crash: what was flushed.
    pub fn after_crash(&self) -> Self {
        let durable = self.state().durable.clone();
        let state = State { published: Arc::new(durable.clone()), durable, ..State::default() };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(map: &mut Map, writes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
    for (key, value) in writes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl Table for MemoryTable {
    fn put(&self, key: &[u8], value: &[u8]) {
        let write = (Bytes::copy_from_slice(key), Some(Bytes::copy_from_slice(value)));
        self.state().unpublished.push(write);
    }

    fn delete(&self, key: &[u8]) {
        self.state().unpublished.push((Bytes::copy_from_slice(key), None));
    }

    fn publish(&self) {
        let mut state = self.state();
        let writes = std::mem::take(&mut state.unpublished);
        apply(Arc::make_mut(&mut state.published), writes.iter().cloned());
        state.unsealed.extend(writes);
    }

    fn view(&self) -> Box<dyn View + '_> {
        Box::new(MemoryView(self.state().published.clone()))
    }

    fn unsealed_bytes(&self) -> u64 {
        let bytes = |(key, value): &(Bytes, Option<Bytes>)| key.len() + value.as_ref().map_or(0, Bytes::len);
        self.state().unsealed.iter().map(bytes).sum::<usize>() as u64
    }

    fn seal(&self) {
        let mut state = self.state();
        let unsealed = std::mem::take(&mut state.unsealed);
        state.sealed.extend(unsealed);
    }

    fn flush(&self) -> Result<(), TableError> {
        let mut state = self.state();
        let sealed = std::mem::take(&mut state.sealed);
        apply(&mut state.durable, sealed);
        Ok(())
    }

    fn compact(&self) -> Result<(), TableError> {
        Ok(())
    }
}

struct MemoryView(Arc<Map>);

impl View for MemoryView {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, range: KeyRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), TableError> {
        if range.from >= range.to {
            return Ok(());
        }
        let mut pairs =
            self.0.range::<[u8], _>((std::ops::Bound::Included(range.from), std::ops::Bound::Excluded(range.to)));
        let mut next = || match direction {
            Direction::Forward => pairs.next(),
            Direction::Backward => pairs.next_back(),
        };
        while let Some((key, value)) = next() {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_what_was_flushed() {
        let table = MemoryTable::default();
        for key in [b"a", b"b", b"c"] {
            table.put(key, b"1");
            table.publish();
            if key != b"c" {
                table.seal();
            }
            if key == b"a" {
                table.flush().unwrap();
            }
        }
        let crashed = table.after_crash();
        assert!(table.view().get(b"c").unwrap().is_some());
        assert!(crashed.view().get(b"a").unwrap().is_some());
        assert!(crashed.view().get(b"b").unwrap().is_none());
    }

    #[test]
    fn a_view_does_not_change() {
        let table = MemoryTable::default();
        table.put(b"a", b"1");
        assert!(table.view().get(b"a").unwrap().is_none());
        table.publish();
        let view = table.view();
        table.delete(b"a");
        table.publish();
        assert!(view.get(b"a").unwrap().is_some());
        assert!(table.view().get(b"a").unwrap().is_none());
    }
}
