//! `--chaos`: what users on bad networks see, on the developer's own machine.
//!
//! The broker and the gateway run unchanged on ports of the system's choice. The addresses that clients know belong to a
//! relay in this process, which forwards to those ports over loopback and does harm on the way. It has a thread of its own,
//! so that it goes on while the broker drains.
//!
//! ```text
//! parse.rs   the flag's value -> a [`Plan`]
//! delay.rs   when a datagram or a chunk may go on; pure
//! cuts.rs    the times at which nothing passes, for all clients at once
//! udp.rs     datagrams between clients and the broker's shards
//! tcp.rs     connections between browsers and the gateway
//! ```
//!
//! Trunks and the admin listener are not harmed.

mod cuts;
mod delay;
mod parse;
mod tcp;
mod udp;

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    thread::JoinHandle,
};

use antiphon_server::config::Config;
use thiserror::Error;
use tokio::sync::oneshot;

pub(crate) use parse::Plan;

/// Why there is no harm.
#[derive(Debug, Error)]
pub(crate) enum ChaosError {
    /// Other people's clients are not harmed on purpose.
    #[error("--chaos harms every client and works in development mode only")]
    NotDevelopment,
    /// An address that clients know cannot be had.
    #[error("--chaos cannot listen at {address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No thread or timer.
    #[error("the relay of --chaos cannot be started: {0}")]
    Start(#[source] io::Error),
}

/// Refuses harm to anyone but the developer on this machine.
pub(crate) fn check(config: &Config) -> Result<(), ChaosError> {
    if config.development { Ok(()) } else { Err(ChaosError::NotDevelopment) }
}

/// The addresses that clients know, bound before the broker starts so that a taken one is known at once.
#[derive(Debug)]
pub(crate) struct Doors {
    udp: std::net::UdpSocket,
    tcp: Option<std::net::TcpListener>,
    address: SocketAddr,
    gateway_address: Option<SocketAddr>,
}

impl Doors {
    /// Takes the addresses out of `config`, which sends the broker to ports of the system's choice.
    pub(crate) fn take(config: &mut Config) -> Result<Self, ChaosError> {
        check(config)?;
        let failed = |address| move |source| ChaosError::Bind { address, source };
        let udp = std::net::UdpSocket::bind(config.listen).map_err(failed(config.listen))?;
        let address = udp.local_addr().map_err(failed(config.listen))?;
        udp.set_nonblocking(true).map_err(failed(address))?;
        let tcp = match &config.gateway {
            Some(gateway) => Some(bind_tcp(gateway.listen).map_err(failed(gateway.listen))?),
            None => None,
        };
        let gateway_address = match &tcp {
            Some(tcp) => Some(tcp.local_addr().map_err(failed(address))?),
            None => None,
        };
        config.listen.set_port(0);
        if let Some(gateway) = &mut config.gateway {
            gateway.listen.set_port(0);
        }
        Ok(Self { udp, tcp, address, gateway_address })
    }

    /// Lets clients through to the broker at `broker` and the gateway at `gateway`.
    pub(crate) fn open(
        self,
        plan: &Plan,
        broker: SocketAddr,
        gateway: Option<SocketAddr>,
    ) -> Result<Relay, ChaosError> {
        let seed = plan.seed.unwrap_or_else(any_seed);
        let (address, gateway_address) = (self.address, self.gateway_address);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ChaosError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let (udp, tcp) = {
            let _guard = runtime.enter();
            let udp = tokio::net::UdpSocket::from_std(self.udp).map_err(ChaosError::Start)?;
            let tcp = self.tcp.map(tokio::net::TcpListener::from_std).transpose().map_err(ChaosError::Start)?;
            (udp, tcp.zip(gateway))
        };
        let seeded = Plan { seed: Some(seed), ..plan.clone() };
        let shown = seeded.to_string();
        let serve = async move {
            tokio::select! {
                () = carry(&seeded, seed, udp, broker, tcp) => {}
                // A dropped sender stops the relay just like a message.
                _ = stopped => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("chaos".into())
            .spawn(move || runtime.block_on(serve))
            .map_err(ChaosError::Start)?;
        Ok(Relay { address, gateway_address, shown, stop: Some(stop), thread: Some(thread) })
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The harm itself; does not end.
async fn carry(
    plan: &Plan,
    seed: u64,
    udp: tokio::net::UdpSocket,
    broker: SocketAddr,
    tcp: Option<(tokio::net::TcpListener, SocketAddr)>,
) {
    let (cuts, is_cut) = cuts::Cuts::new(plan.cut, seed);
    let harm = delay::Harm::new(plan, seed);
    let sockets = async {
        match tcp {
            Some((listener, gateway)) => tcp::relay(listener, gateway, harm.clone(), is_cut.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(cuts.run(), udp::relay(udp, broker, harm.clone(), is_cut.clone()), sockets);
}

/// A seed that nobody chose; the standard library's hasher has the system's randomness.
fn any_seed() -> u64 {
    // Short enough to be typed again.
    RandomState::new().hash_one(0_u8) % 1_000_000
}

/// The relay at work. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    gateway_address: Option<SocketAddr>,
    shown: String,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Where clients connect (UDP).
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where browsers and back ends connect (TCP); `None` without a gateway.
    pub(crate) fn gateway_address(&self) -> Option<SocketAddr> {
        self.gateway_address
    }

    /// The flag's value that does the same harm once more.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed, and there is nothing left to lose.
            let _ = thread.join();
        }
    }
}
