//! Connections to a peer with subscriptions, and nothing happens.

use std::{error::Error, sync::Arc, time::Duration};

use antiphon_peers::{Connection, Server};
use rustls::ClientConfig;
use tokio::{task::JoinSet, time::sleep};

use super::rows::Herd;
use crate::{
    idle::{IdleReport, MEMBERS, REST},
    probe::{cpu_ns, cpu_us_between},
};

/// Connections that are made at a time.
const OPENING_MAX: u64 = 64;

/// Runs it. As with the broker, a hundred connections have the same subscriptions.
pub async fn run(server: &Server, client: &Arc<ClientConfig>, herd: Herd) -> Result<IdleReport, Box<dyn Error>> {
    let Herd { connections, subscriptions, seconds } = herd;
    let pid = server.pid();
    let half = connections / 2;
    let mut report = IdleReport { connections, subscriptions, members: MEMBERS, ..Default::default() };
    sleep(REST).await;
    report.note_memory(0, pid)?;
    let (mut herd, mut connecting) = (Vec::new(), None);
    for step in 1..=2 {
        let before = cpu_ns(pid).ok();
        while herd.len() < step * half {
            let first = herd.len() as u64;
            let last = (first + OPENING_MAX).min((step * half) as u64);
            let mut opening = JoinSet::new();
            for number in first..last {
                opening.spawn(open(server.peer(), server.address(), Arc::clone(client), number, subscriptions));
            }
            while let Some(opened) = opening.join_next().await {
                herd.push(opened??);
            }
        }
        connecting = cpu_us_between(before, cpu_ns(pid).ok());
        sleep(REST).await;
        report.note_memory(step, pid)?;
    }
    report.divide();
    report.cpu_us_per_connect = connecting.map(|us| us / half as f64);

    let before = cpu_ns(pid).ok();
    sleep(Duration::from_secs_f64(seconds)).await;
    let idle = cpu_us_between(before, cpu_ns(pid).ok());
    report.idle_cpu_us_per_second = idle.map(|us| us / seconds / connections as f64);
    Ok(report)
}

async fn open(
    peer: antiphon_peers::Peer,
    address: std::net::SocketAddr,
    client: Arc<ClientConfig>,
    number: u64,
    subscriptions: usize,
) -> Result<Connection, antiphon_peers::ConnectionError> {
    let mut connection = Connection::open(peer, address, &client, number).await?;
    for subscription in 0..subscriptions {
        connection.subscribe(&format!("room.{}.{subscription}", number / MEMBERS as u64)).await?;
    }
    Ok(connection)
}
