//! Nodes that form one ring, at addresses of their own, in a folder of their own.

use std::{
    env,
    net::SocketAddr,
    panic::resume_unwind,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;
use tempfile::TempDir;

use crate::{
    ConnectionError, Consistency, Judge, LaunchError, Node, Options, Proxy, Version,
    addresses::Addresses,
    classes, identity,
    installation::Installation,
    node::{LOG_END_LINES, Shared},
    settings,
};

const POLL_INTERVAL: Duration = Duration::from_millis(50);
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Every node keeps a copy of this table, so a read of as many copies as there are nodes asks all of them. It also
/// repairs what it reads: from then on the superuser can log in wherever a majority is left.
const READ_FROM_ALL: &str = "SELECT role FROM system_auth.roles WHERE role = 'cassandra'";

/// A running cluster. When it is dropped its nodes are killed and its files removed; if this process ends in another way
/// the nodes are killed, and the folder stays in the system's folder for temporary files.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they are dropped: no process without its files and addresses.
    nodes: Vec<Node>,
    folder: TempDir,
    addresses: Addresses,
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
        let installation = classes::mapped(Installation::find()?, |installation| {
            Self::launch(Options::default(), installation)?.node(1).stop().map_err(LaunchError::from)
        })?;
        Self::launch(options, installation)
    }

    fn launch(options: Options, installation: Installation) -> Result<Self, LaunchError> {
        let addresses = Addresses::reserve(options.nodes)?;
        let folder = tempfile::Builder::new().prefix("antiphon-cassandra-").tempdir();
        let folder = folder.map_err(|source| LaunchError::Files { path: env::temp_dir(), source })?;
        let hosts: Vec<_> = (1..=options.nodes).map(|node| addresses.ip(node)).collect();
        let trust = options.tls.then(|| identity::make(folder.path(), &hosts)).transpose();
        let trust = trust.map_err(|source| LaunchError::Files { path: folder.path().to_owned(), source })?;
        let shared = Arc::new(Shared { options, installation, trust });
        let node = |number| {
            let folder = folder.path().join(format!("node-{number}"));
            Node::new(number, folder, addresses.native(number), Arc::clone(&shared))
        };
        let nodes = (1..=shared.options.nodes).map(node).collect();
        let cluster = Self { nodes, shared, folder, addresses };
        cluster.configure()?;
        cluster.start_all()?;
        cluster.wait_for_ring(cluster.shared.options.start_timeout)?;
        Ok(cluster)
    }

    /// Where the nodes answer CQL, in their order.
    pub fn contact_points(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// Lets clients reach the nodes through stand-ins that deal with their requests as `judge` says. One at a time.
    ///
    /// # Errors
    ///
    /// If the cluster was not started as [proxied](Options::proxied), or its stand-ins cannot listen.
    pub fn proxy(&self, judge: Judge) -> Result<Proxy, LaunchError> {
        if !self.shared.options.proxied {
            return Err(LaunchError::NotProxied);
        }
        let pair = |node: &Node| (self.addresses.stand_in(node.number()), node.address());
        let pairs: Vec<_> = self.nodes.iter().map(pair).collect();
        Proxy::start(&pairs, judge).map_err(LaunchError::Proxy)
    }

    /// The root to which the nodes' certificates lead (PEM), if clients must speak TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.shared.trust.is_some().then(|| self.folder.path().join(identity::ROOT))
    }

    /// Settings of a client that trusts that root.
    pub fn trust(&self) -> Option<Arc<ClientConfig>> {
        self.shared.trust.clone()
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
            while let Err(source) = self.is_in_ring(node) {
                if Instant::now() >= deadline {
                    let log_end = node.log_tail(LOG_END_LINES);
                    return Err(LaunchError::NoRing { node: node.number(), within, source, log_end });
                }
                thread::sleep(POLL_INTERVAL);
            }
        }
        Ok(())
    }

    fn configure(&self) -> Result<(), LaunchError> {
        self.nodes.iter().try_for_each(|node| {
            settings::write(node.folder(), &self.shared.options, &self.addresses, node.number())
                .map_err(|source| LaunchError::Files { path: node.folder().to_owned(), source })
        })
    }

    /// All at once, which takes half the time of one after the other: the tokens are given, nothing is streamed, and
    /// each node finds the others when they come.
    fn start_all(&self) -> Result<(), LaunchError> {
        thread::scope(|scope| {
            let starting: Vec<_> = self.nodes.iter().map(|node| scope.spawn(|| node.start())).collect();
            starting.into_iter().try_for_each(|node| node.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Whether the node knows all others, agrees with them on the schema, and is answered by all of them.
    fn is_in_ring(&self, node: &Node) -> Result<(), ConnectionError> {
        let all = match self.nodes.len() {
            1 => Consistency::One,
            2 => Consistency::Two,
            _ => Consistency::Three,
        };
        let mut connection = node.connect(QUERY_TIMEOUT)?;
        let mut schemas = connection.query("SELECT schema_version FROM system.local", Consistency::One)?;
        schemas.extend(connection.query("SELECT schema_version FROM system.peers", Consistency::One)?);
        if schemas.len() != self.nodes.len() || schemas.iter().any(|schema| *schema != schemas[0]) {
            return Err(ConnectionError::Answer("it does not know all nodes, or their schemas differ"));
        }
        let superusers = connection.query(READ_FROM_ALL, all)?.len();
        if superusers < usize::from(self.shared.options.authentication) {
            return Err(ConnectionError::Answer("the superuser is not there yet"));
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before the folder goes: a node that runs would write new files into it.
        self.nodes.iter().for_each(Node::discard);
    }
}
