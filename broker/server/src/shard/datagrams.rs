//! UDP in and out of a shard: a bounded number per turn, steered again in user space where the kernel did not.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use antiphon_core::ShardId;
use antiphon_node::Node;
use antiphon_sys::{
    cid::shard_of_datagram,
    udp::{Datagram, Ecn, PacketArena, Receiver, SendBatch, Transmit},
};
use bytes::BytesMut;
use quinn_proto::EcnCodepoint;

use super::{Mail, ShardThread};

/// Datagrams taken in one turn.
const RECEIVED_PER_TURN: usize = 64;
/// Batches sent in one turn; what is left goes out in the next one.
const BATCHES_PER_TURN: usize = 8;

/// A datagram of another shard's connection.
#[derive(Debug)]
pub(crate) struct ForeignDatagram {
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    data: BytesMut,
}

impl ForeignDatagram {
    /// Gives it to the shard whose it is.
    pub(crate) fn hand_to(self, node: &mut Node, now: Instant) {
        node.handle_datagram(now, self.remote, self.local_ip, self.ecn, self.data);
    }
}

/// Numbers of the socket since the boot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DatagramCounters {
    pub(crate) datagrams_in: u64,
    pub(crate) datagrams_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) forwarded: u64,
    pub(crate) turns: u64,
}

/// The buffers of a shard's socket.
pub(crate) struct Datagrams {
    shard: ShardId,
    shards: usize,
    receiver: Receiver,
    arena: PacketArena,
    batch: SendBatch,
    received: Vec<ForeignDatagram>,
    pub(crate) counters: DatagramCounters,
}

impl Datagrams {
    pub(crate) fn new(shard: ShardId, shards: usize) -> Self {
        Self {
            shard,
            shards,
            receiver: Receiver::default(),
            arena: PacketArena::default(),
            batch: SendBatch::default(),
            received: Vec::new(),
            counters: DatagramCounters::default(),
        }
    }

    /// Takes in what the kernel has. True if there may be more.
    pub(super) fn receive(&mut self, thread: &mut ShardThread, now: Instant) -> io::Result<bool> {
        self.counters.turns += 1;
        let (arena, received) = (&mut self.arena, &mut self.received);
        let count = self.receiver.receive(&thread.socket, RECEIVED_PER_TURN, |datagram| {
            let Datagram { remote, local_ip, ecn, payload } = datagram;
            let ecn = ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            received.push(ForeignDatagram { remote, local_ip, ecn, data: arena.copy(payload) });
        })?;
        self.counters.datagrams_in += count as u64;
        for datagram in self.received.drain(..) {
            self.counters.bytes_in += datagram.data.len() as u64;
            match shard_of_datagram(&datagram.data, self.shards) {
                Some(owner) if owner != usize::from(self.shard.0) => {
                    self.counters.forwarded += 1;
                    // A full ring loses the datagram, which QUIC repairs.
                    let _ = thread.port.try_send(owner, Mail::Datagram(Box::new(datagram)));
                }
                _ => datagram.hand_to(&mut thread.node, now),
            }
        }
        Ok(count == RECEIVED_PER_TURN)
    }

    /// Sends what the node has. True if the socket is full.
    pub(super) fn send(&mut self, thread: &mut ShardThread, now: Instant) -> io::Result<bool> {
        for _ in 0..BATCHES_PER_TURN {
            let is_exhausted = self.fill(thread, now);
            self.batch.flush(&thread.socket)?;
            if !self.batch.is_empty() {
                return Ok(true);
            }
            if is_exhausted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fills the batch. True once the node has nothing more.
    fn fill(&mut self, thread: &mut ShardThread, now: Instant) -> bool {
        let segments = thread.socket.max_segments();
        while !self.batch.is_full() {
            let (node, counters) = (&mut thread.node, &mut self.counters);
            let pushed = self.batch.push_with(|buffer| {
                let transmit = node.poll_transmit(now, segments, buffer)?;
                buffer.truncate(transmit.size);
                counters.bytes_out += transmit.size as u64;
                counters.datagrams_out += transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size)) as u64;
                Some(Transmit {
                    destination: transmit.destination,
                    src_ip: transmit.src_ip,
                    ecn: transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                    segment_size: transmit.segment_size,
                })
            });
            if pushed != Ok(true) {
                return pushed == Ok(false);
            }
        }
        false
    }

    /// Whether packets wait for the socket.
    pub(super) fn has_unsent(&self) -> bool {
        !self.batch.is_empty()
    }
}
