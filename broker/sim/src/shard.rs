//! One thread of the broker: its node, its part of the store, and everything that is on its way to it.
//!
//! A turn takes in what has arrived, lets the node work, performs its effects and hands out its datagrams, exactly as
//! the server's loop does. Turns take time, during which arrivals wait.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use antiphon_core::{Counters, Input, Output, ShardMessage};
use antiphon_node::{Datagram, Listener, Node};
use antiphon_storage::embedded::simulated::SimulatedShard;
use antiphon_storage_contract::{Completion, EventLog, Op, Outcome, StoreError, Token};
use bytes::BytesMut;
use uuid::Uuid;

use crate::{
    broker::Sent,
    clock::Moment,
    stage::{Boot, Happening, ShardIndex, Stage},
    tally::Fault,
    tokens,
};

/// Datagrams taken in per turn; the rest waits in the socket.
const DATAGRAMS_PER_TURN: usize = 64;
/// Datagrams that a socket holds. Full: further ones are lost.
const SOCKET_DATAGRAMS_MAX: usize = 80;
/// Messages under way between two shards. Full: they wait at their sender.
const MAIL_MAX: usize = 64;

/// Something that has reached a shard and waits for its turn.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A datagram in its socket.
    Datagram {
        /// The client's address.
        from: SocketAddr,
        /// Its content.
        bytes: BytesMut,
    },
    /// A completion, a verdict, mail, or an order.
    Input(Input),
}

/// A shard of one start of the broker.
#[derive(Debug)]
pub(crate) struct Shard {
    node: Node,
    store: SimulatedShard,
    boot: Boot,
    index: ShardIndex,
    arrivals: VecDeque<Arrival>,
    datagrams_waiting: usize,
    /// When the next turn begins, if one is due.
    turn: Option<Moment>,
    /// When the node wants to be called, as noted in the agenda.
    timer: Option<Moment>,
    busy_until: Moment,
    /// Disk requests whose end is in the agenda.
    disk_scheduled: usize,
    disk_busy_until: Moment,
    /// For each other shard, how much mail of its is under way, and when the latest arrives.
    mail: Vec<(usize, Moment)>,
    /// Sends in appends that are not durable.
    appends: BTreeMap<Token, Vec<Uuid>>,
    durable: Vec<Uuid>,
}

impl Shard {
    /// A shard that has done nothing.
    pub(crate) fn new(node: Node, store: SimulatedShard, boot: Boot, index: usize, shards: usize) -> Self {
        Self {
            node,
            store,
            boot,
            index: ShardIndex(index),
            arrivals: VecDeque::new(),
            datagrams_waiting: 0,
            turn: None,
            timer: None,
            busy_until: Moment::default(),
            disk_scheduled: 0,
            disk_busy_until: Moment::default(),
            mail: vec![(0, Moment::default()); shards],
            appends: BTreeMap::new(),
            durable: Vec::new(),
        }
    }

    /// The node, for its mail.
    pub(crate) fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    /// What the shard has done.
    pub(crate) fn counters(&self) -> &Counters {
        self.node.counters()
    }

    /// Disk requests that have not finished.
    pub(crate) fn disk_requests(&self) -> usize {
        self.disk_scheduled
    }

    /// Ids of sends that have become durable since the last call.
    pub(crate) fn take_durable(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.durable)
    }

    /// Does nothing until then.
    pub(crate) fn pause(&mut self, until: Moment) {
        self.busy_until = self.busy_until.max(until);
    }

    /// Its disk does nothing until then.
    pub(crate) fn stall_disk(&mut self, until: Moment) {
        self.disk_busy_until = self.disk_busy_until.max(until);
    }

    /// Takes in something; the turn that looks at it comes as soon as the shard is free.
    pub(crate) fn arrive(&mut self, stage: &mut Stage, arrival: Arrival) {
        if matches!(arrival, Arrival::Datagram { .. }) {
            if self.datagrams_waiting >= SOCKET_DATAGRAMS_MAX {
                stage.tally.count(Fault::SocketFull);
                return;
            }
            self.datagrams_waiting += 1;
        }
        self.arrivals.push_back(arrival);
        self.turn_at(stage, stage.now);
    }

    /// Makes sure of a turn at that time or, if the shard is busy then, as soon as it is free.
    pub(crate) fn turn_at(&mut self, stage: &mut Stage, when: Moment) {
        let when = when.max(self.busy_until).max(stage.now);
        if self.turn.is_none_or(|turn| when < turn) {
            self.turn = Some(when);
            stage.at(when, Happening::Turn(self.boot, self.index));
        }
    }

    /// How much more mail of that shard has room.
    pub(crate) fn mail_room(&self, from: ShardIndex) -> usize {
        MAIL_MAX - self.mail[from.0].0
    }

    /// Notes that a message of that shard is under way. Returns when it arrives: after those before it.
    pub(crate) fn expect_mail(&mut self, stage: &mut Stage, from: ShardIndex) -> Moment {
        let delay = Duration::from_micros(1 + stage.random.below(40));
        let (under_way, latest) = &mut self.mail[from.0];
        *under_way += 1;
        *latest = (*latest).max(stage.now + delay);
        *latest
    }

    /// A message of another shard is here.
    pub(crate) fn receive_mail(&mut self, stage: &mut Stage, from: ShardIndex, message: ShardMessage) {
        self.mail[from.0].0 -= 1;
        let from = antiphon_core::ShardId(from.0 as u16);
        self.arrive(stage, Arrival::Input(Input::Mail { from, message }));
    }

    /// Takes a turn if one is due now; whether it did.
    pub(crate) fn turn(&mut self, stage: &mut Stage, sent: &mut Vec<Sent>) -> bool {
        if self.turn != Some(stage.now) {
            return false;
        }
        self.turn = None;
        if self.busy_until > stage.now {
            self.turn_at(stage, stage.now);
            return false;
        }
        let now = stage.clock.instant(stage.now);
        let taken = self.take_arrivals(stage);
        self.node.turn(now);
        self.perform_effects(stage);
        let datagrams = self.transmit(stage, sent);
        let cost = 15 + 3 * (taken + datagrams) as u64 + stage.random.below(20);
        self.busy_until = stage.now + Duration::from_micros(cost);
        if self.node.has_work() || !self.arrivals.is_empty() {
            self.turn_at(stage, stage.now);
        }
        self.note_timer(stage);
        true
    }

    fn take_arrivals(&mut self, stage: &mut Stage) -> usize {
        let now = stage.clock.instant(stage.now);
        let mut taken = 0;
        let mut datagrams = 0;
        while let Some(arrival) = self.arrivals.pop_front() {
            match arrival {
                Arrival::Datagram { from, bytes } => {
                    self.datagrams_waiting -= 1;
                    datagrams += 1;
                    stage.saw_bytes(&bytes);
                    let listener = Listener::Clients;
                    self.node.handle_datagram(
                        now,
                        Datagram { listener, remote: from, local_ip: None, ecn: None, data: bytes },
                    );
                }
                Arrival::Input(input) => self.node.handle(now, input),
            }
            taken += 1;
            if datagrams >= DATAGRAMS_PER_TURN {
                break;
            }
        }
        taken
    }

    fn perform_effects(&mut self, stage: &mut Stage) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Store { op, token } => self.submit(stage, op, token),
                Output::Verify { ticket, token } => {
                    let result = tokens::verdict(&token.0, stage.now.unix_us() / 1_000);
                    if result.is_err() {
                        stage.tally.count(Fault::TokenExpired);
                    }
                    let at = stage.now + Duration::from_micros(50 + stage.random.below(500));
                    stage.at(at, Happening::Verified(self.boot, self.index, ticket, Box::new(result)));
                }
                // The node closes connections itself, and no operator asks.
                Output::Close { .. } | Output::Explained(_) | Output::Presence(_) => {}
            }
        }
        self.collect_completions(stage);
    }

    fn submit(&mut self, stage: &mut Stage, op: Op, token: Token) {
        if let Op::Append { rows, .. } = &op {
            stage.saw(|| {
                let rows: Vec<_> = rows.iter().map(|row| (row.seq(), row.client_message_id())).collect();
                format!("shard {} appends {token:?} {rows:?}", self.index.0)
            });
            self.appends.insert(token, rows.iter().map(|row| row.client_message_id()).collect());
        }
        self.store.submit(op, token);
    }

    /// Takes the store's completions: writes as they are, reads after the time that a reader thread takes.
    fn collect_completions(&mut self, stage: &mut Stage) {
        let mut completions = Vec::new();
        self.store.poll_completions(&mut completions);
        for completion in completions {
            if let Some(ids) = self.appends.remove(&completion.token) {
                stage.saw(|| format!("shard {} appended {completion:?}", self.index.0));
                if completion.result.is_ok() {
                    self.durable.extend(ids);
                }
            }
            let at = stage.now + read_delay(stage, &completion);
            let input = Box::new(Input::Stored(completion));
            stage.at(at, Happening::Ready(self.boot, self.index, input));
        }
        while self.disk_scheduled < self.store.writer_mut().under_way() {
            self.disk_scheduled += 1;
            let at = stage.now.max(self.disk_busy_until) + disk_delay(stage);
            stage.at(at, Happening::DiskDone(self.boot, self.index));
        }
    }

    /// One of the disk requests finishes, not always the oldest.
    pub(crate) fn disk_done(&mut self, stage: &mut Stage) {
        self.disk_scheduled = self.disk_scheduled.saturating_sub(1);
        let choice = if stage.random.per_mille(300) { stage.random.below(8) } else { 0 };
        if choice % self.store.writer_mut().under_way().max(1) as u64 != 0 {
            stage.tally.count(Fault::DiskReorder);
        }
        self.store.writer_mut().finish_one(choice);
        self.collect_completions(stage);
    }

    fn transmit(&mut self, stage: &mut Stage, sent: &mut Vec<Sent>) -> usize {
        let now = stage.clock.instant(stage.now);
        let mut buffer = Vec::new();
        let before = sent.len();
        while let Some(transmit) = self.node.poll_transmit(now, Listener::Clients, 1, &mut buffer) {
            let bytes = BytesMut::from(&buffer[..transmit.size]);
            stage.saw_bytes(&bytes);
            sent.push(Sent { to: transmit.destination, bytes });
            buffer.clear();
        }
        sent.len() - before
    }

    fn note_timer(&mut self, stage: &mut Stage) {
        let wanted = self.node.poll_timeout().map(|at| stage.clock.moment(at).max(stage.now));
        if wanted != self.timer {
            self.timer = wanted;
            if let Some(at) = wanted {
                stage.at(at, Happening::ShardDue(self.boot, self.index));
            }
        }
    }

    /// The time that the node asked for has come, unless it asked for another one since.
    pub(crate) fn due(&mut self, stage: &mut Stage) {
        if self.timer == Some(stage.now) {
            self.timer = None;
            self.turn_at(stage, stage.now);
        }
    }

    /// Closes every connection and hands out the last datagrams.
    pub(crate) fn close_all(&mut self, stage: &mut Stage, sent: &mut Vec<Sent>) {
        let now = stage.clock.instant(stage.now);
        self.node.close_all(now);
        self.node.turn(now);
        self.transmit(stage, sent);
    }
}

fn read_delay(stage: &mut Stage, completion: &Completion) -> Duration {
    match &completion.result {
        // Writes are answered in order, so none may overtake another.
        Ok(Outcome::Done) | Err(StoreError::Full | StoreError::Degraded(_) | StoreError::Misuse(_)) => Duration::ZERO,
        Err(StoreError::Unavailable(_)) => Duration::ZERO,
        Ok(_) => Duration::from_micros(5 + stage.random.below(3_000)),
    }
}

fn disk_delay(stage: &mut Stage) -> Duration {
    match stage.random.below(20) {
        0 => Duration::from_micros(stage.random.below(60_000)),
        _ => Duration::from_micros(100 + stage.random.below(4_000)),
    }
}
