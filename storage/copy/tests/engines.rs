//! Everything from a data directory to a real server and back. `ANTIPHON_TEST_CQL` names a cluster to use instead.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use antiphon_cql_testing::{Cluster, Options};
use antiphon_storage::{
    EventLog, Op, Outcome, Token,
    conformance::{made_up::MadeUp, rows::log},
    embedded::{Embedded, EmbeddedConfig, OpenError},
};
use antiphon_storage_copy::{CopyError, Hooks, Place, Progress, Report, SideError, copy};
use antiphon_storage_cql::{Candidate, CqlConfig, CqlError, CqlStore, Downgrade, Standing, schema};

fn hooks() -> Hooks {
    Hooks { fatal: Arc::new(|error| panic!("{error}")), standing: Arc::new(|_| ()) }
}

fn embedded_config() -> EmbeddedConfig {
    EmbeddedConfig::new(1, hooks().fatal)
}

/// Rung when a store should be polled.
#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    fn wake(self: &Arc<Self>) -> Arc<dyn Fn() + Send + Sync> {
        let ringer = Arc::clone(self);
        Arc::new(move || {
            *ringer.has_rung.lock().unwrap() = true;
            ringer.rung.notify_one();
        })
    }

    fn wait(&self) {
        *self.rung.wait_while(self.has_rung.lock().unwrap(), |rung| !*rung).unwrap() = false;
    }
}

/// Performs operations, which must succeed.
fn perform_on(store: &mut dyn EventLog, bell: &Bell, ops: Vec<Op>) -> Vec<Outcome> {
    let count = ops.len();
    ops.into_iter().enumerate().for_each(|(n, op)| store.submit(op, Token(n as u64)));
    let mut completions = Vec::new();
    loop {
        store.poll_completions(&mut completions);
        if completions.len() == count {
            return completions.into_iter().map(|completion| completion.result.unwrap()).collect();
        }
        bell.wait();
    }
}

/// Performs operations in a data directory, which then belongs to nobody.
fn perform(dir: &Path, ops: Vec<Op>) {
    let bell = Arc::new(Bell::default());
    let mut shard = Embedded::open(dir, embedded_config(), vec![bell.wake()]).unwrap().pop().unwrap();
    perform_on(&mut shard, &bell, ops);
    shard.close();
}

/// A keyspace with the schema and nothing else.
fn keyspace(contact_points: &[String], name: &str) -> CqlConfig {
    let mut config = CqlConfig::new(contact_points.to_vec(), name.to_owned());
    config.replication_factor = 1;
    config.accepted.insert(Downgrade::LowReplication);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(schema::apply(&config)).unwrap();
    config
}

fn place(config: &CqlConfig) -> Place {
    Place::Cluster(Box::new(config.clone()))
}

fn quietly(from: &Place, to: &Place) -> Result<Report, CopyError> {
    copy(from, to, &hooks(), &mut |_| ())
}

/// Copies until `logs` are done, and then ends as an operator's Ctrl-C would, in the middle of a call.
fn interrupted(from: &Place, to: &Place, logs: u64) {
    let mut stop = |progress: Progress| assert!(progress.done < logs, "interrupted");
    let ended = catch_unwind(AssertUnwindSafe(|| copy(from, to, &hooks(), &mut stop).map(drop)));
    assert!(ended.is_err(), "it ended before: {ended:?}");
}

/// The epoch of a log, for a broker that serves from the keyspace.
fn epoch_of(store: CqlStore) -> Result<u32, CqlError> {
    let holder = uuid::Uuid::new_v4();
    let candidate = Candidate { holder, seat: "a broker's".into(), address: "127.0.0.1:1".into() };
    let standing = Arc::new(|standing| assert_ne!(standing, Standing::Overtaken));
    let bell = Arc::new(Bell::default());
    let mut shard = store.acquire(candidate, vec![bell.wake()], standing)?.pop().unwrap();
    match perform_on(&mut shard, &bell, vec![Op::Load { log: log(0) }]).pop() {
        Some(Outcome::Loaded(loaded)) => Ok(loaded.epoch),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store_moves_to_a_cluster_and_back() {
    let node;
    let contact_points: Vec<String> = match std::env::var("ANTIPHON_TEST_CQL") {
        Ok(given) => given.split(',').map(str::to_owned).collect(),
        Err(_) => {
            node = Cluster::start(Options::default()).unwrap();
            node.contact_points().iter().map(ToString::to_string).collect()
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let first_dir = folder.path().join("first");
    let mut made_up = MadeUp::new(5, 700);
    perform(&first_dir, made_up.ops(6_000));
    std::fs::write(first_dir.join("format"), "version = 1\nepoch = 9\ncreated = 4\n").unwrap();
    let first = Place::Embedded(first_dir.clone());
    let config = keyspace(&contact_points, "antiphon_copy");
    let cluster = place(&config);

    // Two brokers came before the copy; they will own the logs while it is under way, and after it.
    let (early, patient) = (CqlStore::connect(&config).unwrap(), CqlStore::connect(&config).unwrap());
    // Interrupted twice; nobody serves from what is there meanwhile, and it is no copy of anything else.
    interrupted(&first, &cluster, 300);
    assert!(matches!(CqlStore::connect(&config), Err(CqlError::UnfinishedCopy { .. })));
    assert!(matches!(epoch_of(early), Err(CqlError::UnfinishedCopy { .. })));
    interrupted(&first, &cluster, 600);
    let other_dir = folder.path().join("other");
    perform(&other_dir, MadeUp::new(6, 2).ops(10));
    std::fs::write(other_dir.join("format"), "version = 1\nepoch = 1\ncreated = 5\n").unwrap();
    let other = quietly(&Place::Embedded(other_dir), &cluster);
    assert!(matches!(other, Err(CopyError::OtherSource { .. })), "{other:?}");
    let there = quietly(&first, &cluster).unwrap();
    assert!((256..700).contains(&there.resumed_after), "{there:?}");
    assert!(there.totals.logs > 690 && there.totals.rows > 4_000 && there.totals.records > 100, "{there:?}");
    assert_eq!(
        (there.epoch, epoch_of(patient).unwrap(), epoch_of(CqlStore::connect(&config).unwrap()).unwrap()),
        (9, 9, 9)
    );
    assert!(matches!(quietly(&first, &cluster), Err(CopyError::Destination(SideError::NotEmpty(_)))));

    // And back, interrupted; the source is a keyspace now.
    let second_dir = folder.path().join("second");
    let second = Place::Embedded(second_dir.clone());
    interrupted(&cluster, &second, 400);
    let opened = Embedded::open(&second_dir, embedded_config(), vec![Arc::new(|| ())]);
    assert!(matches!(opened, Err(OpenError::UnfinishedCopy(_))), "{opened:?}");
    let back = quietly(&cluster, &second).unwrap();
    assert_eq!((back.totals, back.epoch), (there.totals, there.epoch));
    assert!(back.resumed_after > 0, "{back:?}");

    // Straight from the first to a third: the same as by way of the cluster.
    let third = quietly(&second, &Place::Embedded(folder.path().join("third"))).unwrap();
    assert_eq!(third.totals, there.totals);
}

#[test]
fn a_source_that_was_in_use_meanwhile_is_copied_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (from_dir, to_dir) = (folder.path().join("from"), folder.path().join("to"));
    let (from, to) = (Place::Embedded(from_dir.clone()), Place::Embedded(to_dir));
    let mut made_up = MadeUp::new(8, 100);
    perform(&from_dir, made_up.ops(1_500));
    interrupted(&from, &to, 50);
    // A broker served from it: logs that are done have changed.
    perform(&from_dir, made_up.ops(20));
    let report = quietly(&from, &to).unwrap();
    assert_eq!(report.resumed_after, 0);
    let control = quietly(&from, &Place::Embedded(folder.path().join("control"))).unwrap();
    assert_eq!(report.totals, control.totals);
}

#[test]
fn what_is_not_there_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let from = Place::Embedded(folder.path().join("nothing"));
    let to_dir = folder.path().join("to");
    let copied = quietly(&from, &Place::Embedded(to_dir.clone()));
    assert!(matches!(copied, Err(CopyError::Source(SideError::NoLogs(_)))), "{copied:?}");
    assert!(!to_dir.exists());
}
