//! A data directory as the destination of a copy, and as its source.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{collections::BTreeSet, path::Path, sync::Arc};

use antiphon_protocol::LogKey;
use antiphon_storage::{
    EventLog, Token,
    conformance::{
        Backend,
        rows::{append, log, put},
    },
    embedded::{Embedded, EmbeddedShard, OpenError, restore},
};
use support::{Open, small};

fn open_for_copy(dir: &Path, epoch: u32) -> Result<(EmbeddedShard, Option<String>), OpenError> {
    let (mut shards, note) = Embedded::open_for_copy(dir, small(1), vec![Arc::new(|| ())], epoch)?;
    Ok((shards.pop().unwrap(), note))
}

#[test]
fn nobody_serves_from_an_unfinished_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (shard, note) = open_for_copy(dir.path(), 7).unwrap();
    assert_eq!(note, None);
    shard.handle().unwrap().note_copy("half way").unwrap();
    shard.close();
    assert!(matches!(Open::new(dir.path(), small(1)), Err(OpenError::UnfinishedCopy(_))));
    let other = tempfile::tempdir().unwrap();
    assert!(restore(dir.path(), &other.path().join("restored")).is_err());

    let (shard, note) = open_for_copy(dir.path(), 7).unwrap();
    assert_eq!(note.as_deref(), Some("half way"));
    let handle = shard.handle().unwrap();
    assert_eq!((handle.epoch(), handle.starts()), (7, 2));
    handle.finish_copy().unwrap();
    drop(handle);
    shard.close();
    assert_eq!(Open::new(dir.path(), small(1)).unwrap().handle().epoch(), 7);
    assert!(matches!(open_for_copy(dir.path(), 7), Err(OpenError::NotEmpty(_))));
}

#[test]
fn every_log_is_listed_once_whatever_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Open::new(dir.path(), small(2)).unwrap();
    let count = 500;
    for n in 0..count {
        store.submit(if n % 3 == 0 { put(n, "key", Some("value")) } else { append(n, 1..=2) }, Token(n));
    }
    let mut completions = Vec::new();
    while completions.len() < count as usize {
        store.wait();
        store.poll_completions(&mut completions);
    }
    drop(store);
    let store = Open::new(dir.path(), small(1)).unwrap();
    let expected: BTreeSet<LogKey> = (0..count).map(log).collect();
    for page in [1, 7, 1_000] {
        let mut listed = Vec::new();
        loop {
            let next = store.handle().logs_after(listed.last().copied(), page).unwrap();
            assert!(next.len() <= page);
            if next.is_empty() {
                break;
            }
            listed.extend(next);
        }
        assert_eq!(listed.len(), expected.len());
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
    }
}
