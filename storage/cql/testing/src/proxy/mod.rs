//! What happens between a client and a real node: requests that are answered with a timeout although nothing is known of
//! a timeout, requests and answers that get lost, and requests that arrive late.
//!
//! ```text
//! client --frame--> node's stand-in at 127.A.B.(100+N) --judge: pass, forge, lose, delay--> node at 127.A.B.N
//! ```
//!
//! The nodes of a cluster that is [meant for it](crate::Options::proxied) tell their clients the addresses of their
//! stand-ins, so clients need not know and no address is translated. A stand-in connects to its node for each connection
//! that it accepts: it is there before, while and after the node is.
//!
//! Only prepared statements are judged, alone or in a batch: changes of the schema pass, and so does what a driver asks the
//! system's tables.
//! Frames are passed on as they are. Deliberately absent: TLS, compression, and versions of the protocol other than 4.

mod chance;
mod frame;
mod relay;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::Duration,
};

pub use self::chance::{WriteTimeouts, write_timeouts};
use self::relay::Shared;

/// A request on its way to a node.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The node's number, counted from 1.
    pub node: usize,
    /// The statement as it was prepared; of a batch, the first.
    pub statement: &'a str,
    /// Whether several statements come as one.
    pub is_batch: bool,
    /// The request as it is sent, values and timestamp included: two that are equal say the same.
    pub body: &'a [u8],
}

impl Request<'_> {
    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !self.statement.starts_with("SELECT")
    }

    /// Whether it changes something under a condition only.
    pub fn is_conditional(&self) -> bool {
        self.statement.contains(" IF ")
    }

    /// As the protocol calls it in the error about its timeout.
    fn write_type(&self) -> &'static str {
        match (self.is_conditional(), self.is_batch) {
            (true, _) => "CAS",
            (false, true) => "UNLOGGED_BATCH",
            (false, false) => "SIMPLE",
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It and its answer pass.
    Pass,
    /// It is answered with a write timeout, and carried out all the same or not.
    TimeOut {
        /// Whether it is.
        is_done: bool,
    },
    /// It is never answered, and carried out or not.
    Silence {
        /// Whether it is.
        is_done: bool,
    },
    /// It reaches the node only after this time; others overtake it.
    Late(Duration),
}

/// Decides about each request. Called by many threads.
pub type Judge = Arc<dyn Fn(Request<'_>) -> Fate + Send + Sync>;

/// Stand-ins of all nodes of a cluster, until it is dropped; then every connection through them is cut.
pub struct Proxy {
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    /// They hold the listeners.
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proxy").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens at the first of each pair of addresses for the node at the second.
    pub(crate) fn start(pairs: &[(SocketAddr, SocketAddr)], judge: Judge) -> io::Result<Self> {
        let addresses = pairs.iter().map(|(own, _)| *own).collect();
        let listeners = pairs.iter().map(|(own, _)| TcpListener::bind(own)).collect::<io::Result<Vec<_>>>()?;
        let mut proxy = Self { addresses, shared: Arc::new(Shared::new(judge)), threads: Vec::new() };
        for (number, (listener, (_, node))) in (1..).zip(listeners.into_iter().zip(pairs)) {
            let (shared, node) = (Arc::clone(&proxy.shared), *node);
            let thread = thread::Builder::new().name("cql-proxy".into());
            proxy.threads.push(thread.spawn(move || accept(&listener, number, node, &shared))?);
        }
        Ok(proxy)
    }

    /// Where the nodes' stand-ins answer CQL, in the nodes' order.
    pub fn contact_points(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        for address in &self.addresses {
            // Wakes the thread that listens; if that is gone, so is what it held.
            let _ = TcpStream::connect(address);
        }
        self.shared.cut_all();
        // The next proxy finds the addresses free.
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, number: usize, node: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        // A node that is away refuses; then the client's connection is closed, as by a node that has just ended.
        if let Ok((client, server)) = client.and_then(|client| Ok((client, TcpStream::connect(node)?))) {
            let _cut_if_it_fails = relay::start(number, client, server, shared);
        }
    }
}
