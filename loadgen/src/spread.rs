//! One load spread over few or many conversations: whether a message costs the broker more where there are many.
//!
//! Each connection is a bare session ([`crate::wire`]) that owns its share of the conversations and sends to one of them at
//! random, on a schedule that waits for nobody. Every acknowledgement must be the answer to a request and name the next position
//! of its conversation. The CPU time is that between two moments at which nothing is under way.
//!
//! What is measured is a broker that has been at work for a while: it is started anew once the conversations are made, then each
//! of them gets a message, so that all are in its memory, and then it comes to rest. Neither the making nor the loading nor what
//! the store has to do afterwards for both is in the figure.

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use antiphon_protocol::{ConversationId, FrameType, LogName, UserId, frames::Ack};
use antiphon_sdk::{Client, NewConversation};
use clap::Args;
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    chance::Chance,
    fanout::{messages, new_send},
    measured::Scenario,
    probe::cpu_us_between,
    report::LatencySummary,
    rooms::{Choice, Publish, Rooms},
    target::Target,
    wire::{Dialer, KEEP_ALIVE, Session, WireError, expect, open_all},
};

/// Conversations that are being made at the same time.
const MAKING_MAX: usize = 32;
/// How much faster the first messages are sent than those of the measurement.
const FIRST_TIMES_FASTER: f64 = 10.0;
/// The broker rests if it uses less than this part of a processor for so long.
const REST_LOAD_MAX: f64 = 0.01;
const REST: Duration = Duration::from_secs(1);
/// How long it may have something to do after the first messages.
const REST_WITHIN: Duration = Duration::from_secs(60);

/// The load.
#[derive(Debug, Args)]
pub struct SpreadArgs {
    /// Conversations, or as many as can be made in the time for that.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub(crate) conversations: usize,
    /// Connections that send, each to its share of them.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) connections: usize,
    /// Bytes of a message's body.
    #[arg(long, value_name = "B", default_value_t = 200)]
    pub(crate) bytes: usize,
    /// Messages per second.
    #[arg(long, value_name = "R", default_value_t = 2_000.0)]
    pub(crate) rate: f64,
    /// How long conversations may be made.
    #[arg(long, value_name = "S", default_value_t = 60.0)]
    pub(crate) making: f64,
    /// Messages to one conversation after the other before anything else, ten times as fast; at least one to each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) first: usize,
    /// Length of the measurement.
    #[arg(long, value_name = "S", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Load before the measurement.
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    pub(crate) warm_up: f64,
    /// What the preparation made.
    #[arg(skip)]
    pub(crate) made: OnceLock<Made>,
}

/// Conversations that were made.
#[derive(Debug)]
pub(crate) struct Made {
    users: Vec<String>,
    /// Those of each user.
    logs: Vec<Vec<LogName>>,
    seconds: f64,
}

/// What a run measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SpreadReport {
    /// Conversations that were made.
    pub conversations: usize,
    /// How long that took.
    pub making_seconds: f64,
    /// Messages of the measurement, each acknowledged at the next position of its conversation.
    pub messages: u64,
    /// CPU time of the broker per message, in microseconds.
    pub cpu_us_per_message: Option<f64>,
    /// Memory of the broker at the end, in KiB.
    pub resident_kib: Option<u64>,
    /// From the planned send to the actual one.
    pub lag: Option<LatencySummary>,
}

impl fmt::Display for SpreadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { conversations, making_seconds, messages, .. } = self;
        writeln!(f, "spread over                   {conversations} conversations, made in {making_seconds:.1} s")?;
        writeln!(f, "acknowledged                  {messages}, each at the next position of its conversation")?;
        let cpu = self.cpu_us_per_message.map_or_else(|| "unknown".into(), |us| format!("{us:.2}"));
        writeln!(f, "server CPU us/message         {cpu}")
    }
}

/// A conversation of one connection.
struct Room {
    log: LogName,
    sent: u64,
    /// Position of its newest message.
    position: Option<u64>,
}

/// Sends to its conversations at random.
struct Sender {
    session: Session,
    rooms: Vec<Room>,
    chance: Chance,
    body: Vec<u8>,
    sent: u64,
    /// So many go to one conversation after the other.
    in_turn: usize,
    /// Requests without an answer, each with its conversation.
    waiting: BTreeMap<u32, usize>,
}

impl Sender {
    async fn send(&mut self) -> Result<(), WireError> {
        let at = match usize::try_from(self.sent) {
            Ok(sent) if sent < self.in_turn => sent % self.rooms.len(),
            _ => self.chance.below(self.rooms.len()),
        };
        let room = &mut self.rooms[at];
        room.sent += 1;
        self.sent += 1;
        let id = self.session.next_id();
        self.waiting.insert(id, at);
        let frame = new_send(&room.log, room.sent, &self.body).to_frame(id);
        self.session.write(frame).await
    }

    async fn receive(&mut self) -> Result<(u32, Ack), WireError> {
        let answer = self.session.answer().await?;
        expect(FrameType::Ack, &answer)?;
        Ok((answer.id, Ack::decode(&answer.body)?))
    }
}

/// Takes over an acknowledgement.
fn note(rooms: &mut [Room], waiting: &mut BTreeMap<u32, usize>, request: u32, ack: &Ack) -> Result<(), String> {
    let at = waiting.remove(&request).ok_or_else(|| format!("nobody waits for an answer to request {request}"))?;
    let Room { log, position, .. } = &mut rooms[at];
    let (found, wanted) = (ack.position.seq, position.map_or(ack.position.seq, |last| last + 1));
    if found != wanted || ack.duplicate {
        return Err(format!("{log}: request {request} was acknowledged at {found}, not {wanted}"));
    }
    *position = Some(found);
    Ok(())
}

impl Publish for Sender {
    async fn write(&mut self) -> Result<(), String> {
        self.send().await.map_err(|error| error.to_string())
    }

    async fn answer(&mut self) -> Result<(), String> {
        let (request, ack) = self.receive().await.map_err(|error| error.to_string())?;
        note(&mut self.rooms, &mut self.waiting, request, &ack)
    }

    fn is_owed(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn sent(&self) -> u64 {
        self.sent
    }

    /// Nobody follows.
    fn next_position(&self) -> u64 {
        0
    }
}

impl Scenario for SpreadArgs {
    type Report = SpreadReport;

    /// Makes the conversations.
    async fn prepare(&self, target: &Target) -> Result<bool, Box<dyn Error>> {
        let run = format!("spread{}", std::process::id());
        let users: Vec<String> = (0..self.connections.max(1)).map(|number| format!("{run}.{number}")).collect();
        let service = target.connect_service(&format!("{run}.service")).await?;
        let start = Instant::now();
        let deadline = start + Duration::from_secs_f64(self.making);
        let logs = make(&service, &run, &users, self.conversations, deadline).await?;
        service.close().await;
        let made = Made { users, logs, seconds: start.elapsed().as_secs_f64() };
        self.made.set(made).map_err(|_| "conversations are made once")?;
        Ok(true)
    }

    async fn run(&self, target: &Arc<Target>) -> Result<SpreadReport, Box<dyn Error>> {
        run(self, target).await
    }

    /// A wrong acknowledgement ends the run.
    fn holds(_: &SpreadReport) -> bool {
        true
    }
}

/// Runs it against a broker.
async fn run(args: &SpreadArgs, target: &Target) -> Result<SpreadReport, Box<dyn Error>> {
    let SpreadArgs { rate, seconds, warm_up, .. } = *args;
    let Made { users, logs, seconds: making_seconds } = args.made.get().ok_or("no conversations were made")?;
    let most = logs.iter().map(Vec::len).max().unwrap_or_default();
    let in_turn = args.first.div_ceil(users.len()).max(most);
    let mut senders = open_senders(args, target, in_turn).await?;
    senders.set_rate(rate * FIRST_TIMES_FASTER);
    senders.send((in_turn * users.len()) as u64, Choice::Turns, false).await?;
    come_to_rest(target).await?;
    senders.set_rate(rate);
    senders.send(messages(warm_up, rate), Choice::Turns, false).await?;
    let (before, messages) = (target.process_usage(), messages(seconds, rate).max(1));
    let lag = senders.send(messages, Choice::Turns, true).await?.summary();
    let after = target.process_usage();
    Ok(SpreadReport {
        conversations: logs.iter().map(Vec::len).sum(),
        making_seconds: *making_seconds,
        messages,
        cpu_us_per_message: cpu_us_between(before.cpu_ns, after.cpu_ns).map(|us| us / messages as f64),
        resident_kib: after.resident_kib,
        lag,
    })
}

/// Connects the users, each of whom sends so many messages to its conversations in turn and then at random.
async fn open_senders(args: &SpreadArgs, target: &Target, in_turn: usize) -> Result<Rooms<Sender>, Box<dyn Error>> {
    let Made { users, logs, .. } = args.made.get().ok_or("no conversations were made")?;
    let dialer = Arc::new(Dialer::new(target.address(), target.trust(), users.len(), KEEP_ALIVE)?);
    let mut senders = Rooms::new(args.rate);
    for ((seed, session), logs) in (0..).zip(open_all(target, &dialer, users).await?).zip(logs) {
        let rooms: Vec<Room> = logs.iter().map(|log| Room { log: log.clone(), sent: 0, position: None }).collect();
        if rooms.is_empty() {
            return Err("there are fewer conversations than connections".into());
        }
        let (chance, body) = (Chance::new(seed), vec![b'x'; args.bytes]);
        let sender = Sender { session, rooms, chance, body, sent: 0, in_turn, waiting: BTreeMap::new() };
        let (plan, _nobody_follows) = watch::channel(None);
        senders.add(sender, plan);
    }
    Ok(senders)
}

/// Waits until the broker does hardly anything by itself any more, where that can be seen.
async fn come_to_rest(target: &Target) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    while start.elapsed() < REST_WITHIN {
        let before = (target.cpu_ns(), Instant::now());
        sleep(REST).await;
        let used_us = cpu_us_between(before.0, target.cpu_ns());
        if used_us.is_none_or(|us| us < REST_LOAD_MAX * before.1.elapsed().as_secs_f64() * 1e6) {
            return Ok(());
        }
    }
    Err(format!("the broker had something to do {} s after the first messages", REST_WITHIN.as_secs()).into())
}

/// Makes conversations of one member each until there are `count`, or `deadline`; those of each user.
async fn make(
    service: &Client,
    run: &str,
    users: &[String],
    count: usize,
    deadline: Instant,
) -> Result<Vec<Vec<LogName>>, Box<dyn Error>> {
    let mut making = JoinSet::new();
    let users_by_number: Arc<[UserId]> = users.iter().map(|user| user.parse()).collect::<Result<_, _>>()?;
    for worker in 0..MAKING_MAX {
        let (service, run, users) = (service.clone(), run.to_owned(), users_by_number.clone());
        making.spawn(async move {
            let mut made = Vec::new();
            for number in (worker..count).step_by(MAKING_MAX) {
                if Instant::now() > deadline {
                    break;
                }
                let id: ConversationId = format!("{run}.{number}").parse().map_err(|_| "a name is not allowed")?;
                let owner = number % users.len();
                let act_as = Some(users[owner].clone());
                let new = NewConversation { act_as, ..NewConversation::group(id.clone(), []) };
                service.create_conversation(new).await.map_err(|error| error.to_string())?;
                made.push((owner, LogName::Conversation(id)));
            }
            Ok::<_, String>(made)
        });
    }
    let mut of_users = vec![Vec::new(); users.len()];
    while let Some(made) = making.join_next().await {
        made??.into_iter().for_each(|(owner, log)| of_users[owner].push(log));
    }
    // Whichever was made first: the schedule is to be the same every time.
    of_users.iter_mut().for_each(|logs| logs.sort_unstable());
    Ok(of_users)
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::Position;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn acknowledgements_count_in_each_conversation() {
        let room = |name: &str| Room { log: name.parse().unwrap(), sent: 0, position: None };
        let mut rooms = [room("c:a"), room("c:b")];
        let mut waiting: BTreeMap<u32, usize> = [(1, 0), (2, 1), (3, 0), (4, 0)].into();
        let ack = |seq| {
            let position = Position { epoch: 1, seq };
            Ack { position, msgno: seq, time_ms: 0, event_id: Uuid::nil(), duplicate: false }
        };
        for (request, seq) in [(2, 7), (1, 3), (3, 4)] {
            note(&mut rooms, &mut waiting, request, &ack(seq)).unwrap();
        }
        assert!(note(&mut rooms, &mut waiting, 3, &ack(5)).unwrap_err().contains("nobody waits"));
        assert!(note(&mut rooms, &mut waiting, 4, &ack(4)).unwrap_err().contains("not 5"));
    }
}
