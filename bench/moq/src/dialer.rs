//! Connections to the relay: raw QUIC, a session of moq-lite on each.
//!
//! Below `moq_tokio::Client`, which asks the relay for estimates of the bandwidth ten times a second, whether anybody wants
//! them or not: a chat does not, and the relay would have to answer. The settings of QUIC are that client's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use moq_net::{
    Session,
    cache::{self, Pool},
    origin,
};
use moq_tokio::{
    bind,
    quic::DEFAULT_MAX_STREAMS,
    rustls::{
        self, RootCertStore,
        pki_types::{CertificateDer, pem::PemObject},
    },
    transport,
};
use web_transport_moq::noq::{
    self, ClientConfig, Endpoint, EndpointConfig, TransportConfig, VarInt, crypto::rustls::QuicClientConfig,
};

use crate::{Failure, Fanout};

/// Connections that share one socket, as those of the load generator: a socket whose reader is awake anyhow costs the
/// server's side of the kernel less than one whose reader has to be woken.
const CONNECTIONS_PER_SOCKET: usize = 64;
/// A machine that does something else, too, ends no connection. The relay is told the same.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(25);

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Dialer {
    sockets: Vec<Endpoint>,
    address: SocketAddr,
    host: String,
    config: ClientConfig,
}

impl Dialer {
    pub(crate) fn new(load: &Fanout, connections: usize) -> Result<Self, Failure> {
        let sockets = (0..connections.div_ceil(CONNECTIONS_PER_SOCKET)).map(|_| socket());
        let sockets = sockets.collect::<Result<_, _>>()?;
        let (host, config) = (load.host.clone(), config(&load.certificate)?);
        Ok(Self { sockets, address: load.address, host, config })
    }

    /// Opens connection `number`, counted from 0, for what `client` publishes or subscribes to; it ends with the session.
    pub(crate) async fn open(&self, number: usize, client: moq_net::Client) -> Result<Session, Failure> {
        let socket = &self.sockets[number / CONNECTIONS_PER_SOCKET];
        let connection = socket.connect_with(self.config.clone(), self.address, &self.host)?.await?;
        let raw = web_transport_moq::Session::raw(connection);
        let (session, driver) = client.connect(Instant::now(), transport::Session::new(raw)).await?;
        tokio::spawn(moq_net::time::run(driver));
        Ok(session)
    }

    /// Ends all connections, and waits until the relay has been told so.
    pub(crate) async fn close(&self) {
        for socket in &self.sockets {
            socket.close(VarInt::from_u32(0), b"done");
            socket.wait_all_draining().await;
        }
    }
}

/// With large buffers: the relay would pay for what a slow client loses.
fn socket() -> Result<Endpoint, Failure> {
    let socket = bind::udp(bind::Udp::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
    let runtime = noq::default_runtime().ok_or("there is no runtime")?;
    Ok(Endpoint::new(EndpointConfig::default(), None, socket, runtime)?)
}

fn config(certificate: &Path) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificate)? {
        roots.add(certificate?)?;
    }
    // Its first cipher is AES-256-GCM.
    let mut tls = rustls::ClientConfig::builder_with_provider(moq_tokio::crypto::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![moq_net::ALPNS[0].into()];

    let mut quic = TransportConfig::default();
    let streams = VarInt::from_u64(DEFAULT_MAX_STREAMS)?;
    quic.max_concurrent_bidi_streams(streams).max_concurrent_uni_streams(streams).mtu_discovery_config(None);
    quic.max_idle_timeout(Some(IDLE_TIMEOUT.try_into()?)).keep_alive_interval(Some(KEEP_ALIVE));
    quic.congestion_controller_factory(Arc::new(noq::congestion::Bbr3Config::default()));
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(Arc::new(quic));
    Ok(config)
}

/// What one connection publishes, or what comes on it; nothing in it gets too old before `age`.
pub(crate) fn spawn_origin(age: Duration) -> origin::Producer {
    let mut config = origin::Config::default();
    config.pool = Pool::new(cache::Config::default().with_expiry(age));
    moq_tokio::origin::spawn_config(config)
}
