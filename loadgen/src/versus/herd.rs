//! Connections to a peer with subscriptions, and nothing happens.

use std::{error::Error, sync::Arc, time::Duration};

use antiphon_peers::{Connection, Server};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    contender::Contender,
    outcome::{Measure, Outcome},
    rows::{Goal, MOSQUITTO, NATS, REDIS, Row, Size, Work, goal},
};
use crate::{
    blocks::MEMBERS,
    idle::{IdleArgs, IdleReport, REST},
    probe::{cpu_ns, cpu_us_between},
    wire::OPENING_MAX,
};

/// What a connection with its subscriptions may take, where there are many.
const CONNECTING_WITHIN: Duration = Duration::from_millis(6);

/// An idle herd.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Herd {
    /// Connections; the memory of one is the slope between half of them and all.
    pub connections: usize,
    /// Subscriptions of each.
    pub subscriptions: usize,
    /// Length of the look at the idle processor time.
    pub seconds: f64,
}

impl Herd {
    /// The broker's own conversations have a hundred members, so half of the connections is a multiple of that.
    fn new(connections: usize, size: Size) -> Self {
        let connections = connections / size.divide as usize / (2 * MEMBERS) * (2 * MEMBERS);
        Self { connections: connections.max(2 * MEMBERS), subscriptions: 10, seconds: size.seconds }
    }

    fn title(self) -> String {
        let Self { connections, subscriptions, seconds } = self;
        format!("idle herd, {connections} connections x {subscriptions} subscriptions, {seconds} s")
    }

    /// How long its making may take, and again its measurement.
    pub(super) fn within(self) -> Duration {
        CONNECTING_WITHIN * self.connections as u32
    }
}

impl From<Herd> for IdleArgs {
    fn from(herd: Herd) -> Self {
        let Herd { connections, subscriptions, seconds } = herd;
        Self::new(connections, subscriptions, seconds.round() as u64)
    }
}

impl From<IdleReport> for Outcome {
    fn from(report: IdleReport) -> Self {
        let mut outcome = Self::new([
            (Measure::KibPerConnection, Some(report.kib_per_connection + report.kernel_kib_per_connection)),
            (Measure::IdleCpuUs, report.idle_cpu_us_per_second),
            (Measure::ConnectCpuUs, report.cpu_us_per_connect),
        ]);
        outcome.done = report.connections as u64;
        outcome.expected = outcome.done;
        outcome
    }
}

const HERD_GOALS: &[Goal] = &[goal(Measure::KibPerConnection, NATS, 0.45, 0.3)];

/// Its rows. A process may have 20,000 files on some machines, which bounds the peers, as each of their connections is a
/// file; those of the broker share sockets.
pub(super) fn herd_rows(size: Size) -> Vec<Row> {
    let herd = Herd::new(if size.is_full { 15_000 } else { 2_000 }, size);
    let row = Row {
        name: "S4",
        title: herd.title(),
        work: Work::Herd(herd),
        contenders: vec![Contender::Antiphon, NATS, REDIS, MOSQUITTO],
        headline: Measure::KibPerConnection,
        goals: HERD_GOALS,
        rounds: 1,
    };
    let mut rows = vec![row.clone()];
    if size.is_full {
        let herd = Herd::new(100_000, size);
        let (title, contenders) = (format!("{}, over QUIC only", herd.title()), vec![Contender::Antiphon]);
        rows.push(Row { name: "S4-100000", title, work: Work::Herd(herd), contenders, goals: &[], ..row });
    }
    rows
}

/// Runs it. As with the broker, a hundred connections have the same subscriptions.
pub async fn run(
    server: &Server,
    client: Option<&Arc<ClientConfig>>,
    herd: Herd,
) -> Result<IdleReport, Box<dyn Error>> {
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
            let last = (first + OPENING_MAX as u64).min((step * half) as u64);
            let mut opening = JoinSet::new();
            for number in first..last {
                opening.spawn(open(server.peer(), server.address(), client.cloned(), number, subscriptions));
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
    client: Option<Arc<ClientConfig>>,
    number: u64,
    subscriptions: usize,
) -> Result<Connection, antiphon_peers::ConnectionError> {
    let mut connection = Connection::open(peer, address, client.as_ref(), number).await?;
    for subscription in 0..subscriptions {
        connection.subscribe(&format!("room.{}.{subscription}", number / MEMBERS as u64)).await?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::rows::Work;

    #[test]
    fn a_herd_is_made_of_whole_conversations() {
        for divide in 1..30 {
            for row in herd_rows(Size { seconds: 15.0, rounds: 5, is_full: true, divide }) {
                let Work::Herd(herd) = row.work else { panic!("a herd") };
                assert!(herd.connections >= 200 && (herd.connections / 2).is_multiple_of(100), "{herd:?}");
                assert!(herd.connections <= 15_000 || row.contenders == [Contender::Antiphon], "{herd:?}");
            }
        }
    }
}
