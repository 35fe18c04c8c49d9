//! Real Apache Cassandra nodes on loopback, for tests and load tools.
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

mod addresses;
mod classes;
mod cluster;
mod connection;
mod error;
mod installation;
mod java;
mod node;
mod options;
mod settings;
mod spawner;

pub use crate::{
    cluster::Cluster,
    connection::{Connection, ConnectionError, Consistency, Value},
    error::{ControlError, LaunchError},
    installation::Version,
    node::{Node, STOP_TIMEOUT},
    options::{CommitlogSync, NODES_MAX, Options},
};
