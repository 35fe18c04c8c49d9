//! Stores on a real server.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{
    sync::{Arc, Condvar, Mutex, OnceLock},
    time::Duration,
};

use antiphon_cql_testing::{Cluster, Options};
use antiphon_protocol::LogKey;
use antiphon_storage::{Completion, EventLog, Op, Token, conformance::Backend};
use antiphon_storage_cql::{Candidate, CqlConfig, CqlShard, CqlStore, Downgrade, Standing, StandingHook, Wake, schema};
use uuid::Uuid;

/// The node of these tests, one for all of them.
pub(crate) fn node() -> &'static Cluster {
    static NODE: OnceLock<Cluster> = OnceLock::new();
    NODE.get_or_init(|| Cluster::start(Options::default()).unwrap_or_else(|error| panic!("{error}")))
}

/// The cluster that `ANTIPHON_TEST_CQL` names, or a node of our own.
fn contact_points() -> Vec<String> {
    match std::env::var("ANTIPHON_TEST_CQL") {
        Ok(given) => given.split(',').map(str::to_owned).collect(),
        Err(_) => node().contact_points().iter().map(ToString::to_string).collect(),
    }
}

/// The settings of a keyspace of its own with one copy, made if need be.
pub(crate) fn config(keyspace: &str) -> CqlConfig {
    config_at(contact_points(), keyspace)
}

/// The same on another cluster.
pub(crate) fn config_at(contact_points: Vec<String>, keyspace: &str) -> CqlConfig {
    let mut config = CqlConfig::new(contact_points, keyspace.to_owned());
    config.replication_factor = 1;
    config.accepted.insert(Downgrade::LowReplication);
    block_on(schema::apply(&config)).expect("the schema is applied");
    config
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

pub(crate) fn candidate() -> Candidate {
    Candidate { holder: Uuid::new_v4(), seat: "tests".into(), address: "127.0.0.1:1".into() }
}

/// One shard on a real server, with logs that nobody else has.
pub(crate) struct Open {
    config: CqlConfig,
    shard: CqlShard,
    bell: Arc<Bell>,
    own: u128,
}

#[derive(Default)]
struct Bell {
    has_rung: Mutex<bool>,
    rung: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.has_rung.lock().expect("nobody panics here") = true;
        self.rung.notify_one();
    }

    fn wait(&self) {
        let has_rung = self.has_rung.lock().expect("nobody panics here");
        let (mut has_rung, timeout) = self
            .rung
            .wait_timeout_while(has_rung, Duration::from_secs(30), |has_rung| !*has_rung)
            .expect("nobody panics here");
        assert!(!timeout.timed_out(), "nothing happened for 30 s");
        *has_rung = false;
    }
}

impl Open {
    pub(crate) fn fresh(config: &CqlConfig) -> Self {
        Self::with(config, Uuid::new_v4().as_u128())
    }

    fn with(config: &CqlConfig, own: u128) -> Self {
        let standing = Arc::new(|standing| assert_ne!(standing, Standing::Overtaken));
        Self::of(config, own, candidate(), standing)
    }

    /// Waits until `candidate` owns the logs; the logs of equal `own` are the same.
    pub(crate) fn of(config: &CqlConfig, own: u128, candidate: Candidate, standing: StandingHook) -> Self {
        let bell = Arc::new(Bell::default());
        let ringer = Arc::clone(&bell);
        let wake: Wake = Arc::new(move || ringer.ring());
        let store = CqlStore::connect(config).expect("a store");
        let shard = store.acquire(candidate, vec![wake], standing).expect("a term").pop().expect("a shard");
        Self { config: config.clone(), shard, bell, own }
    }

    pub(crate) fn shard(&self) -> &CqlShard {
        &self.shard
    }

    fn own(&self, log: LogKey) -> LogKey {
        LogKey((u128::from_be_bytes(log.0) ^ self.own).to_be_bytes())
    }
}

impl EventLog for Open {
    fn submit(&mut self, mut op: Op, token: Token) {
        let own = self.own(op.log());
        match &mut op {
            Op::Append { log, .. }
            | Op::Rewrite { log, .. }
            | Op::Checkpoint { log, .. }
            | Op::PutRecords { log, .. }
            | Op::SetFloor { log, .. }
            | Op::Load { log }
            | Op::Read { log, .. }
            | Op::FindTime { log, .. }
            | Op::FindDuplicate { log, .. }
            | Op::GetRecord { log, .. }
            | Op::ScanRecords { log, .. } => *log = own,
        }
        self.shard.submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.shard.poll_completions(completions);
    }
}

impl Backend for Open {
    fn wait(&mut self) {
        self.bell.wait();
    }

    fn reopen(self: Box<Self>) -> Box<dyn Backend> {
        let Self { config, shard, own, .. } = *self;
        drop(shard);
        Box::new(Self::with(&config, own))
    }
}
