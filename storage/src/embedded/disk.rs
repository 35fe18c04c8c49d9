//! The files of the write-ahead log, as the few operations that the log needs.
//!
//! Recovery and the writers speak [`Disk`], never `std::fs`, so that the simulator can stand in a disk that loses what
//! was not synced. Segment names are never reused: a recycled file is renamed, and every block names its own segment,
//! so old bytes in a recycled file are never mistaken for new ones.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    str::FromStr,
};

use bytes::Bytes;

/// Names one segment of a write-ahead log: which start of the process, which shard, and its place in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Counts the starts of the process on this directory, from 1.
    pub boot: u64,
    /// The shard that wrote it.
    pub shard: u16,
    /// Order within the log of this boot and shard, from 1.
    pub number: u64,
}

impl SegmentName {
    /// Its file in the directory of the log.
    pub(crate) fn path_in(self, dir: &Path) -> PathBuf {
        dir.join(self.to_string())
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:04x}-{:016x}.wal", self.boot, self.shard, self.number)
    }
}

impl FromStr for SegmentName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let mut parts = name.strip_suffix(".wal").ok_or(())?.split('-');
        let mut next = || u64::from_str_radix(parts.next().ok_or(())?, 16).map_err(|_| ());
        let (boot, shard, number) = (next()?, next()?, next()?);
        let name = Self { boot, shard: shard.try_into().map_err(|_| ())?, number };
        parts.next().is_none().then_some(name).ok_or(())
    }
}

/// Storage for segments. Nothing is durable before [`Disk::sync`], except what [`Disk::create`], [`Disk::recycle`] and
/// [`Disk::remove`] did, which are durable when they return.
pub trait Disk {
    /// Every segment, in order.
    fn list(&mut self) -> io::Result<Vec<SegmentName>>;

    /// Makes a segment of `len` zero bytes. After an error nothing of it is left.
    fn create(&mut self, segment: SegmentName, len: u64) -> io::Result<()>;

    /// Gives the file of `from`, old bytes included, the name `to`.
    fn recycle(&mut self, from: SegmentName, to: SegmentName) -> io::Result<()>;

    /// Removes a segment; one that is gone already is no error.
    fn remove(&mut self, segment: SegmentName) -> io::Result<()>;

    /// Writes inside a segment's length.
    fn write_at(&mut self, segment: SegmentName, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes every earlier write to the segment durable.
    fn sync(&mut self, segment: SegmentName) -> io::Result<()>;

    /// The whole content of a segment.
    fn read(&mut self, segment: SegmentName) -> io::Result<Bytes>;

    /// Closes what is open of segments before `segment`, so that their space can be given back.
    fn close_before(&mut self, segment: SegmentName) {
        let _ = segment;
    }
}

/// Segments as files of one directory.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    open: HashMap<SegmentName, File>,
}

impl RealDisk {
    /// Uses `dir`, which must exist.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), open: HashMap::new() }
    }

    fn file(&mut self, segment: SegmentName) -> io::Result<&File> {
        use std::collections::hash_map::Entry;
        match self.open.entry(segment) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let path = segment.path_in(&self.dir);
                Ok(entry.insert(OpenOptions::new().read(true).write(true).open(path)?))
            }
        }
    }
}

impl Disk for RealDisk {
    fn list(&mut self) -> io::Result<Vec<SegmentName>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            segments.extend(name.to_str().and_then(|name| name.parse::<SegmentName>().ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn create(&mut self, segment: SegmentName, len: u64) -> io::Result<()> {
        let path = segment.path_in(&self.dir);
        let created = create_zeroed(&path, len).and_then(|()| sync_dir(&self.dir));
        if created.is_err() {
            // Best effort: the space of a half-made segment is what the disk lacks.
            let _ = fs::remove_file(&path);
        }
        created
    }

    fn recycle(&mut self, from: SegmentName, to: SegmentName) -> io::Result<()> {
        self.open.remove(&from);
        fs::rename(from.path_in(&self.dir), to.path_in(&self.dir))?;
        sync_dir(&self.dir)
    }

    fn remove(&mut self, segment: SegmentName) -> io::Result<()> {
        self.open.remove(&segment);
        match fs::remove_file(segment.path_in(&self.dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(&self.dir),
        }
    }

    fn write_at(&mut self, segment: SegmentName, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, segment: SegmentName) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn read(&mut self, segment: SegmentName) -> io::Result<Bytes> {
        fs::read(segment.path_in(&self.dir)).map(Bytes::from)
    }

    fn close_before(&mut self, segment: SegmentName) {
        self.open.retain(|name, _| *name >= segment);
    }
}

fn create_zeroed(path: &Path, len: u64) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; CHUNK.min(len as usize)];
    let mut left = len;
    while left > 0 {
        let chunk = zeros.len().min(left as usize);
        file.write_all(&zeros[..chunk])?;
        left -= chunk as u64;
    }
    file.sync_all()
}

/// Makes the names inside `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether an error means that no space is left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_is_read_back_from_its_file_name() {
        let name = SegmentName { boot: 3, shard: 1, number: 0xfedc };
        assert_eq!(name.to_string().parse(), Ok(name));
        for other in ["", "lock", "1-2.wal", "1-2-3.tmp", "1-2-3-4.wal", "1-12345-1.wal"] {
            assert_eq!(other.parse::<SegmentName>(), Err(()), "{other}");
        }
    }

    #[test]
    fn a_created_segment_is_zeroed_and_a_recycled_one_keeps_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = RealDisk::new(dir.path());
        let (one, two) = (SegmentName { boot: 1, shard: 0, number: 1 }, SegmentName { boot: 1, shard: 0, number: 2 });
        disk.create(one, 8192).unwrap();
        disk.write_at(one, 4096, b"old").unwrap();
        disk.sync(one).unwrap();
        disk.recycle(one, two).unwrap();
        assert_eq!(disk.list().unwrap(), [two]);
        let bytes = disk.read(two).unwrap();
        assert_eq!((bytes.len(), &bytes[..3], &bytes[4096..4099]), (8192, &[0, 0, 0][..], &b"old"[..]));
        disk.remove(two).unwrap();
        disk.remove(two).unwrap();
        assert!(disk.list().unwrap().is_empty());
    }
}
