//! A broker whose logs are on a cluster: it listens from the start, lets nobody in while another broker owns the logs, and
//! takes them over when that one lets go or falls silent.

use std::{
    fs::File,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use antiphon_storage::embedded;
use antiphon_storage_cql::{Candidate, CqlShard, CqlStore, Standing, Wake, times::Kind};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use uuid::{Builder, Uuid};

use super::StartError;
use crate::{
    admin::{
        health::{Health, STARTING},
        metrics::publish_request_times,
    },
    config::{Config, CqlSettings, StoreSettings},
    shard::{Command, Control},
    store::ShardStore,
};

/// Against traffic while the cluster does not answer.
const AWAY: &str = "the store does not answer";
/// Against traffic while another broker owns the logs.
const STANDING_BY: &str = "another broker is active";
/// Between the first attempts to connect; each pause is twice the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often it is looked whether the cluster answers.
const LOOK: Duration = Duration::from_secs(1);
/// Exit code of a broker that was overtaken: the temporary failure of sysexits.h. A supervisor starts it anew.
const EXIT_OVERTAKEN: i32 = 75;

/// What came of connecting once.
#[derive(Debug)]
pub(super) struct FirstConnection {
    settings: CqlSettings,
    /// None: the cluster is away.
    store: Option<CqlStore>,
}

/// Connects once, if the logs are on a cluster. An error that will not pass by itself ends the start.
pub(super) fn first_connection(config: &Config) -> Result<Option<FirstConnection>, StartError> {
    let StoreSettings::Cql(settings) = &config.store else { return Ok(None) };
    Ok(Some(FirstConnection { store: connect(settings)?, settings: settings.clone() }))
}

/// None if the cluster is away; an error if that is not for it to mend.
fn connect(settings: &CqlSettings) -> Result<Option<CqlStore>, StartError> {
    match CqlStore::connect(&settings.store_config()?) {
        Ok(store) => {
            tracing::info!(server = %store.server(), keyspace = settings.keyspace, "store");
            Ok(Some(store))
        }
        Err(error) if error.is_transient() => {
            tracing::warn!(%error, "trying again");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// A broker that listens and waits for its logs.
pub(super) struct Waiting {
    pub(super) shards: Vec<Control>,
    pub(super) health: Health,
    pub(super) active: watch::Sender<bool>,
    pub(super) wakes: Vec<Wake>,
    /// Where its clients connect.
    pub(super) place: String,
}

/// What the broker holds of its store on a cluster.
#[derive(Debug)]
pub(super) struct ClusterStore {
    /// Dropped with the broker; then the thread that looks after the store ends.
    _stop: mpsc::Sender<()>,
    /// Tells other processes that this one lives.
    _lock: File,
}

/// Opens the store behind a broker that already listens.
pub(super) fn open(data_dir: &Path, first: FirstConnection, broker: Waiting) -> Result<ClusterStore, StartError> {
    let (lock, seat) = take_seat(data_dir)?;
    let candidate = Candidate { holder: random_id()?, seat, address: broker.place.clone() };
    let (stop, stopped) = mpsc::channel();
    let run = move || match settle(first, candidate, &broker) {
        Ok(shards) => look_after(shards, &broker, &stopped),
        Err(error) => {
            tracing::error!(%error, "the process ends");
            std::process::exit(1);
        }
    };
    thread::Builder::new().name("store-watch".into()).spawn(run).map_err(StartError::Threads)?;
    Ok(ClusterStore { _stop: stop, _lock: lock })
}

/// Connects, however long that takes, and waits until the logs are this broker's.
fn settle(first: FirstConnection, candidate: Candidate, broker: &Waiting) -> Result<Vec<CqlShard>, StartError> {
    let FirstConnection { settings, mut store } = first;
    let mut pause = FIRST_PAUSE;
    let store = loop {
        if let Some(store) = store {
            break store;
        }
        broker.health.not_ready(AWAY);
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
        store = connect(&settings)?;
    };
    broker.health.ready_again(AWAY);
    let (shards, health) = (broker.shards.clone(), broker.health.clone());
    let standing = Arc::new(move |standing| match standing {
        Standing::StandingBy { active } => {
            tracing::info!(active, "standing by");
            health.not_ready(STANDING_BY);
            for shard in &shards {
                shard.tell(Command::StandBy(active.clone()));
            }
        }
        Standing::Active { term } => tracing::info!(term, "active"),
        Standing::Overtaken => {
            tracing::error!("another broker has taken the logs over; the process ends");
            std::process::exit(EXIT_OVERTAKEN);
        }
    });
    Ok(store.acquire(candidate, broker.wakes.clone(), standing)?)
}

/// Hands the logs to the shards, and says while the broker lives whether the cluster answers, and how fast.
fn look_after(stores: Vec<CqlShard>, broker: &Waiting, stopped: &mpsc::Receiver<()>) {
    let seen = stores.first().map(|store| (Arc::clone(store.shared().health()), Arc::clone(store.shared().times())));
    for (shard, store) in broker.shards.iter().zip(stores) {
        // A thread that has ended needs no store.
        shard.tell(Command::Activate(ShardStore::Cql(Box::new(store))));
    }
    broker.health.ready_again(STANDING_BY);
    broker.health.ready_again(STARTING);
    broker.active.send_replace(true);
    let Some((health, times)) = seen else { return };
    while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        Kind::ALL.into_iter().for_each(|kind| publish_request_times(kind, &times.of(kind)));
        match health.is_away() {
            true => broker.health.not_ready(AWAY),
            false => broker.health.ready_again(AWAY),
        }
    }
}

/// Locks the data directory; see [`antiphon_storage_cql::seat`].
fn take_seat(data_dir: &Path) -> Result<(File, String), StartError> {
    let lock = embedded::lock(data_dir)?;
    let seat = antiphon_storage_cql::seat(&lock).map_err(StartError::DataDirectory)?;
    Ok((lock, seat))
}

fn random_id() -> Result<Uuid, StartError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}
