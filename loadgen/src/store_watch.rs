//! Watches a broker's data directory for the moments at which a kill hurts most: a segment of the write-ahead log that
//! is being begun, a table of the index that is being written.
//!
//! The kernel tells of a new file at once (inotify), so whoever waits here can act while the file is still half made.

use std::{
    fs, io,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};

/// Segments that wait to be used again have the name of a boot that never is.
const SPARE_SEGMENT: &[u8] = b"0000000000000000-";
/// One event's length with the longest name, and some more at a time.
const BUFFER_BYTES: usize = 4_096;

/// What the store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It begins another segment of its write-ahead log.
    Rotation,
    /// It writes a table of its index, which a flush or a merge makes.
    Flush,
}

/// Waits for one kind of moment, from its making on.
#[derive(Debug)]
pub struct StoreWatch {
    events: OwnedFd,
    moment: Moment,
}

impl StoreWatch {
    /// Watches the store in `data`, which must be there.
    pub fn new(data: &Path, moment: Moment) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let watch = |folder: &Path| inotify::add_watch(&events, folder, WatchFlags::CREATE | WatchFlags::MOVED_TO);
        match moment {
            Moment::Rotation => _ = watch(&data.join("wal"))?,
            Moment::Flush => {
                for partition in fs::read_dir(data.join("index"))? {
                    watch(&partition?.path().join("tables"))?;
                }
            }
        }
        Ok(Self { events, moment })
    }

    /// Waits until the moment is there; false if it was not by then.
    pub fn wait(&self, deadline: Instant) -> io::Result<bool> {
        loop {
            if self.has_come()? {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            poll(&mut [PollFd::new(&self.events, PollFlags::IN)], Some(&timespec(left)))?;
        }
    }

    /// Whether one of the events that are there is what is waited for.
    fn has_come(&self) -> io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = inotify::Reader::new(&self.events, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
                    if self.moment == Moment::Flush || !name.starts_with(SPARE_SEGMENT) {
                        return Ok(true);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_segment_is_a_rotation_and_a_spare_is_none() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("wal");
        fs::create_dir_all(&wal).unwrap();
        let watch = StoreWatch::new(data.path(), Moment::Rotation).unwrap();
        fs::write(wal.join("0000000000000000-0000-0000000000000001.wal"), "").unwrap();
        assert!(!watch.wait(Instant::now()).unwrap());
        fs::write(wal.join("0000000000000001-0000-0000000000000002.wal"), "").unwrap();
        assert!(watch.wait(Instant::now() + Duration::from_secs(30)).unwrap());
    }

    #[test]
    fn a_new_table_of_any_partition_is_a_flush() {
        let data = tempfile::tempdir().unwrap();
        let tables = |partition| data.path().join("index").join(partition).join("tables");
        for partition in ["00", "01"] {
            fs::create_dir_all(tables(partition)).unwrap();
        }
        let watch = StoreWatch::new(data.path(), Moment::Flush).unwrap();
        assert!(!watch.wait(Instant::now()).unwrap());
        fs::write(tables("01").join("7"), "").unwrap();
        assert!(watch.wait(Instant::now() + Duration::from_secs(30)).unwrap());
    }
}
