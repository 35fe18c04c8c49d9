//! Raw datagrams that no honest client sends: random ones, damaged and repeated real ones, handshakes that go nowhere.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Instant,
};

use bytes::BytesMut;

use super::peer::{Habits, Peer};
use crate::random::Random;

/// Real datagrams that are remembered.
const REMEMBERED: usize = 64;
/// Handshakes of one flood: above the number from which a client must prove its address.
const FLOOD: u64 = 90;

/// The source of raw datagrams of one world.
#[derive(Debug)]
pub(super) struct Noise {
    random: Random,
    real: VecDeque<BytesMut>,
    /// Datagrams made so far.
    pub(super) made: u64,
}

impl Noise {
    /// A source whose datagrams follow from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed, "noise"), real: VecDeque::new(), made: 0 }
    }

    /// Remembers a real datagram, at times.
    pub(super) fn notice(&mut self, bytes: &BytesMut) {
        if self.random.per_mille(30) {
            if self.real.len() == REMEMBERED {
                self.real.pop_front();
            }
            self.real.push_back(bytes.clone());
        }
    }

    /// A datagram and where it comes from.
    pub(super) fn make(&mut self) -> (SocketAddr, BytesMut) {
        self.made += 1;
        let random = &mut self.random;
        let real = if self.real.is_empty() { None } else { self.real.get(random.index(self.real.len())) };
        let mut bytes = match real {
            Some(real) if !random.per_mille(300) => real.clone(),
            _ => random_bytes(random, 1_500),
        };
        match random.below(8) {
            0 => {
                let len = random.index(bytes.len() + 1);
                bytes.truncate(len);
            }
            1..4 => {
                for _ in 0..=random.below(8) {
                    if !bytes.is_empty() {
                        let at = random.index(bytes.len());
                        bytes[at] ^= 1 << random.below(8);
                    }
                }
            }
            // A version that nobody speaks, or the one that stands for negotiation.
            4 if bytes.len() > 6 => {
                bytes[0] |= 0xc0;
                let version = [0x0a1a_2a3a, 0, 2, u32::MAX][random.index(4)];
                bytes[1..5].copy_from_slice(&version.to_be_bytes());
            }
            // A short header with somebody else's connection id, or one that was made up.
            5 if bytes.len() > 9 => {
                bytes[0] = 0x40 | (bytes[0] & 0x3f);
                random.fill(&mut bytes[1..9]);
            }
            // Two in one.
            6 => bytes.extend_from_slice(&random_bytes(random, 400)),
            // As it was, and often from somewhere else.
            _ => {}
        }
        (address(random), bytes)
    }

    /// The first flights of handshakes that nobody goes on with.
    pub(super) fn flood(&mut self, now: Instant, shard: usize) -> Vec<(SocketAddr, BytesMut)> {
        let habits = Habits { deaf_window: None, write_bytes_max: 0, hears_all: false };
        let mut flights = Vec::new();
        for _ in 0..FLOOD {
            let from = address(&mut self.random);
            let mut out = Vec::new();
            Peer::new(now, from, shard, habits, &mut self.random).step(now, &mut out);
            flights.extend(out.into_iter().map(|bytes| (from, bytes)));
        }
        self.made += flights.len() as u64;
        flights
    }
}

fn random_bytes(random: &mut Random, len_max: usize) -> BytesMut {
    let mut bytes = BytesMut::zeroed(random.index(len_max));
    random.fill(&mut bytes);
    bytes
}

/// Somewhere that no peer is.
fn address(random: &mut Random) -> SocketAddr {
    let port = 1_024 + random.below(60_000) as u16;
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 9, 9, random.below(250) as u8)), port)
}
