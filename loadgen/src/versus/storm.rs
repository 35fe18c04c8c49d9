//! A reconnect storm at a peer: all connections end at once, and their clients come back within a second.
//!
//! What comes back with them differs. Redis reads ten streams after the last entry that each client had and then waits for more
//! of them; Mosquitto has kept the subscriptions and what was missed; core NATS keeps nothing, so there a client is back once all
//! its subscriptions hold. What is kept is checked message by message, as with the broker.
//!
//! The goal is about what everybody does, so in its row nothing was missed. Redis is asked for what was missed all the same: who
//! comes back cannot know.

use std::{error::Error, net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use antiphon_peers::{Connection, Entry, Incoming, Keeping, Peer, Position, Server, codec::Keep};
use rustls::{ClientConfig, client::Resumption};
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    contender::Contender,
    durable::kept,
    outcome::{Measure, Outcome},
    rows::{Goal, MOSQUITTO, NATS, REDIS, Row, Size, Work, goal},
};
use crate::{
    blocks::{MEMBERS, rooms_of},
    payload::{number, numbered},
    probe::{cpu_ns, cpu_us_between},
    storm::{AFTERMATH, REST, StormArgs, StormReport, come_back, vanish},
    tickets::TICKETS_MAX,
    wire::OPENING_MAX,
};

/// Over how long they come back.
const WITHIN: Duration = Duration::from_secs(1);

/// A reconnect storm.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Storm {
    /// Connections.
    pub connections: usize,
    /// Subscriptions of each; a hundred connections have the same.
    pub subscriptions: usize,
    /// Messages of each subject while everybody is away; there may be none.
    pub missed: usize,
    /// Bytes of a message.
    pub bytes: usize,
    /// Clients keep the tickets of their TLS sessions.
    pub tickets: bool,
}

impl Storm {
    /// What the server has to keep before it acknowledges: streams are read after the storm.
    pub(super) fn keeping(peer: Peer) -> Keeping {
        match peer {
            Peer::Redis => Keeping::Synced,
            _ => Keeping::Nothing,
        }
    }

    fn subjects(self) -> usize {
        self.connections / MEMBERS * self.subscriptions
    }

    fn subjects_of(self, session: usize) -> Range<usize> {
        rooms_of(session, MEMBERS, self.subscriptions)
    }
}

impl From<Storm> for StormArgs {
    fn from(storm: Storm) -> Self {
        let Storm { connections, subscriptions, missed, bytes, tickets } = storm;
        Self { connections, subscriptions, members: MEMBERS, missed, bytes, within: WITHIN.as_secs_f64(), tickets }
    }
}

impl From<StormReport> for Outcome {
    fn from(report: StormReport) -> Self {
        let mut outcome = Self::new([
            (Measure::CpuUs, report.cpu_us_per_session),
            (Measure::RecoverySeconds, report.seconds_to_99_percent),
            (Measure::MissedMessages, Some(report.missed_messages as f64)),
            (Measure::ResumedSessions, report.resumed.map(|resumed| resumed as f64)),
        ]);
        (outcome.done, outcome.expected) = (report.recovered as u64, report.connections as u64);
        outcome.broken = report.broken;
        outcome
    }
}

const STORM_GOALS: &[Goal] = &[goal(Measure::CpuUs, NATS, 0.7, 0.5)];

/// Its rows.
pub(super) fn storm_rows(size: Size) -> Vec<Row> {
    let connections = if size.is_full { 5_000 } else { 1_000 } / size.divide as usize / MEMBERS * MEMBERS;
    let connections = connections.max(MEMBERS);
    let storm = Storm { connections, subscriptions: 10, missed: 0, bytes: 200, tickets: false };
    let row = |name, storm: Storm, what: &str, goals, rounds| {
        let Storm { connections, subscriptions, .. } = storm;
        Row {
            name,
            title: format!(
                "reconnect storm, {connections} connections back within a second, {subscriptions} subscriptions each, \
                 {what}, per recovered session"
            ),
            work: Work::Storm(storm),
            contenders: vec![Contender::Antiphon, NATS, REDIS, MOSQUITTO],
            headline: Measure::CpuUs,
            goals,
            rounds,
        }
    };
    let (with_missed, with_tickets) = (Storm { missed: 5, ..storm }, Storm { tickets: true, ..storm });
    let missed = "with 5 missed messages of each (NATS: subscriptions only)";
    let kept = "nothing missed, with the TLS tickets that they had";
    let mut rows = vec![
        row("S5-nothing-missed", storm, "nothing missed", STORM_GOALS, size.rounds),
        row("S5-50-missed", with_missed, missed, &[], 1),
    ];
    if size.is_full {
        rows.push(row("S5-resumed", with_tickets, kept, &[], 1));
    }
    rows
}

/// Runs it.
pub async fn run(server: &Server, client: &Arc<ClientConfig>, storm: Storm) -> Result<StormReport, Box<dyn Error>> {
    let place = Place { peer: server.peer(), address: server.address(), clients: clients(client, storm), storm };
    let mut service = place.open(0).await.map_err(failed)?;
    let known: Arc<[Position]> = place.begin(&mut service).await.map_err(failed)?.into();
    vanish(follow(place.clone(), known.clone())).await?;
    sleep(REST).await;
    place.write(&mut service).await.map_err(failed)?;
    sleep(REST).await;

    let before = cpu_ns(server.pid()).ok();
    let mut back = come_back(storm.connections, WITHIN, |session| {
        let (place, known) = (place.clone(), known.clone());
        async move { place.resume(session, &known).await.map_err(|error| format!("connection {session}: {error}")) }
    })
    .await;
    sleep(AFTERMATH).await;
    let cpu_us = cpu_us_between(before, cpu_ns(server.pid()).ok());
    for session in &mut back.sessions {
        if let Ok(surplus) = timeout(Duration::ZERO, session.next()).await {
            back.broken.get_or_insert(format!("{surplus:?} came, too"));
        }
    }
    let Storm { connections, subscriptions, missed, .. } = storm;
    let mut report = StormReport { connections, subscriptions, ..Default::default() };
    report.apply(&mut back, if place.keeps() { subscriptions * missed } else { 0 }, cpu_us);
    let has_resumed = |session: &&Connection| session.has_resumed_tls();
    report.resumed = storm.tickets.then(|| back.sessions.iter().filter(has_resumed).count());
    Ok(report)
}

/// A client that keeps tickets has a place for them of its own. The others are processes that were started anew, each time.
fn clients(client: &ClientConfig, storm: Storm) -> Arc<[Arc<ClientConfig>]> {
    let keeps = |resumption| {
        let mut client = client.clone();
        client.resumption = resumption;
        Arc::new(client)
    };
    match storm.tickets {
        true => (0..=storm.connections).map(|_| keeps(Resumption::in_memory_sessions(TICKETS_MAX))).collect(),
        false => [keeps(Resumption::disabled())].into(),
    }
}

fn subject(room: usize) -> String {
    format!("c.{room}")
}

/// Whom to connect to, for what.
#[derive(Debug, Clone)]
struct Place {
    peer: Peer,
    address: SocketAddr,
    clients: Arc<[Arc<ClientConfig>]>,
    storm: Storm,
}

/// What went wrong, in a task.
type Failed = Box<dyn Error + Send + Sync>;

fn failed(error: Failed) -> Box<dyn Error> {
    error
}

impl Place {
    fn client(&self, number: usize) -> &Arc<ClientConfig> {
        &self.clients[number % self.clients.len()]
    }

    async fn open(&self, number: u64) -> Result<Connection, Failed> {
        Ok(Connection::open(self.peer, self.address, Some(self.client(number as usize)), number).await?)
    }

    /// The connection of a client, and whether the server has kept its subscriptions.
    async fn open_lasting(&self, session: usize) -> Result<(Connection, bool), Failed> {
        let number = session + 1;
        Ok(Connection::open_lasting(self.peer, self.address, Some(self.client(number)), number as u64).await?)
    }

    /// Whether what clients miss is kept for them.
    fn keeps(&self) -> bool {
        self.peer != Peer::Nats
    }

    /// Gives streams a first entry, which everybody has; its positions.
    async fn begin(&self, service: &mut Connection) -> Result<Vec<Position>, Failed> {
        let mut known = vec![Position::default(); self.storm.subjects()];
        if self.peer == Peer::Redis {
            for (room, known) in known.iter_mut().enumerate() {
                service.keep(Keep { subject: &subject(room), request: 1, payload: b"first" });
                service.flush().await?;
                *known = position(service).await?;
            }
        }
        Ok(known)
    }

    /// Sends what is missed, and waits until it is kept where it is.
    async fn write(&self, service: &mut Connection) -> Result<(), Failed> {
        let Storm { missed, bytes, .. } = self.storm;
        for room in 0..self.storm.subjects() {
            let numbers = (room * missed) as u64..((room + 1) * missed) as u64;
            for number in numbers.clone() {
                let (subject, payload) = (subject(room), numbered(number, bytes));
                match self.keeps() {
                    true => service.keep(Keep { subject: &subject, request: number + 1, payload: &payload }),
                    false => service.publish(&subject, &payload),
                }
            }
            service.flush().await?;
            if self.keeps() {
                for _ in numbers {
                    position(service).await?;
                }
            }
        }
        Ok(())
    }

    fn subjects(&self, session: usize) -> Vec<String> {
        self.storm.subjects_of(session).map(subject).collect()
    }

    fn streams(&self, session: usize, known: &[Position]) -> Vec<(String, Position)> {
        self.storm.subjects_of(session).map(|room| (subject(room), known[room])).collect()
    }

    /// The first connection of a client.
    async fn follow(&self, session: usize, known: &[Position]) -> Result<Connection, Failed> {
        let (mut connection, had_session) = self.open_lasting(session).await?;
        if had_session {
            return Err("the server knows a client that is new".into());
        }
        match self.peer {
            Peer::Redis => connection.wait_after(&self.streams(session, known)).await?,
            _ => connection.subscribe_all(&self.subjects(session)).await?,
        }
        Ok(connection)
    }

    /// Its second connection, with everything that the server has for it.
    async fn resume(&self, session: usize, known: &[Position]) -> Result<Connection, Failed> {
        let mut expected = Expected::new(self.storm, session);
        match self.peer {
            Peer::Redis => {
                let (mut connection, _) = self.open_lasting(session).await?;
                let mut streams = self.streams(session, known);
                for Entry { position, payload } in connection.read_after(&streams).await? {
                    let newest = &mut streams[expected.note(&payload)?].1;
                    if position <= *newest {
                        return Err(format!("{position:?} came after {newest:?}").into());
                    }
                    *newest = position;
                }
                expected.must_be_all()?;
                connection.wait_after(&streams).await?;
                Ok(connection)
            }
            Peer::Mosquitto => {
                let (mut connection, had_session) = self.open_lasting(session).await?;
                if !had_session {
                    return Err("the server has forgotten the client".into());
                }
                while expected.must_be_all().is_err() {
                    match connection.next().await? {
                        Incoming::Message(payload) => _ = expected.note(&payload)?,
                        other => return Err(format!("{other:?} is no message").into()),
                    }
                }
                // Acknowledgements of the last ones.
                connection.flush().await?;
                Ok(connection)
            }
            // It keeps nothing for them; they only subscribe again.
            _ => self.follow(session, known).await,
        }
    }
}

async fn position(service: &mut Connection) -> Result<Position, Failed> {
    Ok(kept(&service.next().await?)?.1)
}

/// Makes the first connections of all clients.
async fn follow(place: Place, known: Arc<[Position]>) -> Result<(), String> {
    let connections = place.storm.connections;
    let mut all = Vec::with_capacity(connections);
    for first in (0..connections).step_by(OPENING_MAX) {
        let mut opening = JoinSet::new();
        for session in first..(first + OPENING_MAX).min(connections) {
            let (place, known) = (place.clone(), known.clone());
            opening.spawn(async move { place.follow(session, &known).await.map_err(|error| error.to_string()) });
        }
        while let Some(connection) = opening.join_next().await {
            all.push(connection.map_err(|error| error.to_string())??);
        }
    }
    Ok(())
}

/// What a client has missed and not got yet.
#[derive(Debug)]
struct Expected {
    first_room: usize,
    missed: usize,
    /// The next number of each subject.
    next: Vec<u64>,
}

impl Expected {
    fn new(storm: Storm, session: usize) -> Self {
        let rooms = storm.subjects_of(session);
        let next = rooms.clone().map(|room| (room * storm.missed) as u64).collect();
        Self { first_room: rooms.start, missed: storm.missed, next }
    }

    /// Takes a message, which must be the next one of its subject; which of its subjects that is.
    fn note(&mut self, payload: &[u8]) -> Result<usize, String> {
        let found = number(payload).ok_or("a message came that nobody wrote")?;
        let room = (found as usize).checked_div(self.missed).ok_or("a message came, and nothing was missed")?;
        let at = room.checked_sub(self.first_room).filter(|at| *at < self.next.len());
        let at = at.ok_or_else(|| format!("message {found} is of a subject that nobody asked for"))?;
        if self.next[at] != found {
            return Err(format!("message {found} came instead of {}", self.next[at]));
        }
        self.next[at] += 1;
        Ok(at)
    }

    fn must_be_all(&self) -> Result<(), String> {
        let ends = (self.first_room..).map(|room| ((room + 1) * self.missed) as u64);
        match self.next.iter().zip(ends).find(|(next, end)| *next < end) {
            Some((next, _)) => Err(format!("message {next} is missing")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_made_of_whole_blocks() {
        for divide in 1..30 {
            let size = Size { seconds: 8.0, rounds: 3, is_full: false, divide };
            for row in storm_rows(size) {
                let Work::Storm(storm) = row.work else { panic!("a storm") };
                assert!(storm.connections >= 100 && storm.connections.is_multiple_of(100), "{storm:?}");
                // Who keeps nothing does less where something was missed.
                assert!(row.goals.is_empty() || storm.missed == 0, "{}", row.name);
            }
        }
    }

    #[test]
    fn where_nothing_was_missed_nothing_may_come() {
        let storm = Storm { connections: 100, subscriptions: 10, missed: 0, bytes: 50, tickets: false };
        let mut expected = Expected::new(storm, 0);
        assert_eq!(expected.must_be_all(), Ok(()));
        assert!(expected.note(&numbered(0, 50)).unwrap_err().contains("nothing was missed"));
    }

    #[test]
    fn what_was_missed_comes_once_in_order_and_whole() {
        let storm = Storm { connections: 200, subscriptions: 2, missed: 2, bytes: 50, tickets: false };
        let mut expected = Expected::new(storm, 150);
        let mut note = |number| expected.note(&numbered(number, 50));
        assert_eq!((note(4), note(6), note(7)), (Ok(0), Ok(1), Ok(1)));
        assert!(note(7).unwrap_err().contains("nobody asked for") || note(7).is_err());
        assert!(note(3).is_err() && note(4).is_err());
        assert!(expected.must_be_all().unwrap_err().contains('5'));
        assert_eq!(expected.note(&numbered(5, 50)), Ok(0));
        assert_eq!(expected.must_be_all(), Ok(()));
        assert!(expected.note(b"other").is_err());
    }
}
