//! A broker whose logs are on a cluster: it listens from the start, lets nobody in while another broker owns the logs, and
//! takes them over when that one lets go or falls silent.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use antiphon_storage_cql::{Candidate, CqlShard, CqlStore, Standing, Wake};
use antiphon_sys::doorbell::Ringer;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use uuid::{Builder, Uuid};

use super::StartError;
use crate::{
    admin::health::{Health, STARTING},
    config::{Config, CqlSettings, StoreSettings},
    shard::Command,
    store::ShardStore,
};

/// Against traffic while the cluster does not answer.
const AWAY: &str = "the store does not answer";
/// Against traffic while another broker owns the logs.
const STANDING_BY: &str = "another broker is active";
/// Between attempts to connect.
const RETRY: Duration = Duration::from_secs(2);
/// How often it is looked whether the cluster answers.
const LOOK: Duration = Duration::from_secs(1);
/// From here on a silent cluster is said to be away, milliseconds.
const AWAY_AFTER_MS: u64 = 2_000;
/// Exit code of a broker that was overtaken: the temporary failure of sysexits.h. A supervisor starts it anew.
const EXIT_OVERTAKEN: i32 = 75;

/// What came of connecting once: the cluster may be away.
pub(super) type FirstConnection = Option<CqlStore>;

/// Connects once, if the logs are on a cluster. An error that will not pass by itself ends the start.
pub(super) fn first_connection(config: &Config) -> Result<Option<FirstConnection>, StartError> {
    let StoreSettings::Cql(settings) = &config.store else { return Ok(None) };
    match connect(settings) {
        Ok(store) => Ok(Some(Some(store))),
        Err(StartError::Cluster(error)) if error.is_transient() => {
            tracing::warn!(%error, "trying again");
            Ok(Some(None))
        }
        Err(error) => Err(error),
    }
}

fn connect(settings: &CqlSettings) -> Result<CqlStore, StartError> {
    let store = CqlStore::connect(&settings.store_config()?)?;
    tracing::info!(server = %store.server(), keyspace = settings.keyspace, "store");
    Ok(store)
}

/// A broker that listens and waits for its logs.
pub(super) struct Waiting {
    pub(super) shards: Vec<(mpsc::Sender<Command>, Ringer)>,
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
pub(super) fn open(config: &Config, first: FirstConnection, broker: Waiting) -> Result<ClusterStore, StartError> {
    let StoreSettings::Cql(settings) = config.store.clone() else { return Err(StartError::NoStore) };
    let (lock, seat) = take_seat(&config.data_dir)?;
    let candidate = Candidate { holder: random_id()?, seat, address: broker.place.clone() };
    let (stop, stopped) = mpsc::channel();
    let run = move || {
        let outcome = settle(&settings, first, candidate, &broker);
        match outcome {
            Ok(shards) => look_after(shards, &broker, &stopped),
            Err(error) => {
                tracing::error!(%error, "the process ends");
                std::process::exit(1);
            }
        }
    };
    thread::Builder::new().name("store-watch".into()).spawn(run).map_err(StartError::Threads)?;
    Ok(ClusterStore { _stop: stop, _lock: lock })
}

/// Connects, however long that takes, and waits until the logs are this broker's.
fn settle(
    settings: &CqlSettings,
    first: FirstConnection,
    candidate: Candidate,
    broker: &Waiting,
) -> Result<Vec<CqlShard>, StartError> {
    let mut connection = first;
    let store = loop {
        if let Some(store) = connection.take() {
            break store;
        }
        broker.health.not_ready(AWAY);
        thread::sleep(RETRY);
        match connect(settings) {
            Err(StartError::Cluster(error)) if error.is_transient() => tracing::warn!(%error, "trying again"),
            other => connection = Some(other?),
        }
    };
    broker.health.ready_again(AWAY);
    let shards: Vec<_> = broker.shards.clone();
    let health = broker.health.clone();
    let standing = Arc::new(move |standing| match standing {
        Standing::StandingBy { active } => {
            tracing::info!(active, "standing by");
            health.not_ready(STANDING_BY);
            tell(&shards, || Command::StandBy(active.clone()));
        }
        Standing::Active { term } => tracing::info!(term, "active"),
        Standing::Overtaken => {
            tracing::error!("another broker has taken the logs over; the process ends");
            std::process::exit(EXIT_OVERTAKEN);
        }
    });
    Ok(store.acquire(candidate, broker.wakes.clone(), standing)?)
}

/// Hands the logs to the shards, and says while the broker lives whether the cluster answers.
fn look_after(stores: Vec<CqlShard>, broker: &Waiting, stopped: &mpsc::Receiver<()>) {
    let health = stores.first().map(|store| Arc::clone(store.shared().health()));
    for ((commands, ringer), store) in broker.shards.iter().zip(stores) {
        // A thread that has ended needs no store.
        let _ = commands.send(Command::Activate(ShardStore::Cql(Box::new(store))));
        ringer.ring();
    }
    broker.health.ready_again(STANDING_BY);
    broker.health.ready_again(STARTING);
    broker.active.send_replace(true);
    let Some(health) = health else { return };
    while stopped.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
        match health.away_ms() {
            Some(ms) if ms >= AWAY_AFTER_MS => broker.health.not_ready(AWAY),
            _ => broker.health.ready_again(AWAY),
        }
    }
}

fn tell(shards: &[(mpsc::Sender<Command>, Ringer)], command: impl Fn() -> Command) {
    for (commands, ringer) in shards {
        let _ = commands.send(command());
        ringer.ring();
    }
}

/// Locks the data directory. Its seat names it on this machine since its boot: whoever had the same seat is dead, as the
/// lock was free. A copy of the directory is another file and so another seat.
fn take_seat(data_dir: &Path) -> Result<(File, String), StartError> {
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(data_dir.join("lock"))
        .map_err(StartError::DataDirectory)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StartError::DataInUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => return Err(StartError::DataDirectory(error)),
    }
    let file = lock.metadata().map_err(StartError::DataDirectory)?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(StartError::DataDirectory)?;
    let seat = format!("{} {}:{}", boot.trim(), file.dev(), file.ino());
    Ok((lock, seat))
}

fn random_id() -> Result<Uuid, StartError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}
