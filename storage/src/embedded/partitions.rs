//! The 64 index partitions of a directory as its threads share them.

use std::sync::{Arc, OnceLock};

use super::table::Table;

/// One partition.
#[derive(Debug, Default)]
struct Partition {
    /// Absent if it could not be opened.
    table: Option<Arc<dyn Table>>,
    /// Why it is read-only; set at most once.
    damage: OnceLock<String>,
}

/// All partitions, by number.
#[derive(Debug)]
pub(crate) struct Partitions(Vec<Partition>);

impl Partitions {
    /// Partitions that were opened, or the reason why they could not be.
    pub(crate) fn new(opened: Vec<Result<Arc<dyn Table>, String>>) -> Self {
        let partition = |opened| match opened {
            Ok(table) => Partition { table: Some(table), damage: OnceLock::new() },
            Err(damage) => Partition { table: None, damage: OnceLock::from(damage) },
        };
        Self(opened.into_iter().map(partition).collect())
    }

    /// The partition's table, if it could be opened.
    pub(crate) fn table(&self, partition: u8) -> Option<&dyn Table> {
        self.0[usize::from(partition)].table.as_deref()
    }

    /// Why the partition is read-only, if it is.
    pub(crate) fn damage(&self, partition: u8) -> Option<&str> {
        self.0[usize::from(partition)].damage.get().map(String::as_str)
    }

    /// Makes the partition read-only; the first reason stays.
    pub(crate) fn degrade(&self, partition: u8, reason: &str) {
        if self.0[usize::from(partition)].damage.set(reason.to_owned()).is_ok() {
            tracing::error!(partition, reason, "a partition of the store is damaged and read-only from now on");
        }
    }

    /// Every partition that is read-only, and why.
    pub(crate) fn degraded(&self) -> Vec<(u8, String)> {
        (0..self.0.len() as u8).filter_map(|p| Some((p, self.damage(p)?.to_owned()))).collect()
    }
}
