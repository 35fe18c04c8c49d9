//! The SDK over WebSocket: a real broker with a real gateway before it, chosen or fallen back to, lost and found again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use antiphon_gateway_ws::{BrokerSettings, Fingerprint, Gateway, GatewayConfig, json};
use antiphon_protocol::{Direction, FrameType as Type, RawFrame};
use antiphon_sdk::{
    Carrier, Client, Config, ConnectionState, Error, Event, From, InvalidUrl, Item, LogName, MessageCodec,
    NewConversation, NewMessage, Queued, Range, Subscription, Trust, WebSocketUrl,
};
use bytes::{Bytes, BytesMut};
use tokio::net::UdpSocket;

use crate::{
    network::{TcpRelay, UdpRelay, certificate},
    real::Real,
};

const SENDS: usize = 200;

fn gateway(real: &Real, listen: SocketAddr, trunk: SocketAddr) -> Gateway {
    let broker = real.broker();
    let Ok(Trust::Fingerprint(fingerprint)) = Trust::fingerprint(broker.fingerprint()) else { unreachable!() };
    let settings = BrokerSettings {
        addresses: vec![trunk],
        server_name: "localhost".into(),
        fingerprint: Some(Fingerprint::new(fingerprint)),
        roots: Vec::new(),
        certificate_pem: broker.edge().certificate_pem.clone(),
        key_pem: broker.edge().key_pem.to_vec(),
    };
    let config = GatewayConfig {
        listen,
        origins: Vec::new(),
        broker: settings,
        development: None,
        workers: 1,
        trunks_per_worker: 1,
    };
    Gateway::start(config).unwrap()
}

fn with_gateway() -> (Real, Gateway) {
    let real = Real::start();
    let gateway = gateway(&real, any(), real.broker().trunk_address());
    (real, gateway)
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn url(address: SocketAddr) -> Option<WebSocketUrl> {
    Some(format!("http://{address}").parse().unwrap())
}

fn by_websocket(real: &Real, user: &str, address: SocketAddr) -> Config {
    Config { carrier: Carrier::WebSocket, fallback: url(address), ..real.config(user) }
}

async fn conversation(creator: &Client, with: &str) -> LogName {
    let group = NewConversation::group("tea".parse().unwrap(), [with.parse().unwrap()]);
    creator.create_conversation(group).await.unwrap().log()
}

async fn next_event(subscription: &mut Subscription) -> Event {
    loop {
        if let Item::Event(event) = subscription.next().await.expect("the subscription goes on") {
            return event;
        }
    }
}

/// The next message's text; other events are passed over.
async fn next_text(subscription: &mut Subscription) -> String {
    loop {
        let event = next_event(subscription).await;
        if event.kind() == antiphon_sdk::EventKind::MESSAGE {
            return event.text().unwrap().to_string();
        }
    }
}

async fn queue(client: &Client, log: &LogName, numbers: std::ops::Range<usize>) -> Vec<Queued> {
    let mut queued = Vec::new();
    for number in numbers {
        queued.push(client.send_queued(NewMessage::text(log.clone(), number.to_string())).await.unwrap());
    }
    queued
}

/// Nothing is lost, doubled or out of order, for a reader that was there all along and in what is stored.
async fn check(reader: &Client, events: &mut Subscription, queued: Vec<Queued>) {
    let log = events.log().clone();
    for (number, mut queued) in queued.into_iter().enumerate() {
        queued.sent().await.unwrap();
        assert_eq!(next_text(events).await, number.to_string());
    }
    let page = reader.history(Range::all(log)).await.unwrap();
    let texts: Vec<_> = page.events.iter().filter_map(Event::text).map(|text| text.to_string()).collect();
    assert_eq!(texts.len(), texts.iter().collect::<std::collections::BTreeSet<_>>().len(), "nothing is doubled");
}

async fn carried_by(client: &Client, carrier: Carrier) {
    client.carrier().wait_for(|now| *now == Some(carrier)).await.unwrap();
}

#[tokio::test]
async fn people_on_both_carriers_talk_to_each_other() {
    let (real, gateway) = with_gateway();
    let (ann, bob) = (real.connect("ann").await, by_websocket(&real, "bob", gateway.address()));
    let bob = Client::connect(bob).await.unwrap();
    assert_eq!((*ann.carrier().borrow(), *bob.carrier().borrow()), (Some(Carrier::Quic), Some(Carrier::WebSocket)));
    let log = conversation(&ann, "bob").await;
    let (mut anns, mut bobs) =
        (ann.subscribe(&log, From::Start).await.unwrap(), bob.subscribe(&log, From::Start).await.unwrap());
    for (sender, text) in [(&ann, "hello"), (&bob, "hi"), (&ann, "tea?")] {
        sender.send(&log, text).await.unwrap();
        assert_eq!((next_text(&mut anns).await, next_text(&mut bobs).await), (text.into(), text.into()));
    }
    ann.signal(&log, "typing", Bytes::new(), 500).await.unwrap();
    while !matches!(bobs.next().await, Some(Item::Signal(signal)) if signal.user == "ann") {}
    // Long ones, pages, and a page of messages.
    let long = "x".repeat(60_000);
    for _ in 0..10 {
        bob.send(&log, long.clone()).await.unwrap();
        assert_eq!(next_text(&mut anns).await.len(), long.len());
    }
    let newest = bob.history(Range::newest(log.clone(), 20)).await.unwrap();
    assert!(newest.events.iter().filter_map(Event::text).any(|text| text.len() == long.len()));
    assert!(!bob.messages(Range::all(log)).await.unwrap().messages.is_empty());
    bob.close().await;
}

#[tokio::test]
async fn udp_that_goes_nowhere_is_given_up_for_a_socket() {
    let (real, gateway) = with_gateway();
    let nowhere = UdpSocket::bind(any()).await.unwrap();
    let config = Config {
        address: nowhere.local_addr().unwrap(),
        fallback: url(gateway.address()),
        fallback_after: Duration::from_millis(100),
        ..real.config("ann")
    };
    let ann = Client::connect(config.clone()).await.unwrap();
    assert_eq!(*ann.carrier().borrow(), Some(Carrier::WebSocket));
    let log = conversation(&ann, "bob").await;
    ann.send(&log, "one").await.unwrap();
    ann.kill_connection().await.unwrap();
    ann.send(&log, "two").await.unwrap();
    // Neither gets through without the other.
    let alone = Config { connect_timeout: Duration::from_millis(500), fallback: None, ..config };
    let Err(Error::Unreachable { .. }) = Client::connect(alone).await else { panic!("QUIC cannot get through") };
}

#[tokio::test]
async fn a_client_goes_back_to_quic_and_loses_nothing() {
    let (real, gateway) = with_gateway();
    let relay = UdpRelay::start(real.broker().address()).await;
    relay.set_cut(true);
    let config = Config {
        address: relay.address,
        fallback: url(gateway.address()),
        fallback_after: Duration::from_millis(200),
        retry_quic_every: Duration::from_millis(50),
        ..real.config("ann")
    };
    let (ann, bob) = (Client::connect(config).await.unwrap(), real.connect("bob").await);
    let log = conversation(&ann, "bob").await;
    let mut own = ann.subscribe(&log, From::Start).await.unwrap();
    let mut events = bob.subscribe(&log, From::Start).await.unwrap();
    let mut queued = queue(&ann, &log, 0..SENDS).await;
    carried_by(&ann, Carrier::WebSocket).await;
    relay.set_cut(false);
    let mut carrier = ann.carrier();
    while *carrier.borrow_and_update() != Some(Carrier::Quic) {
        queued.extend(queue(&ann, &log, queued.len()..queued.len() + 1).await);
        // Each waits for the one before it, so the load is steady and the client must find its moment.
        queued.last_mut().unwrap().sent().await.unwrap();
    }
    queued.extend(queue(&ann, &log, queued.len()..queued.len() + 10).await);
    let sent = queued.len();
    check(&bob, &mut events, queued).await;
    for number in 0..sent {
        assert_eq!(next_text(&mut own).await, number.to_string());
    }
    ann.ready().await.unwrap();
}

#[tokio::test]
async fn a_gateway_that_is_started_again_loses_nothing() {
    let (real, gateway) = with_gateway();
    let address = gateway.address();
    let ann = Client::connect(by_websocket(&real, "ann", address)).await.unwrap();
    let bob = Client::connect(by_websocket(&real, "bob", address)).await.unwrap();
    let log = conversation(&ann, "bob").await;
    let mut events = bob.subscribe(&log, From::Start).await.unwrap();
    let mut queued = queue(&ann, &log, 0..SENDS / 2).await;
    queued[SENDS / 4].sent().await.unwrap();
    let stop = tokio::task::spawn_blocking(move || gateway.stop(Duration::from_secs(10)));
    queued.extend(queue(&ann, &log, SENDS / 2..SENDS).await);
    stop.await.unwrap();
    let _gateway = self::gateway(&real, address, real.broker().trunk_address());
    check(&bob, &mut events, queued).await;
}

#[tokio::test]
async fn a_broker_that_is_started_again_behind_a_living_gateway_loses_nothing() {
    let mut real = Real::start();
    let trunk = UdpRelay::start(real.broker().trunk_address()).await;
    let gateway = gateway(&real, any(), trunk.address);
    let relay = TcpRelay::start(gateway.address(), None).await;
    let ann = Client::connect(by_websocket(&real, "ann", relay.address)).await.unwrap();
    let bob = Client::connect(by_websocket(&real, "bob", relay.address)).await.unwrap();
    let log = conversation(&ann, "bob").await;
    let mut events = bob.subscribe(&log, From::Start).await.unwrap();
    let mut queued = queue(&ann, &log, 0..SENDS / 2).await;
    queued[SENDS / 4].sent().await.unwrap();
    let mut state = ann.connection_state();
    let resumed = tokio::spawn(async move {
        let waits = |state: &ConnectionState| matches!(state, ConnectionState::Waiting { .. });
        let cause = match &*state.wait_for(waits).await.unwrap() {
            ConnectionState::Waiting { cause } => cause.clone(),
            _ => unreachable!(),
        };
        let stands = |state: &ConnectionState| matches!(state, ConnectionState::Ready(_));
        let ConnectionState::Ready(session) = &*state.wait_for(stands).await.unwrap() else { unreachable!() };
        (cause, session.resumed)
    });
    // The broker's farewell does not get through, as when it crashes.
    trunk.set_cut(true);
    real = tokio::task::spawn_blocking(move || {
        real.restart();
        real
    })
    .await
    .unwrap();
    trunk.set_cut(false);
    queued.extend(queue(&ann, &log, SENDS / 2..SENDS).await);
    check(&bob, &mut events, queued).await;
    assert_eq!(resumed.await.unwrap(), ("the gateway lost the broker".into(), true));
    assert_eq!(relay.accepted(), 2, "the sockets have stayed");
    drop(real);
}

#[tokio::test]
async fn as_many_events_as_are_inlined_all_come_without_one_more() {
    let (real, gateway) = with_gateway();
    let ann = real.connect("ann").await;
    let log = conversation(&ann, "bob").await;
    for queued in &mut queue(&ann, &log, 0..100).await {
        queued.sent().await.unwrap();
    }
    let bob = Client::connect(by_websocket(&real, "bob", gateway.address())).await.unwrap();
    // However many the driver takes at once, the last of them is not left behind.
    for last in 60..=64 {
        let mut events = bob.subscribe(&log, From::Last(last)).await.unwrap();
        for number in 100 - last..100 {
            assert_eq!(next_text(&mut events).await, number.to_string());
        }
    }
}

#[tokio::test]
async fn a_subscription_that_is_not_read_loses_nothing_and_leaves_answers_alone() {
    const EVENTS: usize = 1_000;
    let (real, gateway) = with_gateway();
    let bob = Config { subscription_queue: 2, ..by_websocket(&real, "bob", gateway.address()) };
    let (ann, bob) = (real.connect("ann").await, Client::connect(bob).await.unwrap());
    let log = conversation(&ann, "bob").await;
    let mut events = bob.subscribe(&log, From::Start).await.unwrap();
    let body = "x".repeat(4_000);
    for _ in 0..EVENTS / 100 {
        let messages = (0..100).map(|_| NewMessage::text(log.clone(), body.clone())).collect();
        for sent in ann.send_batch(messages).await.unwrap() {
            sent.unwrap();
        }
    }
    for number in 0..20 {
        bob.send(&log, number.to_string()).await.unwrap();
    }
    for _ in 0..EVENTS {
        assert_eq!(next_text(&mut events).await.len(), body.len());
    }
    for number in 0..20 {
        assert_eq!(next_text(&mut events).await, number.to_string());
    }
}

#[tokio::test]
async fn a_socket_is_trusted_as_the_broker_is() {
    let (real, gateway) = with_gateway();
    let (tls, pin, root) = certificate();
    let relay = TcpRelay::start(gateway.address(), Some(tls)).await;
    let config = |host: &str, trust: Trust| Config {
        carrier: Carrier::WebSocket,
        fallback: Some(format!("wss://{host}:{}", relay.address.port()).parse().unwrap()),
        trust,
        ..real.config("ann")
    };
    for trusting in [config("127.0.0.1", pin), config("localhost", root.clone())] {
        let ann = Client::connect(trusting).await.unwrap();
        assert_eq!(*ann.carrier().borrow(), Some(Carrier::WebSocket));
        ann.close().await;
    }
    for wrong in [config("localhost", Trust::Fingerprint([1; 32])), config("127.0.0.1", root)] {
        let client = Client::start(wrong).unwrap();
        let mut state = client.connection_state();
        let refused = state.wait_for(|state| matches!(state, ConnectionState::Waiting { .. })).await.unwrap();
        let ConnectionState::Waiting { cause } = &*refused else { unreachable!() };
        assert!(cause.contains("certificate"), "{cause}");
    }
}

#[tokio::test]
async fn a_socket_needs_a_url_and_plain_ones_stay_on_this_machine() {
    let real = Real::start();
    let config = Config { carrier: Carrier::WebSocket, ..real.config("ann") };
    assert!(matches!(Client::start(config), Err(Error::NoFallback)));
    let remote = "ws://chat.example".parse::<WebSocketUrl>();
    assert!(matches!(remote, Err(InvalidUrl::NotLoopback { host }) if host == "chat.example"));
}

/// The JSON form of a gateway.
#[derive(Debug)]
struct Json;

impl MessageCodec for Json {
    fn protocol(&self) -> &'static str {
        "antiphon.json.v1"
    }

    fn encode(&self, frame: &Bytes) -> Result<String, String> {
        let frame_type = Type::from_number(frame[4]).ok_or("an unknown frame")?;
        let id = u32::from_le_bytes(*frame[8..].first_chunk().ok_or("a frame cut short")?);
        let mut line = BytesMut::new();
        let raw = RawFrame { frame_type, id, body: frame.slice(12..) };
        json::encode(&raw, None, &mut line).map_err(|error| error.to_string())?;
        String::from_utf8(line.to_vec()).map_err(|error| error.to_string())
    }

    fn decode(&self, line: &str) -> Result<Bytes, String> {
        let decoded = json::decode(line.as_bytes(), Direction::ToClient).map_err(|error| error.to_string())?;
        Ok(decoded.frame)
    }
}

#[tokio::test]
async fn a_codec_writes_the_messages_of_a_socket_in_another_form() {
    let (real, gateway) = with_gateway();
    let config = Config { codec: Some(Arc::new(Json)), ..by_websocket(&real, "ann", gateway.address()) };
    let ann = Client::connect(config).await.unwrap();
    let log = conversation(&ann, "bob").await;
    let mut events = ann.subscribe(&log, From::Start).await.unwrap();
    let queued = queue(&ann, &log, 0..20).await;
    check(&ann, &mut events, queued).await;
}
