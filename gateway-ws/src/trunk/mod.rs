//! The trunks of one worker.

mod connection;
mod credentials;
mod streams;
mod table;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(crate) use credentials::client_config;
pub(crate) use table::{Channel, Table};

use crate::{metrics::Counters, reader::Reader};

/// A broker, how it is known, and how it knows this edge.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    /// Addresses of brokers; trunks go to the first that answers.
    pub addresses: Vec<SocketAddr>,
    /// Name in the broker's certificate; without a fingerprint it is verified by its chain.
    pub server_name: String,
    /// The one certificate to accept.
    pub fingerprint: Option<Fingerprint>,
    /// Roots that the broker's certificate may chain to, DER.
    pub roots: Vec<Vec<u8>>,
    /// The certificate that this edge shows, PEM.
    pub certificate_pem: String,
    /// Its key, PEM.
    pub key_pem: Vec<u8>,
}

/// SHA-256 of a broker's certificate. Clones share it, so that a gateway follows a broker that takes a new certificate.
#[derive(Debug, Clone)]
pub struct Fingerprint(Arc<Mutex<[u8; 32]>>);

impl Fingerprint {
    /// The certificate with this SHA-256 of its DER bytes.
    pub fn new(sha256: [u8; 32]) -> Self {
        Self(Arc::new(Mutex::new(sha256)))
    }

    /// From now on another certificate is the right one, for handshakes that begin.
    pub fn replace(&self, sha256: [u8; 32]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = sha256;
    }

    fn is(&self, sha256: &[u8]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_slice() == sha256
    }
}

/// All trunks of a worker; each is connected again for ever.
#[derive(Debug)]
pub(crate) struct Trunks {
    tables: Vec<Arc<Table>>,
    next: AtomicUsize,
}

impl Trunks {
    /// Must be called within the worker's runtime.
    pub(crate) fn start(
        broker: &BrokerSettings,
        count: usize,
        client: &quinn::ClientConfig,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let tables: Vec<Arc<Table>> = (0..count).map(|_| Arc::new(Table::new(Arc::clone(counters)))).collect();
        for table in &tables {
            let endpoint = connection::endpoint(broker)?;
            tokio::spawn(connection::keep(Arc::clone(table), endpoint, broker.clone(), client.clone()));
        }
        Ok(Self { tables, next: AtomicUsize::new(0) })
    }

    /// How many trunks are connected.
    pub(crate) fn connected(&self) -> usize {
        self.tables.iter().filter(|table| table.is_connected()).count()
    }

    /// A channel for a session on the next trunk that is connected; waits until one is.
    pub(crate) async fn open(&self, reader: Arc<dyn Reader>, remote: SocketAddr) -> Channel {
        loop {
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            for offset in 0..self.tables.len() {
                let table = &self.tables[(first + offset) % self.tables.len()];
                if let Some(channel) = table.open(Arc::clone(&reader), remote).await {
                    return channel;
                }
            }
            self.tables[first % self.tables.len()].connected().await;
        }
    }
}
