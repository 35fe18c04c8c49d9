//! An index partition on lsm-tree.
//!
//! Writes are in a [`Memtable`] of our own until they are flushed, as sorting them once is much cheaper than keeping them
//! sorted. A flush brings them into the tree as tables, all with one sequence number of the tree, and a view looks at what
//! was written when it began and at the tree below `published`. That number is raised when the tables of a flush are there
//! and, at the same moment, its writes are given up; so a view has each write from one or from both of them.
//!
//! Old versions of a key may be dropped once no view can look at them; `views` counts the open ones.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fmt, fs, io,
    ops::ControlFlow,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_storage_contract::Direction;
use bytes::Bytes;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter, compaction::Leveled,
    config::CompressionPolicy,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    floors::FloorFilters,
    memtable::{Memtable, Merged, Run, Write, in_order},
    table::{KeyRange, Table, TableError, View, Visit},
};

/// Runs of the first level that are merged into the next.
const L0_RUNS_MAX: usize = 4;

/// A [`Table`] on disk.
pub(crate) struct LsmTable {
    tree: AnyTree,
    counter: SequenceNumberCounter,
    state: Mutex<State>,
    floors: Arc<FloorFilters>,
}

/// What the writing thread, the flushing one and readers share. Each of them is quick with it, but for a flush and a
/// reader that sort what came since anybody sorted.
#[derive(Debug, Default)]
struct State {
    active: Memtable,
    /// What is to be flushed, the oldest first.
    sealed: Vec<Memtable>,
    /// Readers look at the tree below this number.
    published: SeqNo,
    /// How many views look at the tree below a number.
    views: BTreeMap<SeqNo, usize>,
}

impl State {
    /// No view looks below this number.
    fn oldest(&self) -> SeqNo {
        self.views.keys().next().copied().unwrap_or(self.published)
    }

    /// Everything that is shown and not in the tree, the oldest run first.
    fn runs(&mut self) -> Vec<Run> {
        let mut runs = self.sealed_runs();
        runs.extend_from_slice(self.active.runs());
        runs
    }

    fn sealed_runs(&mut self) -> Vec<Run> {
        self.sealed.iter_mut().flat_map(Memtable::runs).cloned().collect()
    }
}

impl fmt::Debug for LsmTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmTable").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What to do where there is no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// Make an empty one: the directory is new.
    Make,
    /// Report damage: there was one.
    Damage,
}

impl LsmTable {
    /// Opens the tree in `dir`, or makes it if it may be `absent`. Trees of one process share `cache`.
    pub(crate) fn open(dir: &Path, absent: Absent, cache: Arc<Cache>) -> Result<Self, TableError> {
        check_manifest(dir, absent)?;
        let floors = Arc::new(FloorFilters::default());
        let counter = SequenceNumberCounter::default();
        let tree = Config::new(dir, counter.clone(), SequenceNumberCounter::default())
            .use_cache(cache)
            .data_block_compression_policy(CompressionPolicy::all(lsm_tree::CompressionType::Lz4))
            .with_compaction_filter_factory(Some(floors.clone()))
            .open()
            .map_err(table_error)?;
        let next = tree.get_highest_persisted_seqno().map_or(1, |highest| highest + 1);
        counter.set(next);
        let state = Mutex::new(State { published: next, ..State::default() });
        Ok(Self { tree, counter, state, floors })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back the memory and files of states that no view looks at any more. A flush itself cannot: views go on
    /// with the state before it until the writing thread publishes again.
    fn drop_old_versions(&self) -> Result<(), TableError> {
        let path = &self.tree.tree_config().path;
        let oldest = self.state().oldest();
        self.tree.get_version_history_lock().maintenance(path, oldest).map_err(table_error)
    }

    /// Brings writes into the tree, durably and at once.
    fn ingest(&self, runs: &[Run]) -> lsm_tree::Result<()> {
        let mut ingestion = self.tree.ingestion()?;
        for write in Merged::new(runs.iter().map(|run| &**run), Direction::Forward) {
            match write.value() {
                Some(value) => ingestion.write(write.key(), value)?,
                None => ingestion.write_tombstone(write.key())?,
            }
        }
        ingestion.finish()
    }
}

impl Table for LsmTable {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.state().active.write(key, Some(value));
    }

    fn delete(&self, key: &[u8]) {
        self.state().active.write(key, None);
    }

    fn publish(&self) {
        let mut state = self.state();
        state.active.show();
        state.published = self.counter.get();
    }

    fn view(&self) -> Box<dyn View + '_> {
        let mut state = self.state();
        let snapshot = state.published;
        *state.views.entry(snapshot).or_default() += 1;
        Box::new(LsmView { table: self, written: state.runs(), snapshot })
    }

    fn unsealed_bytes(&self) -> u64 {
        self.state().active.bytes()
    }

    fn seal(&self) {
        let mut state = self.state();
        let mut sealed = std::mem::take(&mut state.active);
        sealed.show();
        state.sealed.push(sealed);
    }

    fn flush(&self) -> Result<(), TableError> {
        self.drop_old_versions()?;
        let (sealed, runs) = {
            let mut state = self.state();
            (state.sealed.len(), state.sealed_runs())
        };
        if !runs.is_empty() {
            self.ingest(&runs).map_err(table_error)?;
        }
        let mut state = self.state();
        state.sealed.drain(..sealed);
        state.published = self.counter.get();
        Ok(())
    }

    fn compact(&self) -> Result<(), TableError> {
        self.drop_old_versions()?;
        if self.tree.l0_run_count() < L0_RUNS_MAX {
            return Ok(());
        }
        // The tree owns the filters, so they hold the tree for the length of a compaction only.
        let (snapshot, oldest) = {
            let state = self.state();
            (state.published, state.oldest())
        };
        self.floors.set(Some((self.tree.clone(), snapshot)));
        let compacted = self.tree.compact(Arc::new(Leveled::default()), oldest);
        self.floors.set(None);
        compacted.map_err(table_error)
    }
}

struct LsmView<'a> {
    table: &'a LsmTable,
    /// What was written and not in the tree when the view began, the oldest run first.
    written: Vec<Run>,
    snapshot: SeqNo,
}

impl Drop for LsmView<'_> {
    fn drop(&mut self) {
        let views = &mut self.table.state().views;
        if let Some(count) = views.get_mut(&self.snapshot) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.snapshot);
            }
        }
    }
}

impl View for LsmView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        for run in self.written.iter().rev() {
            if let Ok(at) = run.binary_search_by(|write| write.key().cmp(key)) {
                return Ok(run[at].shared_value());
            }
        }
        let value = self.table.tree.get(key, self.snapshot).map_err(table_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: KeyRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), TableError> {
        if range.from >= range.to {
            return Ok(());
        }
        let mut written = Merged::within(&self.written, range, direction).peekable();
        let mut pairs = self.table.tree.range(range.from..range.to, self.snapshot, None);
        let mut next_stored = || {
            let next = match direction {
                Direction::Forward => pairs.next(),
                Direction::Backward => pairs.next_back(),
            };
            next.map(Guard::into_inner).transpose().map_err(table_error)
        };
        let mut stored = next_stored()?;
        loop {
            let first = match (written.peek(), &stored) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(write), Some((key, _))) => in_order(direction, write.key(), key),
            };
            let flow = match &stored {
                Some((key, value)) if first.is_gt() => visit(key, value),
                // What is not in the tree yet is newer than what is.
                _ => written.next().map_or(ControlFlow::Continue(()), |write| shown(write, visit)),
            };
            if flow.is_break() {
                return Ok(());
            }
            if first.is_ge() {
                stored = next_stored()?;
            }
        }
    }
}

fn shown(write: &Write, visit: &mut Visit<'_>) -> ControlFlow<()> {
    write.value().map_or(ControlFlow::Continue(()), |value| visit(write.key(), value))
}

/// Compares a tree's list of tables with its checksum. lsm-tree trusts that list, and what it makes of a damaged one
/// may end the process instead of being an error.
fn check_manifest(dir: &Path, absent: Absent) -> Result<(), TableError> {
    let current = match fs::read(dir.join("current")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && absent == Absent::Make => return Ok(()),
        current => current?,
    };
    // Its number, the checksum of the list of that number, and the kind of checksum.
    let Ok::<[u8; 25], _>(current) = current.try_into() else {
        return Err(TableError::Damaged("its current file is cut off".to_owned()));
    };
    let (mut number, mut checksum) = ([0; 8], [0; 16]);
    number.copy_from_slice(&current[..8]);
    checksum.copy_from_slice(&current[8..24]);
    let list = fs::read(dir.join(format!("v{}", u64::from_le_bytes(number))))?;
    if current[24] != 0 || xxh3_128(&list) != u128::from_le_bytes(checksum) {
        return Err(TableError::Damaged("its list of tables does not match its checksum".to_owned()));
    }
    Ok(())
}

fn table_error(error: lsm_tree::Error) -> TableError {
    match error {
        lsm_tree::Error::Io(error) => error.into(),
        damage => TableError::Damaged(damage.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::LogKey;

    use super::*;
    use crate::embedded::keys::Key;

    const LOG: LogKey = LogKey([5; 16]);

    fn table(dir: &Path) -> LsmTable {
        LsmTable::open(dir, Absent::Make, Arc::new(Cache::with_capacity_bytes(1 << 20))).unwrap()
    }

    fn flush(table: &LsmTable) {
        table.publish();
        table.seal();
        table.flush().unwrap();
        table.publish();
    }

    fn pairs(view: &dyn View) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pairs = Vec::new();
        let everything = KeyRange { from: &[0], to: &[0xff; 32] };
        view.scan(everything, Direction::Forward, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
        pairs
    }

    #[test]
    fn compaction_drops_rows_and_duplicates_below_the_floor() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        let id = |seq: u64| Key::Duplicate { client_message_id: uuid::Uuid::from_u128(seq.into()), sender: b"ann" };
        for seq in 1..=8 {
            table.put(&Key::Row(seq).of(LOG), b"row");
            table.put(&id(seq).of(LOG), &seq.to_be_bytes());
            if seq == 6 {
                table.put(&Key::Floor.of(LOG), &7_u64.to_be_bytes());
            }
            flush(&table);
        }
        assert_eq!(pairs(&*table.view()).len(), 17);
        table.compact().unwrap();
        table.publish();
        let kept: Vec<Vec<u8>> = pairs(&*table.view()).into_iter().map(|(key, _)| key).collect();
        let expected = [Key::Floor, Key::Row(7), Key::Row(8), id(7), id(8)];
        assert_eq!(kept, expected.map(|key| key.of(LOG)));
    }

    #[test]
    fn a_view_does_not_change_under_flushes_and_compactions() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.put(b"a", b"1");
        table.put(b"b", b"1");
        table.publish();
        let view = table.view();
        let before = pairs(&*view);
        assert_eq!(before.len(), 2);
        for round in 2..=9_u8 {
            table.put(b"a", &[round]);
            table.delete(b"b");
            table.put(&[b'c', round], b"");
            flush(&table);
            table.compact().unwrap();
            table.publish();
        }
        assert_eq!(pairs(&*view), before);
        assert_eq!(view.get(b"a").unwrap().as_deref(), Some(&b"1"[..]));
        drop(view);
        assert_eq!(pairs(&*table.view()).len(), 9);
        // Without a view, one state besides the newest is kept at most.
        table.put(b"a", b"");
        flush(&table);
        table.compact().unwrap();
        assert!(table.tree.version_free_list_len() <= 1);
    }

    #[test]
    fn what_is_not_published_is_not_seen_even_after_a_flush_of_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let table = table(dir.path());
        table.put(b"a", b"1");
        flush(&table);
        table.put(b"b", b"1");
        assert_eq!(pairs(&*table.view()).len(), 1);
        table.publish();
        assert_eq!(pairs(&*table.view()).len(), 2);
    }

    #[test]
    fn a_flushed_table_is_read_back_and_written_on() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..5_u8 {
            let table = table(dir.path());
            table.put(b"last", &[round]);
            table.put(&[1, round], b"");
            flush(&table);
            drop(table);
            let table = self::table(dir.path());
            assert_eq!(table.view().get(b"last").unwrap().as_deref(), Some(&[round][..]));
            assert_eq!(pairs(&*table.view()).len(), usize::from(round) + 2);
        }
    }
}
