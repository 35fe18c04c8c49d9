//! The shell around the shards: threads and their loops, configuration, identity, TLS, tokens, the admin listener.

pub mod admin;
pub mod auth;
mod broker;
pub mod config;
pub mod identity;
pub mod presence;
mod shard;
mod store;
pub mod tls;

pub use broker::{Broker, StartError};
