//! Datagrams in, many per system call, under a budget per turn.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};

use quinn_udp::RecvMeta;

use super::{Ecn, ShardSocket};

/// Most messages per system call, quinn-udp's own limit: one where a system has no call for many.
const BATCH: usize = quinn_udp::BATCH_SIZE;
/// The kernel merges datagrams of one sender up to this many bytes.
const BUFFER: usize = 64 * 1024;
/// From one buffer to the next. Were it a power of two, the first bytes of all buffers, which most datagrams end with, would
/// contend for the same few lines of the processor's caches.
const STRIDE: usize = BUFFER + 5 * 64;

/// One datagram as it arrived.
#[derive(Debug)]
pub struct Datagram<'buf> {
    /// Who sent it.
    pub remote: SocketAddr,
    /// The local address it was sent to; an answer should come from there.
    pub local_ip: Option<IpAddr>,
    /// The ECN mark it carried.
    pub ecn: Option<Ecn>,
    /// Its bytes, valid until the callback returns.
    pub payload: &'buf mut [u8],
}

/// The receive buffers of one shard.
///
/// They are as large as the largest merged message (2 MiB together), of which only pages that were ever written take
/// memory.
pub struct Receiver {
    /// BATCH buffers in one piece, which the system hands out untouched, a [`STRIDE`] apart.
    buffers: Box<[u8]>,
    metas: [RecvMeta; BATCH],
    /// Messages of the last call that still hold datagrams: `next..filled`, the first one from `offset` on.
    next: usize,
    filled: usize,
    offset: usize,
}

impl Default for Receiver {
    fn default() -> Self {
        Self {
            buffers: vec![0; BATCH * STRIDE].into_boxed_slice(),
            metas: [RecvMeta::default(); BATCH],
            next: 0,
            filled: 0,
            offset: 0,
        }
    }
}

impl Receiver {
    /// Hands at most `budget` datagrams to `accept` and returns how many it handed over.
    ///
    /// Fewer than `budget` means that nothing is held back here and that the socket reports as readable whatever it
    /// still has. Exactly `budget` means that there may be more: the caller must not sleep before it has asked again.
    /// Use one receiver with one socket. Errors of single peers, which some systems report on the socket, are skipped.
    pub fn receive(
        &mut self,
        socket: &ShardSocket,
        budget: usize,
        mut accept: impl FnMut(Datagram<'_>),
    ) -> io::Result<usize> {
        let mut handed_over = 0;
        let mut has_more = true;
        while handed_over < budget {
            if self.next == self.filled {
                let wanted = (budget - handed_over).min(BATCH);
                let filled = if has_more { self.refill(socket, wanted)? } else { 0 };
                if filled == 0 {
                    break;
                }
                // One that is not full took all there was.
                has_more = filled == wanted;
            }
            accept(self.pop());
            handed_over += 1;
        }
        Ok(handed_over)
    }

    /// Reads a batch of at most `wanted` messages, itself at most [`BATCH`], and says how many there were.
    fn refill(&mut self, socket: &ShardSocket, wanted: usize) -> io::Result<usize> {
        (self.next, self.filled, self.offset) = (0, 0, 0);
        let mut buffers = self.buffers.chunks_exact_mut(STRIDE).map(|buffer| &mut buffer[..BUFFER]);
        // There are exactly BATCH buffers; an empty slice stands for none.
        let mut slices: [IoSliceMut<'_>; BATCH] =
            std::array::from_fn(|_| IoSliceMut::new(buffers.next().unwrap_or_default()));
        loop {
            match socket.state().recv(socket.handle(), &mut slices[..wanted], &mut self.metas[..wanted]) {
                Ok(filled) => {
                    self.filled = filled;
                    return Ok(filled);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                // Reading such an error takes it off the socket, so this ends.
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next datagram of the current batch, of which at least one is left.
    fn pop(&mut self) -> Datagram<'_> {
        let meta = &self.metas[self.next];
        let start = self.offset;
        let end = meta.len.min(start + meta.stride.max(1));
        let payload = &mut self.buffers[self.next * STRIDE..][start..end];
        if end == meta.len {
            self.next += 1;
            self.offset = 0;
        } else {
            self.offset = end;
        }
        Datagram { remote: meta.addr, local_ip: meta.dst_ip, ecn: meta.ecn, payload }
    }
}

/// Whether an error is a report about an earlier packet to some peer, and not about this socket.
fn concerns_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("next", &self.next).field("filled", &self.filled).finish_non_exhaustive()
    }
}
