//! UDP in and out of a shard: a bounded number per turn, steered again in user space where the kernel did not.

use std::{io, time::Instant};

use antiphon_core::ShardId;
use antiphon_node::{Datagram, Listener, Node};
use antiphon_sys::{
    cid::shard_of_datagram,
    mesh::MeshPort,
    udp::{Ecn, PacketArena, Receiver, SendBatch, ShardSocket, Transmit},
};
use quinn_proto::EcnCodepoint;

use super::Mail;

/// Datagrams taken in one turn.
const RECEIVED_PER_TURN: usize = 64;
/// Batches sent in one turn; what is left goes out in the next one.
const BATCHES_PER_TURN: usize = 8;

/// Numbers of the socket since the boot.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DatagramCounters {
    pub(crate) datagrams_in: u64,
    pub(crate) datagrams_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) forwarded: u64,
}

/// A socket of a shard, with its buffers.
pub(crate) struct Datagrams {
    pub(super) socket: ShardSocket,
    listener: Listener,
    shard: ShardId,
    shards: usize,
    receiver: Receiver,
    arena: PacketArena,
    batch: SendBatch,
    received: Vec<Datagram>,
    pub(super) counters: DatagramCounters,
}

impl Datagrams {
    pub(crate) fn new(socket: ShardSocket, listener: Listener, shard: ShardId, shards: usize) -> Self {
        Self {
            socket,
            listener,
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
    pub(super) fn receive(&mut self, node: &mut Node, port: &mut MeshPort<Mail>, now: Instant) -> io::Result<bool> {
        let (arena, received, listener) = (&mut self.arena, &mut self.received, self.listener);
        let count = self.receiver.receive(&self.socket, RECEIVED_PER_TURN, |datagram| {
            let ecn = datagram.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            let (remote, local_ip, data) = (datagram.remote, datagram.local_ip, arena.copy(datagram.payload));
            received.push(Datagram { listener, remote, local_ip, ecn, data });
        })?;
        self.counters.datagrams_in += count as u64;
        for datagram in self.received.drain(..) {
            self.counters.bytes_in += datagram.data.len() as u64;
            match shard_of_datagram(&datagram.data, self.shards) {
                Some(owner) if owner != usize::from(self.shard.0) => {
                    self.counters.forwarded += 1;
                    // A full ring loses the datagram, which QUIC repairs.
                    let _ = port.try_send(owner, Mail::Datagram(Box::new(datagram)));
                }
                _ => node.handle_datagram(now, datagram),
            }
        }
        Ok(count == RECEIVED_PER_TURN)
    }

    /// Sends what the node has. True if the socket is full.
    pub(super) fn send(&mut self, node: &mut Node, now: Instant) -> io::Result<bool> {
        for _ in 0..BATCHES_PER_TURN {
            let is_exhausted = self.fill(node, now);
            self.batch.flush(&self.socket)?;
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
    fn fill(&mut self, node: &mut Node, now: Instant) -> bool {
        let (segments, listener) = (self.socket.max_segments(), self.listener);
        while !self.batch.is_full() {
            let counters = &mut self.counters;
            let pushed = self.batch.push_with(|buffer| {
                let transmit = node.poll_transmit(now, listener, segments, buffer)?;
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
