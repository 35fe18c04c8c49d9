//! One UDP socket per shard, all bound to one address, and the kernel told which packet goes to which.
//!
//! The kernel chooses a socket of the group by its position, so the sockets are bound in shard order and none is ever
//! closed alone: the last one would move into the hole and every connection id in use would point to a wrong shard.
//! The group therefore keeps its own descriptors, as long as the process lives, and shards work on duplicates.
//!
//! A second process of the same user could join a SO_REUSEPORT group without an error and take packets out of it. So
//! the first socket is bound without that option, which fails if anybody holds the address; only then is the option
//! set, and the others join. No moment remains in which two groups could form at one address.
//!
//! Deliberately absent: eBPF steering, which needs privileges.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::cid::MAX_SHARDS;
use crate::steering;
use crate::udp::ShardSocket;

/// How to bind a [`SocketGroup`].
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// Bytes of receive buffer to ask for, per socket.
    pub receive_buffer: usize,
    /// Bytes of send buffer to ask for, per socket.
    pub send_buffer: usize,
    /// Let the kernel steer. Off, or where the kernel cannot, packets arrive at any shard, and shards have to pass on
    /// what [`crate::cid::shard_of_datagram`] says is not theirs.
    pub kernel_steering: bool,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { receive_buffer: 4 << 20, send_buffer: 4 << 20, kernel_steering: cfg!(target_os = "linux") }
    }
}

/// Why a group could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody holds the address, perhaps another broker of the same user.
    #[error("address {0} is in use by another process or by another listener of this one")]
    AddressInUse(SocketAddr),
    /// The number of shards cannot be told apart by one byte of a connection id.
    #[error("a socket group has 1 to {MAX_SHARDS} shards, {0} were asked for")]
    ShardCount(usize),
    /// The kernel refused the address for another reason.
    #[error("cannot bind {addr}: {source}")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused the steering filter; `kernel_steering: false` does without it.
    #[error("cannot attach the steering filter: {0}")]
    Steering(#[source] io::Error),
}

/// Bytes of socket buffer, as the kernel granted them to one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedBuffers {
    /// Receive buffer in bytes.
    pub receive: usize,
    /// Send buffer in bytes.
    pub send: usize,
}

/// The sockets of all shards at one address.
#[derive(Debug)]
pub struct SocketGroup {
    sockets: Vec<UdpSocket>,
    local_addr: SocketAddr,
    granted: GrantedBuffers,
    kernel_steers: bool,
}

impl SocketGroup {
    /// Binds `shards` non-blocking sockets to `addr`, in shard order.
    ///
    /// Port 0 picks a free port, see [`local_addr`](Self::local_addr). An IPv6 wildcard also serves IPv4, whose
    /// peers then appear as IPv4-mapped addresses.
    pub fn bind(addr: SocketAddr, shards: usize, options: GroupOptions) -> Result<Self, BindError> {
        if !(1..=MAX_SHARDS).contains(&shards) {
            return Err(BindError::ShardCount(shards));
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::AddressInUse(addr),
            _ => BindError::Bind { addr, source },
        };
        let sockets = bind_in_order(addr, shards, &options).map_err(refused)?;
        let local_addr = sockets[0].local_addr().map_err(refused)?;
        let granted = granted_buffers(&sockets[0]).map_err(refused)?;
        if options.kernel_steering && shards > 1 {
            steering::attach(sockets[shards - 1].as_fd(), shards).map_err(BindError::Steering)?;
        }
        Ok(Self { sockets, local_addr, granted, kernel_steers: options.kernel_steering || shards == 1 })
    }

    /// The socket of `shard`, as a duplicate that the shard's thread may own and drop.
    ///
    /// # Panics
    /// If `shard` is not one of the group's.
    pub fn socket(&self, shard: usize) -> io::Result<ShardSocket> {
        ShardSocket::new(self.sockets[shard].try_clone()?)
    }

    /// Number of sockets.
    pub fn shards(&self) -> usize {
        self.sockets.len()
    }

    /// The address all sockets are bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What the kernel granted; less than asked for means that its limits (`net.core.rmem_max`, `wmem_max`) are lower.
    pub fn granted_buffers(&self) -> GrantedBuffers {
        self.granted
    }

    /// Whether every packet already arrives at its shard (always so for one shard).
    pub fn kernel_steers(&self) -> bool {
        self.kernel_steers
    }
}

fn bind_in_order(addr: SocketAddr, shards: usize, options: &GroupOptions) -> io::Result<Vec<UdpSocket>> {
    let first = new_socket(addr, options)?;
    first.bind(&addr.into())?;
    first.set_reuse_port(true)?;
    let first = UdpSocket::from(first);
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < shards {
        let next = new_socket(bound, options)?;
        next.set_reuse_port(true)?;
        next.bind(&bound.into())?;
        sockets.push(next.into());
    }
    Ok(sockets)
}

fn new_socket(addr: SocketAddr, options: &GroupOptions) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Some systems refuse a size above their limit where Linux grants less; both leave a working socket, and the
    // granted sizes are reported.
    let _ = socket.set_recv_buffer_size(options.receive_buffer);
    let _ = socket.set_send_buffer_size(options.send_buffer);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn granted_buffers(socket: &UdpSocket) -> io::Result<GrantedBuffers> {
    let socket = socket2::SockRef::from(socket);
    // Linux doubles the size it is asked for, to account for its own bookkeeping, and reports the doubled one.
    let bookkeeping = if cfg!(target_os = "linux") { 2 } else { 1 };
    Ok(GrantedBuffers {
        receive: socket.recv_buffer_size()? / bookkeeping,
        send: socket.send_buffer_size()? / bookkeeping,
    })
}
