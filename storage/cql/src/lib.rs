//! The storage contract on ScyllaDB or Cassandra: the engine's requests as CQL statements, and the lease by which one
//! broker at a time owns the logs.
//!
//! ```text
//! shard thread: CqlShard (engine) --requests--> runtime: statements, repeated until done or given up --replies--> shard
//! runtime:      lease keeper (renews the term every 3 s)
//! ```
//!
//! # Invariants
//!
//! - A write counts only if it succeeded and the lease was valid after that, on a clock that runs while the machine sleeps.
//! - Every statement but those of the lease may be repeated, and carries the engine's timestamp.
//! - The tables of the lease are written under conditions only and never with a timestamp of our own.

pub mod config;
mod connect;
mod copying;
mod error;
mod health;
mod keeper;
mod perform;
mod query;
mod refusal;
pub mod schema;
mod seat;
mod server;
mod shard;
mod statements;
mod store;
pub mod times;
mod uptime;

pub use antiphon_cql_engine::lease::Candidate;
pub use config::{Consistency, CqlConfig, Credentials, Downgrade};
pub use copying::CopyDesk;
pub use error::CqlError;
pub use health::Health;
pub use seat::seat;
pub use server::{Product, Server};
pub use shard::CqlShard;
pub use store::{CqlStore, Shared, Standing, StandingHook, Wake};
