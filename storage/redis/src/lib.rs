//! Presence that several brokers share: the contract [`antiphon_storage::presence`] on Redis 7 or Valkey.
//!
//! ```text
//! RedisHandle (a shard's) --inbox--> driver (one thread, tokio) --turns, takes, signals--> Redis
//!       ^                               |  Ledger: what is stated, what was told, what is due
//!       '------------ desk <------------'  <--answers, news (sharded pub/sub)--
//! ```
//!
//! Users are spread over 64 **buckets**; everything of a bucket has one hash tag, so it is in one slot of a cluster. A
//! process has at most one **turn** per bucket under way: one script call that carries whatever it has to state or
//! ask, lets seats run out, and answers with how things are. At least one turn a second is also the heartbeat.
//!
//! # Invariants
//!
//! - Whether a user comes or goes is decided inside a turn, atomically, by the clock of Redis; no process decides it.
//! - A statement is sent again until a turn with it was answered, and every seat each [`Timing::refresh`].
//! - Turns of a process take effect in their order or not at all: each has a number, and a late one is void.
//! - What is told follows versions, which grow with every change of a user, also across a loss of all data.
//! - A loss of data is seen by the bucket's id, which is lost with it. Until all processes had time to state their
//!   seats again, nobody is told that somebody went.
//!
//! Deliberately absent: keyspace notifications (they come when Redis happens to look at a key), and anything that
//! could not be stated again.

mod config;
mod counters;
mod driver;
mod handle;
mod keys;
mod ledger;
mod script;
mod store;
mod turn;

pub use config::{ConfigError, RedisConfig, Secret, Timing, Tls};
pub use counters::Counters;
pub use handle::RedisHandle;
pub use store::{RedisPresence, StartError};
