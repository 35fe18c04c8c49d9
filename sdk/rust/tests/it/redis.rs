//! Brokers that share presence through a real Redis, and what becomes of them when it is gone: no message is lost, and
//! presence is right again by itself.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_sdk::{Client, From, PresenceStatus};
use rustix::process::Signal;
use uuid::Uuid;

use crate::{
    end_to_end::{group, inbox_of, next_event, sees, user},
    real::Real,
    redis_server::Server,
};

/// From the return of Redis until presence is right again.
const REPAIR: Duration = Duration::from_secs(30);

/// `/readyz` of a broker: status and body.
fn readyz(broker: &Real) -> String {
    let address: SocketAddr = broker.broker().admin_address();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /readyz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Two users in one conversation, the first of whom watches the second.
async fn ann_watches_bob(broker: &Real) -> (Client, Client) {
    let (ann, bob) = (broker.connect("ann").await, broker.connect("bob").await);
    group(&ann, "tea", &["bob"]).await;
    for (client, id) in [(&ann, "ann"), (&bob, "bob")] {
        next_event(&mut inbox_of(client, id).await).await;
    }
    ann.watch_presence([user("bob")]).await.unwrap();
    sees(&ann, "bob", PresenceStatus::Online).await;
    (ann, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_on_one_redis_see_each_others_users() {
    let mut server = Server::start();
    let (here, there) = (Real::on_redis(&server.url()), Real::on_redis(&server.url()));
    let (ann, bob) = ann_watches_bob(&here).await;
    // Bob moves to the other broker, and is there all the time.
    let elsewhere = there.connect_device("bob", "tablet").await;
    elsewhere.set_presence(PresenceStatus::Busy, "in a meeting").await.unwrap();
    assert_eq!(sees(&ann, "bob", PresenceStatus::Busy).await, "in a meeting");
    bob.close().await;
    elsewhere.set_presence(PresenceStatus::Away, "").await.unwrap();
    sees(&ann, "bob", PresenceStatus::Away).await;
    // What was set outlives the broker's knowledge of it in Redis, and nobody is told in between.
    server.kill();
    sees(&ann, "bob", PresenceStatus::Unknown).await;
    let answer = readyz(&here);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("presence is unknown"), "{answer}");
    let back = Instant::now();
    server.restart();
    sees(&ann, "bob", PresenceStatus::Away).await;
    eprintln!("right again {} ms after the start of Redis", back.elapsed().as_millis());
    assert!(back.elapsed() < REPAIR);
    assert!(!readyz(&here).contains("notes"));
    elsewhere.close().await;
    sees(&ann, "bob", PresenceStatus::Offline).await;
}

/// Sends one message after another until it is told to stop; what was acknowledged.
async fn send_until(client: Client, log: antiphon_sdk::LogName, stop: Arc<AtomicBool>) -> Vec<(u64, Uuid)> {
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let receipt = client.send(&log, format!("message {}", acknowledged.len())).await.unwrap();
        acknowledged.push((receipt.position.seq, receipt.event_id));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn losing_redis_under_load_loses_no_message() {
    let mut server = Server::start();
    let broker = Real::on_redis(&server.url());
    let (ann, bob) = ann_watches_bob(&broker).await;
    let log: antiphon_sdk::LogName = "c:tea".parse().unwrap();
    let mut events = bob.subscribe(&log, From::Start).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = Vec::new();
    for n in 0..4 {
        let client = broker.connect_device("ann", &format!("sender-{n}")).await;
        senders.push(tokio::spawn(send_until(client, log.clone(), stop.clone())));
    }
    let received = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut received = BTreeMap::new();
            let mut last = 0;
            // One more message is sent once all senders have stopped, so this comes to an end.
            loop {
                let event = next_event(&mut events).await;
                assert_eq!(event.seq(), last + 1, "in order and without a gap");
                last = event.seq();
                received.insert(event.seq(), event.event_id());
                if stop.load(Ordering::Relaxed) && event.text().as_deref() == Some("the end") {
                    return received;
                }
            }
        }
    });

    bob.set_presence(PresenceStatus::Busy, "counting").await.unwrap();
    sees(&ann, "bob", PresenceStatus::Busy).await;
    server.command("FLUSHALL");
    bob.set_presence(PresenceStatus::Away, "after FLUSHALL").await.unwrap();
    assert_eq!(sees(&ann, "bob", PresenceStatus::Away).await, "after FLUSHALL");

    let stopped = Instant::now();
    server.signal(Signal::STOP);
    sees(&ann, "bob", PresenceStatus::Unknown).await;
    // Messages go on while it stands still, which is for five seconds.
    while stopped.elapsed() < Duration::from_secs(5) {
        ann.send(&log, "while Redis stands still").await.unwrap();
    }
    let back = Instant::now();
    server.signal(Signal::CONT);
    sees(&ann, "bob", PresenceStatus::Away).await;
    eprintln!("right again {} ms after SIGCONT", back.elapsed().as_millis());
    assert!(back.elapsed() < REPAIR);

    server.kill();
    sees(&ann, "bob", PresenceStatus::Unknown).await;
    for n in 0..100 {
        ann.send(&log, format!("{n} without Redis")).await.unwrap();
    }
    bob.set_presence(PresenceStatus::Busy, "set without Redis").await.unwrap();
    let back = Instant::now();
    server.restart();
    assert_eq!(sees(&ann, "bob", PresenceStatus::Busy).await, "set without Redis");
    eprintln!("right again {} ms after the start of Redis", back.elapsed().as_millis());
    assert!(back.elapsed() < REPAIR);

    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for sender in senders {
        acknowledged.extend(sender.await.unwrap());
    }
    ann.send(&log, "the end").await.unwrap();
    let received = received.await.unwrap();
    eprintln!("{} messages acknowledged, {} events received", acknowledged.len(), received.len());
    assert!(acknowledged.iter().all(|(seq, id)| received.get(seq) == Some(id)), "what was acknowledged was received");
}
