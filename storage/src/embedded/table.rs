//! One index partition: an ordered table of keys and values with snapshots.

use std::{fmt, io, ops::ControlFlow};

use antiphon_storage_contract::Direction;
use bytes::Bytes;
use thiserror::Error;

use super::disk;

/// Why a table did not do what it was asked.
#[derive(Debug, Error)]
pub enum TableError {
    /// No space is left; asking again later may succeed.
    #[error("no space is left for the index")]
    Full,
    /// Stored bytes are not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The operating system refused.
    #[error("the index cannot be read or written: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            _ if disk::is_full(&error) => Self::Full,
            // A file that is shorter than it says, or absent, or that names a place that no file has, is damage, not a
            // failing device.
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::NotFound => Self::Damaged(error.to_string()),
            _ => Self::Io(error),
        }
    }
}

/// An ordered table. One thread writes; any number read; one flushes.
pub trait Table: Send + Sync + fmt::Debug {
    /// Sets a key. Readers do not see it before [`Table::publish`].
    fn put(&self, key: &[u8], value: &[u8]);

    /// Removes a key. Readers do not see it before [`Table::publish`].
    fn delete(&self, key: &[u8]);

    /// Shows readers everything written so far, at once.
    fn publish(&self);

    /// A reader's unchanging view of everything published so far.
    fn view(&self) -> Box<dyn View + '_>;

    /// Bytes in memory that [`Table::seal`] would take.
    fn unsealed_bytes(&self) -> u64;

    /// Sets everything written so far aside for [`Table::flush`].
    fn seal(&self);

    /// Makes everything that was sealed durable. After an error it stays sealed. The writing thread should publish
    /// again afterwards, and after a compaction, so that the state before it can be given back.
    fn flush(&self) -> Result<(), TableError>;

    /// Tidies durable data where that is due: merges, and drops rows below their log's floor.
    fn compact(&self) -> Result<(), TableError>;
}

/// What a scan asks of each pair of key and value.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A range of keys, `from` inclusive and `to` exclusive.
#[derive(Debug, Clone, Copy)]
pub struct KeyRange<'a> {
    /// First key.
    pub from: &'a [u8],
    /// Key after the last.
    pub to: &'a [u8],
}

/// An unchanging view of a table.
pub trait View {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, TableError>;

    /// Shows `visit` the pairs of a range, in order or in reverse, until it breaks off.
    fn scan(&self, range: KeyRange<'_>, direction: Direction, visit: &mut Visit<'_>) -> Result<(), TableError>;
}
