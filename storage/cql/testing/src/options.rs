//! What a cluster shall be like.

use std::time::Duration;

use crate::LaunchError;

/// Nodes of a cluster at most; more would not fit a developer's machine.
pub const NODES_MAX: usize = 3;

/// When a node acknowledges a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitlogSync {
    /// After its commit log is on disk: an acknowledged write survives `kill -9` and a power cut of a node.
    Batch,
    /// Before: the commit log is synced every 10 s, and what was written since then may be lost with the node.
    Periodic,
}

/// How to run a cluster. [`Options::default`] is one durable node without authentication.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) nodes: usize,
    pub(crate) heap_mib: u32,
    pub(crate) authentication: bool,
    pub(crate) tls: bool,
    pub(crate) commitlog_sync: CommitlogSync,
    pub(crate) write_request_timeout_ms: u32,
    pub(crate) read_request_timeout_ms: u32,
    pub(crate) quick_start: bool,
    pub(crate) start_timeout: Duration,
    pub(crate) proxied: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            heap_mib: 512,
            authentication: false,
            tls: false,
            commitlog_sync: CommitlogSync::Batch,
            write_request_timeout_ms: 2_000,
            read_request_timeout_ms: 5_000,
            quick_start: true,
            start_timeout: Duration::from_secs(120),
            proxied: false,
        }
    }
}

impl Options {
    /// How many nodes, 1 to [`NODES_MAX`]. They form one ring, each owns an equal part of it.
    pub fn nodes(self, nodes: usize) -> Self {
        Self { nodes, ..self }
    }

    /// The heap of each node at most, in MiB. What is outside of it takes 300 MiB more.
    pub fn heap_mib(self, heap_mib: u32) -> Self {
        Self { heap_mib, ..self }
    }

    /// Whether clients must authenticate; then the superuser `cassandra` has the password `cassandra`, and
    /// logging in takes a majority of the nodes. Nothing is forbidden to any user.
    pub fn authentication(self, authentication: bool) -> Self {
        Self { authentication, ..self }
    }

    /// Whether clients must speak TLS; those that do not are refused. [`Cluster::ca`](crate::Cluster::ca) is to be trusted.
    pub fn tls(self, tls: bool) -> Self {
        Self { tls, ..self }
    }

    /// When a write is acknowledged.
    pub fn commitlog_sync(self, commitlog_sync: CommitlogSync) -> Self {
        Self { commitlog_sync, ..self }
    }

    /// How long a coordinator waits for replicas to write, in milliseconds.
    pub fn write_request_timeout_ms(self, write_request_timeout_ms: u32) -> Self {
        Self { write_request_timeout_ms, ..self }
    }

    /// How long a coordinator waits for replicas to read, in milliseconds.
    pub fn read_request_timeout_ms(self, read_request_timeout_ms: u32) -> Self {
        Self { read_request_timeout_ms, ..self }
    }

    /// Whether a node shall start sooner at the cost of its throughput later: its code is compiled quickly and less
    /// well. For load and benches, say no.
    pub fn quick_start(self, quick_start: bool) -> Self {
        Self { quick_start, ..self }
    }

    /// How long each node may take until it answers, and the ring until it is whole.
    pub fn start_timeout(self, start_timeout: Duration) -> Self {
        Self { start_timeout, ..self }
    }

    /// Whether clients shall find the nodes at the addresses of their stand-ins, where nobody answers until there is a
    /// [proxy](crate::Cluster::proxy).
    pub fn proxied(self, proxied: bool) -> Self {
        Self { proxied, ..self }
    }

    pub(crate) fn checked(self) -> Result<Self, LaunchError> {
        if (1..=NODES_MAX).contains(&self.nodes) { Ok(self) } else { Err(LaunchError::Nodes(self.nodes)) }
    }
}
