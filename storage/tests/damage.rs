//! Bits that flip and tails that tear: damage is reported, never served and never taken for a torn tail.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use antiphon_storage::{
    EventLog, Op, Outcome, StoreError, Token,
    conformance::{
        Session,
        rows::{append, log, read, row},
    },
    dice::Dice,
    embedded::{
        Wake,
        block::{self, Found, HEADER_BYTES},
        disk::{Disk, SegmentName},
        recovery::{Recovered, RecoveredBlock, recover},
        simulated::{SimulatedDisk, SimulatedStore},
    },
};
use bytes::Bytes;
use support::{Open, noting, small, with_each_writer};

/// The log of one shard after some writes, as it is on disk.
struct Image {
    segments: Vec<(SegmentName, Bytes)>,
    blocks: Vec<RecoveredBlock>,
}

impl Image {
    /// Writes of different sizes, each in a block of its own, over several segments.
    fn new(sealed: bool) -> Self {
        let mut store = SimulatedStore::new(128 << 10);
        let wake: Wake = Arc::new(|| {});
        let mut shard = store.open(1, &wake).unwrap().remove(0);
        let mut completions = Vec::new();
        let mut next = [1; 4];
        for n in 0..40 {
            let (head, rows) = (&mut next[n as usize % 4], 1 + n * 7 % 60);
            shard.submit(append(n % 4, *head..*head + rows), Token(n));
            *head += rows;
            // Without its seal the log ends as if the power went away right after the last write.
            while completions.len() as u64 <= n && (sealed || n < 39) {
                shard.poll_completions(&mut completions);
                shard.writer_mut().finish_one(0);
            }
        }
        shard.poll_completions(&mut completions);
        while shard.writer_mut().finish_one(0) {}
        let mut disk = store.disk().clone();
        let names: Vec<SegmentName> = disk.list().unwrap();
        let segments = names.into_iter().map(|name| (name, disk.read(name).unwrap())).collect();
        let mut image = Self { segments, blocks: Vec::new() };
        let (blocks, recovered) = image.recover();
        assert_eq!((recovered.damage, recovered.torn, recovered.blocks), (vec![], false, 40));
        image.blocks = blocks;
        image
    }

    fn recover(&self) -> (Vec<RecoveredBlock>, Recovered) {
        let mut disk = SimulatedDisk::default();
        let mut names = Vec::new();
        for (name, bytes) in &self.segments {
            names.push(*name);
            disk.create(*name, bytes.len() as u64).unwrap();
            disk.write_at(*name, 0, bytes).unwrap();
            disk.sync(*name).unwrap();
        }
        let mut blocks = Vec::new();
        let recovered = recover(&mut disk, &names, |block| {
            blocks.push(block);
            Ok(())
        });
        (blocks, recovered.unwrap())
    }

    /// The image with other bytes in one segment.
    fn with(&self, segment: usize, change: impl FnOnce(&mut [u8])) -> Self {
        let mut segments = self.segments.clone();
        let mut bytes = segments[segment].1.to_vec();
        change(&mut bytes);
        segments[segment].1 = bytes.into();
        Self { segments, blocks: self.blocks.clone() }
    }

    /// Where each block lies: segment, offset and length without padding.
    fn places(&self) -> Vec<(usize, usize, usize)> {
        let mut places = Vec::new();
        for (n, (name, bytes)) in self.segments.iter().enumerate() {
            for offset in (0..bytes.len()).step_by(block::PAGE_BYTES) {
                if let Found::Block(_, payload) = block::find(bytes, *name, offset as u64) {
                    places.push((n, offset, HEADER_BYTES + payload.len()));
                }
            }
        }
        places
    }
}

/// Blocks that hold writes, without the marks of damage before them.
fn writes(blocks: &[RecoveredBlock]) -> Vec<(u64, Bytes)> {
    blocks.iter().filter(|b| !b.payload.is_empty()).map(|b| (b.number, b.payload.clone())).collect()
}

#[test]
fn the_torn_tail_is_cut_at_every_byte() {
    let image = Image::new(false);
    let (segment, offset, len) = *image.places().last().unwrap();
    let all = writes(&image.blocks);
    for kept in 0..len {
        for fill in [0, 0xa5] {
            let torn = image.with(segment, |bytes| bytes[offset + kept..offset + len].fill(fill));
            if torn.segments[segment].1 == image.segments[segment].1 {
                continue;
            }
            let (blocks, recovered) = torn.recover();
            assert_eq!(recovered.damage, [], "kept {kept}");
            assert_eq!(writes(&blocks), all[..all.len() - 1], "kept {kept}");
        }
    }
}

#[test]
fn a_block_is_sealed_by_the_next_one_or_when_none_follows() {
    let mut store = SimulatedStore::new(128 << 10);
    let wake: Wake = Arc::new(|| {});
    let mut shard = store.open(1, &wake).unwrap().remove(0);
    shard.writer_mut().set_busy(true);
    let mut completions = Vec::new();
    for n in 0..3 {
        shard.submit(append(1, n + 1..n + 2), Token(n));
        while completions.len() as u64 <= n {
            shard.poll_completions(&mut completions);
            shard.writer_mut().finish_one(0);
        }
        shard.poll_completions(&mut completions);
        assert_eq!(shard.counters().writer.blocks, n + 1);
    }
    shard.writer_mut().set_busy(false);
    assert!(!shard.is_sealed());
    for _ in 0..3 {
        shard.poll_completions(&mut completions);
        while shard.writer_mut().finish_one(0) {}
    }
    assert_eq!((shard.counters().writer.blocks, shard.is_sealed()), (4, true), "and no further one");
}

#[test]
fn a_damaged_last_block_is_noticed_once_it_is_sealed() {
    let image = Image::new(true);
    let places = image.places();
    let (segment, offset, len) = places[places.len() - 2];
    for at in 0..len {
        let (_, recovered) = image.with(segment, |bytes| bytes[offset + at] ^= 1).recover();
        assert_eq!(recovered.damage.len(), 1, "byte {at}");
    }
}

#[test]
fn a_flipped_bit_in_the_log_is_reported_or_meaningless() {
    let image = Image::new(true);
    let places = image.places();
    let (&(seal_segment, seal_offset, _), _) = places.split_last().unwrap();
    let all = writes(&image.blocks);
    let mut dice = Dice::new(7);
    let (mut reported, mut meaningless) = (0, 0);
    for _ in 0..4_000 {
        let (segment, offset, len) = places[dice.below(places.len() as u64) as usize];
        // Mostly in the block itself, sometimes in its padding.
        let end = if dice.once_in(6) { block::padded_len(len - HEADER_BYTES) } else { len };
        let at = offset + dice.below(end as u64) as usize;
        let bit = dice.below(8);
        let (blocks, recovered) = image.with(segment, |bytes| bytes[at] ^= 1 << bit).recover();
        let found = writes(&blocks);
        // Whatever is served was written.
        assert!(found.iter().all(|block| all.contains(block)), "{segment} {at} {bit}");
        if recovered.damage.is_empty() {
            meaningless += 1;
            let in_the_seal = (segment, offset) == (seal_segment, seal_offset);
            assert!(at >= offset + len || in_the_seal, "{segment} {at} {bit} was cut silently");
            assert_eq!(found, all, "{segment} {at} {bit}");
        } else {
            reported += 1;
        }
    }
    assert!(reported > 2_000 && meaningless > 100, "{reported} reported, {meaningless} meaningless");
}

/// A directory with rows in many partitions, in the index, in the log, or in both.
fn directory(flushed: u64, logged: u64) -> (tempfile::TempDir, PathBuf) {
    let owned = tempfile::tempdir().unwrap();
    let dir = owned.path().join("data");
    for (rows, flush) in [(1..=flushed, true), (flushed + 1..=flushed + logged, false)] {
        let mut store = Open::new(&dir, small(2)).unwrap();
        let mut next = 0;
        for n in 0..12 {
            for seq in rows.clone() {
                next += 1;
                store.submit(append(n, [seq]), Token(next));
            }
        }
        let mut completions = Vec::new();
        while completions.len() as u64 != next {
            antiphon_storage::conformance::Backend::wait(&mut store);
            store.poll_completions(&mut completions);
        }
        assert!(completions.iter().all(|completion| completion.result == Ok(Outcome::Done)));
        while !store.shards.iter().all(antiphon_storage::embedded::EmbeddedShard::is_sealed) {
            antiphon_storage::conformance::Backend::wait(&mut store);
            store.poll_completions(&mut completions);
        }
        if flush {
            store.shards.drain(..).for_each(antiphon_storage::embedded::EmbeddedShard::close);
        }
    }
    (owned, dir)
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, out) } else { out.push(path) }
    }
}

#[test]
fn a_flipped_bit_in_a_directory_is_never_served() {
    with_each_writer(|| {
        let (_owned, dir) = directory(40, 20);
        let mut paths = Vec::new();
        files(&dir.join("index"), &mut paths);
        files(&dir.join("wal"), &mut paths);
        paths.retain(|path| fs::metadata(path).unwrap().len() > 0);
        paths.sort();
        let mut dice = Dice::new(11);
        let (mut intact, mut degraded) = (0, 0);
        for _ in 0..60 {
            let copy = tempfile::tempdir().unwrap();
            copy_dir(&dir, copy.path());
            let path = &paths[dice.below(paths.len() as u64) as usize];
            let target = copy.path().join(path.strip_prefix(&dir).unwrap());
            let mut bytes = fs::read(&target).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = dice.below(used as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
            fs::write(&target, bytes).unwrap();
            let place = format!("{} byte {at}", path.display());
            let (config, _) = noting(2);
            let store = Open::new(copy.path(), config);
            let store = store.unwrap_or_else(|error| panic!("{place}: the store must open: {error:?}"));
            let mut session = Session::new(Box::new(store));
            for n in 0..12 {
                match session.perform(read(n, 1, 1_000)) {
                    Ok(Outcome::Rows(rows)) if rows.len() == 60 => {
                        assert!(rows.iter().eq((1..=60).map(row).collect::<Vec<_>>().iter()), "{place}");
                        intact += 1;
                    }
                    Ok(Outcome::Rows(rows)) => {
                        // Rows may end early only where the store says that it is damaged.
                        assert!(rows.iter().eq((1..=rows.len() as u64).map(row).collect::<Vec<_>>().iter()), "{place}");
                        let write = session.perform(append(n, [rows.len() as u64 + 1]));
                        assert!(matches!(write, Err(StoreError::Degraded(_))), "{place}: {write:?}");
                        degraded += 1;
                    }
                    Err(StoreError::Degraded(_)) => degraded += 1,
                    other => panic!("{place}: {other:?}"),
                }
            }
        }
        assert!(intact > 100 && degraded > 5, "{intact} intact, {degraded} degraded");
    });
}

#[test]
fn damage_is_read_only_and_remembered() {
    with_each_writer(|| {
        let (_owned, dir) = directory(0, 30);
        let mut wals = Vec::new();
        files(&dir.join("wal"), &mut wals);
        wals.sort();
        // The first block of the newest log.
        let name: SegmentName = wals[0].file_name().unwrap().to_str().unwrap().parse().unwrap();
        let mut bytes = fs::read(&wals[0]).unwrap();
        bytes[HEADER_BYTES + 40] ^= 1;
        fs::write(&wals[0], bytes).unwrap();
        for start in 0..3 {
            let store = Open::new(&dir, small(2)).unwrap();
            let degraded = store.handle().degraded();
            assert!(!degraded.is_empty(), "start {start}");
            let shard = |p: u8| u16::from(p) % 2;
            assert!(
                degraded.iter().all(|(partition, _)| shard(*partition) == name.shard),
                "start {start}: {degraded:?}"
            );
            let mut session = Session::new(Box::new(store));
            for n in 0..12 {
                let damaged = degraded.iter().any(|(partition, _)| *partition == log(n).partition());
                let Ok(Outcome::Loaded(loaded)) = session.perform(Op::Load { log: log(n) }) else {
                    panic!("start {start}: reads go on")
                };
                let write = session.perform(append(n, [loaded.head + 1]));
                if damaged {
                    assert!(matches!(write, Err(StoreError::Degraded(_))), "start {start}");
                } else {
                    assert_eq!((loaded.head, write), (30 + start, Ok(Outcome::Done)), "start {start}");
                }
            }
        }
        assert!(fs::read_dir(dir.join("damaged-wal")).unwrap().next().is_some());
        assert!(!antiphon_storage::embedded::verify(&dir).unwrap().findings.is_empty());
    });
}
