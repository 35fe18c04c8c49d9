//! What a compaction drops: everything below the floor of its log.

use std::sync::{Mutex, PoisonError};

use antiphon_protocol::LogKey;
use lsm_tree::{
    AbstractTree, AnyTree, SeqNo,
    compaction::filter::{CompactionFilter, Context, Factory, ItemAccessor, Verdict},
};

use super::keys::{self, Key};

/// Makes the filter of each compaction.
#[derive(Default)]
pub(crate) struct FloorFilters {
    /// The tree that is compacted, and what is read of it.
    tree: Mutex<Option<(AnyTree, SeqNo)>>,
}

impl FloorFilters {
    /// Names the tree that is to be compacted, and below which number its floors are read; or none.
    pub(crate) fn set(&self, tree: Option<(AnyTree, SeqNo)>) {
        *self.tree.lock().unwrap_or_else(PoisonError::into_inner) = tree;
    }
}

impl Factory for FloorFilters {
    fn name(&self) -> &str {
        "floor"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::new(FloorFilter { tree, log: LogKey([0; 16]), floor: 0 })
    }
}

/// Drops rows below their log's floor, and their entries in the duplicate index, when tables are merged. An older
/// version that comes to light again is below the floor too, and readers never look there.
struct FloorFilter {
    tree: Option<(AnyTree, SeqNo)>,
    log: LogKey,
    floor: u64,
}

impl CompactionFilter for FloorFilter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> lsm_tree::Result<Verdict> {
        let Some((tree, snapshot)) = &self.tree else { return Ok(Verdict::Keep) };
        let seq = match Key::parse(item.key()) {
            Some((log, Key::Row(seq))) => Some((log, seq)),
            Some((log, Key::Duplicate { .. })) => keys::number(&item.value()?).map(|seq| (log, seq)),
            _ => None,
        };
        let Some((log, seq)) = seq else { return Ok(Verdict::Keep) };
        if log != self.log {
            (self.log, self.floor) = (log, floor(tree, log, *snapshot)?);
        }
        Ok(if seq < self.floor { Verdict::Destroy } else { Verdict::Keep })
    }
}

fn floor(tree: &AnyTree, log: LogKey, snapshot: SeqNo) -> lsm_tree::Result<u64> {
    let value = tree.get(Key::Floor.of(log), snapshot)?;
    Ok(value.and_then(|value| keys::number(&value)).unwrap_or(0))
}
