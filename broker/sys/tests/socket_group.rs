//! Groups of sockets at one address, and who gets which datagram.
#![allow(clippy::unwrap_used, reason = "a failed call fails the test")]

use std::net::{SocketAddr, UdpSocket};

use antiphon_sys::cid::shard_of_datagram;
use antiphon_sys::group::{BindError, GroupOptions, SocketGroup};
use antiphon_sys::mesh::Mesh;
use antiphon_sys::udp::{Receiver, ShardSocket};

const LOOPBACK: &str = "127.0.0.1:0";

fn bind(addr: &str, shards: usize, options: GroupOptions) -> Result<SocketGroup, BindError> {
    SocketGroup::bind(addr.parse().unwrap(), shards, options)
}

fn portable() -> GroupOptions {
    GroupOptions { kernel_steering: false, ..GroupOptions::default() }
}

/// Short and long headers with every value of the byte that counts, from changing clients, and noise elsewhere.
fn datagrams() -> impl Iterator<Item = [u8; 24]> {
    (0..512u32).map(|number| {
        let mut bytes: [u8; 24] = std::array::from_fn(|at| (number.wrapping_mul(2_654_435_761) >> (at % 4 * 8)) as u8);
        let (flag, offset) = if number % 2 == 0 { (0xc0, 6) } else { (0x40, 1) };
        bytes[0] = flag | bytes[0] & 0x3f;
        bytes[offset] = (number / 2) as u8;
        bytes
    })
}

fn drain(socket: &ShardSocket, receiver: &mut Receiver, mut accept: impl FnMut(Vec<u8>)) {
    while receiver.receive(socket, 64, |datagram| accept(datagram.payload.to_vec())).unwrap() > 0 {}
}

/// Sends all [`datagrams`] and returns what each shard's socket got.
fn spread(group: &SocketGroup, target: SocketAddr) -> Vec<Vec<Vec<u8>>> {
    let sockets: Vec<_> = (0..group.shards()).map(|shard| group.socket(shard).unwrap()).collect();
    let mut receivers: Vec<_> = sockets.iter().map(|_| Receiver::default()).collect();
    let mut got = vec![Vec::new(); group.shards()];
    let any = if target.is_ipv6() { "[::1]:0" } else { LOOPBACK };
    let datagrams: Vec<_> = datagrams().collect();
    // Small portions, so that the default receive buffer of any system holds them.
    for portion in datagrams.chunks(32) {
        let client = UdpSocket::bind(any).unwrap();
        for datagram in portion {
            client.send_to(datagram, target).unwrap();
        }
        for (shard, socket) in sockets.iter().enumerate() {
            drain(socket, &mut receivers[shard], |datagram| got[shard].push(datagram));
        }
    }
    got
}

#[test]
fn without_the_filter_forwarding_gives_every_shard_its_datagrams() {
    let group = bind(LOOPBACK, 4, portable()).unwrap();
    assert!(!group.kernel_steers());
    let mut ports = Mesh::new(4, 512).unwrap();
    let mut own = [0; 4];
    let mut foreign = 0;
    for (shard, datagrams) in spread(&group, group.local_addr()).into_iter().enumerate() {
        for datagram in datagrams {
            match shard_of_datagram(&datagram, 4).unwrap() {
                owner if owner == shard => own[shard] += 1,
                owner => {
                    foreign += 1;
                    ports[shard].try_send(owner, datagram).unwrap();
                }
            }
        }
    }
    assert!(foreign > 0, "the kernel's hash ignores connection ids");
    for (shard, port) in ports.iter_mut().enumerate() {
        own[shard] += port.drain(usize::MAX, |_, datagram| assert_eq!(shard_of_datagram(&datagram, 4), Some(shard)));
    }
    assert_eq!(own, [128; 4]);
}

#[test]
fn an_address_in_use_is_never_shared() {
    for (mine, theirs) in [(1, 1), (1, 4), (4, 1), (4, 4)] {
        // An address of its own, so that no other test gets the port while it is free.
        let group = bind("127.0.77.1:0", mine, GroupOptions::default()).unwrap();
        let addr = group.local_addr();
        let second = SocketGroup::bind(addr, theirs, GroupOptions::default());
        assert!(matches!(second, Err(BindError::AddressInUse(refused)) if refused == addr));
        drop(group);
        SocketGroup::bind(addr, theirs, GroupOptions::default()).unwrap();
    }
}

#[test]
fn a_group_takes_no_address_from_a_plain_socket() {
    let plain = UdpSocket::bind(LOOPBACK).unwrap();
    let addr = plain.local_addr().unwrap();
    let group = SocketGroup::bind(addr, 2, GroupOptions::default());
    assert!(matches!(group, Err(BindError::AddressInUse(_))));
}

#[test]
fn impossible_groups_are_refused() {
    assert!(matches!(bind(LOOPBACK, 0, portable()), Err(BindError::ShardCount(0))));
    assert!(matches!(bind(LOOPBACK, 257, portable()), Err(BindError::ShardCount(257))));
    assert!(matches!(bind("192.0.2.1:0", 2, portable()), Err(BindError::Bind { .. })));
}

#[test]
fn granted_buffers_are_those_of_the_sockets() {
    let options = GroupOptions { receive_buffer: 32 << 10, send_buffer: 48 << 10, ..GroupOptions::default() };
    let granted = bind(LOOPBACK, 2, options).unwrap().granted_buffers();
    assert_eq!((granted.receive, granted.send), (32 << 10, 48 << 10));
}

/// Only Linux has the filter.
#[cfg(target_os = "linux")]
mod steered {
    use super::*;
    use antiphon_sys::poller::{Source, wait};
    use std::time::Duration;

    #[test]
    fn the_kernel_and_the_function_agree_on_every_byte() {
        for shards in [1, 2, 4, 7] {
            let group = bind(LOOPBACK, shards, GroupOptions::default()).unwrap();
            assert!(group.kernel_steers());
            let got = spread(&group, group.local_addr());
            for (shard, datagrams) in got.iter().enumerate() {
                assert!(datagrams.iter().all(|datagram| shard_of_datagram(datagram, shards) == Some(shard)));
                let expected = 2 * (0..256).filter(|byte| byte % shards == shard).count();
                assert_eq!(datagrams.len(), expected, "shard {shard} of {shards}");
            }
        }
    }

    #[test]
    fn a_dual_stack_group_steers_both_families() {
        let group = bind("[::]:0", 2, GroupOptions::default()).unwrap();
        let port = group.local_addr().port();
        for target in [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::new("::1".parse().unwrap(), port)] {
            for (shard, datagrams) in spread(&group, target).iter().enumerate() {
                assert_eq!(datagrams.len(), 256);
                assert!(datagrams.iter().all(|datagram| shard_of_datagram(datagram, 2) == Some(shard)));
            }
        }
    }

    #[test]
    fn a_runt_goes_to_the_first_shard() {
        let group = bind(LOOPBACK, 4, GroupOptions::default()).unwrap();
        let client = UdpSocket::bind(LOOPBACK).unwrap();
        for runt in [&[0xc0, 1, 2, 3, 4, 5][..], &[0x40], &[]] {
            assert_eq!(shard_of_datagram(runt, 4), None);
            client.send_to(runt, group.local_addr()).unwrap();
        }
        let mut runts = 0;
        drain(&group.socket(0).unwrap(), &mut Receiver::default(), |_| runts += 1);
        assert_eq!(runts, 3);
    }

    #[test]
    fn a_shard_that_restarts_finds_its_socket_in_place() {
        let group = bind(LOOPBACK, 2, GroupOptions::default()).unwrap();
        drop(group.socket(1).unwrap());
        let client = UdpSocket::bind(LOOPBACK).unwrap();
        client.send_to(&[0x40, 1, 0], group.local_addr()).unwrap();
        client.send_to(&[0x40, 2, 0], group.local_addr()).unwrap();
        for (shard, byte) in [(1, 1), (0, 2)] {
            let socket = group.socket(shard).unwrap();
            assert!(wait([Source::readable(&socket)], Some(Duration::from_secs(10))).unwrap()[0].readable);
            drain(&socket, &mut Receiver::default(), |datagram| assert_eq!(datagram, [0x40, byte, 0]));
        }
    }
}
