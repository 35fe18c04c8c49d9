//! Why a gateway does not start.

use std::{io, net::SocketAddr};

use thiserror::Error;

/// The operator is at fault.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The address cannot be bound.
    #[error("gateway: cannot listen on {listen}: {source}")]
    Listen {
        /// Which address.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The broker's or the edge's certificate cannot be used.
    #[error("gateway: {0}")]
    Credentials(String),
    /// The system has no thread to give.
    #[error("gateway: no thread: {0}")]
    Thread(io::Error),
}
