//! The small files of a data directory that say what it is.
//!
//! ```text
//! lock       held while a process uses the directory
//! format     version, epoch, time of creation; written first in a new directory and last in a copy
//! boot       counts the starts of the process
//! damaged    partitions that are read-only, and why
//! copying    there while a copy into the directory is unfinished; what the copier noted
//! wal/       write-ahead logs          index/00..63    index partitions
//! damaged-wal/   logs in which damage was found, kept for the operator
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use antiphon_sys::ring::Unusable;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::disk::{self, sync_dir};

/// The format that this version reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Why a data directory cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("the data directory {0} is in use by another process")]
    Locked(PathBuf),
    /// A newer version wrote the directory.
    #[error("the data directory has format {found}, this version reads up to {FORMAT_VERSION}; use a newer version")]
    FormatTooNew {
        /// The directory's format.
        found: u32,
    },
    /// The directory's format is no longer read.
    #[error("the data directory has format {found}, this version reads from {FORMAT_VERSION} on; upgrade in steps")]
    FormatTooOld {
        /// The directory's format.
        found: u32,
    },
    /// The directory holds data but does not say what it is.
    #[error("{0} is no complete data directory: {1}")]
    NotADataDirectory(PathBuf, String),
    /// What it holds is a part of another store.
    #[error("{0} holds an unfinished copy of another store; let `antiphon copy` finish it")]
    UnfinishedCopy(PathBuf),
    /// A copy needs a directory without logs, or one that it has begun.
    #[error("{0} holds logs already; a copy needs a place of its own")]
    NotEmpty(PathBuf),
    /// A setting is out of its range.
    #[error("the store's configuration is invalid: {0}")]
    Config(&'static str),
    /// There is no space to bring older writes into the index.
    #[error("no space is left to open the data directory; free some and start again")]
    Full,
    /// io_uring was asked for by name and does not work here.
    #[error("the store is set to write by io_uring, which is not possible: {0}; let it choose by itself")]
    NoIoUring(#[source] Unusable),
    /// The operating system refused.
    #[error("the data directory cannot be used: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        if disk::is_full(&error) { Self::Full } else { Self::Io(error) }
    }
}

/// The content of `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// Version of everything in the directory.
    pub version: u32,
    /// History generation of every log in it; see [`antiphon_protocol::Position`].
    pub epoch: u32,
    /// When the directory was made, in Unix seconds; for people.
    pub created: u64,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Takes a data directory for this process until the file is dropped.
pub fn lock(dir: &Path) -> Result<File, OpenError> {
    let file = File::options().create(true).append(true).open(dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Where things are in a data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout(PathBuf);

impl Layout {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.0.join("wal")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.0.join("index")
    }

    pub(crate) fn partition(&self, partition: u8) -> PathBuf {
        self.index().join(format!("{partition:02}"))
    }

    pub(crate) fn damaged_wal(&self) -> PathBuf {
        self.0.join("damaged-wal")
    }

    pub(crate) fn boot(&self) -> PathBuf {
        self.0.join("boot")
    }

    pub(crate) fn damaged(&self) -> PathBuf {
        self.0.join("damaged")
    }

    pub(crate) fn copying(&self) -> PathBuf {
        self.0.join("copying")
    }

    pub(crate) fn lock(&self) -> Result<File, OpenError> {
        lock(&self.0)
    }

    /// What the directory is; nothing if it is empty.
    pub(crate) fn format(&self) -> Result<Option<Format>, OpenError> {
        let text = match fs::read_to_string(self.0.join("format")) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.wal().exists() || self.index().exists() {
                    let why = "its format file is missing, as after a copy that was broken off".to_owned();
                    return Err(OpenError::NotADataDirectory(self.0.clone(), why));
                }
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let invalid = |error: toml::de::Error| {
            OpenError::NotADataDirectory(self.0.clone(), format!("its format file is invalid: {}", error.message()))
        };
        // A newer format may have other fields, so its version is read first.
        match toml::from_str::<VersionOnly>(&text).map_err(invalid)?.version {
            FORMAT_VERSION => Ok(Some(toml::from_str(&text).map_err(invalid)?)),
            found if found > FORMAT_VERSION => Err(OpenError::FormatTooNew { found }),
            found => Err(OpenError::FormatTooOld { found }),
        }
    }

    /// Says what the directory is.
    pub(crate) fn write_format(&self, format: &Format) -> io::Result<()> {
        let Format { version, epoch, created } = format;
        let text = format!("version = {version}\nepoch = {epoch}\ncreated = {created}\n");
        write_whole(&self.0.join("format"), text.as_bytes())
    }

    /// Whether a start ever came as far as counting itself.
    pub(crate) fn was_started(&self) -> bool {
        self.boot().exists()
    }

    /// Counts this start: one more than the last, and than any log found.
    pub(crate) fn next_boot(&self, newest_log: u64) -> io::Result<u64> {
        let path = self.boot();
        let counted = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let boot = newest_log.max(counted) + 1;
        write_whole(&path, format!("{boot}\n").as_bytes())?;
        Ok(boot)
    }

    /// Partitions that an earlier start found damaged.
    pub(crate) fn read_damaged(&self) -> Result<BTreeMap<u8, String>, OpenError> {
        let text = match fs::read_to_string(self.damaged()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let parse = |line: &str| {
            let (partition, reason) = line.split_once(' ')?;
            Some((partition.parse().ok().filter(|p| *p < 64)?, reason.to_owned()))
        };
        text.lines().map(parse).collect::<Option<_>>().ok_or_else(|| {
            OpenError::NotADataDirectory(self.0.clone(), "its list of damaged partitions is unreadable".to_owned())
        })
    }

    /// Remembers which partitions are damaged.
    pub(crate) fn write_damaged(&self, damaged: &BTreeMap<u8, String>) -> io::Result<()> {
        let line = |(partition, reason): (&u8, &String)| format!("{partition} {}\n", reason.replace('\n', " "));
        let text: String = damaged.iter().map(line).collect();
        write_whole(&self.damaged(), text.as_bytes())
    }
}

/// Replaces a file at once and durably.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}
