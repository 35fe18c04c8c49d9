//! Durable publishing to a peer: each connection keeps a window of messages that wait until they are synced.
//!
//! Each message must be answered once, in order, with a position beyond the last one of its connection; at the end the
//! server must have as many messages as it acknowledged.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_peers::{Connection, Incoming, Peer, Position, Server, codec::Keep};
use rustls::ClientConfig;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use super::rows::Durable;
use crate::{publish::PublishReport, target::Usage};

/// All subjects, as the peer that keeps them in one stream names them.
const SUBJECTS: &str = "c.*";

/// Runs it.
pub async fn run(server: &Server, client: &Arc<ClientConfig>, load: Durable) -> Result<PublishReport, Box<dyn Error>> {
    let Durable { connections, in_flight, bytes, seconds, warm_up } = load;
    let open = async |number| Connection::open(server.peer(), server.address(), client, number).await;
    let mut service = open(0).await?;
    service.make_stream(SUBJECTS).await?;
    let (stop, stops) = watch::channel(false);
    let acks = Arc::new(AtomicU64::new(0));
    let mut senders = JoinSet::new();
    for number in 1..=connections as u64 {
        let sender = Sender {
            connection: open(number).await?,
            subject: subject(number),
            body: vec![b'x'; bytes],
            sent: 0,
            answered: 0,
            last: Position::default(),
            acks: acks.clone(),
        };
        senders.spawn(sender.run(in_flight, stops.clone()));
    }
    sleep(Duration::from_secs_f64(warm_up)).await;
    let mut report = PublishReport { connections, in_flight, bytes, ..Default::default() };
    let (before, start, acks_before) = (Usage::of_process(server.pid()), Instant::now(), acks.load(Ordering::Relaxed));
    sleep(Duration::from_secs_f64(seconds)).await;
    let (after, elapsed) = (Usage::of_process(server.pid()), start.elapsed().as_secs_f64());
    report.acks = acks.load(Ordering::Relaxed) - acks_before;
    stop.send_replace(true);
    while let Some(sender) = senders.join_next().await {
        if let Err(error) = sender? {
            report.broken.get_or_insert(error);
        }
    }
    let (kept, acked) = (count(&mut service, server.peer(), connections as u64).await?, acks.load(Ordering::Relaxed));
    if kept != acked {
        report.broken.get_or_insert(format!("{acked} messages were acknowledged and {kept} are there"));
    }
    report.acks_per_second = report.acks as f64 / elapsed;
    let cpu_us = after.cpu_ns.zip(before.cpu_ns).map(|(after, before)| after.saturating_sub(before) as f64 / 1e3);
    report.cpu_us_per_ack = cpu_us.map(|us| us / report.acks as f64);
    report.cores_busy = cpu_us.map(|us| us / 1e6 / elapsed);
    report.resident_kib = after.resident_kib;
    Ok(report)
}

fn subject(number: u64) -> String {
    format!("c.{number}")
}

/// Messages that the server has.
async fn count(service: &mut Connection, peer: Peer, connections: u64) -> Result<u64, Box<dyn Error>> {
    match peer {
        // One stream has all subjects.
        Peer::Nats => Ok(service.count(SUBJECTS).await?),
        Peer::Redis | Peer::Mosquitto => {
            let mut total = 0;
            for number in 1..=connections {
                total += service.count(&subject(number)).await?;
            }
            Ok(total)
        }
    }
}

struct Sender {
    connection: Connection,
    subject: String,
    body: Vec<u8>,
    sent: u64,
    answered: u64,
    last: Position,
    acks: Arc<AtomicU64>,
}

impl Sender {
    /// Keeps `window` messages under way until it is told to stop, then waits for the rest.
    async fn run(mut self, window: usize, stop: watch::Receiver<bool>) -> Result<(), String> {
        let mut room = window;
        loop {
            if !*stop.borrow() && room > 0 {
                for _ in 0..std::mem::take(&mut room) {
                    self.sent += 1;
                    let message = Keep { subject: &self.subject, request: self.sent, payload: &self.body };
                    self.connection.keep(message).map_err(|error| self.told(&error))?;
                }
                self.connection.flush().await.map_err(|error| self.told(&error))?;
            }
            if room == window {
                return Ok(());
            }
            let mut answer = Some(self.connection.next().await.map_err(|error| self.told(&error))?);
            while let Some(incoming) = answer {
                self.note(&incoming)?;
                room += 1;
                answer = self.connection.next_buffered().await.map_err(|error| self.told(&error))?;
            }
        }
    }

    fn note(&mut self, answer: &Incoming) -> Result<(), String> {
        let wanted = self.answered + 1;
        match answer {
            Incoming::Kept { request, position } if request.unwrap_or(wanted) == wanted && *position > self.last => {
                (self.answered, self.last) = (wanted, *position);
                self.acks.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => Err(format!("{}: {other:?} answers request {wanted}, after {:?}", self.subject, self.last)),
        }
    }

    fn told(&self, error: &dyn Error) -> String {
        format!("{}: {error}", self.subject)
    }
}
