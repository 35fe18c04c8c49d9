//! Durable writes on real files.
#![allow(clippy::unwrap_used, reason = "a failed call fails the test")]

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use antiphon_sys::poller::{Source, wait};
use antiphon_sys::ring::{DurableFile, PAGE_BYTES, PageBuffer, WriteRing, probe};
use tempfile::TempDir;

struct Rig {
    dir: TempDir,
    ring: WriteRing<u64>,
}

impl Rig {
    /// Nothing, with a line that says why, where the kernel or the file system cannot do it.
    fn new(depth: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        match probe(dir.path()) {
            Ok(()) => Some(Self { dir, ring: WriteRing::new(depth).unwrap() }),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn buffer(&mut self, fill: u8, pages: usize) -> PageBuffer {
        let mut buffer = self.ring.buffer();
        (0..pages).for_each(|_| buffer.append(&[fill; PAGE_BYTES]));
        buffer
    }

    /// Waits for one or more writes; all must succeed.
    fn reap(&mut self) -> Vec<u64> {
        wait([Source::readable(&self.ring)], Some(Duration::from_secs(30))).unwrap();
        let mut contexts = Vec::new();
        self.ring.reap(|context, result| {
            result.unwrap();
            contexts.push(context);
        });
        contexts
    }

    fn read(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("file")).unwrap()
    }

    fn file(&self) -> DurableFile {
        DurableFile::create(&self.dir.path().join("file")).unwrap()
    }
}

fn is_readable(fd: &impl AsFd) -> bool {
    wait([Source::readable(fd)], Some(Duration::ZERO)).unwrap()[0].readable
}

#[test]
fn many_writes_under_way_all_land_where_they_belong() {
    let Some(mut rig) = Rig::new(8) else { return };
    let file = rig.file();
    let mut expected = Vec::new();
    let (mut finished, mut most) = (Vec::new(), 0);
    for n in 0..200_u64 {
        let pages = 1 + n as usize * 7 % 5;
        let buffer = rig.buffer(n as u8, pages);
        rig.ring.submit(&file, expected.len() as u64, buffer, n).unwrap();
        expected.resize(expected.len() + pages * PAGE_BYTES, n as u8);
        most = most.max(rig.ring.in_flight());
        while !rig.ring.has_room() {
            finished.extend(rig.reap());
        }
    }
    while rig.ring.in_flight() > 0 {
        finished.extend(rig.reap());
    }
    assert_eq!(most, 8);
    finished.sort_unstable();
    assert!(finished.into_iter().eq(0..200));
    assert_eq!(rig.read(), expected);
}

#[test]
fn the_ring_is_readable_only_while_there_is_something_to_reap() {
    let Some(mut rig) = Rig::new(3) else { return };
    let file = rig.file();
    assert!(!is_readable(&rig.ring));
    let buffer = rig.buffer(1, 1);
    rig.ring.submit(&file, 0, buffer, 5).unwrap();
    assert_eq!(rig.reap(), [5]);
    assert!(!is_readable(&rig.ring));
}

#[test]
fn a_full_ring_refuses_and_goes_on_after_a_reap() {
    let Some(mut rig) = Rig::new(1) else { return };
    let file = rig.file();
    let (first, second, third) = (rig.buffer(1, 1), rig.buffer(2, 1), rig.buffer(3, 1));
    rig.ring.submit(&file, 0, first, 1).unwrap();
    let refused = rig.ring.submit(&file, 4096, second, 2).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(rig.reap(), [1]);
    rig.ring.submit(&file, 4096, third, 3).unwrap();
    assert_eq!(rig.reap(), [3]);
    assert_eq!(rig.read()[4096..], [3; PAGE_BYTES]);
}

#[test]
fn what_is_not_aligned_is_refused_before_the_kernel_sees_it() {
    let Some(mut rig) = Rig::new(2) else { return };
    let file = rig.file();
    let mut odd = rig.buffer(1, 1);
    odd.append(b"more");
    for (offset, buffer) in [(512, rig.buffer(1, 1)), (0, odd), (0, PageBuffer::default())] {
        let refused = rig.ring.submit(&file, offset, buffer, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!((rig.ring.in_flight(), rig.read().len()), (0, 0));
}

#[test]
fn an_error_of_the_disk_belongs_to_its_write_alone() {
    let Some(mut rig) = Rig::new(3) else { return };
    let file = rig.file();
    let buffers = [rig.buffer(1, 1), rig.buffer(2, 1), rig.buffer(3, 1)];
    // No file system has files this long.
    for ((offset, context), buffer) in [(0, 1), (1 << 62, 2), (4096, 3)].into_iter().zip(buffers) {
        rig.ring.submit(&file, offset, buffer, context).unwrap();
    }
    let mut results = Vec::new();
    while rig.ring.in_flight() > 0 {
        wait([Source::readable(&rig.ring)], Some(Duration::from_secs(30))).unwrap();
        rig.ring.reap(|context, result| results.push((context, result.map_err(|error| error.kind()))));
    }
    results.sort_unstable();
    assert_eq!(results, [(1, Ok(())), (2, Err(io::ErrorKind::FileTooLarge)), (3, Ok(()))]);
    assert_eq!(rig.read(), [[1; PAGE_BYTES], [3; PAGE_BYTES]].concat());
}

#[test]
fn a_dropped_ring_has_finished_its_writes() {
    for _ in 0..20 {
        let Some(mut rig) = Rig::new(4) else { return };
        let file = rig.file();
        rig.ring.set_alarm(Duration::from_secs(3600)).unwrap();
        for n in 0..4_u8 {
            let buffer = rig.buffer(n, 8);
            rig.ring.submit(&file, u64::from(n) * 8 * 4096, buffer, 0).unwrap();
        }
        let Rig { dir, ring } = rig;
        drop(ring);
        let bytes = std::fs::read(dir.path().join("file")).unwrap();
        assert!(bytes.chunks(8 * PAGE_BYTES).enumerate().all(|(n, chunk)| chunk.iter().all(|b| usize::from(*b) == n)));
        assert_eq!(bytes.len(), 32 * PAGE_BYTES);
    }
}

#[test]
fn an_alarm_wakes_once() {
    let Some(mut rig) = Rig::new(1) else { return };
    rig.ring.set_alarm(Duration::from_millis(5)).unwrap();
    rig.ring.set_alarm(Duration::from_secs(3600)).unwrap();
    assert!(!rig.ring.take_alarm());
    assert!(rig.reap().is_empty());
    assert!(rig.ring.take_alarm() && !rig.ring.take_alarm());
    assert!(!is_readable(&rig.ring));
    rig.ring.set_alarm(Duration::ZERO).unwrap();
    assert!(rig.reap().is_empty());
    assert!(rig.ring.take_alarm());
}

#[test]
fn the_number_of_writes_under_way_is_bounded() {
    for depth in [0, 1025, usize::MAX] {
        assert!(WriteRing::<()>::new(depth).is_err());
    }
}
