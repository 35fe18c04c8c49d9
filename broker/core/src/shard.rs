//! The shard: dispatch between its connection side and its owner side.

use antiphon_protocol::LogKey;
use antiphon_storage_contract::Completion;
use hashbrown::HashSet;

use crate::{
    connection_id::ConnectionId,
    counters::Counters,
    digests::Digests,
    effects::Effects,
    explain::{self, Explaining, Next},
    hash_key::HashKey,
    held::Held,
    home::Home,
    input::Input,
    journal::{self, Journal},
    limits::{
        DELIVERIES_PER_TURN, HANDLE_LOG_BITS, LOGS_RESIDENT_MAX, LOGS_RESTED_PER_TURN, SHARDS_MAX, WAKES_PER_TURN,
    },
    log::{Log, Place, Purpose},
    logs::Logs,
    mailbox::Mailbox,
    outbox::Outbox,
    output::Output,
    resume::ResumeKey,
    routing::{Routing, ShardId},
    shard_message::{Operation, Request, ShardMessage},
    time::Time,
    users::Users,
};

/// How often cursors that moved are saved, and what the store did not take is tried again.
const WRITE_BEHIND_INTERVAL_US: u64 = 1_000_000;

/// What a shard has to know when it starts.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Its number.
    pub shard: ShardId,
    /// How many there are, 1 to 64.
    pub shards: u16,
    /// Seed of everything random in it; secret and different at each boot.
    pub seed: [u8; 32],
    /// Seals resume tokens; the same for all shards and boots.
    pub resume_key: ResumeKey,
    /// Whether another broker may own the logs: until [`Input::Activate`] nobody is let in and the store is not asked.
    pub stands_by: bool,
    /// Whether who is present is shared with other brokers through a store of the shell's.
    pub shares_presence: bool,
}

/// One of the broker's state machines: it owns some logs and some connections, and shares nothing.
///
/// # Calling contract
///
/// Feed one input with [`handle`](Self::handle). Then, until each answers `None`: perform what
/// [`poll_output`](Self::poll_output) gives, write what [`poll_writable`](Self::poll_writable) names, and move mail
/// with [`take_mail`](Self::take_mail) as far as the other shards have room. Once per turn, after the inputs of that
/// turn, call [`end_turn`](Self::end_turn). If [`has_work`](Self::has_work) is true afterwards, do not sleep. Call
/// `end_turn` no later than [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Shard {
    fx: Effects,
    home: Home,
    users: Users,
    journal: Journal,
    digests: Digests,
    logs: Logs,
    /// Logs that were appended to in this turn.
    appended: Vec<LogKey>,
    /// Logs that may have something to write behind: cursors that moved, redactions that the store did not take.
    unsaved: HashSet<LogKey, HashKey>,
    unsaved_due: Option<Time>,
    rest: Rest,
    mail: Vec<Mailbox>,
    next_handle: u32,
}

/// How far the logs have been brought to rest.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    NotAsked,
    /// These are still to be.
    Of(Vec<LogKey>),
    Done,
}

impl Shard {
    /// A shard without connections or logs.
    pub fn new(config: ShardConfig) -> Self {
        let routing = Routing::new(config.shards.min(SHARDS_MAX));
        let mut fx = Effects::new(config.shard, routing, config.seed);
        let journal = if config.stands_by { Journal::default() } else { Journal::start(&mut fx) };
        let mut home = Home::new(routing.shards(), config.resume_key);
        if config.stands_by {
            home.stand_by(String::new());
        }
        Self {
            logs: Logs::new(fx.hash_key),
            unsaved: HashSet::with_hasher(fx.hash_key),
            fx,
            home,
            users: Users::new(config.shares_presence),
            journal,
            digests: Digests::default(),
            appended: Vec::new(),
            unsaved_due: None,
            rest: Rest::NotAsked,
            mail: (0..routing.shards()).map(|_| Mailbox::default()).collect(),
            next_handle: 0,
        }
    }

    /// Takes in one thing that happened.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.fx.now = self.fx.now.max(now);
        match input {
            Input::ConnectionOpened { connection } => self.home.opened(&mut self.fx, connection),
            Input::TrunkOpened { connection } => self.home.trunk_opened(connection),
            Input::Received { connection, bytes } => self.home.received(&mut self.fx, connection, bytes),
            Input::ConnectionClosed { connection } => self.home.closed(&mut self.fx, connection),
            Input::TokenVerified { ticket, result } => self.home.verified(&mut self.fx, ticket, result),
            Input::Stored(completion) => self.stored(completion),
            Input::Presence(event) => self.users.presence_event(&mut self.fx, event),
            Input::Mail { from, message } => self.message(from, message),
            Input::Explain(question) => explain::ask(&mut self.fx, *question),
            Input::StandBy { active } => self.home.stand_by(active),
            Input::Activate => {
                if self.home.activate() {
                    self.journal = Journal::start(&mut self.fx);
                }
            }
            Input::Drain { deadline_ms } => self.home.drain(deadline_ms),
            Input::Rest => self.rest = Rest::Of(self.logs.keys()),
        }
        self.sort_posted();
    }

    /// Messages to other shards go to their mailboxes; messages to this shard are handled at once, in order.
    fn sort_posted(&mut self) {
        while let Some((shard, message)) = self.fx.posted.pop_front() {
            if shard == self.fx.shard {
                self.message(shard, message);
            } else if let Some(mailbox) = self.mail.get_mut(usize::from(shard.0)) {
                mailbox.push(message);
            }
        }
    }

    fn message(&mut self, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Request(request) => self.request(request),
            ShardMessage::Release { key, count } => {
                if let Some(log) = self.logs.get_mut(key) {
                    log.release(from, count);
                }
            }
            ShardMessage::Register(registration) => self.request(registration.to_request(from)),
            ShardMessage::Admitted(admission) => self.users.register(&mut self.fx, *admission),
            ShardMessage::InboxEvent { key, row } => self.users.inbox_event(&mut self.fx, key, &row),
            ShardMessage::Follow { log, user, inbox, on: true } => self.digests.follow(log, from, user, inbox),
            ShardMessage::Follow { log, user, on: false, .. } => self.digests.unfollow(log, from, &user),
            ShardMessage::Digest { log, frame, inboxes } => self.users.digest(&mut self.fx, log, &frame, &inboxes),
            ShardMessage::SetPresence { key, status, text } => {
                self.users.set_presence(&mut self.fx, key, status, text);
            }
            ShardMessage::Watched { watch, is_allowed } => self.users.watch(&mut self.fx, &watch, is_allowed),
            ShardMessage::Unwatch { user, connection, list } => {
                self.users.unwatch(&mut self.fx, from, user, connection, list);
            }
            ShardMessage::EffectDone { source, target, seq, is_durable } => {
                if let Some(log) = self.logs.get_mut(source) {
                    log.effect_done(&mut self.fx, &target, seq, is_durable);
                }
            }
            ShardMessage::Explain(explaining) => self.explain(*explaining),
            ShardMessage::Unregister(registration) => self.users.unregister(&mut self.fx, from, &registration),
            other => self.home.message(&mut self.fx, from, other),
        }
    }

    fn explain(&mut self, explaining: Explaining) {
        match explaining.next {
            Next::Seats => self.users.explain(&mut self.fx, explaining),
            Next::Session(connection) => self.home.explain(&mut self.fx, connection, explaining),
            Next::Answer => explaining.finish(&mut self.fx),
        }
    }

    fn request(&mut self, request: Box<Request>) {
        let key = request.key;
        match request.operation {
            Operation::Send(_) | Operation::SendBatch(_) | Operation::Import(_) => self.appended.push(key),
            Operation::Change(_) | Operation::Own(_) | Operation::Effect(_) => self.appended.push(key),
            Operation::Cursor(_) => {
                self.unsaved.insert(key);
            }
            _ => {}
        }
        let log = match self.logs.use_mut(key) {
            Some(log) => log,
            None => {
                self.evict_one();
                let log = self.load(&request);
                self.logs.insert(key, log)
            }
        };
        if log.is_unloaded() {
            log.load_again(&mut self.fx);
        }
        log.request(&mut self.fx, request);
    }

    fn load(&mut self, request: &Request) -> Log {
        // Invariant: 2^26 logs per shard and boot; a broker loads a hundred a second for a week before that.
        self.next_handle = (self.next_handle + 1) & ((1 << HANDLE_LOG_BITS) - 1);
        let handle = u32::from(self.fx.shard.0) << HANDLE_LOG_BITS | self.next_handle;
        let (tenant, name, key) = (request.actor.tenant.clone(), request.log.clone(), request.key);
        let is_journaled = !self.journal.is_read(key) || matches!(request.operation, Operation::TakeUp);
        Log::load(&mut self.fx, Place { tenant, name, key, handle }, is_journaled)
    }

    /// Lets one idle log go when there are too many.
    fn evict_one(&mut self) {
        if self.logs.len() < LOGS_RESIDENT_MAX {
            return;
        }
        // An operation in flight may have somebody waiting for it, or be a write that a new load would not see.
        let is_idle = |key, log: &Log| log.is_idle() && !self.fx.is_in_flight(key);
        if let Some(mut log) = self.logs.take_unused(is_idle) {
            log.checkpoint(&mut self.fx);
        }
    }

    fn stored(&mut self, completion: Completion) {
        let Some((key, purpose)) = self.fx.completed(completion.token) else { return };
        if let Purpose::Journal(partition) = purpose {
            return self.journal_read(partition, completion);
        }
        if let Some(log) = self.logs.get_mut(key) {
            let head = log.head();
            log.stored(&mut self.fx, purpose, completion);
            if log.head() > head && head > 0 {
                self.digests.changed(self.fx.now, key);
            }
            // Requests that waited may have appended or moved cursors, and what failed is tried again.
            self.appended.push(key);
            if log.owes_writes() {
                self.unsaved.insert(key);
            }
        }
    }

    /// Takes up the logs that owe something to others since before this process.
    fn journal_read(&mut self, partition: u8, completion: Completion) {
        for (tenant, name) in self.journal.found(&mut self.fx, partition, completion.result) {
            let request = journal::take_up(self.fx.shard, &tenant, name);
            self.request(Box::new(request));
        }
    }

    /// Whether a log is to be woken now.
    fn has_due_wake(&self) -> bool {
        self.fx.wakes.first().is_some_and(|(time, _)| *time <= self.fx.now)
    }

    fn wake(&mut self) {
        for _ in 0..WAKES_PER_TURN {
            let Some((time, key)) = self.fx.wakes.first().copied().filter(|(time, _)| *time <= self.fx.now) else {
                return;
            };
            self.fx.wakes.remove(&(time, key));
            match self.logs.get_mut(key) {
                Some(log) => log.woken(&mut self.fx),
                None => self.journal.retry(&mut self.fx, key),
            }
        }
    }

    fn tell_digests(&mut self) {
        while let Some((key, shards)) = self.digests.take_due(self.fx.now) {
            if let Some(log) = self.logs.get(key) {
                log.digest(&mut self.fx, shards);
            }
        }
    }

    /// Ends a turn of the loop: submits its appends, hands out a bounded number of live copies, does what is due.
    pub fn end_turn(&mut self, now: Time) {
        self.fx.now = self.fx.now.max(now);
        self.home.handle_timeout(&mut self.fx);
        self.wake();
        self.users.handle_timeout(&mut self.fx);
        self.tell_digests();
        self.home.fan_out(&mut self.fx, DELIVERIES_PER_TURN);
        self.sort_posted();
        self.appended.sort_unstable();
        self.appended.dedup();
        for key in std::mem::take(&mut self.appended) {
            if let Some(log) = self.logs.get_mut(key) {
                log.end_turn(&mut self.fx);
            }
        }
        self.write_behind();
        self.bring_to_rest();
        self.fx.counters.logs_resident = self.logs.len() as u64;
    }

    /// Cursors that users moved are saved together once a second: a crash may lose that much of them, and never moves one
    /// back.
    fn write_behind(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let due = *self.unsaved_due.get_or_insert(Time(self.fx.now.0 + WRITE_BEHIND_INTERVAL_US));
        if due > self.fx.now {
            return;
        }
        self.unsaved_due = None;
        // In the order of their keys, which is the index's.
        let mut keys: Vec<LogKey> = self.unsaved.drain().collect();
        keys.sort_unstable();
        for key in keys {
            if let Some(log) = self.logs.get_mut(key) {
                log.write_behind(&mut self.fx);
            }
        }
    }

    /// Saves what is otherwise saved behind, and writes a checkpoint for every log with rows behind its last one: the
    /// next owner reads no rows to take it up. A bounded number of logs a turn.
    fn bring_to_rest(&mut self) {
        let Rest::Of(keys) = &mut self.rest else { return };
        let resting = keys.split_off(keys.len().saturating_sub(LOGS_RESTED_PER_TURN));
        if keys.is_empty() {
            self.rest = Rest::Done;
        }
        for key in resting {
            if let Some(log) = self.logs.get_mut(key) {
                log.write_behind(&mut self.fx);
                log.checkpoint(&mut self.fx);
            }
        }
    }

    /// Whether [`Input::Rest`] has been carried out and the store has answered all that was asked of it.
    pub fn is_at_rest(&self) -> bool {
        self.rest == Rest::Done && self.fx.awaited() == 0
    }

    /// The next effect to perform.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.fx.outputs.pop_front()
    }

    /// A connection whose outbox has gained something since it was last named.
    pub fn poll_writable(&mut self) -> Option<ConnectionId> {
        self.home.pop_writable()
    }

    /// What waits to be written to a connection; `None` once it is gone.
    pub fn outbox_mut(&mut self, connection: ConnectionId) -> Option<&mut Outbox> {
        self.home.outbox_mut(connection)
    }

    /// Whether requests may wait for room in the connection's outbox, so that [`written`](Self::written) is to be called
    /// after something of it was written.
    pub fn awaits_room(&self, connection: ConnectionId) -> bool {
        self.home.awaits_room(connection)
    }

    /// Something of the connection's outbox was written: requests that waited for room may go on.
    pub fn written(&mut self, connection: ConnectionId) {
        self.home.written(&mut self.fx, connection);
        self.sort_posted();
    }

    /// Whether the transport should read more of the connection's control stream. False pushes back on the client.
    pub fn wants_input(&self, connection: ConnectionId) -> bool {
        self.home.wants_input(connection)
    }

    /// Whether the connection carries an authenticated session.
    pub fn is_established(&self, connection: ConnectionId) -> bool {
        self.home.is_established(connection)
    }

    /// The oldest message for another shard.
    pub fn take_mail(&mut self, to: ShardId) -> Option<ShardMessage> {
        self.mail.get_mut(usize::from(to.0))?.pop()
    }

    /// Puts back the message that was taken last, because the other shard has no room.
    pub fn untake_mail(&mut self, to: ShardId, message: ShardMessage) {
        if let Some(mailbox) = self.mail.get_mut(usize::from(to.0)) {
            mailbox.unpop(message);
        }
    }

    /// Whether another turn has something to do without any further input.
    pub fn has_work(&self) -> bool {
        let is_coming_to_rest = matches!(self.rest, Rest::Of(_));
        let has_news = self.home.has_deliveries() || self.users.has_work();
        has_news || !self.appended.is_empty() || is_coming_to_rest || self.has_due_wake()
    }

    /// When `end_turn` has to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        let wake = self.fx.wakes.first().map(|(time, _)| *time);
        [self.home.poll_timeout(), self.unsaved_due, wake, self.digests.next_due(), self.users.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What the shard has done since its boot.
    pub fn counters(&self) -> &Counters {
        &self.fx.counters
    }

    /// Bytes that wait to be written to connections. Looks at every connection.
    pub fn outbox_bytes(&self) -> usize {
        self.home.outbox_bytes()
    }

    /// What the shard holds now. Looks at every connection.
    pub fn held(&self) -> Held {
        let mut held = Held {
            mail: self.mail.iter().map(Mailbox::len).sum(),
            followed: self.digests.len(),
            logs: self.logs.len(),
            ..Held::default()
        };
        self.home.add_held(&mut held);
        self.users.add_held(&mut held);
        held.requests += self.fx.awaited();
        held
    }
}
