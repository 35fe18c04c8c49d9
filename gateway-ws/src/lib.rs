//! The edge for browsers and back ends: WebSocket and HTTP in front, trunks to a broker behind.
//!
//! ```text
//! http/     the HTTP API, server-sent events
//! socket/   one WebSocket: its session's phase, what waits to be written, binary or JSON
//! trunk/    connections to the broker that carry all sessions of a worker
//! worker    one thread: a listener, its sockets, its trunks
//! ```
//!
//! A worker shares nothing with the others: a socket lives on the thread that accepted it, with the trunk that carries it.
//! So the locks in here are never waited for. The gateway decides nothing about rights, order or durability; it forgets
//! everything about a session when its socket is gone.

mod error;
mod http;
mod metrics;
mod reader;
mod shown;
mod socket;
mod trunk;
mod worker;

use std::{fmt, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::watch;

pub use antiphon_json as json;
pub use error::GatewayError;
pub use http::{openapi_document, requests};
pub use metrics::METRICS;
pub use trunk::{BrokerSettings, Fingerprint};

/// What a gateway has to know when it starts.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Where HTTP and WebSocket listen (TCP).
    pub listen: SocketAddr,
    /// Origins of pages, besides its own, that may use it.
    pub origins: Vec<String>,
    /// The broker behind.
    pub broker: BrokerSettings,
    /// Makes tokens for anybody on this machine, in development only.
    pub development: Option<Development>,
    /// Threads; each has its own sockets and trunks.
    pub workers: usize,
    /// Trunks of each worker.
    pub trunks_per_worker: usize,
}

/// Makes development tokens.
#[derive(Clone)]
pub struct Development(Arc<MintToken>);

type MintToken = dyn Fn(&str) -> Result<String, String> + Send + Sync;

impl Development {
    /// `mint` gets a user and answers with a token, or with what is wrong with the user.
    pub fn new(mint: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(mint))
    }

    fn mint(&self, user: &str) -> Result<String, String> {
        (self.0)(user)
    }
}

impl fmt::Debug for Development {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Development")
    }
}

/// A running gateway. Dropping it ends its sockets at once; [`Gateway::stop`] says goodbye first.
#[derive(Debug)]
pub struct Gateway {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl Gateway {
    /// Binds the address and starts the workers. Trunks are connected meanwhile: sessions that come first wait for them.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, or credentials that cannot be used. The operator is at fault.
    pub fn start(config: GatewayConfig) -> Result<Self, GatewayError> {
        let listeners = worker::bind(config.listen, config.workers.max(1))?;
        let address = listeners.first().map_or(Ok(config.listen), std::net::TcpListener::local_addr);
        let address = address.map_err(|source| GatewayError::Listen { listen: config.listen, source })?;
        let client = trunk::client_config(&config.broker)?;
        let (stop, stopped) = watch::channel(false);
        metrics::describe();
        let mut workers = Vec::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            workers.push(worker::start(index, listener, &config, client.clone(), stopped.clone())?);
        }
        Ok(Self { address, stop, workers })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes every socket with 1001 and ends. Clients come back by themselves.
    pub fn stop(mut self, deadline: Duration) {
        self.stop.send_replace(true);
        let until = std::time::Instant::now() + deadline;
        for worker in self.workers.drain(..) {
            while !worker.is_finished() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            if worker.is_finished() {
                let _ = worker.join();
            }
        }
    }
}
