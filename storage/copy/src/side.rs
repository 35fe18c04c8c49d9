//! A store that is opened to be copied from or into, whichever engine keeps it.

use std::{io, path::PathBuf, sync::Arc};

use antiphon_protocol::LogKey;
use antiphon_storage::embedded::{
    Embedded, EmbeddedConfig, EmbeddedShard, FatalHook, ListError, OpenError, StoreHandle, Wake,
};
use antiphon_storage_cql::{Candidate, CopyDesk, CqlConfig, CqlError, CqlShard, CqlStore, StandingHook};
use thiserror::Error;
use tokio::{runtime::Runtime, sync::Notify};
use uuid::Uuid;

use crate::port::Port;

/// Logs listed at a time.
const LOGS_PER_PAGE: usize = 1_000;
/// What those see who wait while a copier holds the lease.
const ADDRESS: &str = "a copy of the store is under way";

/// Where a store is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this data directory.
    Embedded(PathBuf),
    /// In a keyspace of a cluster.
    Cluster(Box<CqlConfig>),
}

/// Why a store cannot be copied from or into.
#[derive(Debug, Error)]
pub enum SideError {
    /// There is nothing to copy.
    #[error("{0} holds no logs")]
    NoLogs(PathBuf),
    /// The keyspace is in use.
    #[error("keyspace `{0}` holds logs already; a copy needs one of its own")]
    NotEmpty(String),
    /// The data directory does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The cluster does not answer as it should.
    #[error(transparent)]
    Cluster(#[from] CqlError),
    /// The logs of the data directory cannot be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// A file of the data directory cannot be written.
    #[error("the data directory cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The store has no shard to ask.
    #[error("the store did not open a shard")]
    NoShard,
}

/// What is told of a store while it is open.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) fatal: FatalHook,
    pub(crate) standing: StandingHook,
}

/// An open store.
pub(crate) struct Side {
    pub(crate) port: Port,
    pub(crate) epoch: u32,
    /// Tells it from others.
    pub(crate) name: String,
    /// Counts the times that it was opened, this one included.
    pub(crate) generation: u64,
    desk: Desk,
}

enum Desk {
    Embedded(StoreHandle),
    Cluster(Box<CopyDesk>),
}

impl Side {
    /// A store to copy from.
    pub(crate) fn source(place: &Place, told: Told, runtime: &Runtime) -> Result<Self, SideError> {
        match place {
            Place::Embedded(dir) if !dir.join("format").is_file() => Err(SideError::NoLogs(dir.clone())),
            Place::Embedded(dir) => {
                let (bell, wake) = bell();
                Self::embedded(Embedded::open(dir, embedded_config(told), vec![wake])?, bell)
            }
            Place::Cluster(config) => {
                let desk = runtime.block_on(CopyDesk::connect(config))?;
                let (bell, wake) = bell();
                let shards = CqlStore::connect(config)?.acquire(candidate(), vec![wake], told.standing)?;
                Self::cluster(desk, shards, bell, runtime)
            }
        }
    }

    /// A store to copy into, whose logs are to be in `epoch`; and what was noted of an unfinished copy into it.
    pub(crate) fn destination(
        place: &Place,
        epoch: u32,
        told: Told,
        runtime: &Runtime,
    ) -> Result<(Self, Option<String>), SideError> {
        let (bell, wake) = bell();
        match place {
            Place::Embedded(dir) => {
                let (shards, note) = Embedded::open_for_copy(dir, embedded_config(told), vec![wake], epoch)?;
                Ok((Self::embedded(shards, bell)?, note))
            }
            Place::Cluster(config) => {
                let desk = runtime.block_on(CopyDesk::connect(config))?;
                let store = CqlStore::connect_for_copy(config)?;
                let shards = store.acquire(candidate(), vec![wake], told.standing)?;
                // Looked at while nobody else can write.
                let note = runtime.block_on(async {
                    let note = desk.note().await?;
                    if note.is_none() {
                        if !desk.logs_after(None, 2).await?.is_empty() {
                            return Err(SideError::NotEmpty(config.keyspace.clone()));
                        }
                        desk.begin(epoch).await?;
                    }
                    Ok(note.filter(|note| !note.is_empty()))
                })?;
                Ok((Self::cluster(desk, shards, bell, runtime)?, note))
            }
        }
    }

    fn embedded(mut shards: Vec<EmbeddedShard>, bell: Arc<Notify>) -> Result<Self, SideError> {
        let shard = shards.pop().ok_or(SideError::NoShard)?;
        let handle = shard.handle().ok_or(SideError::NoShard)?;
        Ok(Self {
            port: Port::new(Box::new(shard), bell),
            epoch: handle.epoch(),
            name: format!("data directory of {}", handle.created()),
            generation: handle.starts(),
            desk: Desk::Embedded(handle),
        })
    }

    fn cluster(
        desk: CopyDesk,
        mut shards: Vec<CqlShard>,
        bell: Arc<Notify>,
        runtime: &Runtime,
    ) -> Result<Self, SideError> {
        let shard = shards.pop().ok_or(SideError::NoShard)?;
        let generation = shard.shared().term();
        let (epoch, name) = runtime.block_on(async { Ok::<_, CqlError>((desk.epoch().await?, desk.name().await?)) })?;
        Ok(Self {
            port: Port::new(Box::new(shard), bell),
            epoch,
            name,
            generation,
            desk: Desk::Cluster(Box::new(desk)),
        })
    }

    /// The next logs behind `after`, or the first, in an order of this store's own; empty if there are no more.
    pub(crate) async fn logs_after(&self, after: Option<LogKey>) -> Result<Vec<LogKey>, SideError> {
        match &self.desk {
            Desk::Embedded(handle) => Ok(handle.logs_after(after, LOGS_PER_PAGE)?),
            Desk::Cluster(desk) => Ok(desk.logs_after(after, LOGS_PER_PAGE).await?),
        }
    }

    /// Notes how far the copy into this store has come.
    pub(crate) async fn note(&self, note: &str) -> Result<(), SideError> {
        match &self.desk {
            Desk::Embedded(handle) => Ok(handle.note_copy(note)?),
            Desk::Cluster(desk) => Ok(desk.note_copy(note).await?),
        }
    }

    /// The copy into this store is whole.
    pub(crate) async fn finish(&self) -> Result<(), SideError> {
        match &self.desk {
            Desk::Embedded(handle) => Ok(handle.finish_copy()?),
            Desk::Cluster(desk) => Ok(desk.finish_copy().await?),
        }
    }
}

fn bell() -> (Arc<Notify>, Wake) {
    let bell = Arc::new(Notify::new());
    let ringer = Arc::clone(&bell);
    (bell, Arc::new(move || ringer.notify_one()))
}

/// One shard for all partitions, with the writer that needs nothing but the bell.
fn embedded_config(told: Told) -> EmbeddedConfig {
    EmbeddedConfig::new(1, told.fatal)
}

/// Somebody that nobody knows to be dead: after a copier was killed the next one waits until its lease has ended.
fn candidate() -> Candidate {
    let holder = Uuid::new_v4();
    Candidate { holder, seat: format!("copy {holder}"), address: ADDRESS.to_owned() }
}
