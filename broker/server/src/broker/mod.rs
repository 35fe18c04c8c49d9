//! The broker as a whole: opens the store, binds the sockets, starts one thread per shard and the admin listener.

mod ask;
mod cluster;
mod start_error;
mod threads;

use std::{
    fs::DirBuilder,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_storage::embedded::{
    BackupError as StoreBackupError, Embedded, EmbeddedConfig, EmbeddedShard, FatalError, StoreHandle, Wake,
    WriterChoice,
};
use antiphon_storage_cql::times::{Kind, Spread};
use antiphon_sys::{
    group::{GroupOptions, SocketGroup},
    mesh::{Mesh, MeshPort},
    rlimit,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::sync::{oneshot, watch};

pub use start_error::StartError;

use crate::{
    admin::{
        self, Admin, BackupError, BackupReport, Board,
        health::{DRAINING, Health, STARTING},
        metrics::{Metrics, publish_certificate_end, publish_request_times},
    },
    auth::{Minter, Verifier},
    config::{Config, StoreSettings},
    identity::{EdgeCertificate, Identity, fingerprint_of_pem},
    presence::PresenceStore,
    shard::{Command, Control, Mail},
    store::ShardStore,
    tls::validity,
};

/// Messages that one ring of the mesh holds. What does not fit waits in the sending shard, where it is bounded.
const RING_CAPACITY: usize = 1_024;
/// Exit code after a failed write or sync: the input/output error of sysexits.h.
const EXIT_IO_ERROR: i32 = 74;

/// A running broker. Dropping it closes every connection at once; [`Broker::stop`] drains first.
#[derive(Debug)]
pub struct Broker {
    config: Config,
    identity: Identity,
    address: SocketAddr,
    trunk_address: SocketAddr,
    admin_address: SocketAddr,
    fingerprint: String,
    granted_receive_buffer: usize,
    health: Health,
    shards: Vec<Shard>,
    verifier: watch::Sender<Arc<Verifier>>,
    is_active: watch::Receiver<bool>,
    /// Held until the broker ends.
    _cluster: Option<cluster::ClusterStore>,
    admin_stop: Option<oneshot::Sender<()>>,
    admin_thread: Option<JoinHandle<io::Result<()>>>,
    /// Outlives the shards.
    _presence: PresenceStore,
    /// The kernel chooses a socket by its place in the group, so none is closed before all are.
    _sockets: Sockets,
}

/// What the shards listen on, each with a socket of each group.
#[derive(Debug)]
struct Sockets {
    clients: SocketGroup,
    trunks: SocketGroup,
}

/// What the process holds of a shard thread.
#[derive(Debug)]
struct Shard {
    control: Control,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Broker {
    /// Starts everything. When it returns, clients can connect.
    pub fn start(config: Config) -> Result<Self, StartError> {
        // More descriptors are welcome, and their absence shows where they are needed.
        let _ = rlimit::raise_open_files();
        let shards = config.shards.get();
        let health = Health::new(shards, Instant::now());
        let board = Board::new(shards);
        let metrics = Metrics::install().map_err(|_| StartError::Metrics)?;
        // Nothing has been asked yet; where the logs are in the data directory, nothing will be.
        Kind::ALL.into_iter().for_each(|kind| publish_request_times(kind, &Spread::default()));
        // What the operator has to mend is said before anything is written.
        let first_connection = cluster::first_connection(&config)?;
        let store_is_here = first_connection.is_none();
        make_private(&config.data_dir).map_err(StartError::DataDirectory)?;
        let ports = Mesh::<Mail>::new(usize::from(shards), RING_CAPACITY).map_err(StartError::Threads)?;
        let wakes: Vec<Wake> = ports.iter().map(wake).collect();
        let (stores, store) = match &config.store {
            StoreSettings::Embedded { cache_bytes } => open_embedded(&config, *cache_bytes, wakes.clone())?,
            StoreSettings::Cql(_) => ((0..shards).map(|_| None).collect(), None),
        };
        let identity = Identity::load_or_create(&config.data_dir)?;
        let fingerprint = served_fingerprint(&config, &identity)?;
        let verifier = Arc::new(config.verifier(&identity)?);
        let bind = |listen| SocketGroup::bind(listen, usize::from(shards), GroupOptions::default());
        let sockets = Sockets { clients: bind(config.listen)?, trunks: bind(config.trunk.listen)? };
        let (address, trunk_address) = (sockets.clients.local_addr(), sockets.trunks.local_addr());
        let granted_receive_buffer = sockets.clients.granted_buffers().receive;
        let presence = PresenceStore::open(&config.presence)?;
        let ports = ports.into_iter().map(|port| {
            let presence = presence.handle(port.doorbell().ringer());
            (port, presence)
        });
        let ports = ports.collect();
        let shards = threads::start(&config, &identity, (&health, &board), &verifier, &sockets, ports, stores)?;
        if store.as_ref().is_some_and(|store| !store.degraded().is_empty()) {
            health.not_ready("a partition of the store is damaged and read-only");
        }
        let asked = shards.first().ok_or(StartError::NoStore)?;
        let (verifier, current_verifier) = watch::channel(verifier);
        let admin = Admin {
            health: health.clone(),
            metrics,
            board,
            presence: presence.health(),
            token: identity.admin_token().clone(),
            verifier: current_verifier,
            development: config.development.then(|| identity.minter().clone()),
            data_dir: config.data_dir.clone(),
            backup: Box::new(move |to| Box::pin(backup(store.clone(), to))),
            explain: ask::explainer(asked.control.clone()),
        };
        let (admin_address, admin_stop, admin_thread) = serve_admin(config.admin_listen, admin)?;
        let (active, is_active) = watch::channel(store_is_here);
        let cluster = match first_connection {
            Some(connection) => {
                let controls = shards.iter().map(|shard| shard.control.clone()).collect();
                let place = config.advertise.clone().unwrap_or_else(|| address.to_string());
                let broker = cluster::Waiting { shards: controls, health: health.clone(), active, wakes, place };
                Some(cluster::open(&config.data_dir, connection, broker)?)
            }
            None => None,
        };
        if cluster.is_none() {
            health.ready_again(STARTING);
        }
        Ok(Self {
            config,
            identity,
            address,
            trunk_address,
            admin_address,
            fingerprint,
            granted_receive_buffer,
            health,
            shards,
            verifier,
            is_active,
            _cluster: cluster,
            admin_stop: Some(admin_stop),
            admin_thread: Some(admin_thread),
            _presence: presence,
            _sockets: sockets,
        })
    }

    /// Where clients connect (UDP).
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where trunks connect (UDP).
    pub fn trunk_address(&self) -> SocketAddr {
        self.trunk_address
    }

    /// What a gateway on this machine shows on trunks.
    pub fn edge(&self) -> &EdgeCertificate {
        self.identity.edge()
    }

    /// Makes development tokens.
    pub fn minter(&self) -> &Minter {
        self.identity.minter()
    }

    /// Where the admin listener is (TCP).
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// SHA-256 of the certificate that is served, in hexadecimal.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this broker owns the logs and lets clients in, and every change of it.
    pub fn is_active(&self) -> watch::Receiver<bool> {
        self.is_active.clone()
    }

    /// Bytes of receive buffer that the kernel granted each socket.
    pub fn granted_receive_buffer(&self) -> usize {
        self.granted_receive_buffer
    }

    /// Reads certificate and token keys again. New handshakes and tokens use them; on an error the old ones stay. Answers
    /// with the SHA-256 of the certificate that is served now, in hexadecimal.
    pub fn reload(&self) -> Result<String, StartError> {
        let (clients, trunks) = threads::server_configs(&self.config, &self.identity)?;
        let verifier = Arc::new(self.config.verifier(&self.identity)?);
        self.tell(|| Command::ServerConfigs(Arc::clone(&clients), Arc::clone(&trunks)));
        self.tell(|| Command::Verifier(Arc::clone(&verifier)));
        self.verifier.send_replace(verifier);
        served_fingerprint(&self.config, &self.identity)
    }

    /// Says GOAWAY, gives clients `deadline` to leave, and stops. Nothing that was acknowledged is lost.
    pub fn stop(mut self, deadline: Duration) -> Result<(), StartError> {
        self.health.not_ready(DRAINING);
        self.tell(|| Command::Drain(deadline));
        let mut outcome = Ok(());
        for shard in &mut self.shards {
            let Some(thread) = shard.thread.take() else { continue };
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => outcome = Err(StartError::Shard(error)),
                Err(_) => outcome = Err(StartError::ShardPanicked),
            }
        }
        self.stop_admin();
        outcome
    }

    /// Whether a shard thread has ended by itself, which only a broken socket or a bug can cause.
    pub fn has_failed(&self) -> bool {
        self.shards.iter().any(|shard| shard.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for shard in &self.shards {
            // A thread that has ended needs no command.
            shard.control.tell(command());
        }
    }

    fn stop_admin(&mut self) {
        if let Some(stop) = self.admin_stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.admin_thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.tell(|| Command::Drain(Duration::ZERO));
        for shard in &mut self.shards {
            if let Some(thread) = shard.thread.take() {
                let _ = thread.join();
            }
        }
        self.stop_admin();
    }
}

fn wake(port: &MeshPort<Mail>) -> Wake {
    let ringer = port.doorbell().ringer();
    Arc::new(move || ringer.ring())
}

/// The shards' stores, and a handle on all of them together.
type OpenStores = (Vec<Option<ShardStore>>, Option<StoreHandle>);

fn open_embedded(config: &Config, cache_bytes: u64, wakes: Vec<Wake>) -> Result<OpenStores, StartError> {
    let fatal = Arc::new(|error: FatalError| {
        tracing::error!(%error, "the process ends, so that nothing is acknowledged that is not durable");
        std::process::exit(EXIT_IO_ERROR);
    });
    let mut settings =
        EmbeddedConfig { writer: WriterChoice::Auto, cache_bytes, ..EmbeddedConfig::new(config.shards.get(), fatal) };
    if let Some(segment_bytes) = config.test_segment_bytes {
        settings = settings.scaled(segment_bytes.into());
    }
    let stores = Embedded::open(&config.data_dir, settings, wakes)?;
    let store = stores.first().and_then(EmbeddedShard::handle).ok_or(StartError::NoStore)?;
    tracing::info!(writer = %store.writer(), "write-ahead log");
    let stores = stores.into_iter().map(|store| Some(ShardStore::Embedded(Box::new(store)))).collect();
    Ok((stores, Some(store)))
}

/// Messages are for nobody else on this machine. A folder that exists keeps the permissions that it was given.
fn make_private(data: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data)
}

/// Of what is served from now on; its end becomes a metric.
fn served_fingerprint(config: &Config, identity: &Identity) -> Result<String, StartError> {
    let pem = match &config.tls {
        Some(files) => std::fs::read(&files.certificate).map_err(StartError::Certificate)?,
        None => identity.certificate_pem.clone().into_bytes(),
    };
    publish_certificate_end(CertificateDer::from_pem_slice(&pem).ok().and_then(|der| validity::not_after(&der)));
    Ok(fingerprint_of_pem(&pem).unwrap_or_default())
}

type AdminParts = (SocketAddr, oneshot::Sender<()>, JoinHandle<io::Result<()>>);

/// Binds before it returns, so that a taken port is known at the start.
fn serve_admin(listen: SocketAddr, admin: Admin) -> Result<AdminParts, StartError> {
    let failed = |source| StartError::Admin { listen, source };
    let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, stopped) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let serve = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        // A dropped sender stops the listener just like a message.
        admin::serve(listener, admin, async { drop(stopped.await) }).await
    };
    let thread =
        std::thread::Builder::new().name("admin".into()).spawn(move || runtime.block_on(serve)).map_err(failed)?;
    Ok((address, stop, thread))
}

async fn backup(store: Option<StoreHandle>, to: std::path::PathBuf) -> Result<BackupReport, BackupError> {
    let Some(store) = store else {
        let message = "the logs are on a cluster, which has its own snapshots".to_owned();
        return Err(BackupError { code: antiphon_protocol::ErrorCode::InvalidField, message });
    };
    let code = |error: &StoreBackupError| match error {
        StoreBackupError::NotEmpty(_) => antiphon_protocol::ErrorCode::AlreadyExists,
        _ => antiphon_protocol::ErrorCode::Internal,
    };
    match tokio::task::spawn_blocking(move || store.backup(&to)).await {
        Ok(Ok(report)) => Ok(BackupReport { files: report.files, bytes: report.bytes }),
        Ok(Err(error)) => Err(BackupError { code: code(&error), message: error.to_string() }),
        Err(error) => Err(BackupError { code: antiphon_protocol::ErrorCode::Internal, message: error.to_string() }),
    }
}

/// The wall clock, for the one moment to which the shards' clocks are tied.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}
