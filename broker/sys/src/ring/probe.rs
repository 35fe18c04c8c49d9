//! Whether durable writes through a ring work here, found out by making one.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{DurableFile, PAGE_BYTES, WriteRing};
use crate::poller::{Source, wait};

/// How long one page may take. A disk this slow is no reason to choose a ring.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no io_uring, or this process may not use it.
    #[error("the kernel gives this process no io_uring: {0}")]
    Ring(#[source] io::Error),
    /// The file system cannot be written around the page cache, or not from a ring.
    #[error("the file system takes no direct writes from io_uring: {0}")]
    FileSystem(#[source] io::Error),
}

/// Writes a page to a file of its own in `dir`, removes the file and says whether that worked.
pub fn probe(dir: &Path) -> Result<(), Unusable> {
    let ring = WriteRing::new(1).map_err(Unusable::Ring)?;
    let path = dir.join("direct-write-probe");
    let tried = write_page(ring, &path);
    // A file that is left behind is emptied by the next probe.
    let _ = fs::remove_file(&path);
    tried.map_err(Unusable::FileSystem)
}

fn write_page(mut ring: WriteRing<()>, path: &Path) -> io::Result<()> {
    let file = DurableFile::create(path)?;
    let page = [0xa5; PAGE_BYTES];
    let mut buffer = ring.buffer();
    buffer.append(&page);
    ring.submit(&file, 0, buffer, ())?;
    let mut written = Err(io::ErrorKind::TimedOut.into());
    // A signal may end a wait early, so a few of them are needed at most.
    for _ in 0..10 {
        wait([Source::readable(&ring)], Some(PATIENCE / 10))?;
        ring.reap(|(), result| written = result);
        if ring.in_flight() == 0 {
            break;
        }
    }
    written?;
    if fs::read(path)? == page { Ok(()) } else { Err(io::Error::other("the page read back differs")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_has_no_direct_writes() {
        let dir = tempfile::tempdir().unwrap();
        assert!(probe(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let _ = probe(dir.path());
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
