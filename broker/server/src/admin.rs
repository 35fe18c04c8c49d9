//! The admin listener: one small HTTP/1.1 server beside the shards, on loopback unless configured otherwise.
//!
//! | route | for | who |
//! |---|---|---|
//! | `GET /healthz` | restart me? every shard's loop turns | anyone who can reach it |
//! | `GET /readyz` | send me traffic? with the reasons against it | anyone |
//! | `GET /metrics` | Prometheus text | anyone |
//! | `GET /` and its files | the operators' view, empty without a token | anyone |
//! | `GET /view` | the numbers in it | bearer of scope `admin:read` |
//! | `GET /explain` | why a user got an event, or not | bearer of scope `admin:read`, its tenant |
//! | `POST /dev/token` | a token for a made-up user | loopback peer and Host, development mode only |
//! | `POST /admin/backup` | copy the store while it runs | loopback peer and Host, bearer of scope `admin:write` |
//!
//! Invariants: at most [`CONNECTIONS_MAX`] connections, further ones wait in the kernel's queue; one request a
//! connection; headers and bodies are bounded in bytes and time; an error is the JSON object that every carrier uses.
//! Nothing here is on the way of a message, and no shard ever waits for it.

pub mod health;
pub mod metrics;

mod access;
mod board;
mod explain;
mod process;
mod query;
mod response;
mod routes;
mod samples;
mod view;

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_protocol::ErrorCode;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Mutex, Semaphore, watch},
    time::{MissedTickBehavior, interval, timeout},
};

pub use self::{
    board::{Board, Report},
    explain::{ExplainFn, ExplainFuture},
};
use self::{
    health::Health,
    metrics::{Metrics, publish_refusals},
    process::ProcessGauges,
    samples::Samples,
};
use crate::{
    auth::{Minter, Verifier},
    identity::AdminToken,
    presence::PresenceHealth,
};

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 64;
/// Longest request head, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest wait for a request's head, and again for its body.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of a connection; a backup has to fit.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How often pulses are looked at and metrics tidied.
const TICK: Duration = Duration::from_secs(1);

/// What the listener answers from.
pub struct Admin {
    /// Pulses and reasons against traffic.
    pub health: Health,
    /// The recorder to render.
    pub metrics: Metrics,
    /// Where the shards leave their numbers.
    pub board: Board,
    /// How the store of presence is.
    pub presence: PresenceHealth,
    /// Bearer token of commands on this machine.
    pub token: AdminToken,
    /// The current verifier, for other bearers; a key reload sends a new one.
    pub verifier: watch::Receiver<Arc<Verifier>>,
    /// Makes development tokens; `None` outside development mode.
    pub development: Option<Minter>,
    /// Where the data is, to tell its space.
    pub data_dir: PathBuf,
    /// Copies the store.
    pub backup: BackupFn,
    /// Asks the shards about an event and a user.
    pub explain: ExplainFn,
}

/// Copies the running store into a folder that does not exist yet (absolute path), consistently.
pub type BackupFn = Box<dyn Fn(PathBuf) -> BackupFuture + Send + Sync>;
/// The backup under way.
pub type BackupFuture = Pin<Box<dyn Future<Output = Result<BackupReport, BackupError>> + Send>>;

/// What a finished backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupReport {
    /// Files written.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Why there is no backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackupError {
    /// The code for the caller.
    pub code: ErrorCode,
    /// One line for people.
    pub message: String,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("health", &self.health).field("development", &self.development).finish()
    }
}

struct Shared {
    admin: Admin,
    /// Held while a backup runs: there is one at a time.
    backup_running: Mutex<()>,
    /// Of the admin thread alone; a task that is spawned must be able to move, so it is locked all the same.
    samples: std::sync::Mutex<Samples>,
}

impl Shared {
    fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Serves until `stop` completes; requests under way then end with their connections.
pub async fn serve(listener: TcpListener, admin: Admin, stop: impl Future<Output = ()>) -> io::Result<()> {
    let shared = Arc::new(Shared { admin, backup_running: Mutex::new(()), samples: std::sync::Mutex::default() });
    PresenceHealth::describe();
    let mut gauges = ProcessGauges::new(shared.admin.data_dir.clone());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut stop = pin!(stop);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let accept = async || {
        let permit = Arc::clone(&permits).acquire_owned().await.map_err(io::Error::other)?;
        listener.accept().await.map(|(stream, peer)| (permit, stream, peer))
    };
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            _ = ticks.tick() => {
                shared.admin.health.sample(Instant::now());
                publish_refusals(&shared.admin.board.refusals());
                gauges.tick(&shared.admin.health, Instant::now());
                shared.admin.presence.publish();
                shared.admin.metrics.upkeep();
                shared.samples().take(&shared.admin.board.slots(), routes::unix_ms());
            }
            accepted = accept() => match accepted {
                Ok((permit, stream, peer)) => {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move {
                        serve_connection(shared, stream, peer).await;
                        drop(permit);
                    });
                }
                // Out of descriptors or the peer is gone already: both pass; the pause keeps the first from spinning.
                Err(error) => {
                    tracing::warn!(%error, "the admin listener could not accept a connection");
                    ticks.tick().await;
                }
            }
        }
    }
}

async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&shared, peer, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "an admin connection ended early"),
        Err(_) => tracing::debug!(%peer, "an admin connection took too long"),
    }
}

#[cfg(test)]
mod tests;
