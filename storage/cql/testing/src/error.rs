//! What can go wrong, by what was asked for: getting nodes to run, or doing something to one that should run.

use std::{
    error::Error,
    fmt::{self, Debug},
    io,
    path::PathBuf,
    process::ExitStatus,
    time::Duration,
};

use thiserror::Error;

use crate::ConnectionError;

/// Why there is no cluster, or no node, to talk to.
///
/// Its `Debug` is the message with its causes, so that `unwrap` in a test shows a server's log as lines.
#[derive(Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The server is not there.
    #[error("Apache Cassandra is not installed in {}; `storage/cql/testing/install` installs it", .0.display())]
    NotInstalled(PathBuf),
    /// There is no Java that the server supports.
    #[error(
        "Apache Cassandra 5 runs on Java 17 or 11, and found was {found}; install the Debian package \
         openjdk-17-jre-headless, or let JAVA_HOME name one"
    )]
    Java {
        /// The versions that were found, in words.
        found: String,
    },
    /// Another number of nodes than a cluster can have.
    #[error("a cluster has 1 to {max} nodes, not {0}", max = crate::NODES_MAX)]
    Nodes(usize),
    /// Every loopback block that was tried is in use.
    #[error("no block of loopback addresses with free ports was found")]
    Addresses,
    /// Its nodes tell clients their own addresses.
    #[error("a proxy is for a cluster that was started with `Options::proxied`")]
    NotProxied,
    /// The stand-ins of the nodes cannot listen.
    #[error("the proxy cannot listen")]
    Proxy(#[source] io::Error),
    /// A folder or file of the cluster cannot be made.
    #[error("{} cannot be written", path.display())]
    Files {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The process cannot be started.
    #[error("{program} cannot be run")]
    Spawn {
        /// What was tried.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The node runs already, so it cannot be started.
    #[error("node {0} runs already")]
    Running(usize),
    /// The process ended before it answered.
    #[error("node {node} ended with {status} before it answered; its log ends with\n{log_end}")]
    Ended {
        /// Which node, counted from 1.
        node: usize,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log_end: String,
    },
    /// It takes too long.
    #[error("node {node} did not answer within {within:?}; its log ends with\n{log_end}")]
    NotReady {
        /// Which node, counted from 1.
        node: usize,
        /// How long it was waited for.
        within: Duration,
        /// The last lines of its log.
        log_end: String,
    },
    /// The nodes answer, and do not reach each other.
    #[error("node {node} did not reach the others within {within:?}; its log ends with\n{log_end}")]
    NoRing {
        /// Which node, counted from 1.
        node: usize,
        /// How long it was waited for.
        within: Duration,
        /// What it answered the last time.
        source: ConnectionError,
        /// The last lines of its log.
        log_end: String,
    },
    /// The process cannot be controlled.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Debug for LaunchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")?;
        let mut causes = std::iter::successors(self.source(), |&cause| cause.source());
        causes.try_for_each(|cause| write!(formatter, ": {cause}"))
    }
}

/// Why a node could not be signalled or waited for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// There is no process.
    #[error("node {0} does not run")]
    NotRunning(usize),
    /// It does not end by itself.
    #[error("node {node} did not stop within {within:?} of SIGTERM and was killed")]
    NotStopped {
        /// Which node, counted from 1.
        node: usize,
        /// How long it was waited for.
        within: Duration,
    },
    /// The system refused.
    #[error("the process of node {node} cannot be controlled")]
    System {
        /// Which node, counted from 1.
        node: usize,
        /// What the system said.
        source: io::Error,
    },
}
