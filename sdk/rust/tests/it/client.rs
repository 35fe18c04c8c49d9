use std::time::Duration;

use antiphon_sdk::{
    Client, Config, ConnectionState, ConversationId, DetachReason, Endpoint, Error, FrameType, From, Item, LogName,
    NewConversation, NewMessage, Range, SendError, SendState, StopReason, Subscription, TokenProvider, Trust,
};

use crate::broker::Broker;

fn config(broker: &Broker) -> Config {
    Config::new(broker.address, "localhost", broker.pin(), "token")
}

fn log() -> LogName {
    "c:lobby".parse().unwrap()
}

async fn next_seq(subscription: &mut Subscription) -> u64 {
    loop {
        match subscription.next().await.expect("the subscription goes on") {
            Item::Event(event) => return event.seq(),
            Item::Attached(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_message_is_acknowledged_and_its_echo_carries_its_id() {
    let broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let mut events = client.subscribe(&log(), From::Start).await.unwrap();
    let sent = client.send(&log(), "hello").await.unwrap();
    let Some(Item::Event(event)) = events.next().await else { panic!("an event comes") };
    assert_eq!((event.position(), event.client_message_id()), (sent.position, Some(sent.client_message_id)));
    assert_eq!((event.sender(), event.text().as_deref()), ("ann", Some("hello")));
    assert_eq!(events.position(), sent.position);
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_root() {
    let broker = Broker::start();
    let config = Config { trust: broker.root(), ..config(&broker) };
    assert!(Client::connect(config).await.is_ok());
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused() {
    let broker = Broker::start();
    for trust in [Trust::Fingerprint([1; 32]), Broker::start().root()] {
        let client = Client::start(Config { trust, ..config(&broker) }).unwrap();
        let mut state = client.connection_state();
        let refused = state.wait_for(|state| matches!(state, ConnectionState::Waiting { .. })).await.unwrap();
        let ConnectionState::Waiting { cause } = &*refused else { unreachable!() };
        assert!(cause.contains("certificate"), "{cause}");
    }
}

#[tokio::test]
async fn killed_connections_lose_and_repeat_nothing() {
    let broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let mut events = client.subscribe(&log(), From::Start).await.unwrap();
    let mut expected = 0;
    for round in 0..5 {
        // More than is inlined, so that every other reconnect has to pull.
        broker.append(if round % 2 == 0 { 250 } else { 10 }, 10);
        let mut queued = client.send_queued(NewMessage::text(log(), "mine")).await.unwrap();
        client.kill_connection().await.unwrap();
        let sent = queued.sent().await.unwrap();
        while expected < sent.position.seq {
            expected += 1;
            assert_eq!(next_seq(&mut events).await, expected);
        }
    }
    assert_eq!(expected, 3 * 250 + 2 * 10 + 5);
}

#[tokio::test]
async fn a_subscription_that_is_not_read_loses_nothing_and_leaves_answers_alone() {
    const EVENTS: usize = 3_000;
    let broker = Broker::start();
    let client = Client::connect(Config { subscription_queue: 2, ..config(&broker) }).await.unwrap();
    let mut events = client.subscribe(&log(), From::Tail).await.unwrap();
    // Far more than the queue, the chunks on their way and QUIC's windows hold.
    broker.append(EVENTS, 8_000);
    for n in 1..=20 {
        let sent = client.send(&log(), "still answered").await.unwrap();
        assert_eq!(sent.position.seq, EVENTS as u64 + n);
    }
    for expected in 1..=EVENTS as u64 + 20 {
        assert_eq!(next_seq(&mut events).await, expected);
    }
}

#[tokio::test]
async fn a_dropped_subscription_is_unsubscribed() {
    let mut broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    drop(client.subscribe(&log(), From::Tail).await.unwrap());
    broker.saw(FrameType::Unsubscribe).await;
    // The log is free again.
    client.subscribe(&log(), From::Tail).await.unwrap();
}

#[tokio::test]
async fn a_subscription_that_was_full_when_it_was_dropped_holds_up_nobody() {
    let mut broker = Broker::start();
    let client = Client::connect(Config { subscription_queue: 1, ..config(&broker) }).await.unwrap();
    let events = client.subscribe(&log(), From::Tail).await.unwrap();
    broker.append(1_000, 100);
    client.send(&log(), "x").await.unwrap();
    drop(events);
    broker.saw(FrameType::Unsubscribe).await;
    let mut events = client.subscribe(&log(), From::Last(1)).await.unwrap();
    assert_eq!(next_seq(&mut events).await, 1_001);
}

#[tokio::test]
async fn another_address_keeps_the_connection() {
    let mut broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let before = client.endpoint().local_addr().unwrap();
    client.rebind().unwrap();
    assert_ne!(client.endpoint().local_addr().unwrap(), before);
    client.send(&log(), "from elsewhere").await.unwrap();
    assert_eq!(broker.count(FrameType::Hello), 1);
}

#[tokio::test]
async fn clients_share_an_endpoint() {
    let broker = Broker::start();
    let endpoint = Endpoint::for_remote(broker.address).unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let config = Config { endpoint: Some(endpoint.clone()), ..config(&broker) };
        clients.push(Client::connect(config).await.unwrap());
    }
    for (n, client) in clients.iter().enumerate() {
        assert_eq!(client.send(&log(), "x").await.unwrap().position.seq, n as u64 + 1);
    }
}

#[tokio::test]
async fn history_is_read_page_by_page() {
    let broker = Broker::start();
    broker.append(150, 10);
    let client = Client::connect(config(&broker)).await.unwrap();
    let mut range = Range::all(log());
    let mut seqs = Vec::new();
    loop {
        let page = client.history(range.clone()).await.unwrap();
        seqs.extend(page.events.iter().map(|event| event.seq()));
        let Some(next) = page.next else { break };
        range.from = next;
    }
    assert_eq!(seqs, (1..=150).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_conversation_is_created_with_its_members() {
    let broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let id = ConversationId::new("team").unwrap();
    let team = NewConversation::group(id.clone(), ["bob".parse().unwrap()]);
    let conversation = client.create_conversation(team).await.unwrap();
    assert!(conversation.created && conversation.id == id);
    assert_eq!(conversation.members[0].user.as_str(), "bob");
    client.join(&id).await.unwrap();
    client.cursor(&conversation.log(), 1, 1).await.unwrap();
    client.signal(&conversation.log(), "typing", bytes::Bytes::new(), 6_000).await.unwrap();
}

#[tokio::test]
async fn closing_ends_everything_that_waits() {
    let mut broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let mut events = client.subscribe(&log(), From::Tail).await.unwrap();
    client.close().await;
    broker.saw(FrameType::Bye).await;
    assert_eq!(client.state(), ConnectionState::Stopped(StopReason::Closed));
    assert_eq!(events.next().await, Some(Item::Detached(DetachReason::Stopped(StopReason::Closed))));
    assert_eq!(events.next().await, None);
    assert!(matches!(client.send(&log(), "x").await, Err(Error::Stopped(StopReason::Closed))));
    client.close().await;
}

#[tokio::test]
async fn what_did_not_fit_is_handed_over_after_the_close() {
    let broker = Broker::start();
    let client = Client::connect(Config { subscription_queue: 1, ..config(&broker) }).await.unwrap();
    let mut events = client.subscribe(&log(), From::Tail).await.unwrap();
    broker.append(5, 10);
    // The echo comes after the five, and its ACK only after the broker has taken all six.
    client.send(&log(), "x").await.unwrap();
    assert_eq!(next_seq(&mut events).await, 1);
    client.close().await;
    let mut last = None;
    while let Some(item) = events.next().await {
        last = Some(item);
    }
    assert_eq!(last, Some(Item::Detached(DetachReason::Stopped(StopReason::Closed))));
}

#[tokio::test]
async fn a_subscribe_that_is_given_up_frees_its_log() {
    let broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let log = log();
    for _ in 0..20 {
        tokio::select! {
            biased;
            _ = client.subscribe(&log, From::Tail) => {}
            () = tokio::task::yield_now() => {}
        }
    }
    client.send(&log, "x").await.unwrap();
    client.subscribe(&log, From::Tail).await.unwrap();
}

#[tokio::test]
async fn the_last_handle_ends_the_session() {
    let mut broker = Broker::start();
    let client = Client::connect(config(&broker)).await.unwrap();
    let events = client.subscribe(&log(), From::Tail).await.unwrap();
    drop(client);
    broker.append(1, 1);
    drop(events);
    broker.saw(FrameType::Bye).await;
}

#[tokio::test]
async fn what_waits_in_the_outbox_fails_when_the_client_closes() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let trust = Trust::Fingerprint([0; 32]);
    let config = Config::new(socket.local_addr().unwrap(), "localhost", trust, "token");
    let client = Client::start(config).unwrap();
    let mut queued = client.send_queued(NewMessage::text(log(), "x")).await.unwrap();
    assert_eq!(queued.state(), SendState::Queued);
    client.close().await;
    assert!(matches!(queued.sent().await, Err(Error::Send(SendError::Stopped(StopReason::Closed)))));
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let trust = Trust::Fingerprint([0; 32]);
    let config = Config {
        connect_timeout: Duration::from_millis(50),
        ..Config::new(socket.local_addr().unwrap(), "localhost", trust, "token")
    };
    assert!(matches!(Client::connect(config).await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn tokens_come_from_the_application() {
    let broker = Broker::start();
    let provider = TokenProvider::callback(|| async { Ok::<_, String>("fresh".to_owned()) });
    let client = Client::connect(Config { token: provider, ..config(&broker) }).await.unwrap();
    assert!(matches!(client.state(), ConnectionState::Ready(session) if session.user == "ann"));
}
