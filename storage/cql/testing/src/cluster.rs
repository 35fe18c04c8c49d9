//! Nodes that form one ring, at addresses of their own, in a folder of their own.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Connection, ConnectionError, Consistency, LaunchError, Node, Options, Version,
    addresses::Addresses,
    installation::Installation,
    node::{LOG_END_LINES, Shared},
    settings,
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Every node keeps a copy of this table, so a read of as many copies as there are nodes asks all of them. It also
/// repairs what it reads: from then on the superuser can log in wherever a majority is left.
const READ_BY_ALL: &str = "SELECT role FROM system_auth.roles WHERE role = 'cassandra'";

/// A running cluster. When it is dropped its nodes are killed and its files removed; if this process ends in another way
/// the nodes are killed, and the folder stays in the system's folder for temporary files.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are dropped: no process without its files and addresses.
    nodes: Vec<Node>,
    _folder: TempDir,
    _addresses: Addresses,
    shared: Arc<Shared>,
}

impl Cluster {
    /// Starts a new, empty cluster and waits until every node reaches every other.
    ///
    /// # Errors
    ///
    /// If the server is not installed or there is no Java for it, or if a node does not start or does not reach the
    /// others within the start timeout. Nothing is left running then.
    pub fn start(options: Options) -> Result<Self, LaunchError> {
        let options = options.checked()?;
        let installation = Installation::find()?;
        let addresses = Addresses::reserve(options.nodes)?;
        let folder = tempfile::Builder::new().prefix("antiphon-cassandra-").tempdir();
        let folder = folder.map_err(|source| LaunchError::Files { path: std::env::temp_dir(), source })?;
        let shared = Arc::new(Shared { options, installation });
        let nodes = (1..=shared.options.nodes).map(|number| {
            let folder = folder.path().join(format!("node-{number}"));
            Node::new(number, folder, addresses.native(number), Arc::clone(&shared))
        });
        let cluster = Self { nodes: nodes.collect(), _folder: folder, shared, _addresses: addresses };
        cluster.start_nodes()?;
        Ok(cluster)
    }

    /// Where the nodes answer CQL, in their order.
    pub fn contact_points(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// All nodes, in their order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its number, counted from 1.
    ///
    /// # Panics
    ///
    /// If there is no such node.
    pub fn node(&self, number: usize) -> &Node {
        match number.checked_sub(1).and_then(|index| self.nodes.get(index)) {
            Some(node) => node,
            None => panic!("the cluster has nodes 1 to {}, no node {number}", self.nodes.len()),
        }
    }

    /// What runs.
    pub fn version(&self) -> Version {
        Version::installed()
    }

    /// Waits until every node reaches every other, as after a restart: until a read through each of them is answered by
    /// all of them. All nodes must run.
    ///
    /// # Errors
    ///
    /// If it is not so within the given time.
    pub fn wait_for_ring(&self, within: Duration) -> Result<(), LaunchError> {
        let deadline = Instant::now() + within;
        for node in &self.nodes {
            while let Err(source) = self.reaches_all(node) {
                if Instant::now() >= deadline {
                    let log_end = node.log_tail(LOG_END_LINES);
                    return Err(LaunchError::NoRing { node: node.number(), within, source, log_end });
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    fn start_nodes(&self) -> Result<(), LaunchError> {
        let Shared { options, .. } = &*self.shared;
        for node in &self.nodes {
            settings::write(node.folder(), options, &self._addresses, node.number())
                .map_err(|source| LaunchError::Files { path: node.folder().to_owned(), source })?;
            node.start()?;
        }
        self.wait_for_ring(options.start_timeout)
    }

    fn reaches_all(&self, node: &Node) -> Result<(), ConnectionError> {
        let consistency = match self.nodes.len() {
            1 => Consistency::One,
            2 => Consistency::Two,
            _ => Consistency::Three,
        };
        let rows = Connection::open(node.address(), QUERY_TIMEOUT)?.query(READ_BY_ALL, consistency)?;
        let expected = usize::from(self.shared.options.authentication);
        if rows.len() < expected { Err(ConnectionError::Answer("the superuser is not there yet")) } else { Ok(()) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the folder goes: a node that runs would write new files into it.
        self.nodes.iter().for_each(Node::discard);
    }
}
