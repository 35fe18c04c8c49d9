//! Everybody loses the connection at once, misses a few messages, and comes back within a second: what a session costs the
//! broker that resumes its conversations where it left them.
//!
//! Nothing is said when the connections end: the clients live in a Tokio runtime of their own, which is dropped with their
//! sockets, as if their process had been killed. They come back as the same users on the same devices, with the positions that
//! they had, on a schedule that waits for nobody. Every session must be where it was in each conversation and get exactly what
//! it missed of it, in order, and nothing more; that may be nothing at all.
//!
//! The CPU time is that of all threads of the broker from a moment at which all are gone, the messages are stored and nothing is
//! under way to one at which all have everything. What the broker does meanwhile for connections that it has not given up yet is
//! in it.

use std::{error::Error, fmt, future::Future, sync::Arc, time::Duration};

use antiphon_sdk::{
    Attached, Client, ContentType, DeviceId, Endpoint, From, Item, LogName, NewMessage, Position, Subscription,
};
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    blocks::{Blocks, MEMBERS},
    fanout::SESSIONS_PER_SOCKET,
    measured::{Scenario, one_thread},
    payload::{number, numbered},
    probe::cpu_us_between,
    target::Target,
    tickets::{FullHandshakes, Kept},
    wire::OPENING_MAX,
};

/// From the end of all connections, and from the last message, to what comes next.
pub(crate) const REST: Duration = Duration::from_secs(1);
/// Nothing more than what was missed comes within this time.
pub(crate) const AFTERMATH: Duration = Duration::from_secs(1);
/// How long everybody may take to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// The load.
#[derive(Debug, Args)]
pub struct StormArgs {
    /// Sessions, each on a connection of its own; a multiple of --members.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) connections: usize,
    /// Conversations that each session follows.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) subscriptions: usize,
    /// Sessions that follow the same conversations.
    #[arg(long, value_name = "N", default_value_t = MEMBERS)]
    pub(crate) members: usize,
    /// Messages of each conversation while everybody is away.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub(crate) missed: usize,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Over how long they come back, one after the other.
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub(crate) within: f64,
    /// They keep the tickets of their TLS sessions; else each comes back as a process that was started anew, with the token
    /// that it had stored.
    #[arg(long)]
    pub(crate) tickets: bool,
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StormReport {
    /// Sessions.
    pub connections: usize,
    /// Conversations that each follows.
    pub subscriptions: usize,
    /// Sessions that came back and got everything that they had missed.
    pub recovered: usize,
    /// What they got, each message checked.
    pub missed_messages: u64,
    /// TLS sessions that were resumed, where clients keep tickets.
    pub resumed: Option<usize>,
    /// From the first one's return until 99 of 100 had everything.
    pub seconds_to_99_percent: Option<f64>,
    /// CPU time of the broker per session, in microseconds.
    pub cpu_us_per_session: Option<f64>,
    /// What went wrong first.
    pub broken: Option<String>,
}

impl StormReport {
    /// Everybody came back and got what was missed, once and in order.
    pub fn holds(&self) -> bool {
        self.broken.is_none() && self.recovered == self.connections
    }

    /// Takes over who came back, each with so many messages, and the CPU time, in microseconds.
    pub(crate) fn apply<S>(&mut self, back: &mut Back<S>, missed: usize, cpu_us: Option<f64>) {
        self.recovered = back.sessions.len();
        self.missed_messages = (self.recovered * missed) as u64;
        self.seconds_to_99_percent = back.seconds_to_99_percent(self.connections);
        self.cpu_us_per_session = cpu_us.map(|us| us / self.connections as f64);
        self.broken = back.broken.take();
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |figure: Option<f64>| figure.map_or_else(|| "unknown".into(), |figure| format!("{figure:.2}"));
        let Self { connections, subscriptions, recovered, missed_messages, .. } = self;
        writeln!(f, "storm                         {connections} sessions x {subscriptions} logs")?;
        writeln!(f, "recovered                     {recovered}, with {missed_messages} missed messages")?;
        if let Some(resumed) = self.resumed {
            writeln!(f, "TLS sessions resumed          {resumed}")?;
        }
        writeln!(f, "seconds until 99 % were back  {}", figure(self.seconds_to_99_percent))?;
        writeln!(f, "server CPU us/session         {}", figure(self.cpu_us_per_session))?;
        let kept = self.broken.as_deref().unwrap_or("everybody got what was missed, once and in order");
        writeln!(f, "promises                      {kept}")
    }
}

/// Who came back.
#[derive(Debug)]
pub(crate) struct Back<S> {
    pub(crate) sessions: Vec<S>,
    /// When each had everything, from the first one's return.
    took: Vec<Duration>,
    pub(crate) broken: Option<String>,
}

impl<S> Back<S> {
    fn seconds_to_99_percent(&self, of: usize) -> Option<f64> {
        let mut took = self.took.clone();
        took.sort_unstable();
        let count = (of * 99).div_ceil(100);
        Some(took.get(count.checked_sub(1)?)?.as_secs_f64())
    }
}

/// Lets `count` sessions come back, one after the other over `within`, and waits until each has everything.
pub(crate) async fn come_back<S: Send + 'static, F>(
    count: usize,
    within: Duration,
    mut session: impl FnMut(usize) -> F,
) -> Back<S>
where
    F: Future<Output = Result<S, String>> + Send + 'static,
{
    let start = Instant::now();
    let mut returning = JoinSet::new();
    for number in 0..count {
        let due = start + within * number as u32 / count as u32;
        let session = session(number);
        returning.spawn(async move {
            sleep_until(due).await;
            session.await.map(|session| (session, start.elapsed()))
        });
    }
    let mut back = Back { sessions: Vec::with_capacity(count), took: Vec::with_capacity(count), broken: None };
    let deadline = start + within + PATIENCE;
    loop {
        match timeout_at(deadline, returning.join_next()).await {
            Ok(Some(Ok(Ok((session, took))))) => {
                back.sessions.push(session);
                back.took.push(took);
            }
            Ok(Some(Ok(Err(error)))) => _ = back.broken.get_or_insert(error),
            Ok(Some(Err(error))) => _ = back.broken.get_or_insert(error.to_string()),
            Ok(None) => return back,
            Err(_) => {
                let missing = format!("{} of {count} were back after {PATIENCE:?}", back.sessions.len());
                back.broken.get_or_insert(missing);
                return back;
            }
        }
    }
}

/// Runs what clients do in a runtime of their own and ends it under them: their sockets are gone without a word.
pub(crate) async fn vanish<T: Send + 'static, F>(clients: F) -> Result<T, Box<dyn Error>>
where
    F: Future<Output = Result<T, String>> + Send + 'static,
{
    let life = move || {
        let runtime = one_thread().map_err(|error| error.to_string())?;
        let done = runtime.block_on(async { timeout(PATIENCE, clients).await });
        done.map_err(|_| format!("not all clients were there after {PATIENCE:?}"))?
    };
    Ok(tokio::task::spawn_blocking(life).await??)
}

impl Scenario for StormArgs {
    type Report = StormReport;

    async fn run(&self, target: &Arc<Target>) -> Result<StormReport, Box<dyn Error>> {
        run(self, target).await
    }

    fn holds(report: &StormReport) -> bool {
        report.holds()
    }
}

/// Runs it against a broker.
async fn run(args: &StormArgs, target: &Arc<Target>) -> Result<StormReport, Box<dyn Error>> {
    let StormArgs { connections, subscriptions, members, missed, bytes, within, tickets } = *args;
    if connections == 0 || members == 0 || !connections.is_multiple_of(members) {
        return Err("--connections must be a multiple of --members".into());
    }
    let blocks = Blocks { run: format!("storm{}", std::process::id()), subscriptions, members };
    let service = target.connect_service(&format!("{}.service", blocks.run)).await?;
    let writer = format!("{}.writer", blocks.run);
    for block in 0..connections / members {
        blocks.make(&service, block, Some(&writer.parse()?)).await?;
    }
    let writer = target.connect(&writer, target.endpoint().map_err(|error| *error)?, 0).await?;

    let handshakes = FullHandshakes::default();
    let clients = Clients::new(target, &blocks, connections, tickets.then_some(&handshakes))?;
    let known = vanish(follow(clients.clone(), connections)).await?;
    sleep(REST).await;
    let rooms = if missed == 0 { 0 } else { connections / members * subscriptions };
    for room in 0..rooms {
        write(&writer, &blocks.log(room)?, Missed { room, count: missed, bytes }).await?;
    }
    sleep(REST).await;

    let endpoints = endpoints(target, connections)?;
    let full_before = handshakes.count();
    let before = target.cpu_ns();
    let mut back = come_back(connections, Duration::from_secs_f64(within), |session| {
        let (clients, endpoint) = (clients.clone(), endpoints[session % endpoints.len()].clone());
        let places = blocks.rooms(session).zip(known[session].clone()).map(|(room, (log, after))| {
            let missed = Missed { room, count: missed, bytes };
            (log, after, missed)
        });
        resume(clients, session, endpoint, places.collect())
    })
    .await;
    sleep(AFTERMATH).await;
    let cpu_us = cpu_us_between(before, target.cpu_ns());
    if let Some(surplus) = back.sessions.iter_mut().flat_map(|(_, events)| events).find_map(surplus) {
        back.broken.get_or_insert(surplus);
    }
    let mut report = StormReport { connections, subscriptions, ..Default::default() };
    report.apply(&mut back, subscriptions * missed, cpu_us);
    report.resumed = tickets.then(|| report.recovered.saturating_sub(handshakes.count() - full_before));
    Ok(report)
}

/// How sessions connect.
#[derive(Debug, Clone)]
struct Clients {
    target: Arc<Target>,
    blocks: Blocks,
    /// What each has kept.
    kept: Arc<[Kept]>,
}

impl Clients {
    /// So many clients, which keep their tokens; their tickets, too, if full handshakes are counted.
    fn new(
        target: &Arc<Target>,
        blocks: &Blocks,
        count: usize,
        handshakes: Option<&FullHandshakes>,
    ) -> Result<Self, Box<dyn Error>> {
        let keep = |session| {
            let token = target.user_token(&blocks.user(session));
            match handshakes {
                Some(handshakes) => Kept::with_tickets(target.trust(), token, handshakes),
                None => Ok(Kept { token, quic: None }),
            }
        };
        let kept = (0..count).map(keep).collect::<Result<_, _>>()?;
        Ok(Self { target: target.clone(), blocks: blocks.clone(), kept })
    }

    async fn connect(&self, session: usize, endpoint: Endpoint) -> Result<Client, String> {
        let device = DeviceId::new("phone").map_err(|error| error.to_string())?;
        let client = self.target.connect_again(&self.kept[session], device, endpoint).await;
        client.map_err(|error| format!("{}: {error}", self.blocks.user(session)))
    }
}

/// UDP sockets for so many sessions.
fn endpoints(target: &Target, sessions: usize) -> Result<Vec<Endpoint>, Box<antiphon_sdk::Error>> {
    (0..sessions.div_ceil(SESSIONS_PER_SOCKET)).map(|_| target.endpoint()).collect()
}

/// The conversations of a session, each with the position up to which it has everything.
type Known = Vec<(LogName, Position)>;

/// Connects all sessions and lets each follow its conversations. Their positions at last.
async fn follow(clients: Clients, connections: usize) -> Result<Vec<Known>, String> {
    let endpoints = endpoints(&clients.target, connections).map_err(|error| error.to_string())?;
    let mut sessions = Vec::with_capacity(connections);
    for first in (0..connections).step_by(OPENING_MAX) {
        let mut opening = JoinSet::new();
        for session in first..(first + OPENING_MAX).min(connections) {
            let (clients, endpoint) = (clients.clone(), endpoints[session % endpoints.len()].clone());
            opening.spawn(async move {
                let client = clients.connect(session, endpoint).await?;
                let mut events = Vec::new();
                for room in clients.blocks.rooms(session) {
                    let log = clients.blocks.log(room).map_err(|error| error.to_string())?;
                    events.push(client.subscribe(&log, From::Tail).await.map_err(|error| error.to_string())?);
                }
                Ok::<_, String>((session, client, events))
            });
        }
        while let Some(session) = opening.join_next().await {
            sessions.push(session.map_err(|error| error.to_string())??);
        }
    }
    sessions.sort_by_key(|(session, ..)| *session);
    let known = |events: &Subscription| (events.log().clone(), events.position());
    Ok(sessions.iter().map(|(_, _, events)| events.iter().map(known).collect()).collect())
}

/// What a conversation gets while nobody is there.
#[derive(Debug, Clone, Copy)]
struct Missed {
    room: usize,
    count: usize,
    bytes: usize,
}

impl Missed {
    /// Number of the first message, over all conversations.
    fn first(self) -> u64 {
        (self.room * self.count) as u64
    }
}

async fn write(writer: &Client, log: &LogName, missed: Missed) -> Result<(), Box<dyn Error>> {
    let body = |number| Bytes::from(numbered(missed.first() + number, missed.bytes));
    let messages = (0..missed.count as u64).map(|number| NewMessage::new(log.clone(), ContentType::Text, body(number)));
    for sent in writer.send_batch(messages.collect()).await? {
        sent?;
    }
    Ok(())
}

/// Connects again and resumes all conversations at once. Both stay, so that the session goes on.
async fn resume(
    clients: Clients,
    session: usize,
    endpoint: Endpoint,
    places: Vec<(LogName, Position, Missed)>,
) -> Result<(Client, Vec<Subscription>), String> {
    let client = clients.connect(session, endpoint).await?;
    let mut resuming = JoinSet::new();
    for (log, after, missed) in places {
        resuming.spawn(catch_up(client.clone(), log, after, missed));
    }
    let mut all = Vec::new();
    while let Some(events) = resuming.join_next().await {
        let events = events.map_err(|error| error.to_string())?;
        all.push(events.map_err(|error| format!("session {session}: {error}"))?);
    }
    Ok((client, all))
}

/// Follows a conversation from a position on, and checks that what was missed comes, each message in its place.
async fn catch_up(client: Client, log: LogName, after: Position, missed: Missed) -> Result<Subscription, String> {
    let mut events = client.subscribe(&log, From::Position(after)).await.map_err(|error| format!("{log}: {error}"))?;
    must_be_where_it_was(events.attached(), after, missed).map_err(|error| format!("{log}: {error}"))?;
    for nth in 0..missed.count as u64 {
        let (seq, wanted) = (after.seq + 1 + nth, missed.first() + nth);
        let event = loop {
            match events.next().await {
                Some(Item::Event(event)) => break event,
                Some(Item::Attached(_) | Item::Cursor(_) | Item::Signal(_)) => {}
                other => return Err(format!("{log}: {other:?} came instead of position {seq}")),
            }
        };
        let found = number(&event.body());
        if (event.seq(), found) != (seq, Some(wanted)) {
            return Err(format!("{log}: message {found:?} at {} came instead of {wanted} at {seq}", event.seq()));
        }
    }
    Ok(events)
}

/// A subscription goes on after the position that it had, and has before it what was missed.
fn must_be_where_it_was(attached: &Attached, after: Position, missed: Missed) -> Result<(), String> {
    let head = Position { seq: after.seq + missed.count as u64, ..after };
    if (attached.after, attached.head) == (after, head) {
        return Ok(());
    }
    Err(format!("it goes on after {:?} of {:?}, not after {after:?} of {head:?}", attached.after, attached.head))
}

/// Whether something came that was not missed.
fn surplus(events: &mut Subscription) -> Option<String> {
    let log = events.log().clone();
    let is_surplus = |item: &Item| !matches!(item, Item::Attached(_) | Item::Cursor(_) | Item::Signal(_));
    std::iter::from_fn(|| events.try_next()).find(is_surplus).map(|item| format!("{log}: {item:?} came, too"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn they_come_back_on_schedule_whoever_is_slow() {
        let back = come_back(100, Duration::from_secs(1), |number| async move {
            sleep(Duration::from_secs(if number == 0 { 5 } else { 0 })).await;
            Ok(number)
        });
        let start = Instant::now();
        let mut back = back.await;
        assert!(start.elapsed() >= Duration::from_secs(5));
        back.sessions.sort_unstable();
        assert_eq!(back.sessions, (0..100).collect::<Vec<_>>());
        assert_eq!(back.broken, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stays_away_is_missed_and_who_fails_is_told() {
        let back = come_back(2, Duration::ZERO, |number| async move {
            if number == 0 { std::future::pending().await } else { Ok(number) }
        });
        let back = back.await;
        assert_eq!((back.sessions, back.broken.unwrap().contains("1 of 2")), (vec![1], true));
        let back = come_back(1, Duration::ZERO, |_| async { Err::<(), _>("refused".to_owned()) }).await;
        assert_eq!(back.broken.as_deref(), Some("refused"));
    }

    #[test]
    fn a_subscription_goes_on_where_it_was_or_is_told() {
        let at = |epoch, seq| Position { epoch, seq };
        let missed = |count| Missed { room: 0, count, bytes: 50 };
        let attached = |after, head| Attached { after, head, floor: 1, head_msgno: 0, cursors: Vec::new() };
        assert_eq!(must_be_where_it_was(&attached(at(1, 7), at(1, 7)), at(1, 7), missed(0)), Ok(()));
        assert_eq!(must_be_where_it_was(&attached(at(1, 7), at(1, 12)), at(1, 7), missed(5)), Ok(()));
        for wrong in [(at(1, 8), at(1, 8)), (at(1, 7), at(1, 8)), (at(2, 7), at(2, 7))] {
            let attached = attached(wrong.0, wrong.1);
            assert!(must_be_where_it_was(&attached, at(1, 7), missed(0)).is_err(), "{attached:?}");
        }
    }

    #[test]
    fn ninety_nine_in_a_hundred_are_back_when_the_last_of_them_is() {
        let took = (1..=200).map(Duration::from_secs).collect();
        let back = |of| Back { sessions: vec![(); 200], took, broken: None }.seconds_to_99_percent(of);
        assert_eq!(back(200), Some(198.0));
        let few = Back::<()> { sessions: vec![], took: vec![], broken: None };
        assert_eq!(few.seconds_to_99_percent(10), None);
    }

    #[tokio::test]
    async fn sockets_go_without_a_word() {
        let listener = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let own = vanish(async move {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
            socket.send_to(b"here", address).await.map_err(|error| error.to_string())?;
            let own = socket.local_addr().map_err(|error| error.to_string())?;
            tokio::spawn(async move {
                sleep(Duration::from_secs(3_600)).await;
                socket.send_to(b"still here", address).await
            });
            Ok(own)
        });
        let own = own.await.unwrap();
        assert!(std::net::UdpSocket::bind(own).is_ok(), "the socket is closed");
    }
}
