//! Messages between shards: a bounded ring for every ordered pair, and one doorbell per shard.
//!
//! A ring has one producer and one consumer and keeps order. Messages of a turn go into the rings as they come up, and
//! the peers concerned are rung once, by [`MeshPort::ring_pending`] at the turn's end. A full ring never blocks: the
//! message comes back, the sender decides (hold back, merge, drop), and it is rung when the ring has room again.
//!
//! The end of a shard's turn:
//!
//! 1. `ring_pending`;
//! 2. `doorbell().arm()`;
//! 3. if [`has_pending`](MeshPort::has_pending), `doorbell().disarm(false)` and another turn;
//! 4. otherwise sleep with `doorbell()` among the sources, then `doorbell().disarm(rung)`.
//!
//! Deliberately absent: a ring from a shard to itself.

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::doorbell::{Doorbell, Latch, Ringer};

/// Makes the ports of a set of shards.
#[derive(Debug)]
pub struct Mesh<M> {
    message: PhantomData<M>,
}

impl<M: Send> Mesh<M> {
    /// One port per shard, in order, with room for `capacity` messages from each shard to each other one.
    ///
    /// Fails only where the process has no descriptors left for the doorbells.
    #[expect(clippy::new_ret_no_self, reason = "a mesh exists only as its ports")]
    pub fn new(shards: usize, capacity: usize) -> io::Result<Vec<MeshPort<M>>> {
        let mut ports = (0..shards).map(MeshPort::unconnected).collect::<io::Result<Vec<_>>>()?;
        for from in 0..shards {
            for to in 0..shards {
                let (outgoing, incoming) = if from == to { (None, None) } else { connect(&ports, from, to, capacity) };
                ports[from].outgoing.push(outgoing);
                ports[to].incoming.push(incoming);
            }
        }
        Ok(ports)
    }
}

/// One shard's end of the mesh.
#[derive(Debug)]
pub struct MeshPort<M> {
    shard: usize,
    doorbell: Doorbell,
    /// By the peer's number; none at the shard's own.
    outgoing: Vec<Option<Outgoing<M>>>,
    incoming: Vec<Option<Incoming<M>>>,
    /// The peer whose ring is drained first, so that a busy one cannot starve the others.
    drain_first: usize,
}

#[derive(Debug)]
struct Outgoing<M> {
    ring: Producer<M>,
    bell: Ringer,
    /// Armed while the producer waits for room.
    room: Arc<Latch>,
    /// Got a message or has to hear of room, and is not yet rung.
    ring_pending: bool,
    /// The last message did not fit, and the shard has not been told of room since.
    blocked: bool,
}

#[derive(Debug)]
struct Incoming<M> {
    ring: Consumer<M>,
    room: Arc<Latch>,
}

impl<M: Send> MeshPort<M> {
    fn unconnected(shard: usize) -> io::Result<Self> {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        Ok(Self { shard, doorbell: Doorbell::new()?, outgoing, incoming, drain_first: 0 })
    }

    /// The number of this shard.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// The number of shards in the mesh.
    pub fn shards(&self) -> usize {
        self.outgoing.len()
    }

    /// The bell that peers ring, and helper threads through its [`Ringer`]s.
    pub fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }

    /// Puts `message` into the ring to shard `to`, behind all earlier ones.
    ///
    /// Gives it back if the ring is full; the shard is woken when there is room.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    pub fn try_send(&mut self, to: usize, message: M) -> Result<(), M> {
        let peer = self.peer_mut(to);
        let Err(rtrb::PushError::Full(message)) = peer.push(message) else { return Ok(()) };
        // The consumer may have made room before it could know that somebody waits for it.
        peer.room.arm();
        peer.push(message).map_err(|rtrb::PushError::Full(message)| {
            peer.blocked = true;
            message
        })
    }

    /// Messages that the ring to shard `to` takes now. Only this shard makes the number smaller.
    ///
    /// # Panics
    /// If `to` is this shard or none.
    pub fn free_slots(&self, to: usize) -> usize {
        assert!(to != self.shard, "a shard has no ring to itself");
        self.outgoing[to].as_ref().map_or(0, |peer| peer.ring.slots())
    }

    /// Hands at most `budget` messages to `accept`, in order for each sender, and returns how many.
    ///
    /// The sender whose turn was cut short comes last next time.
    pub fn drain(&mut self, budget: usize, mut accept: impl FnMut(usize, M)) -> usize {
        let shards = self.shards();
        let mut drained = 0;
        let first = self.drain_first;
        for from in (first..shards).chain(0..first) {
            if drained == budget {
                break;
            }
            let Some(peer) = &mut self.incoming[from] else { continue };
            let count = peer.drain(budget - drained, |message| accept(from, message));
            if count == 0 {
                continue;
            }
            drained += count;
            self.drain_first = (from + 1) % shards;
            if peer.room.take()
                && let Some(back) = &mut self.outgoing[from]
            {
                back.ring_pending = true;
            }
        }
        drained
    }

    /// Rings, once each, the peers that got messages or room since the last call.
    pub fn ring_pending(&mut self) {
        for peer in self.outgoing.iter_mut().flatten() {
            if std::mem::take(&mut peer.ring_pending) {
                peer.bell.ring();
            }
        }
    }

    /// Whether there is a message to drain or, after a send that did not fit, room again.
    ///
    /// Room is reported once per such send, so that a shard that gave the message up can sleep.
    pub fn has_pending(&mut self) -> bool {
        let mut room = false;
        for peer in self.outgoing.iter_mut().flatten().filter(|peer| peer.blocked) {
            if peer.ring.slots() > 0 {
                peer.blocked = false;
                room = true;
            }
        }
        room || self.incoming.iter().flatten().any(|peer| !peer.ring.is_empty())
    }

    fn peer_mut(&mut self, to: usize) -> &mut Outgoing<M> {
        match &mut self.outgoing[to] {
            Some(peer) => peer,
            None => panic!("shard {to} sends to itself"),
        }
    }
}

impl<M> Outgoing<M> {
    fn push(&mut self, message: M) -> Result<(), rtrb::PushError<M>> {
        self.ring.push(message)?;
        self.ring_pending = true;
        self.blocked = false;
        Ok(())
    }
}

impl<M> Incoming<M> {
    fn drain(&mut self, budget: usize, accept: impl FnMut(M)) -> usize {
        let count = self.ring.slots().min(budget);
        match self.ring.read_chunk(count) {
            Ok(chunk) => chunk.into_iter().for_each(accept),
            // The ring holds at least as many as it just reported, since nobody else takes from it.
            Err(_) => return 0,
        }
        count
    }
}

type RingEnds<M> = (Option<Outgoing<M>>, Option<Incoming<M>>);

fn connect<M: Send>(ports: &[MeshPort<M>], from: usize, to: usize, capacity: usize) -> RingEnds<M> {
    debug_assert!(from != to);
    let (producer, consumer) = RingBuffer::new(capacity);
    let room = Arc::new(Latch::default());
    let bell = ports[to].doorbell.ringer();
    let outgoing = Outgoing { ring: producer, bell, room: room.clone(), ring_pending: false, blocked: false };
    (Some(outgoing), Some(Incoming { ring: consumer, room }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Source, wait};
    use std::thread;
    use std::time::Duration;

    fn rung(port: &MeshPort<u64>) -> bool {
        wait([Source::readable(port.doorbell())], Some(Duration::ZERO)).unwrap()[0].readable
    }

    #[test]
    fn each_pair_keeps_its_order_and_no_sender_starves() {
        let mut ports = Mesh::new(3, 8).unwrap();
        for message in 0..8 {
            ports[1].try_send(0, 100 + message).unwrap();
            ports[2].try_send(0, 200 + message).unwrap();
        }
        let mut got = Vec::new();
        while ports[0].drain(5, |from, message| got.push((from, message))) > 0 {}
        let from =
            |shard| got.iter().filter(|(from, _)| *from == shard).map(|(_, message)| *message).collect::<Vec<_>>();
        assert_eq!(from(1), (100..108).collect::<Vec<_>>());
        assert_eq!(from(2), (200..208).collect::<Vec<_>>());
        assert!(got[..10].iter().filter(|(from, _)| *from == 2).count() == 5);
    }

    #[test]
    fn a_full_ring_gives_the_message_back_and_affects_no_other_pair() {
        let mut ports = Mesh::new(3, 2).unwrap();
        assert_eq!(ports[0].free_slots(1), 2);
        ports[0].try_send(1, 1).unwrap();
        ports[0].try_send(1, 2).unwrap();
        assert_eq!(ports[0].try_send(1, 3), Err(3));
        ports[0].try_send(2, 4).unwrap();
        assert_eq!(ports[1].drain(9, |_, _| ()), 2);
        ports[0].try_send(1, 3).unwrap();
    }

    #[test]
    fn peers_that_got_messages_are_rung_once_at_the_end_of_the_turn() {
        let mut ports = Mesh::new(3, 8).unwrap();
        ports.iter().for_each(|port| port.doorbell().arm());
        ports[0].try_send(1, 1).unwrap();
        ports[0].try_send(1, 2).unwrap();
        assert!(!rung(&ports[1]));
        ports[0].ring_pending();
        assert!(rung(&ports[1]) && !rung(&ports[2]));

        ports[1].doorbell().disarm(true);
        ports[1].doorbell().arm();
        ports[0].ring_pending();
        assert!(!rung(&ports[1]));
    }

    #[test]
    fn a_sender_that_found_a_ring_full_is_rung_when_there_is_room() {
        let mut ports = Mesh::new(2, 1).unwrap();
        ports[0].try_send(1, 1).unwrap();
        assert_eq!(ports[0].try_send(1, 2), Err(2));
        ports[0].doorbell().arm();
        assert!(!ports[0].has_pending());

        ports[1].drain(1, |_, _| ());
        ports[1].ring_pending();
        assert!(rung(&ports[0]));
        assert!(ports[0].has_pending());
        assert!(!ports[0].has_pending(), "room is reported once");
    }

    /// A shard that sends `count` numbers to every peer and sleeps whenever it has nothing to do.
    fn run_shard(mut port: MeshPort<u64>, count: u64) {
        let shards = port.shards();
        let mut next_out = vec![0; shards];
        let mut next_in = vec![0; shards];
        next_out[port.shard()] = count;
        next_in[port.shard()] = count;
        while next_in.iter().chain(&next_out).any(|next| *next < count) {
            port.drain(7, |from, message| {
                assert_eq!(message, next_in[from]);
                next_in[from] += 1;
            });
            for (to, next) in next_out.iter_mut().enumerate() {
                while *next < count && port.try_send(to, *next).is_ok() {
                    *next += 1;
                }
            }
            port.ring_pending();
            port.doorbell().arm();
            let rung = !port.has_pending() && wait_unless_done(&port, &next_in, &next_out, count);
            port.doorbell().disarm(rung);
        }
    }

    fn wait_unless_done(port: &MeshPort<u64>, next_in: &[u64], next_out: &[u64], count: u64) -> bool {
        let done = next_in.iter().chain(next_out).all(|next| *next == count);
        !done && wait([Source::readable(port.doorbell())], None).unwrap()[0].readable
    }

    #[test]
    fn sleeping_shards_exchange_everything_in_order_over_tiny_rings() {
        let ports = Mesh::new(4, 3).unwrap();
        let shards: Vec<_> = ports.into_iter().map(|port| thread::spawn(|| run_shard(port, 20_000))).collect();
        for shard in shards {
            shard.join().unwrap();
        }
    }
}
