//! Batched sending and receiving over real loopback sockets.
#![allow(clippy::unwrap_used, reason = "a failed call fails the test")]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use antiphon_sys::poller::{Source, wait};
use antiphon_sys::udp::{Ecn, MAX_SEGMENTS, Receiver, SendBatch, ShardSocket, Transmit};

/// Only bounds a test that fails; none waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, PartialEq)]
struct Arrival {
    remote: SocketAddr,
    local_ip: Option<IpAddr>,
    ecn: Option<Ecn>,
    payload: Vec<u8>,
}

fn shard_socket(addr: &str) -> ShardSocket {
    ShardSocket::new(UdpSocket::bind(addr).unwrap()).unwrap()
}

fn to(destination: SocketAddr) -> Transmit {
    Transmit { destination, src_ip: None, ecn: None, segment_size: None }
}

/// Receives exactly `count` datagrams, at most `budget` per call.
fn receive(socket: &ShardSocket, count: usize, budget: usize) -> Vec<Arrival> {
    let mut receiver = Receiver::default();
    let mut arrivals = Vec::new();
    while arrivals.len() < count {
        let before = arrivals.len();
        let handed_over = receiver
            .receive(socket, budget, |datagram| {
                let payload = datagram.payload.to_vec();
                let (remote, local_ip, ecn) = (datagram.remote, datagram.local_ip, datagram.ecn);
                arrivals.push(Arrival { remote, local_ip, ecn, payload });
            })
            .unwrap();
        assert_eq!(handed_over, arrivals.len() - before);
        assert!(handed_over <= budget);
        if handed_over < budget && arrivals.len() < count {
            let [ready] = wait([Source::readable(socket)], Some(PATIENCE)).unwrap();
            assert!(ready.readable, "only {} of {count} datagrams came", arrivals.len());
        }
    }
    assert_eq!(receiver.receive(socket, budget, |_| panic!("a datagram too many")).unwrap(), 0);
    arrivals
}

#[test]
fn a_batch_reaches_each_of_its_receivers_in_order() {
    let sender = shard_socket("127.0.0.1:0");
    let receivers: Vec<_> = (0..3).map(|_| shard_socket("127.0.0.1:0")).collect();
    let mut batch = SendBatch::default();
    for number in 0..60u8 {
        let receiver = &receivers[usize::from(number) % 3];
        batch.push(to(receiver.local_addr().unwrap()), &[number; 100]).unwrap();
    }
    assert_eq!(batch.flush(&sender).unwrap(), 60);
    assert!(batch.is_empty());
    for (first, receiver) in (0u8..).zip(&receivers) {
        let arrivals = receive(receiver, 20, 7);
        let expected: Vec<_> = (0..20).map(|turn| vec![first + 3 * turn; 100]).collect();
        assert!(arrivals.iter().all(|arrival| arrival.remote == sender.local_addr().unwrap()));
        assert_eq!(arrivals.into_iter().map(|arrival| arrival.payload).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_segmented_burst_arrives_whole_under_any_budget() {
    for budget in [1, 3, 64] {
        let (sender, receiver) = (shard_socket("127.0.0.1:0"), shard_socket("127.0.0.1:0"));
        assert_eq!(sender.max_segments(), MAX_SEGMENTS, "this kernel has no segmentation offload");
        let bytes: Vec<u8> = (0..9 * 1200 + 500u32).map(|at| (at / 100) as u8).collect();
        let burst = Transmit { segment_size: Some(1200), ..to(receiver.local_addr().unwrap()) };
        let mut batch = SendBatch::default();
        batch.push(burst, &bytes).unwrap();
        batch.push(burst, &bytes[..1200]).unwrap();
        assert_eq!(batch.flush(&sender).unwrap(), 2);
        let payloads: Vec<_> = receive(&receiver, 11, budget).into_iter().map(|arrival| arrival.payload).collect();
        assert_eq!(payloads[..10].concat(), bytes);
        assert!(payloads[..9].iter().all(|payload| payload.len() == 1200));
        assert_eq!(payloads[10], bytes[..1200]);
    }
}

#[test]
fn source_address_and_ecn_mark_are_honoured_and_reported() {
    let (sender, receiver) = (shard_socket("0.0.0.0:0"), shard_socket("0.0.0.0:0"));
    let mut batch = SendBatch::default();
    let marks = [None, Some(Ecn::Ect0), Some(Ecn::Ect1), Some(Ecn::Ce)];
    for (host, ecn) in (2..).zip(marks) {
        let destination = SocketAddr::from(([127, 0, 0, 10 + host], receiver.local_addr().unwrap().port()));
        let src_ip = Some(IpAddr::from([127, 0, 0, host]));
        batch.push(Transmit { destination, src_ip, ecn, segment_size: None }, &[host]).unwrap();
    }
    assert_eq!(batch.flush(&sender).unwrap(), 4);
    for ((host, ecn), arrival) in (2..).zip(marks).zip(receive(&receiver, 4, 64)) {
        assert_eq!(arrival.remote.ip(), IpAddr::from([127, 0, 0, host]));
        assert_eq!(arrival.local_ip, Some(IpAddr::from([127, 0, 0, 10 + host])));
        assert_eq!((arrival.ecn, arrival.payload), (ecn, vec![host]));
    }
}

#[test]
fn a_dual_stack_socket_answers_both_families_from_the_address_they_asked() {
    let server = shard_socket("[::]:0");
    let port = server.local_addr().unwrap().port();
    for (client, asked) in [("127.0.0.1:0", "127.0.0.9"), ("[::1]:0", "::1")] {
        let client = shard_socket(client);
        let asked: IpAddr = asked.parse().unwrap();
        let mut batch = SendBatch::default();
        let question = Transmit { ecn: Some(Ecn::Ect0), ..to(SocketAddr::new(asked, port)) };
        batch.push(question, b"question").unwrap();
        batch.flush(&client).unwrap();

        let question = receive(&server, 1, 64).remove(0);
        assert_eq!(question.local_ip.unwrap().to_canonical(), asked);
        assert_eq!((question.ecn, &question.payload[..]), (Some(Ecn::Ect0), &b"question"[..]));

        let answer = Transmit { src_ip: question.local_ip, ecn: Some(Ecn::Ce), ..to(question.remote) };
        batch.push(Transmit { segment_size: Some(4), ..answer }, b"answ-er").unwrap();
        assert_eq!(batch.flush(&server).unwrap(), 1);
        let arrivals = receive(&client, 2, 64);
        assert!(arrivals.iter().all(|arrival| arrival.remote == SocketAddr::new(asked, port)));
        assert!(arrivals.iter().all(|arrival| arrival.ecn == Some(Ecn::Ce)));
        assert_eq!(arrivals[1].payload, b"-er");
    }
}

#[test]
fn a_burst_the_kernel_cannot_segment_goes_out_in_single_packets_for_good() {
    let (sender, receiver) = (shard_socket("127.0.0.1:0"), shard_socket("127.0.0.1:0"));
    let mut batch = SendBatch::default();
    let destination = receiver.local_addr().unwrap();
    // More segments than any kernel takes in one send.
    let bytes: Vec<u8> = (0..150u8).collect();
    batch.push(Transmit { segment_size: Some(1), ..to(destination) }, &bytes).unwrap();
    batch.push(to(destination), b"behind").unwrap();
    assert_eq!(batch.flush(&sender).unwrap(), 151);
    assert_eq!((batch.refused(), sender.max_segments()), (0, 1));
    let payloads: Vec<_> = receive(&receiver, 151, 64).into_iter().map(|arrival| arrival.payload).collect();
    assert_eq!(payloads[..150].concat(), bytes);
    assert_eq!(payloads[150], b"behind");
}

#[test]
fn messages_the_kernel_refuses_leave_the_others_and_segmentation_alone() {
    let (sender, receiver) = (shard_socket("127.0.0.1:0"), shard_socket("127.0.0.1:0"));
    let good = to(receiver.local_addr().unwrap());
    let mut batch = SendBatch::default();
    batch.push(good, b"first").unwrap();
    batch.push(good, &[0; 70_000]).unwrap();
    batch.push(to(SocketAddr::from(([192, 0, 2, 1], 9))), b"no route from loopback").unwrap();
    let foreign_source = Some(IpAddr::from([192, 0, 2, 1]));
    batch.push(Transmit { src_ip: foreign_source, segment_size: Some(2), ..good }, b"not our address").unwrap();
    batch.push(good, b"last").unwrap();
    assert_eq!(batch.flush(&sender).unwrap(), 2);
    assert_eq!((batch.refused(), sender.max_segments()), (3, MAX_SEGMENTS));
    let payloads: Vec<_> = receive(&receiver, 2, 64).into_iter().map(|arrival| arrival.payload).collect();
    assert_eq!(payloads, [&b"first"[..], &b"last"[..]]);
}

#[test]
fn a_peer_that_is_gone_does_not_disturb_the_socket() {
    let (sender, receiver) = (shard_socket("127.0.0.1:0"), shard_socket("127.0.0.1:0"));
    // An address of its own, so that no other test gets the port.
    let gone = UdpSocket::bind("127.0.78.1:0").unwrap().local_addr().unwrap();
    let mut batch = SendBatch::default();
    for _ in 0..3 {
        batch.push(to(gone), b"anybody?").unwrap();
        batch.push(to(receiver.local_addr().unwrap()), b"you").unwrap();
        assert_eq!(batch.flush(&sender).unwrap(), 2);
    }
    assert_eq!(Receiver::default().receive(&sender, 64, |_| panic!("nobody answers")).unwrap(), 0);
    assert_eq!(receive(&receiver, 3, 64).len(), 3);
}

#[test]
fn empty_datagrams_are_handed_over_like_others() {
    let (sender, receiver) = (shard_socket("127.0.0.1:0"), shard_socket("127.0.0.1:0"));
    let mut batch = SendBatch::default();
    for bytes in [&b""[..], b"x", b""] {
        batch.push(to(receiver.local_addr().unwrap()), bytes).unwrap();
    }
    assert_eq!(batch.flush(&sender).unwrap(), 3);
    let lengths: Vec<_> = receive(&receiver, 3, 2).iter().map(|arrival| arrival.payload.len()).collect();
    assert_eq!(lengths, [0, 1, 0]);
}
