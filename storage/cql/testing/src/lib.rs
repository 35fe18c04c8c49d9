//! Real Apache Cassandra nodes on loopback, for tests and load tools.
//!
//! `storage/cql/testing/install` copies the server, as published in Maven Central, into `target/`; a [`Cluster`] runs one
//! to three nodes of it as child processes, which can be killed, paused and started again.
//!
//! ```no_run
//! use antiphon_cql_testing::{Cluster, Options};
//!
//! # fn main() -> Result<(), antiphon_cql_testing::LaunchError> {
//! let cluster = Cluster::start(Options::default().nodes(3))?;
//! println!("{} at {:?}", cluster.version(), cluster.contact_points());
//! cluster.node(2).kill()?;
//! cluster.node(2).start()?;
//! # Ok(())
//! # }
//! ```
//!
//! What a cluster promises:
//!
//! - It is ready when each node is answered by all others, and all have one schema.
//! - Its addresses are its own, `127.A.B.1` to `127.A.B.3`: clusters of several tests and programs run side by side.
//! - Clients reach it directly, or through a [`Proxy`] that forges, loses and delays what they send.
//! - Nothing is left of it when it is dropped. If the process ends otherwise, even by `kill -9`, the kernel kills the
//!   nodes; then only the folder in the system's temporary folder stays. That is so for a cluster in a `static`, too.
//! - The server's settings are its defaults but for what [`Options`] has, one token a node, small memtables, and no
//!   snapshots of what is dropped.
//!
//! On two processors, a node answers 3 s after it was first started, 5 s if it shall have throughput; a ring of three is
//! whole after 10 s, and a node that is started again answers after 4 to 5.5 s. All of that takes twice as long while
//! compilers use the same processors, and the first start on a machine 9 s more (`classes.rs` says why). A node has
//! 0.45 GiB resident when it has started, and up to 0.85 GiB under load with the usual heap.
//!
//! Deliberately absent: other platforms than Linux, authorisation, client certificates, several data centres, a real CQL
//! client.
//! [`Connection`] is a minimal one, to ask a node something without dependencies.

mod addresses;
mod classes;
mod cluster;
mod connection;
mod error;
mod identity;
mod installation;
mod java;
mod node;
mod options;
mod proxy;
mod settings;
mod spawner;
mod wire;

pub use crate::{
    cluster::Cluster,
    connection::{Connection, ConnectionError, Consistency, Value},
    error::{ControlError, LaunchError},
    installation::Version,
    node::{Node, STOP_TIMEOUT},
    options::{CommitlogSync, NODES_MAX, Options},
    proxy::{Fate, Judge, Proxy, Request, WriteTimeouts, write_timeouts},
};
