//! A turn's packets on their way out.
//!
//! Packets gather in up to [`MAX_BATCH`] slots whose buffers are reused, and a flush hands them to the kernel with as
//! few system calls as it takes. Three things may come in between. The socket is full: the rest stays queued, and the
//! caller stops producing until the socket is writable. One message is refused (its peer is unreachable, it is larger
//! than the path): it is dropped and counted, for QUIC repairs losses anyway. Segmentation offload fails, which some
//! interfaces and clouds are known for: then it is switched off for the socket's life, and bursts go out as single
//! packets, none of them lost.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::{Ecn, ShardSocket};

/// Most messages in a batch.
pub const MAX_BATCH: usize = 64;

/// Where a message goes and how.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// The receiver, of the socket's address family (an IPv4 peer of an IPv6 socket as mapped address).
    pub destination: SocketAddr,
    /// The local address to send from; `None` lets the kernel choose.
    pub src_ip: Option<IpAddr>,
    /// The ECN mark to set.
    pub ecn: Option<Ecn>,
    /// Bytes per packet, if the message is a burst of packets: all but the last have this size, and there are at most
    /// [`ShardSocket::max_segments`] of them.
    pub segment_size: Option<usize>,
}

/// The batch holds [`MAX_BATCH`] messages already: flush it, and stop producing if it stays full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the send batch is full with {MAX_BATCH} messages: flush it first")]
pub struct BatchFull;

/// Messages of one shard that wait for the end of the turn.
#[derive(Debug, Default)]
pub struct SendBatch {
    /// Slots in use are `..len`; those behind keep their buffers for later.
    slots: Vec<Slot>,
    len: usize,
    /// Bytes of the first slot that are sent already; not 0 only where a burst was sent packet by packet.
    offset: usize,
    refused: u64,
}

#[derive(Debug)]
struct Slot {
    transmit: Transmit,
    bytes: Vec<u8>,
}

/// One message as the kernel gets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) transmit: Transmit,
    pub(super) bytes: &'a [u8],
    /// Where in its slot the next one begins.
    pub(super) end: usize,
}

/// What a flush needs of a socket; the tests have one that can be full.
trait Wire {
    /// Sends the first messages; how many is the result, at least one unless it is an error about the first.
    fn send<'a>(&self, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize>;
    fn segmentation(&self) -> bool;
    fn disable_segmentation(&self);
}

#[derive(Clone, Copy)]
struct Place {
    slot: usize,
    offset: usize,
}

impl SendBatch {
    /// Queues a copy of `bytes`.
    pub fn push(&mut self, transmit: Transmit, bytes: &[u8]) -> Result<(), BatchFull> {
        self.push_with(|buffer| {
            buffer.extend_from_slice(bytes);
            Some(transmit)
        })
        .map(|_| ())
    }

    /// Queues what `write` writes into the empty buffer it is given, unless it returns `None`. Says which.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<Transmit>) -> Result<bool, BatchFull> {
        if self.is_full() {
            return Err(BatchFull);
        }
        if self.len == self.slots.len() {
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let transmit = Transmit { destination: nowhere, src_ip: None, ecn: None, segment_size: None };
            self.slots.push(Slot { transmit, bytes: Vec::new() });
        }
        let slot = &mut self.slots[self.len];
        slot.bytes.clear();
        let Some(transmit) = write(&mut slot.bytes) else { return Ok(false) };
        slot.transmit = transmit;
        self.len += 1;
        Ok(true)
    }

    /// Number of messages that wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits. After a flush, false means that the socket is full: wait until it is writable.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is no room for another message.
    pub fn is_full(&self) -> bool {
        self.len == MAX_BATCH
    }

    /// Messages that were dropped because the kernel refused them, since the start.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Sends as much as the socket takes, in order, and returns how many messages it took (a burst that has to go out
    /// packet by packet counts each).
    ///
    /// Fails only where the socket itself is broken.
    pub fn flush(&mut self, socket: &ShardSocket) -> io::Result<usize> {
        self.flush_to(socket)
    }

    fn flush_to(&mut self, wire: &impl Wire) -> io::Result<usize> {
        let mut at = Place { slot: 0, offset: self.offset };
        let mut sent = 0;
        let mut result = Ok(());
        while at.slot < self.len {
            let segmentation = wire.segmentation();
            match wire.send(self.messages(at, segmentation)) {
                Ok(taken) => {
                    sent += taken;
                    at = self.skip(at, taken, segmentation);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if concerns_one_message(&error) => match self.blame(at, &error, wire) {
                    Blame::Segmentation => {
                        wire.disable_segmentation();
                        sent += 1;
                        at = self.skip(at, 1, false);
                    }
                    Blame::Message => {
                        self.refused += 1;
                        at = self.skip(at, 1, segmentation);
                    }
                },
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.remove_before(at);
        result.map(|()| sent)
    }

    /// Decides what a refusal of the message at `at` means, by sending the first packet of a burst on its own.
    fn blame(&self, at: Place, error: &io::Error, wire: &impl Wire) -> Blame {
        let suspicious = matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL)) && wire.segmentation();
        let burst = self.messages(at, true).next().is_some_and(|message| message.is_burst());
        if suspicious && burst && wire.send(self.messages(at, false).take(1)).is_ok() {
            Blame::Segmentation
        } else {
            Blame::Message
        }
    }

    fn messages(&self, from: Place, segmentation: bool) -> impl Iterator<Item = Message<'_>> {
        let mut at = from;
        std::iter::from_fn(move || {
            let slot = self.slots[..self.len].get(at.slot)?;
            let message = slot.message(at.offset, segmentation);
            at = at.behind(&message, slot);
            Some(message)
        })
    }

    fn skip(&self, from: Place, count: usize, segmentation: bool) -> Place {
        let mut at = from;
        for message in self.messages(from, segmentation).take(count) {
            at = at.behind(&message, &self.slots[at.slot]);
        }
        at
    }

    fn remove_before(&mut self, at: Place) {
        self.slots[..self.len].rotate_left(at.slot);
        self.len -= at.slot;
        self.offset = at.offset;
    }
}

enum Blame {
    Segmentation,
    Message,
}

impl Slot {
    /// What to send next from `offset` on: all the rest as one burst, or one packet of it.
    fn message(&self, offset: usize, segmentation: bool) -> Message<'_> {
        let segment = self.transmit.segment_size.unwrap_or(usize::MAX).max(1);
        let end = if segmentation { self.bytes.len() } else { self.bytes.len().min(offset.saturating_add(segment)) };
        Message { transmit: self.transmit, bytes: &self.bytes[offset..end], end }
    }
}

impl Place {
    fn behind(self, message: &Message<'_>, slot: &Slot) -> Self {
        if message.end == slot.bytes.len() {
            Self { slot: self.slot + 1, offset: 0 }
        } else {
            Self { slot: self.slot, offset: message.end }
        }
    }
}

impl Message<'_> {
    /// Whether the kernel has to cut it into packets.
    pub(super) fn is_burst(&self) -> bool {
        self.transmit.segment_size.is_some_and(|size| size < self.bytes.len())
    }
}

impl Wire for ShardSocket {
    #[cfg(target_os = "linux")]
    fn send<'a>(&self, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
        use std::os::fd::AsFd;
        super::mmsg::send(self.as_fd(), messages)
    }

    #[cfg(not(target_os = "linux"))]
    fn send<'a>(&self, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
        send_one_by_one(self, messages)
    }

    fn segmentation(&self) -> bool {
        self.segmentation()
    }

    fn disable_segmentation(&self) {
        self.disable_segmentation();
    }
}

/// The portable way: one system call per message.
#[cfg(any(test, not(target_os = "linux")))]
fn send_one_by_one<'a>(socket: &ShardSocket, messages: impl Iterator<Item = Message<'a>>) -> io::Result<usize> {
    let mut sent = 0;
    for message in messages {
        let Transmit { destination, src_ip, ecn, segment_size } = message.transmit;
        let segment_size = segment_size.filter(|_| message.is_burst());
        let transmit = quinn_udp::Transmit { destination, ecn, contents: message.bytes, segment_size, src_ip };
        match socket.state().try_send(socket.handle(), &transmit) {
            Ok(()) => sent += 1,
            Err(error) if sent == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sent)
}

/// Whether an error is about one message or peer; what remains says that the descriptor is no socket of ours.
fn concerns_one_message(error: &io::Error) -> bool {
    !matches!(error.raw_os_error(), Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EOPNOTSUPP))
}

#[cfg(test)]
mod tests;
