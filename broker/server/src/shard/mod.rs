//! The thread of one shard: the loop that moves datagrams, completions, mail and tokens between the kernel, the store,
//! the other shards and the node.
//!
//! Invariants: the loop never blocks but in its one wait; every source has a budget per turn, so no peer starves
//! another; nothing here is shared with another thread but the mesh's rings and the store's queues.

mod datagrams;
mod metrics;
mod questions;

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use antiphon_core::{
    Input, Output, ShardId, ShardMessage, TokenRefusal, VerifyTicket,
    explain::{Explanation, Question},
};
use antiphon_node::{Clock, Datagram, Node};
use antiphon_storage::{Completion, EventLog, presence::PresenceEvent};
use antiphon_sys::{
    doorbell::Ringer,
    mesh::MeshPort,
    poller::{Source, wait},
};
use quinn_proto::ServerConfig;
use tokio::sync::oneshot;

pub(crate) use self::datagrams::Datagrams;
use self::{metrics::Published, questions::Questions};
use crate::{
    admin::{Board, health::Heartbeat},
    auth::{TokenCache, Verifier},
    presence::ShardPresence,
    store::ShardStore,
    tls,
};

/// Messages taken from other shards in one turn.
const MAIL_PER_TURN: usize = 512;
/// Signatures checked in one turn, about 50 us each; tokens seen before cost a hash.
const VERIFICATIONS_PER_TURN: usize = 4;
/// How long the connections may take to say goodbye once the drain is over.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the logs may take to come to rest. What does not come in time costs the next start some reading.
const REST: Duration = Duration::from_secs(10);

/// What travels between two shard threads.
#[derive(Debug)]
pub(crate) enum Mail {
    /// For the shard inside.
    Shard(ShardMessage),
    /// A datagram that the kernel gave to the wrong thread.
    Datagram(Box<Datagram>),
}

/// What the process tells a shard thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Say GOAWAY; connections are closed after this long, or when all are gone.
    Drain(Duration),
    /// Use these certificates for new handshakes, of clients and of trunks.
    ServerConfigs(Arc<ServerConfig>, Arc<ServerConfig>),
    /// Use these keys for tokens from now on.
    Verifier(Arc<Verifier>),
    /// Another broker owns the logs, at this address.
    StandBy(String),
    /// This broker owns the logs: they are here.
    Activate(ShardStore),
    /// An operator asks.
    Explain(Box<Question>, oneshot::Sender<Box<Explanation>>),
}

/// The way to a shard's thread.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) commands: Sender<Command>,
    pub(crate) ringer: Ringer,
}

impl Control {
    /// Tells the thread. False if it has ended.
    pub(crate) fn tell(&self, command: Command) -> bool {
        let is_sent = self.commands.send(command).is_ok();
        self.ringer.ring();
        is_sent
    }
}

/// Everything that a shard thread owns.
pub(crate) struct ShardThread {
    pub(crate) shard: ShardId,
    pub(crate) node: Node,
    /// None while another broker owns the logs; then the node asks nothing of it.
    pub(crate) store: Option<ShardStore>,
    pub(crate) presence: ShardPresence,
    pub(crate) clients: Datagrams,
    pub(crate) trunks: Datagrams,
    pub(crate) port: MeshPort<Mail>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) tokens: TokenCache,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Heartbeat,
    pub(crate) board: Board,
}

/// A shard thread at work.
struct Loop {
    thread: ShardThread,
    /// Whether the sockets for clients and for trunks may have something to read: one that was just said to have nothing is
    /// not asked again.
    readable: [bool; 2],
    completions: Vec<Completion>,
    presence_events: Vec<PresenceEvent>,
    mail: Vec<(ShardId, Mail)>,
    verifications: VecDeque<(VerifyTicket, String)>,
    published: Published,
    questions: Questions,
    stop: Option<Stop>,
}

/// The end is near.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// Sessions are told; at this moment they are closed.
    Draining { until: Instant },
    /// Connections are being closed; from this moment on they are not waited for.
    Closing { until: Instant },
    /// Logs are being brought to rest; at this moment the thread ends.
    Resting { until: Instant },
}

impl ShardThread {
    /// Runs until it is drained. An error means that the socket is broken.
    pub(crate) fn run(self) -> io::Result<()> {
        let mut running = Loop {
            readable: [true; 2],
            completions: Vec::new(),
            presence_events: Vec::new(),
            mail: Vec::new(),
            verifications: VecDeque::new(),
            published: Published::new(self.shard),
            questions: Questions::default(),
            stop: None,
            thread: self,
        };
        while running.turn()? {}
        running.finish();
        Ok(())
    }
}

impl Loop {
    /// One turn. False once there is nothing left to do for ever.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        self.thread.heartbeat.beat();
        // 1. What the kernel received.
        let may_have_more = self.receive(now)?;
        // 2. What became durable, or was read.
        self.take_completions(now);
        // 3. What other shards say, and the store of presence.
        self.take_mail(now);
        self.take_presence(now);
        // 4. Tokens to verify.
        self.verify_tokens(now);
        // 5. What the process says.
        self.take_commands(now);
        // 6. The node's own work, and what it leads to.
        self.thread.node.turn(now);
        self.perform_outputs();
        self.send_mail();
        let ShardThread { node, clients, trunks, .. } = &mut self.thread;
        let is_blocked = [clients.send(node, now)?, trunks.send(node, now)?];
        self.published.turn_ended(now);
        if self.published.publish_if_due(&self.thread, now) {
            tls::let_rest();
        }
        if self.is_over(now) {
            return Ok(false);
        }
        // 7. Sleep until one of the above.
        if may_have_more || self.thread.node.has_work() || !self.verifications.is_empty() {
            self.thread.port.ring_pending();
            return Ok(true);
        }
        self.sleep(now, is_blocked)?;
        Ok(true)
    }

    /// Takes in what the kernel has. True if there may be more.
    fn receive(&mut self, now: Instant) -> io::Result<bool> {
        let ShardThread { node, port, clients, trunks, .. } = &mut self.thread;
        let [from_clients, from_trunks] = std::mem::replace(&mut self.readable, [true; 2]);
        let more_from_clients = from_clients && clients.receive(node, port, now)?;
        let more_from_trunks = from_trunks && trunks.receive(node, port, now)?;
        Ok(more_from_clients || more_from_trunks)
    }

    fn take_completions(&mut self, now: Instant) {
        self.poll_store();
        for completion in self.completions.drain(..) {
            self.thread.node.handle(now, Input::Stored(completion));
        }
    }

    fn poll_store(&mut self) {
        if let Some(store) = &mut self.thread.store {
            store.poll_completions(&mut self.completions);
        }
    }

    fn take_mail(&mut self, now: Instant) {
        let mail = &mut self.mail;
        self.thread.port.drain(MAIL_PER_TURN, |from, message| mail.push((ShardId(from as u16), message)));
        for (from, message) in self.mail.drain(..) {
            match message {
                Mail::Shard(message) => self.thread.node.handle(now, Input::Mail { from, message }),
                Mail::Datagram(datagram) => self.thread.node.handle_datagram(now, *datagram),
            }
        }
    }

    fn take_presence(&mut self, now: Instant) {
        let Some(presence) = &mut self.thread.presence else { return };
        presence.poll_events(&mut self.presence_events);
        for event in self.presence_events.drain(..) {
            self.thread.node.handle(now, Input::Presence(event));
        }
    }

    fn verify_tokens(&mut self, now: Instant) {
        let unix_ms = self.thread.clock.time(now).unix_ms();
        for _ in 0..VERIFICATIONS_PER_TURN {
            let Some((ticket, token)) = self.verifications.pop_front() else { return };
            let result = match self.thread.tokens.verify(&token, unix_ms) {
                Ok(claims) => Ok(claims.as_ref().clone()),
                Err(error) => {
                    self.published.tokens_refused += 1;
                    let expired = error.error_code() == antiphon_protocol::ErrorCode::TokenExpired;
                    Err(TokenRefusal { expired, reason: error.to_string() })
                }
            };
            self.thread.node.handle(now, Input::TokenVerified { ticket, result });
        }
    }

    fn take_commands(&mut self, now: Instant) {
        loop {
            match self.thread.commands.try_recv() {
                Ok(Command::Drain(duration)) => {
                    let deadline_ms = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                    self.thread.node.handle(now, Input::Drain { deadline_ms });
                    self.stop.get_or_insert(Stop::Draining { until: now + duration });
                }
                Ok(Command::ServerConfigs(clients, trunks)) => {
                    self.thread.node.set_server_configs(clients, Some(trunks));
                }
                Ok(Command::StandBy(active)) => self.thread.node.handle(now, Input::StandBy { active }),
                Ok(Command::Activate(store)) => {
                    self.thread.store = Some(store);
                    self.thread.node.handle(now, Input::Activate);
                }
                Ok(Command::Explain(mut question, answer)) => {
                    self.questions.add(&mut question, answer);
                    self.thread.node.handle(now, Input::Explain(question));
                }
                Ok(Command::Verifier(verifier)) => self.thread.tokens.reload(verifier),
                // Without a process there is nothing to serve for.
                Err(TryRecvError::Disconnected) => {
                    self.stop.get_or_insert(Stop::Draining { until: now });
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn perform_outputs(&mut self) {
        while let Some(output) = self.thread.node.poll_output() {
            match output {
                Output::Store { op, token } => match &mut self.thread.store {
                    Some(store) => store.submit(op, token),
                    None => debug_assert!(false, "a node that stands by asks nothing of the store"),
                },
                Output::Verify { ticket, token } => self.verifications.push_back((ticket, token.0)),
                Output::Explained(explanation) => self.questions.answer(explanation),
                Output::Presence(op) => {
                    if let Some(presence) = &mut self.thread.presence {
                        presence.submit(op);
                    }
                }
                Output::Close { .. } => debug_assert!(false, "the node closes connections itself"),
            }
        }
        // A store that is polled after its submissions sends them off as one block.
        self.poll_store();
    }

    fn send_mail(&mut self) {
        for to in (0..self.thread.port.shards()).filter(|to| *to != usize::from(self.thread.shard.0)) {
            while let Some(message) = self.thread.node.take_mail(ShardId(to as u16)) {
                if let Err(Mail::Shard(message)) = self.thread.port.try_send(to, Mail::Shard(message)) {
                    self.published.mailbox_full += 1;
                    self.thread.node.untake_mail(ShardId(to as u16), message);
                    break;
                }
            }
        }
    }

    /// Moves a drain along. True once the thread may end.
    fn is_over(&mut self, now: Instant) -> bool {
        let connections = self.thread.node.counters().connections;
        match self.stop {
            None => false,
            Some(Stop::Draining { until }) => {
                if connections == 0 || until <= now {
                    self.thread.node.close_all(now);
                    self.stop = Some(Stop::Closing { until: now + GOODBYE });
                }
                false
            }
            // Closed connections linger in QUIC's closing state; what matters is that their last packet has left.
            Some(Stop::Closing { until }) => {
                let has_unsent = self.thread.clients.has_unsent() || self.thread.trunks.has_unsent();
                if until <= now || (connections == 0 && !has_unsent && !self.thread.node.has_work()) {
                    self.thread.node.handle(now, Input::Rest);
                    self.stop = Some(Stop::Resting { until: now + REST });
                }
                false
            }
            Some(Stop::Resting { until }) => until <= now || self.thread.node.is_at_rest(),
        }
    }

    fn sleep(&mut self, now: Instant, is_blocked: [bool; 2]) -> io::Result<()> {
        self.thread.port.ring_pending();
        self.thread.port.doorbell().arm();
        // Whatever came before the bell was armed has rung nobody.
        self.poll_store();
        if let Some(presence) = &mut self.thread.presence {
            presence.poll_events(&mut self.presence_events);
        }
        let port = &mut self.thread.port;
        if port.has_pending() || !self.completions.is_empty() || !self.presence_events.is_empty() {
            port.doorbell().disarm(false);
            return Ok(());
        }
        let stop =
            self.stop.map(|(Stop::Draining { until } | Stop::Closing { until } | Stop::Resting { until })| until);
        let due = [self.thread.node.poll_timeout(), stop, Some(self.published.due())].into_iter().flatten().min();
        let timeout = due.map(|due| due.saturating_duration_since(now));
        let clients = Source::readable(&self.thread.clients.socket).or_writable(is_blocked[0]);
        let trunks = Source::readable(&self.thread.trunks.socket).or_writable(is_blocked[1]);
        let doorbell = Source::readable(port.doorbell());
        // A store that writes through io_uring completes on a descriptor of its own; any other rings the bell.
        let [bell, clients, trunks] = match self.thread.store.as_ref().and_then(ShardStore::wait_fd) {
            Some(ring) => {
                let [bell, clients, trunks, _] = wait([doorbell, clients, trunks, Source::readable(&ring)], timeout)?;
                [bell, clients, trunks]
            }
            None => wait([doorbell, clients, trunks], timeout)?,
        };
        port.doorbell().disarm(bell.readable);
        self.readable = [clients.readable, trunks.readable];
        Ok(())
    }

    /// Brings what was acknowledged into the index, so that the next start is quick.
    fn finish(self) {
        if let Some(store) = self.thread.store {
            store.close();
        }
        tracing::debug!(shard = self.thread.shard.0, "shard stopped");
    }
}
