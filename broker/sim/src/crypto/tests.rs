//! Two `quinn-proto` endpoints in virtual time, joined by a wire that the test can bend.

use std::{collections::VecDeque, net::SocketAddr, time::Duration, time::Instant};

use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionEvent, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, StreamId, TransportConfig, VarInt,
};

use super::*;
use crate::{
    clock::{Clock, Moment},
    digest::Running,
    quic,
    random::Random,
};

const LATENCY: Duration = Duration::from_millis(10);

/// A datagram on its way: when, from which address of the client, to the server or back.
struct Flight {
    at: Moment,
    to_server: bool,
    client: SocketAddr,
    bytes: BytesMut,
}

struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    events: Vec<Event>,
}

struct Pair {
    clock: Clock,
    now: Moment,
    client: End,
    server: End,
    client_address: SocketAddr,
    flights: VecDeque<Flight>,
    chance: Random,
    loss_per_mille: u32,
    damage_per_mille: u32,
    trace: Running,
}

impl Pair {
    fn new(seed: u64, client_protocols: &[&[u8]]) -> Self {
        let mut random = Random::new(seed, "pair");
        let clock = Clock::start();
        let mut transport = TransportConfig::default();
        transport.max_idle_timeout(Some(VarInt::from_u32(10_000).into()));
        transport.keep_alive_interval(Some(Duration::from_secs(1)));
        let transport = std::sync::Arc::new(transport);
        let mut server_config = quic::server_config(NullCrypto::new(&[b"other", b"test/1"]), &mut random);
        server_config.transport_config(transport.clone());
        let endpoint = |random: &mut Random, server| {
            let config: EndpointConfig = quic::endpoint_config(random);
            let side = Endpoint::new(std::sync::Arc::new(config), server, false, None);
            End { endpoint: side, connection: None, events: Vec::new() }
        };
        let mut client = endpoint(&mut random, None);
        let server = endpoint(&mut random, Some(std::sync::Arc::new(server_config)));
        let mut config: ClientConfig = quic::client_config(NullCrypto::new(client_protocols), &mut random);
        config.transport_config(transport);
        let now = Moment::default();
        let remote = "10.0.0.1:443".parse().unwrap();
        client.connection = Some(client.endpoint.connect(clock.instant(now), config, remote, "broker").unwrap());
        Self {
            clock,
            now,
            client,
            server,
            client_address: "10.0.1.1:5000".parse().unwrap(),
            flights: VecDeque::new(),
            chance: Random::new(seed, "wire"),
            loss_per_mille: 0,
            damage_per_mille: 0,
            trace: Running::default(),
        }
    }

    fn connection(&mut self, client: bool) -> &mut Connection {
        let side = if client { &mut self.client } else { &mut self.server };
        &mut side.connection.as_mut().unwrap().1
    }

    fn transmit(&mut self) {
        for to_server in [true, false] {
            let now = self.clock.instant(self.now);
            let side = if to_server { &mut self.client } else { &mut self.server };
            let Some((_, connection)) = &mut side.connection else { continue };
            let mut sent = Vec::new();
            let mut buffer = Vec::new();
            while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
                sent.push(BytesMut::from(&buffer[..transmit.size]));
                buffer.clear();
            }
            for bytes in sent {
                self.send(to_server, bytes);
            }
        }
    }

    fn send(&mut self, to_server: bool, mut bytes: BytesMut) {
        self.trace.add(&bytes);
        if self.chance.per_mille(self.loss_per_mille) {
            return;
        }
        if self.chance.per_mille(self.damage_per_mille) {
            let at = self.chance.index(bytes.len());
            bytes[at] ^= 1 << self.chance.below(8);
        }
        self.flights.push_back(Flight { at: self.now + LATENCY, to_server, client: self.client_address, bytes });
    }

    fn receive(&mut self, flight: Flight) {
        let now = self.clock.instant(self.now);
        let (side, remote) = match flight.to_server {
            true => (&mut self.server, flight.client),
            false if flight.client != self.client_address => return,
            false => (&mut self.client, "10.0.0.1:443".parse().unwrap()),
        };
        let mut buffer = Vec::new();
        let mut response = None;
        match side.endpoint.handle(now, remote, None, None, flight.bytes, &mut buffer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => side.handle(event),
            Some(DatagramEvent::NewConnection(incoming)) => {
                match side.endpoint.accept(incoming, now, &mut buffer, None) {
                    Ok(accepted) => side.connection = Some(accepted),
                    Err(error) => response = error.response,
                }
            }
            Some(DatagramEvent::Response(transmit)) => response = Some(transmit),
            None => {}
        }
        if let Some(transmit) = response {
            self.send(!flight.to_server, BytesMut::from(&buffer[..transmit.size]));
        }
    }

    /// Lets so much time pass.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.settle();
            let flight = self.flights.front().map(|flight| flight.at);
            let clock = self.clock;
            let timer = |side: &mut End| side.connection.as_mut()?.1.poll_timeout().map(|at| clock.moment(at));
            let next = [flight, timer(&mut self.client), timer(&mut self.server)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            while self.flights.front().is_some_and(|flight| flight.at <= self.now) {
                let flight = self.flights.pop_front().unwrap();
                self.receive(flight);
            }
            let now: Instant = clock.instant(self.now);
            for side in [&mut self.client, &mut self.server] {
                if let Some((_, connection)) = &mut side.connection {
                    connection.handle_timeout(now);
                }
            }
        }
        self.now = end;
    }

    fn settle(&mut self) {
        for side in [&mut self.client, &mut self.server] {
            side.exchange_events();
        }
        self.transmit();
    }

    fn write(&mut self, stream: StreamId, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.connection(true).send_stream(stream).write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(_) => self.run(LATENCY),
            }
        }
    }

    fn read(&mut self, stream: StreamId) -> Vec<u8> {
        let mut read = Vec::new();
        let mut streams = self.connection(false).recv_stream(stream);
        let Ok(mut chunks) = streams.read(true) else { return read };
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            read.extend_from_slice(&chunk.bytes);
        }
        let _ = chunks.finalize();
        read
    }
}

impl End {
    fn handle(&mut self, event: ConnectionEvent) {
        if let Some((_, connection)) = &mut self.connection {
            connection.handle_event(event);
        }
    }

    fn exchange_events(&mut self) {
        let Some((handle, connection)) = &mut self.connection else { return };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        self.events.extend(std::iter::from_fn(|| connection.poll()));
    }

    fn is_connected(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Connected))
    }

    fn lost(&self) -> Option<&ConnectionError> {
        self.events.iter().find_map(|event| match event {
            Event::ConnectionLost { reason } => Some(reason),
            _ => None,
        })
    }
}

fn connected(seed: u64) -> Pair {
    let mut pair = Pair::new(seed, &[b"test/1"]);
    pair.run(Duration::from_millis(200));
    assert!(pair.client.is_connected() && pair.server.is_connected());
    pair
}

/// Sends `bytes` to the server and gives back what arrives.
fn carry(pair: &mut Pair, bytes: &[u8], time: Duration) -> Vec<u8> {
    let stream = pair.connection(true).streams().open(Dir::Uni).unwrap();
    pair.write(stream, bytes);
    let mut read = Vec::new();
    for _ in 0..100 {
        pair.run(time / 100);
        read.extend(pair.read(stream));
    }
    read
}

#[test]
fn a_handshake_agrees_on_the_protocol_and_the_name() {
    let mut pair = connected(1);
    let data = |pair: &mut Pair, client| {
        pair.connection(client).crypto_session().handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok())
    };
    let (client, server) = (data(&mut pair, true).unwrap(), data(&mut pair, false).unwrap());
    assert_eq!((&client.protocol[..], client.server_name), (&b"test/1"[..], None));
    assert_eq!((&server.protocol[..], server.server_name.as_deref()), (&b"test/1"[..], Some("broker")));
}

#[test]
fn no_protocol_in_common_ends_the_handshake() {
    let mut pair = Pair::new(1, &[b"foreign"]);
    pair.run(Duration::from_secs(1));
    assert!(!pair.client.is_connected());
    assert!(matches!(pair.client.lost(), Some(ConnectionError::ConnectionClosed(_))), "{:?}", pair.client.events);
}

#[test]
fn a_stream_arrives_whole_over_a_wire_that_loses_and_damages() {
    let mut pair = connected(2);
    (pair.loss_per_mille, pair.damage_per_mille) = (100, 100);
    let sent: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    assert!(carry(&mut pair, &sent, Duration::from_secs(60)) == sent);
    assert!(pair.client.lost().is_none() && pair.server.lost().is_none());
}

#[test]
fn a_handshake_survives_loss() {
    let mut pair = Pair::new(3, &[b"test/1"]);
    pair.loss_per_mille = 300;
    pair.run(Duration::from_secs(9));
    assert!(pair.client.is_connected() && pair.server.is_connected());
}

#[test]
fn a_client_that_changes_its_address_keeps_its_connection() {
    let mut pair = connected(4);
    pair.client_address = "10.0.2.2:7000".parse().unwrap();
    assert_eq!(carry(&mut pair, b"after the change", Duration::from_secs(2)), b"after the change");
    assert_eq!(pair.connection(false).remote_address(), "10.0.2.2:7000".parse().unwrap());
}

#[test]
fn keys_can_be_updated() {
    let mut pair = connected(5);
    for round in 0..3_u8 {
        pair.connection(true).force_key_update();
        assert_eq!(carry(&mut pair, &[round; 9], Duration::from_secs(1)), [round; 9]);
    }
}

#[test]
fn a_close_reaches_the_peer() {
    let mut pair = connected(6);
    let now = pair.clock.instant(pair.now);
    pair.connection(true).close(now, VarInt::from_u32(42), Bytes::from_static(b"bye"));
    pair.run(Duration::from_secs(1));
    let Some(ConnectionError::ApplicationClosed(close)) = pair.server.lost() else {
        panic!("{:?}", pair.server.events)
    };
    assert_eq!((close.error_code, &close.reason[..]), (VarInt::from_u32(42), &b"bye"[..]));
}

#[test]
fn a_packet_of_another_connection_fails_its_tag() {
    let header = [1, 2, 3];
    let seal = |secret| {
        let mut packet = [&header[..], b"payload", &[0; TAG_BYTES]].concat();
        NullPacketKey(secret).encrypt(9, &mut packet, header.len());
        BytesMut::from(&packet[header.len()..])
    };
    assert!(NullPacketKey(1).decrypt(9, &header, &mut seal(1)).is_ok());
    assert!(NullPacketKey(1).decrypt(9, &header, &mut seal(2)).is_err());
    assert!(NullPacketKey(1).decrypt(8, &header, &mut seal(1)).is_err());
    assert!(NullPacketKey(1).decrypt(9, &header[1..], &mut seal(1)).is_err());
    assert!(NullPacketKey(1).decrypt(9, &header, &mut BytesMut::new()).is_err());
}

#[test]
fn the_same_seed_sends_the_same_bytes() {
    let trace = |seed| {
        let mut pair = Pair::new(seed, &[b"test/1"]);
        pair.loss_per_mille = 50;
        pair.run(Duration::from_secs(5));
        carry(&mut pair, &[7; 50_000], Duration::from_secs(5));
        pair.trace.value()
    };
    assert_eq!(trace(8), trace(8));
    assert_ne!(trace(8), trace(9));
}
