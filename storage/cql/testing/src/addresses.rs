//! Loopback addresses of a cluster's own.
//!
//! A cluster gets a block `127.A.B.0/24`: node 1 has `127.A.B.1` and so on, all with the same ports; what stands in for
//! them towards clients has `127.A.B.101` and so on. A socket that is
//! bound to the last address of the block for as long as the cluster lives keeps others away, in this process and in any
//! other: the kernel gives an address and port to one socket only. Nothing is written anywhere, so nothing can be stale.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::LaunchError;

/// Of the address that stands for the whole block.
const RESERVATION: (u8, u16) = (254, 7_999);
/// Second octets, far from the 127.0 that others use.
const FIRST_OCTET: u32 = 64;
const BLOCKS: u32 = 128 * 256;
const TRIES_MAX: u32 = 1_024;
/// The usual ports, moved up in these steps if another program listens on one of them at every address.
const PORT_STEP: u16 = 100;
const PORT_STEPS: u16 = 16;
const NATIVE_PORT: u16 = 9_042;
const STORAGE_PORT: u16 = 7_000;

/// Hosts of the nodes' stand-ins begin after this one.
const STAND_INS: u8 = 100;

/// A block of addresses; nobody else gets it until this is dropped.
#[derive(Debug)]
pub(crate) struct Addresses {
    _reservation: TcpListener,
    block: [u8; 2],
    /// Of CQL.
    pub(crate) native_port: u16,
    /// Of the nodes among themselves.
    pub(crate) storage_port: u16,
}

impl Addresses {
    pub(crate) fn reserve(nodes: usize) -> Result<Self, LaunchError> {
        (0..TRIES_MAX).find_map(|_| Self::try_reserve(next_block(), nodes)).ok_or(LaunchError::Addresses)
    }

    fn try_reserve(block: [u8; 2], nodes: usize) -> Option<Self> {
        let (host, port) = RESERVATION;
        let reservation = TcpListener::bind((address(block, host), port)).ok()?;
        let free = |port: &u16| hosts(nodes).all(|host| TcpListener::bind((address(block, host), *port)).is_ok());
        let ports = |usual: u16| (0..PORT_STEPS).map(move |step| usual + step * PORT_STEP);
        let native_port = ports(NATIVE_PORT).find(free)?;
        let storage_port = ports(STORAGE_PORT).find(free)?;
        Some(Self { _reservation: reservation, block, native_port, storage_port })
    }

    /// Of a node, counted from 1.
    pub(crate) fn ip(&self, node: usize) -> IpAddr {
        address(self.block, u8::try_from(node).unwrap_or(u8::MAX)).into()
    }

    /// Of what stands in for a node towards clients.
    pub(crate) fn stand_in_ip(&self, node: usize) -> IpAddr {
        address(self.block, STAND_INS.saturating_add(u8::try_from(node).unwrap_or(u8::MAX))).into()
    }

    /// Where that answers CQL.
    pub(crate) fn stand_in(&self, node: usize) -> SocketAddr {
        (self.stand_in_ip(node), self.native_port).into()
    }

    /// Where a node answers CQL.
    pub(crate) fn native(&self, node: usize) -> SocketAddr {
        (self.ip(node), self.native_port).into()
    }
}

fn hosts(nodes: usize) -> impl Iterator<Item = u8> {
    (1..=u8::MAX).take(nodes).chain((STAND_INS + 1..=u8::MAX).take(nodes))
}

fn address(block: [u8; 2], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, block[0], block[1], host)
}

/// Processes begin at different blocks, so that they seldom meet; where they do, the reservation decides.
fn next_block() -> [u8; 2] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let spread = process::id().wrapping_mul(2_654_435_761) >> 16;
    let block = spread.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
    let [_, _, _, low] = block.to_be_bytes();
    let [_, _, _, high] = (FIRST_OCTET + block / 256).to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_given_once_until_it_is_returned() {
        let first = Addresses::reserve(3).unwrap();
        assert!(Addresses::try_reserve(first.block, 1).is_none());
        let second = Addresses::reserve(3).unwrap();
        assert_ne!(first.ip(1), second.ip(1));
        let block = first.block;
        drop(first);
        assert!(Addresses::try_reserve(block, 1).is_some());
    }

    #[test]
    fn a_port_that_is_taken_at_one_address_is_passed_over_at_all() {
        let block = next_block();
        let _taken = TcpListener::bind((address(block, 2), NATIVE_PORT)).unwrap();
        let addresses = Addresses::try_reserve(block, 3).unwrap();
        assert_eq!(addresses.native_port, NATIVE_PORT + PORT_STEP);
        assert_eq!(addresses.native(3).to_string(), format!("{}:9142", address(block, 3)));
    }
}
