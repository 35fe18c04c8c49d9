//! A UDP socket with the options a QUIC endpoint wants.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use quinn_udp::{UdpSockRef, UdpSocketState};

/// Most packets in one segmented send. The kernel takes more, but a longer burst only overruns the receiver.
pub const MAX_SEGMENTS: usize = 10;

/// A non-blocking UDP socket of one shard that reports and sets addresses and ECN bits, never fragments, and uses
/// segmentation and receive offload where the kernel has them.
#[derive(Debug)]
pub struct ShardSocket {
    socket: UdpSocket,
    state: UdpSocketState,
    segmentation: AtomicBool,
}

impl ShardSocket {
    /// Takes over a bound socket.
    pub fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let segmentation = AtomicBool::new(state.max_gso_segments() > 1);
        Ok(Self { socket, state, segmentation })
    }

    /// The address the socket is bound to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Most packets that one [`Transmit`](super::Transmit) may carry: [`MAX_SEGMENTS`], or 1 without segmentation.
    pub fn max_segments(&self) -> usize {
        if self.segmentation() { MAX_SEGMENTS } else { 1 }
    }

    /// Sends without segmentation offload from now on, for networks known to break it. Called by a flush that finds
    /// out by itself.
    pub fn disable_segmentation(&self) {
        self.segmentation.store(false, Ordering::Relaxed);
    }

    /// Whether the kernel may fragment packets; path MTU discovery has to be off then.
    pub fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    pub(super) fn segmentation(&self) -> bool {
        self.segmentation.load(Ordering::Relaxed)
    }

    pub(super) fn state(&self) -> &UdpSocketState {
        &self.state
    }

    pub(super) fn handle(&self) -> UdpSockRef<'_> {
        UdpSockRef::from(&self.socket)
    }
}

impl AsFd for ShardSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
