//! Whether durable writes through a ring work here, found out by making one, and whether they are quick.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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

/// Whether the disk behind `dir` makes a write durable by itself: it keeps nothing in a volatile cache, or can be told
/// so with the write. Without that, Linux hands each finished durable write to a worker thread of the processor that
/// takes the disk's interrupts, which asks for a flush; where that processor is busy, this costs milliseconds. `None`
/// where the system does not say, as for a file system that is not on one disk.
pub fn writes_through(dir: &Path) -> Option<bool> {
    let disk = disk_folder(fs::metadata(dir).ok()?.dev())?;
    // A partition has no queue of its own; its disk is the folder above.
    ["queue", "../queue"].into_iter().find_map(|queue| queue_writes_through(&disk.join(queue)))
}

/// Where Linux describes a disk.
#[cfg(target_os = "linux")]
fn disk_folder(device: u64) -> Option<PathBuf> {
    Some(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device)).into())
}

#[cfg(not(target_os = "linux"))]
fn disk_folder(_device: u64) -> Option<PathBuf> {
    None
}

fn queue_writes_through(queue: &Path) -> Option<bool> {
    let cache = fs::read_to_string(queue.join("write_cache")).ok()?;
    let forced_access = fs::read_to_string(queue.join("fua")).unwrap_or_default();
    Some(cache.trim() == "write through" || forced_access.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_writes_through_without_a_cache_or_with_forced_access() {
        let queue = tempfile::tempdir().unwrap();
        assert_eq!(queue_writes_through(queue.path()), None);
        let cases = [("write back", "0", false), ("write back", "1", true), ("write through", "0", true)];
        for (cache, forced_access, expected) in cases {
            fs::write(queue.path().join("write_cache"), format!("{cache}\n")).unwrap();
            fs::write(queue.path().join("fua"), format!("{forced_access}\n")).unwrap();
            assert_eq!(queue_writes_through(queue.path()), Some(expected), "{cache} {forced_access}");
        }
    }

    #[test]
    fn a_folder_on_no_disk_is_not_known_to_write_through() {
        assert_eq!(writes_through(Path::new("/proc")), None);
        assert_eq!(writes_through(Path::new("/missing")), None);
    }

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
