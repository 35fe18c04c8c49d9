//! Why a broker does not start, or did not end well.

use std::{io, net::SocketAddr};

use antiphon_storage::embedded::OpenError;
use antiphon_storage_cql::CqlError;
use antiphon_sys::group::BindError;
use thiserror::Error;

use crate::{config::ConfigError, identity::IdentityError, presence::PresenceError, tls::TlsError};

/// One line for the operator, who can mend it.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be made.
    #[error("the data directory cannot be made: {0}")]
    DataDirectory(std::io::Error),
    /// The configuration, or a file that it names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error("the store cannot be opened: {0}")]
    Store(#[from] OpenError),
    /// The cluster that keeps the logs.
    #[error("the store: {0}")]
    Cluster(#[from] CqlError),
    /// The store of presence.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The store came up without a shard; a bug.
    #[error("the store has no shard")]
    NoStore,
    /// The data directory's secrets.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate file.
    #[error("the certificate cannot be read: {0}")]
    Certificate(#[source] io::Error),
    /// The UDP address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener's address.
    #[error("the admin listener cannot listen on {listen}: {source}")]
    Admin {
        /// Where.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Threads or descriptors are exhausted.
    #[error("a shard cannot be started: {0}")]
    Threads(#[source] io::Error),
    /// No random bytes from the system.
    #[error("the system gives no random bytes")]
    Random,
    /// Another metrics recorder is installed in this process.
    #[error("another metrics recorder is installed in this process")]
    Metrics,
    /// A shard's socket broke.
    #[error("a shard ended: {0}")]
    Shard(#[source] io::Error),
    /// A shard panicked; a bug.
    #[error("a shard panicked")]
    ShardPanicked,
}
