//! Two shards of a broker with their stores in memory, turned by hand.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use antiphon_core::{Claims, Counters, Held, Input, Output, ShardId, TokenRefusal};
use antiphon_node::{Datagram, Listener, Node, TransportHeld};
use antiphon_protocol::LogKey;
use antiphon_storage::memory::MemoryLog;
use antiphon_storage_contract::{Completion, EventLog, Op, StoreError, Token};
use bytes::BytesMut;

use crate::{
    broker::{Keys, Sent},
    clock::{Clock, Moment},
    random::Random,
    stage::Boot,
    tokens,
};

/// Shards of the broker.
pub(super) const SHARDS: usize = 2;

/// A store that can be full for everybody but a few logs.
#[derive(Debug)]
struct Store {
    log: MemoryLog,
    is_full: bool,
    spared: BTreeSet<LogKey>,
    refused: Vec<Completion>,
}

impl Store {
    fn submit(&mut self, op: Op, token: Token) {
        let is_write = matches!(
            op,
            Op::Append { .. }
                | Op::Rewrite { .. }
                | Op::Checkpoint { .. }
                | Op::PutRecords { .. }
                | Op::SetFloor { .. }
        );
        if self.is_full && is_write && !self.spared.contains(&op.log()) {
            self.refused.push(Completion { token, result: Err(StoreError::Full) });
        } else {
            self.log.submit(op, token);
        }
    }
}

/// One shard.
#[derive(Debug)]
struct Host {
    node: Node,
    store: Store,
}

/// The broker, and the time.
#[derive(Debug)]
pub(super) struct Rig {
    /// Now.
    pub(super) now: Moment,
    clock: Clock,
    hosts: Vec<Host>,
}

impl Rig {
    /// A broker without connections.
    pub(super) fn new(seed: u64) -> Self {
        let keys = Keys::new(&mut Random::new(seed, "hostile"));
        let clock = Clock::start();
        let host = |shard| Host {
            node: Node::new(keys.node_config(clock, Boot(1), ShardId(shard), SHARDS as u16)),
            store: Store { log: MemoryLog::new(), is_full: false, spared: BTreeSet::new(), refused: Vec::new() },
        };
        Self { now: Moment::default(), clock, hosts: (0..SHARDS as u16).map(host).collect() }
    }

    /// Now, for `quinn-proto`.
    pub(super) fn instant(&self) -> std::time::Instant {
        self.clock.instant(self.now)
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// From now on only these logs can be written.
    pub(super) fn fill_store(&mut self, spared: &[LogKey]) {
        for host in &mut self.hosts {
            host.store.is_full = true;
            host.store.spared.extend(spared);
        }
    }

    /// Hands a datagram to a shard.
    pub(super) fn receive(&mut self, shard: usize, from: SocketAddr, bytes: BytesMut) {
        let now = self.instant();
        let listener = Listener::Clients;
        self.hosts[shard]
            .node
            .handle_datagram(now, Datagram { listener, remote: from, local_ip: None, ecn: None, data: bytes });
    }

    /// Lets every shard work until nothing is left to do, and collects what they send.
    pub(super) fn turn(&mut self, sent: &mut Vec<Sent>) {
        const TURNS_MAX: usize = 64;
        let now = self.instant();
        for _ in 0..TURNS_MAX {
            let mut is_busy = false;
            for shard in 0..self.hosts.len() {
                self.hosts[shard].node.turn(now);
                is_busy |= self.perform(shard);
                is_busy |= self.move_mail(shard);
                is_busy |= self.hosts[shard].node.has_work();
            }
            if !is_busy {
                break;
            }
        }
        let mut buffer = Vec::new();
        for host in &mut self.hosts {
            while let Some(transmit) = host.node.poll_transmit(now, Listener::Clients, 1, &mut buffer) {
                sent.push(Sent { to: transmit.destination, bytes: BytesMut::from(&buffer[..transmit.size]) });
                buffer.clear();
            }
        }
    }

    /// Carries out what a node asks of its shell; whether anything came of it.
    fn perform(&mut self, shard: usize) -> bool {
        let (now, now_ms) = (self.instant(), self.now.unix_us() / 1_000);
        let host = &mut self.hosts[shard];
        let mut is_busy = false;
        while let Some(output) = host.node.poll_output() {
            is_busy = true;
            match output {
                Output::Store { op, token } => host.store.submit(op, token),
                Output::Verify { ticket, token } => {
                    let result = verdict(&token.0, now_ms);
                    host.node.handle(now, Input::TokenVerified { ticket, result });
                }
                Output::Close { .. } | Output::Explained(_) | Output::Presence(_) => {}
            }
        }
        let mut completions = std::mem::take(&mut host.store.refused);
        host.store.log.poll_completions(&mut completions);
        for completion in completions {
            host.node.handle(now, Input::Stored(completion));
        }
        is_busy
    }

    fn move_mail(&mut self, from: usize) -> bool {
        let now = self.instant();
        let mut is_busy = false;
        for to in (0..self.hosts.len()).filter(|to| *to != from) {
            while let Some(message) = self.hosts[from].node.take_mail(ShardId(to as u16)) {
                is_busy = true;
                self.hosts[to].node.handle(now, Input::Mail { from: ShardId(from as u16), message });
            }
        }
        is_busy
    }

    /// What each shard holds.
    pub(super) fn held(&self) -> Vec<(Held, TransportHeld)> {
        self.hosts.iter().map(|host| (host.node.held(), host.node.transport_held())).collect()
    }

    /// What each shard has done.
    pub(super) fn counters(&self) -> impl Iterator<Item = &Counters> {
        self.hosts.iter().map(|host| host.node.counters())
    }
}

/// A token counts as issued when it is shown, so that a revocation concerns only the sessions before it.
fn verdict(token: &str, now_ms: u64) -> Result<Claims, TokenRefusal> {
    tokens::verdict(token, now_ms).map(|claims| Claims { issued_at_ms: now_ms, ..claims })
}
