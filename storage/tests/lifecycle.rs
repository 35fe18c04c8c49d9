//! A data directory over its life: locks, formats, numbers of shards, backups.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{fs, sync::Arc};

use antiphon_storage::{
    EventLog, Op, Outcome, StoreError, Token,
    conformance::{
        Backend, Session,
        rows::{append, log, put, read, row},
    },
    embedded::{
        BackupError, Embedded, EmbeddedConfig, EmbeddedShard, FORMAT_VERSION, OpenError, WriterChoice, WriterKind,
        restore, verify,
    },
};
use support::{Open, has_io_uring, small, with_each_writer};

/// Performs every operation; all must succeed.
fn perform_all(store: &mut Open, ops: impl IntoIterator<Item = Op>) {
    let mut submitted = 0;
    for op in ops {
        submitted += 1;
        store.submit(op, Token(submitted));
    }
    let mut completions = Vec::new();
    loop {
        store.poll_completions(&mut completions);
        if completions.len() as u64 == submitted {
            break;
        }
        store.wait();
    }
    assert!(completions.iter().all(|completion| completion.result == Ok(Outcome::Done)));
}

fn assert_rows(session: &mut Session, n: u64, head: u64) {
    let rows = (1..=head).map(row).collect();
    assert_eq!(session.perform(read(n, 1, u64::MAX)), Ok(Outcome::Rows(rows)), "log {n}");
}

fn open(dir: &std::path::Path, shards: u16) -> Session {
    Session::new(Box::new(Open::new(dir, small(shards)).unwrap()))
}

/// Shards move to their threads and handles are shared; that this compiles is the test.
const _: () = {
    const fn sent<T: Send>() {}
    const fn shared<T: Send + Sync>() {}
    sent::<EmbeddedShard>();
    shared::<antiphon_storage::embedded::StoreHandle>();
};

#[test]
fn a_directory_has_one_user_at_a_time() {
    with_each_writer(|| {
        let store = Open::fresh(small(2));
        let second = Open::new(store.dir(), small(2));
        assert!(matches!(second, Err(OpenError::Locked(_))));
        assert!(matches!(verify(store.dir()), Err(OpenError::Locked(_))));
        let handle = store.handle();
        let reopened = Box::new(store);
        let dir = reopened.dir().to_owned();
        drop(handle);
        let reopened = reopened.reopen();
        assert!(matches!(Open::new(&dir, small(2)), Err(OpenError::Locked(_))));
        drop(reopened);
    });
}

#[test]
fn another_format_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(Open::new(dir.path(), small(1)).unwrap());
    let format = dir.path().join("format");
    fs::write(&format, "version = 999\nunheard_of = true\n").unwrap();
    assert!(matches!(Open::new(dir.path(), small(1)), Err(OpenError::FormatTooNew { found: 999 })));
    fs::write(&format, "version = 0\n").unwrap();
    assert!(matches!(Open::new(dir.path(), small(1)), Err(OpenError::FormatTooOld { found: 0 })));
    fs::write(&format, "nonsense").unwrap();
    assert!(matches!(Open::new(dir.path(), small(1)), Err(OpenError::NotADataDirectory(..))));
    fs::remove_file(&format).unwrap();
    assert!(matches!(Open::new(dir.path(), small(1)), Err(OpenError::NotADataDirectory(..))));
}

#[test]
fn invalid_settings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let hook = small(1).fatal;
    let cases = [
        EmbeddedConfig { shards: 0, ..small(1) },
        EmbeddedConfig { segment_bytes: 1000, ..small(1) },
        EmbeddedConfig { segment_bytes: 4096 * 17 + 1, ..small(1) },
        EmbeddedConfig { wal_bytes_max: 0, ..small(1) },
    ];
    for config in cases {
        assert!(matches!(Open::new(dir.path(), config), Err(OpenError::Config(_))));
    }
    let two = Embedded::open(dir.path(), EmbeddedConfig::new(2, hook), vec![Arc::new(|| {})]);
    assert!(matches!(two, Err(OpenError::Config(_))));
}

#[test]
fn any_number_of_shards_opens_any_directory() {
    with_each_writer(|| {
        let dir = tempfile::tempdir().unwrap();
        for (head, shards) in (0..).zip([2, 1, 4, 3, 64, 2]) {
            let mut session = open(dir.path(), shards);
            for n in 0..30 {
                assert_rows(&mut session, n, head);
                assert_eq!(session.perform(append(n, [head + 1])), Ok(Outcome::Done));
            }
        }
    });
}

#[test]
fn the_writers_take_over_each_others_directories() {
    if !has_io_uring() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (head, kind) in (0..).zip([WriterKind::Plain, WriterKind::IoUring].repeat(3)) {
        let writer = if kind == WriterKind::Plain { WriterChoice::Plain } else { WriterChoice::IoUring };
        let store = Open::new(dir.path(), EmbeddedConfig { writer, ..small(2) }).unwrap();
        assert_eq!(store.handle().writer().kind, kind);
        let mut session = Session::new(Box::new(store));
        for n in 0..30 {
            assert_rows(&mut session, n, head);
            assert_eq!(session.perform(append(n, [head + 1])), Ok(Outcome::Done));
        }
    }
    assert_eq!(verify(dir.path()).unwrap().findings, []);
}

#[test]
fn a_store_left_to_choose_uses_io_uring_where_it_works_well() {
    let store = Open::fresh(EmbeddedConfig { writer: WriterChoice::Auto, ..small(1) });
    let chosen = store.handle().writer().clone();
    let writes_through = antiphon_sys::ring::writes_through(store.dir()) == Some(true);
    let expected = if has_io_uring() && writes_through { WriterKind::IoUring } else { WriterKind::Plain };
    assert_eq!((chosen.kind, chosen.obstacle.is_some()), (expected, expected == WriterKind::Plain));
    // Only the ring makes a shard have a descriptor, and only once something was written.
    assert!(store.shards[0].wait_fd().is_none());
    let mut store = store;
    perform_all(&mut store, [append(1, 1..=3)]);
    assert_eq!(store.shards[0].wait_fd().is_some(), expected == WriterKind::IoUring);
    assert!(
        fs::read_dir(store.dir().join("wal"))
            .unwrap()
            .all(|entry| { entry.unwrap().file_name().to_str().unwrap().ends_with(".wal") })
    );
}

#[test]
fn a_long_log_is_flushed_and_its_segments_are_used_again() {
    with_each_writer(|| {
        let mut store = Open::fresh(small(1));
        for round in 0..40 {
            perform_all(&mut store, (0..20).map(|n| append(n, round * 10 + 1..=round * 10 + 10)));
            assert!(store.shards[0].counters().wal_bytes <= 512 << 10);
        }
        let counters = store.shards[0].counters();
        assert!(counters.writer.bytes > 700 << 10, "{counters:?}");
        assert_eq!(counters.rows_appended, 8_000);
        let dir = store.dir().to_owned();
        let mut session = Session::new(Box::new(store).reopen());
        (0..20).for_each(|n| assert_rows(&mut session, n, 400));
        drop(session);
        drop(dir);
    });
}

#[test]
fn a_closed_store_has_nothing_to_replay() {
    with_each_writer(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Open::new(dir.path(), small(2)).unwrap();
        perform_all(&mut store, (0..20).map(|n| append(n, 1..=5)));
        store.shards.drain(..).for_each(EmbeddedShard::close);
        drop(store);
        let report = verify(dir.path()).unwrap();
        assert_eq!((report.logs, report.rows, report.duplicates, report.findings), (20, 100, 100, vec![]));
    });
}

#[test]
fn rows_below_the_floor_stay_gone_through_flushes_and_starts() {
    with_each_writer(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Open::new(dir.path(), small(1)).unwrap();
        for round in 0..60 {
            let first = round * 50 + 1;
            perform_all(&mut store, [append(1, first..first + 50), Op::SetFloor { log: log(1), floor: first }]);
        }
        store.shards.drain(..).for_each(EmbeddedShard::close);
        drop(store);
        let mut session = open(dir.path(), 1);
        let rows = (2_951..=3_000).map(row).collect();
        assert_eq!(session.perform(read(1, 1, u64::MAX)), Ok(Outcome::Rows(rows)));
        drop(session);
        let report = verify(dir.path()).unwrap();
        assert_eq!((report.rows, report.findings), (50, vec![]));
    });
}

#[test]
fn a_backup_under_load_has_everything_acknowledged_before_it() {
    with_each_writer(|| {
        let owned = tempfile::tempdir().unwrap();
        let (dir, backup, restored) =
            (owned.path().join("data"), owned.path().join("backup"), owned.path().join("restored"));
        let mut store = Open::new(&dir, small(2)).unwrap();
        perform_all(&mut store, (0..20).flat_map(|n| [append(n, 1..=30), put(n, "k", Some("before"))]));
        let handle = store.handle();
        let epoch = handle.epoch();
        let (mut round, mut report) = (0, None);
        let target = backup.clone();
        let copying = std::thread::spawn(move || handle.backup(&target).unwrap());
        while report.is_none() {
            perform_all(&mut store, (0..20).map(|n| append(n, [31 + round])));
            round += 1;
            if copying.is_finished() {
                report = Some(());
            }
        }
        assert!(copying.join().unwrap().files > 0);
        let again = store.handle().backup(&backup);
        assert!(matches!(again, Err(BackupError::NotEmpty(_))));
        drop(store);

        assert_eq!(verify(&backup).unwrap().findings, []);
        let format = restore(&backup, &restored).unwrap();
        assert!(format.epoch > epoch && format.version == FORMAT_VERSION);
        assert!(matches!(restore(&backup, &restored), Err(BackupError::NotEmpty(_))));
        let mut session = open(&restored, 3);
        for n in 0..20 {
            let Ok(Outcome::Loaded(loaded)) = session.perform(Op::Load { log: log(n) }) else { panic!("log {n}") };
            assert!((30..=30 + round).contains(&loaded.head), "log {n} ends at {}", loaded.head);
            assert_eq!(loaded.epoch, format.epoch);
            assert_rows(&mut session, n, loaded.head);
        }
        drop(session);
        assert_eq!(verify(&restored).unwrap().findings, []);
        // The original is unharmed.
        let mut session = open(&dir, 1);
        (0..20).for_each(|n| assert_rows(&mut session, n, 30 + round));
    });
}

#[test]
fn a_lost_partition_is_damage_and_not_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Open::new(dir.path(), small(1)).unwrap();
    perform_all(&mut store, [append(1, 1..=3)]);
    store.shards.drain(..).for_each(EmbeddedShard::close);
    drop(store);
    fs::remove_dir_all(dir.path().join("index").join(format!("{:02}", log(1).partition()))).unwrap();
    let mut session = open(dir.path(), 1);
    let loaded = session.perform(Op::Load { log: log(1) });
    assert!(matches!(loaded, Err(StoreError::Degraded(_))), "{loaded:?}");
}

#[test]
fn a_broken_off_backup_cannot_be_opened() {
    let owned = tempfile::tempdir().unwrap();
    let backup = owned.path().join("backup");
    let store = Open::fresh(small(1));
    store.handle().backup(&backup).unwrap();
    fs::remove_file(backup.join("format")).unwrap();
    assert!(matches!(Open::new(&backup, small(1)), Err(OpenError::NotADataDirectory(..))));
    let target = owned.path().join("restored");
    assert!(matches!(restore(&backup, &target), Err(BackupError::Source(_))));
}
