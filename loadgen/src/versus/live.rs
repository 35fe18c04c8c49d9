//! A fan-out by a peer: one publisher, many subscribers of one subject, each on a connection of its own.
//!
//! As with the broker, each subscriber checks that the next message has the next number, and the processor time is that
//! between two moments at which nothing is under way.

use std::{
    error::Error,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use antiphon_peers::{Connection, ConnectionError, Incoming, Server};
use rustls::ClientConfig;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::rows::Live;
use crate::{
    fanout::{End, FanoutReport, Plan, Tally, messages, settle},
    report::Latencies,
    target::Usage,
};

const SUBJECT: &str = "room";

/// Runs it; the server is gone when it is over.
pub async fn run(server: Server, client: &Arc<ClientConfig>, live: Live) -> Result<FanoutReport, Box<dyn Error>> {
    let Live { members, bytes, rate, seconds, warm_up } = live;
    let open = async |number| Connection::open(server.peer(), server.address(), client, number).await;
    let tally = Arc::new(Tally::default());
    let (plan, plans) = watch::channel(None);
    let mut readers = JoinSet::new();
    for number in 1..=u64::from(members) {
        let mut connection = open(number).await?;
        connection.subscribe(SUBJECT).await?;
        readers.spawn(follow(connection, plans.clone(), tally.clone()));
    }
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut publisher =
        Publisher { connection: open(0).await?, body: vec![b'x'; bytes], interval, sent: 0, lag: Latencies::default() };

    publisher.send(Instant::now(), messages(warm_up, rate).max(1)).await?;
    settle(&tally, publisher.sent * u64::from(members)).await;
    let mut report = FanoutReport { members, bytes, rate, ..Default::default() };
    report.messages = messages(seconds, rate).max(1);
    publisher.lag = Latencies::default();
    let before = Usage::of_process(server.pid());
    let start = Instant::now();
    plan.send_replace(Some(Plan { first: publisher.sent + 1, start, interval }));
    publisher.send(start, report.messages).await?;
    let expected = publisher.sent * u64::from(members);
    settle(&tally, expected).await;
    let after = Usage::of_process(server.pid());

    report.expected = report.messages * u64::from(members);
    report.delivered = (tally.delivered.load(Ordering::Relaxed) + report.expected).saturating_sub(expected);
    report.lag = publisher.lag.summary();
    report.apply(&before, &after, &after);
    // What should not come has a moment to do so; then every reader comes to an end.
    sleep(AFTERMATH).await;
    drop(server);
    report.gather(readers).await?;
    Ok(report)
}

/// Nothing more than what is expected comes within this time, or the measurement has no result.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Sends on schedule. The first bytes of a message are its number, from 1.
struct Publisher {
    connection: Connection,
    body: Vec<u8>,
    interval: Duration,
    sent: u64,
    lag: Latencies,
}

impl Publisher {
    async fn send(&mut self, start: Instant, count: u64) -> Result<(), ConnectionError> {
        for number in 0..count {
            let due = start + self.interval * number as u32;
            while let Some(wait) = due.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero()) {
                tokio::select! {
                    () = sleep(wait) => {}
                    // How many got a message, or a question whether somebody is there.
                    answer = self.connection.next() => drop(answer?),
                }
            }
            self.lag.record(due.elapsed());
            self.sent += 1;
            self.body[..NUMBER_BYTES].copy_from_slice(&self.sent.to_be_bytes());
            self.connection.publish(SUBJECT, &self.body);
            self.connection.flush().await?;
        }
        Ok(())
    }
}

const NUMBER_BYTES: usize = size_of::<u64>();

async fn follow(
    mut connection: Connection,
    plan: watch::Receiver<Option<Plan>>,
    tally: Arc<Tally>,
) -> (Latencies, End) {
    let mut latencies = Latencies::default();
    for next in 1.. {
        let number = match connection.next().await {
            Ok(Incoming::Message(payload)) => payload.first_chunk::<NUMBER_BYTES>().copied().map(u64::from_be_bytes),
            Ok(_) => None,
            Err(ConnectionError::Io(error)) => return (latencies, End::Closed(error.to_string())),
            Err(error) => return (latencies, End::Wrong(error.to_string())),
        };
        if number != Some(next) {
            return (latencies, End::Wrong(format!("{number:?} came instead of {next}")));
        }
        if let Some(due) = plan.borrow().and_then(|plan| plan.due(next)) {
            latencies.record(due.elapsed());
        }
        tally.delivered.fetch_add(1, Ordering::Relaxed);
    }
    (latencies, End::Closed("there are no more numbers".into()))
}
