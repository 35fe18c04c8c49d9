//! Directories that released versions wrote open and read back.
//!
//! A fixture is one file, since most of a directory is small files, zeros and empty folders: entries of path length
//! (u16), path, length (u64), number of stored sectors (u32) and, for each that is not all zeros, its number (u32) and
//! 512 bytes. A folder has the length 2^64 - 1. `cargo test -p antiphon-storage --test format -- --ignored` writes the fixture of this version.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use antiphon_storage::{
    Op, Outcome,
    conformance::{
        Session,
        rows::{append, log, put, read, row},
    },
    embedded::{EmbeddedConfig, verify},
};
use bytes::Bytes;
use support::{Open, small};

const FOLDER: u64 = u64::MAX;
const LOGS: u64 = 8;
const SECTOR_BYTES: usize = 512;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/directory.bundle")
}

fn config() -> EmbeddedConfig {
    EmbeddedConfig { segment_bytes: 64 << 10, ..small(2) }
}

/// What the fixture holds: half of it in the index, the rest in the write-ahead log.
fn writes(half: u64) -> Vec<Op> {
    let of_log = |n: u64| match half {
        0 => vec![append(n, 1..=4), put(n, "first", Some("1")), put(n, "gone", Some("x"))],
        _ => vec![
            append(n, 5..=6),
            Op::Rewrite { log: log(n), row: row(3).redacted() },
            Op::Checkpoint { log: log(n), through: 5, value: Bytes::from_static(b"checkpoint") },
            Op::SetFloor { log: log(n), floor: 2 },
            put(n, "gone", None),
        ],
    };
    (0..LOGS).flat_map(of_log).collect()
}

#[test]
fn a_directory_of_version_1_opens_and_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    unpack(&fs::read(fixture()).unwrap(), dir.path());
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.findings, report.format.version, report.format.epoch), (vec![], 1, 1));
    let mut session = Session::new(Box::new(Open::new(dir.path(), config()).unwrap()));
    for n in 0..LOGS {
        let rows = vec![row(2), row(3).redacted(), row(4), row(5), row(6)];
        assert_eq!(session.perform(read(n, 1, 99)), Ok(Outcome::Rows(rows)));
        let Ok(Outcome::Loaded(loaded)) = session.perform(Op::Load { log: log(n) }) else { panic!("log {n}") };
        assert_eq!((loaded.epoch, loaded.floor, loaded.head, loaded.tail), (1, 2, 6, vec![row(6)]));
        assert_eq!(loaded.checkpoint, Some((5, Bytes::from_static(b"checkpoint"))));
        let scan = Op::ScanRecords { log: log(n), prefix: Bytes::new(), after: None, records_max: 9 };
        let records = vec![(Bytes::from_static(b"first"), Bytes::from_static(b"1"))];
        assert_eq!(session.perform(scan), Ok(Outcome::Records(records)));
        assert_eq!(session.perform(append(n, [7])), Ok(Outcome::Done));
    }
}

#[test]
#[ignore = "writes the fixture of this version"]
fn write_the_fixture() {
    let dir = tempfile::tempdir().unwrap();
    for half in [0, 1] {
        let mut session = Session::new(Box::new(Open::new(dir.path(), config()).unwrap()));
        for op in writes(half) {
            assert_eq!(session.perform(op), Ok(Outcome::Done));
        }
    }
    let mut out = Vec::new();
    pack(dir.path(), dir.path(), &mut out);
    fs::write(fixture(), out).unwrap();
}

fn pack(root: &Path, dir: &Path, out: &mut Vec<u8>) {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap();
        out.extend((name.len() as u16).to_le_bytes());
        out.extend(name.as_bytes());
        if path.is_dir() {
            out.extend(FOLDER.to_le_bytes());
            out.extend(0_u32.to_le_bytes());
            pack(root, &path, out);
        } else {
            let mut bytes = fs::read(&path).unwrap();
            out.extend((bytes.len() as u64).to_le_bytes());
            bytes.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
            let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
            let stored: Vec<_> = sectors.filter(|(_, sector)| sector.iter().any(|byte| *byte != 0)).collect();
            out.extend((stored.len() as u32).to_le_bytes());
            for (number, sector) in stored {
                out.extend((number as u32).to_le_bytes());
                out.extend(sector);
            }
        }
    }
}

fn unpack(mut bundle: &[u8], root: &Path) {
    let mut take = |len: usize| {
        let (taken, rest) = bundle.split_at_checked(len).unwrap_or_default();
        bundle = rest;
        taken
    };
    while let Ok(name_len) = take(2).try_into() {
        let path = root.join(std::str::from_utf8(take(u16::from_le_bytes(name_len).into())).unwrap());
        let len = u64::from_le_bytes(take(8).try_into().unwrap());
        let sectors = u32::from_le_bytes(take(4).try_into().unwrap());
        if len == FOLDER {
            fs::create_dir_all(&path).unwrap();
            continue;
        }
        let mut bytes = vec![0; (len as usize).next_multiple_of(SECTOR_BYTES)];
        for _ in 0..sectors {
            let at = u32::from_le_bytes(take(4).try_into().unwrap()) as usize * SECTOR_BYTES;
            bytes[at..at + SECTOR_BYTES].copy_from_slice(take(SECTOR_BYTES));
        }
        fs::write(&path, &bytes[..len as usize]).unwrap();
    }
}
