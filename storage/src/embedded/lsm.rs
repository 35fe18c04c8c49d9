//! An index partition on lsm-tree.
//!
//! Every tree has a sequence counter of its own: lsm-tree draws a number at each flush too, and a tree's counter must
//! stay close to what readers look at. Readers see everything below `published`, which only the one writing thread
//! raises, after a whole write; so they never see half a write, whatever lsm-tree draws in between.
//!
//! Old versions of a key may be dropped once no view can look at them; `views` counts the open ones.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Direction;
use bytes::Bytes;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, Guard, SeqNo, SequenceNumberCounter,
    compaction::{
        Leveled,
        filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict},
    },
    config::CompressionPolicy,
};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    keys::{self, Key},
    table::{KeyRange, Table, TableError, View, Visit},
};

/// Runs of the first level that are merged into the next.
const L0_RUNS_MAX: usize = 4;

/// A [`Table`] on disk.
pub(crate) struct LsmTable {
    tree: AnyTree,
    counter: SequenceNumberCounter,
    shared: Arc<Shared>,
    floors: Arc<FloorFilters>,
}

/// What readers, the compaction filter and the writing thread share.
#[derive(Debug, Default)]
struct Shared {
    published: AtomicU64,
    views: Mutex<BTreeMap<SeqNo, usize>>,
}

impl Shared {
    fn views(&self) -> MutexGuard<'_, BTreeMap<SeqNo, usize>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> SeqNo {
        let mut views = self.views();
        let snapshot = self.published.load(Ordering::Acquire);
        *views.entry(snapshot).or_default() += 1;
        snapshot
    }

    fn leave(&self, snapshot: SeqNo) {
        let mut views = self.views();
        if let Some(count) = views.get_mut(&snapshot) {
            *count -= 1;
            if *count == 0 {
                views.remove(&snapshot);
            }
        }
    }

    /// No view looks below this number.
    fn oldest(&self) -> SeqNo {
        let views = self.views();
        views.keys().next().copied().unwrap_or_else(|| self.published.load(Ordering::Acquire))
    }
}

impl fmt::Debug for LsmTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmTable").field("shared", &self.shared).finish_non_exhaustive()
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
        let shared = Arc::new(Shared { published: AtomicU64::new(next), ..Shared::default() });
        Ok(Self { tree, counter, shared, floors })
    }
}

impl LsmTable {
    /// Gives back the memory and files of states that no view looks at any more. A flush itself cannot: views go on
    /// with the state before it until the writing thread publishes again.
    fn drop_old_versions(&self) -> Result<(), TableError> {
        let path = &self.tree.tree_config().path;
        self.tree.get_version_history_lock().maintenance(path, self.shared.oldest()).map_err(table_error)
    }
}

impl Table for LsmTable {
    fn put(&self, key: &[u8], value: &[u8]) {
        self.tree.insert(key, value, self.counter.next());
    }

    fn delete(&self, key: &[u8]) {
        self.tree.remove(key, self.counter.next());
    }

    fn publish(&self) {
        self.shared.published.store(self.counter.get(), Ordering::Release);
    }

    fn view(&self) -> Box<dyn View + '_> {
        Box::new(LsmView { tree: &self.tree, shared: &self.shared, snapshot: self.shared.enter() })
    }

    fn unsealed_bytes(&self) -> u64 {
        self.tree.active_memtable().size()
    }

    fn seal(&self) {
        self.tree.rotate_memtable();
    }

    fn flush(&self) -> Result<(), TableError> {
        self.drop_old_versions()?;
        let lock = self.tree.get_flush_lock();
        self.tree.flush(&lock, self.shared.oldest()).map_err(table_error)?;
        Ok(())
    }

    fn compact(&self) -> Result<(), TableError> {
        self.drop_old_versions()?;
        if self.tree.l0_run_count() < L0_RUNS_MAX {
            return Ok(());
        }
        // The tree owns the filters, so they hold the tree for the length of a compaction only.
        self.floors.set(Some(FloorReader { tree: self.tree.clone(), shared: self.shared.clone() }));
        let compacted = self.tree.compact(Arc::new(Leveled::default()), self.shared.oldest());
        self.floors.set(None);
        compacted.map_err(table_error)
    }
}

struct LsmView<'a> {
    tree: &'a AnyTree,
    shared: &'a Shared,
    snapshot: SeqNo,
}

impl Drop for LsmView<'_> {
    fn drop(&mut self) {
        self.shared.leave(self.snapshot);
    }
}

impl View for LsmView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        let value = self.tree.get(key, self.snapshot).map_err(table_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, range: KeyRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), TableError> {
        if range.from >= range.to {
            return Ok(());
        }
        let mut pairs = self.tree.range(range.from..range.to, self.snapshot, None);
        let mut next = || match direction {
            Direction::Forward => pairs.next(),
            Direction::Backward => pairs.next_back(),
        };
        while let Some(pair) = next() {
            let (key, value) = pair.into_inner().map_err(table_error)?;
            if let ControlFlow::Break(()) = visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
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

/// Makes the filter of each compaction.
#[derive(Default)]
struct FloorFilters {
    reader: Mutex<Option<FloorReader>>,
}

impl FloorFilters {
    fn set(&self, reader: Option<FloorReader>) {
        *self.reader.lock().unwrap_or_else(PoisonError::into_inner) = reader;
    }
}

impl Factory for FloorFilters {
    fn name(&self) -> &str {
        "floor"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::new(FloorFilter { reader, log: LogKey([0; 16]), floor: 0 })
    }
}

#[derive(Clone)]
struct FloorReader {
    tree: AnyTree,
    shared: Arc<Shared>,
}

impl FloorReader {
    fn floor(&self, log: LogKey) -> lsm_tree::Result<u64> {
        let snapshot = self.shared.published.load(Ordering::Acquire);
        let value = self.tree.get(Key::Floor.of(log), snapshot)?;
        Ok(value.and_then(|value| keys::number(&value)).unwrap_or(0))
    }
}

/// Drops rows below their log's floor, and their entries in the duplicate index, when tables are merged. An older
/// version that comes to light again is below the floor too, and readers never look there.
struct FloorFilter {
    reader: Option<FloorReader>,
    log: LogKey,
    floor: u64,
}

impl CompactionFilter for FloorFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let Some(reader) = &self.reader else { return Ok(Verdict::Keep) };
        let seq = match Key::parse(item.key()) {
            Some((log, Key::Row(seq))) => Some((log, seq)),
            Some((log, Key::Duplicate { .. })) => keys::number(&item.value()?).map(|seq| (log, seq)),
            _ => None,
        };
        let Some((log, seq)) = seq else { return Ok(Verdict::Keep) };
        if log != self.log {
            (self.log, self.floor) = (log, reader.floor(log)?);
        }
        Ok(if seq < self.floor { Verdict::Destroy } else { Verdict::Keep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
