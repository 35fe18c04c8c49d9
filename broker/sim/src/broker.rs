//! The broker's process: its shards, what they share, and its starts and ends.
//!
//! What outlives a crash is the store's disk and the keys that a real broker keeps in its configuration. Everything
//! else is in [`Shard`]s, which are dropped.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use antiphon_core::{Counters, Input, ResumeKey, ShardConfig, ShardId};
use antiphon_node::{Clock as NodeClock, ConnectionIds, Node, NodeConfig, TransportSettings};
use antiphon_protocol::ALPN;
use antiphon_storage::{
    dice::Dice,
    embedded::{Wake, simulated::SimulatedStore},
};
use bytes::BytesMut;
use quinn_proto::EndpointConfig;
use std::time::Duration;
use uuid::Uuid;

use crate::{
    clock::{Clock, Moment},
    crypto::{NullCrypto, NullSeal},
    quic,
    random::Random,
    shard::{Arrival, Shard},
    stage::{Boot, Happening, ShardIndex, Stage},
    tally::Fault,
};

/// Where the broker listens.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);
/// Length of a segment of the write-ahead log: long enough for the longest row, short enough to be full often.
const SEGMENT_BYTES: u64 = 256 << 10;
/// A connection without any packet for so long is gone.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// From a drain's beginning to the end of the process, in milliseconds.
const DRAIN_MS: u32 = 1_000;

/// A datagram that the broker sends.
#[derive(Debug)]
pub(crate) struct Sent {
    /// To whom.
    pub(crate) to: SocketAddr,
    /// Its content.
    pub(crate) bytes: BytesMut,
}

/// The process, running or not.
#[derive(Debug)]
pub(crate) struct Broker {
    store: SimulatedStore,
    boot: Boot,
    shards: Vec<Shard>,
    /// Numbers of shards that a start may choose from.
    shard_counts: Vec<u16>,
    last_shards: usize,
    keys: Keys,
    random: Random,
    is_draining: bool,
    /// Ids of sends whose rows the store has reported durable.
    pub(crate) durable: BTreeSet<Uuid>,
}

/// What a configuration keeps secret and the same across starts.
#[derive(Debug)]
pub(crate) struct Keys {
    reset: u64,
    token: u64,
    connection_ids: [u8; 32],
    resume: [u8; 32],
}

impl Keys {
    /// Keys of a new configuration.
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { reset: random.number(), token: random.number(), connection_ids: random.seed(), resume: random.seed() }
    }

    /// One shard's node in one start of the process.
    pub(crate) fn node_config(&self, clock: Clock, boot: Boot, shard: ShardId, shards: u16) -> NodeConfig {
        // Seeds differ by boot and shard; the configuration's keys do not.
        let mut random = Random::new(self.reset ^ boot.0 << 16 ^ u64::from(shard.0), "shard");
        let mut endpoint = EndpointConfig::new(Arc::new(NullSeal(self.reset)));
        let ids = ConnectionIds::new(shard, shards, self.connection_ids, random.seed());
        endpoint.cid_generator(move || Box::new(ids.clone()));
        let mut server = quic::server_config(NullCrypto::new(&[ALPN]), &mut random);
        server.token_key(Arc::new(NullSeal(self.token)));
        let settings =
            TransportSettings { idle_timeout: IDLE_TIMEOUT, mtu_discovery: false, segmentation_offload: false };
        settings.apply(&mut server);
        let resume_key = ResumeKey::new(self.resume);
        let beginning = Moment::default();
        NodeConfig {
            shard: ShardConfig {
                shard,
                shards,
                seed: random.seed(),
                resume_key,
                stands_by: false,
                shares_presence: false,
            },
            endpoint: Arc::new(endpoint),
            server: Arc::new(server),
            trunk_server: None,
            seed: random.seed(),
            allow_mtu_discovery: false,
            connections_max: 1_000,
            clock: NodeClock::new(clock.instant(beginning), Duration::from_micros(beginning.unix_us())),
        }
    }
}

impl Broker {
    /// A broker that has not been started, on an empty disk.
    pub(crate) fn new(seed: u64, shard_counts: Vec<u16>) -> Self {
        let mut random = Random::new(seed, "broker");
        let keys = Keys::new(&mut random);
        Self {
            store: SimulatedStore::new(SEGMENT_BYTES),
            boot: Boot(0),
            shards: Vec::new(),
            shard_counts,
            last_shards: 0,
            keys,
            random,
            is_draining: false,
            durable: BTreeSet::new(),
        }
    }

    /// Whether the process exists.
    pub(crate) fn is_up(&self) -> bool {
        !self.shards.is_empty()
    }

    /// This start.
    pub(crate) fn boot(&self) -> Boot {
        self.boot
    }

    /// Starts the process on what its disk holds. An error is a broken promise of the store.
    pub(crate) fn start(&mut self, stage: &mut Stage) -> Result<(), String> {
        if self.is_up() {
            return Ok(());
        }
        let count = self.shard_counts[self.random.index(self.shard_counts.len())];
        self.boot.0 += 1;
        self.is_draining = false;
        if self.last_shards != 0 && self.last_shards != usize::from(count) {
            stage.tally.count(Fault::Reshard);
        }
        self.last_shards = usize::from(count);
        stage.saw(|| format!("broker starts with {count} shards"));
        let wake: Wake = Arc::new(|| {});
        let stores = self.store.open(count, &wake).map_err(|error| format!("the store cannot be opened: {error}"))?;
        let shards = stores.into_iter().zip(0..).map(|(store, n)| {
            let node = Node::new(self.keys.node_config(stage.clock, self.boot, ShardId(n), count));
            Shard::new(node, store, self.boot, usize::from(n), usize::from(count))
        });
        self.shards = shards.collect();
        Ok(())
    }

    /// The process ends without a word; the disk keeps what it likes of the writes under way. It starts again by
    /// itself after a while.
    pub(crate) fn crash(&mut self, stage: &mut Stage) {
        if !self.is_up() {
            return;
        }
        let under_way: usize = self.shards.iter().map(Shard::disk_requests).sum();
        stage.tally.count(Fault::Crash);
        stage.tally.add(Fault::UnsyncedAtCrash, under_way as u64);
        stage.saw(|| format!("broker crashes with {under_way} disk requests under way"));
        self.end(stage);
    }

    /// The drain is over: connections are closed, logs are brought to rest, and the process ends soon.
    pub(crate) fn stop(&mut self, stage: &mut Stage) -> Vec<Sent> {
        let mut sent = Vec::new();
        for shard in &mut self.shards {
            shard.close_all(stage, &mut sent);
            shard.arrive(stage, Arrival::Input(Input::Rest));
        }
        stage.saw(|| "broker stops".into());
        let at = stage.now + Duration::from_millis(self.random.below(200));
        stage.at(at, Happening::Ended(self.boot));
        sent
    }

    /// The process is gone, and what was on its way to disk is lost, torn or kept.
    pub(crate) fn end(&mut self, stage: &mut Stage) {
        for shard in self.shards.drain(..) {
            stage.tally.add(Fault::Behind, shard.counters().behind);
        }
        self.store.crash(&mut Dice::new(self.random.number()));
        self.store.disk().fail_syncs(false);
        let down = match self.random.below(3) {
            0 => Duration::from_millis(self.random.below(50)),
            _ => Duration::from_millis(50 + self.random.below(3_000)),
        };
        let at = stage.now + down;
        stage.at(at, Happening::Start);
    }

    /// Asks every shard to send its sessions elsewhere, and ends the process after a while.
    pub(crate) fn drain(&mut self, stage: &mut Stage) {
        if !self.is_up() || std::mem::replace(&mut self.is_draining, true) {
            return;
        }
        stage.tally.count(Fault::Drain);
        stage.saw(|| "broker drains".into());
        for shard in &mut self.shards {
            shard.arrive(stage, Arrival::Input(Input::Drain { deadline_ms: DRAIN_MS }));
        }
        let at = stage.now + Duration::from_millis(u64::from(DRAIN_MS));
        stage.at(at, Happening::Stop(self.boot));
    }

    /// Whether the process is about to end in an orderly manner.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// The disk has no space for another segment from now on, for a while.
    pub(crate) fn fill_disk(&mut self, stage: &mut Stage, time: Duration) {
        stage.tally.count(Fault::DiskFull);
        stage.saw(|| "disk is full".into());
        self.store.disk().limit_bytes(Some(0));
        let at = stage.now + time;
        stage.at(at, Happening::SpaceReturns);
    }

    /// The disk has space again.
    pub(crate) fn empty_disk(&mut self) {
        self.store.disk().limit_bytes(None);
    }

    /// The next sync fails; the process ends soon after, as its fatal hook has it.
    pub(crate) fn fail_sync(&mut self, stage: &mut Stage) {
        if self.is_up() {
            stage.tally.count(Fault::SyncError);
            stage.saw(|| "syncs fail".into());
            self.store.disk().fail_syncs(true);
            let at = stage.now + Duration::from_millis(20 + self.random.below(30));
            stage.at(at, Happening::Crash(self.boot));
        }
    }

    /// One shard does nothing for so long.
    pub(crate) fn pause(&mut self, stage: &mut Stage, shard: usize, time: Duration) {
        let count = self.shards.len();
        if let Some(shard) = self.shards.get_mut(shard % count.max(1)) {
            stage.tally.count(Fault::Pause);
            shard.pause(stage.now + time);
        }
    }

    /// The disk of one shard does nothing for so long.
    pub(crate) fn stall_disk(&mut self, stage: &mut Stage, shard: usize, time: Duration) {
        let count = self.shards.len();
        if let Some(shard) = self.shards.get_mut(shard % count.max(1)) {
            stage.tally.count(Fault::DiskStall);
            shard.stall_disk(stage.now + time);
        }
    }

    /// Writes that are not durable yet.
    pub(crate) fn disk_requests(&self) -> usize {
        self.shards.iter().map(Shard::disk_requests).sum()
    }

    /// A shard of this start.
    pub(crate) fn shard_mut(&mut self, boot: Boot, shard: ShardIndex) -> Option<&mut Shard> {
        if boot == self.boot { self.shards.get_mut(shard.0) } else { None }
    }

    /// Hands a datagram to the shard that its connection id names, as the kernel's filter would.
    pub(crate) fn receive(&mut self, stage: &mut Stage, from: SocketAddr, bytes: BytesMut) {
        let Some(shard) = steer(&bytes, self.shards.len()) else { return };
        if let Some(shard) = self.shards.get_mut(shard) {
            shard.arrive(stage, Arrival::Datagram { from, bytes });
        }
    }

    /// Lets a shard take a turn of its loop, and moves its mail.
    pub(crate) fn turn(&mut self, stage: &mut Stage, boot: Boot, index: ShardIndex) -> Vec<Sent> {
        let mut sent = Vec::new();
        let Some(shard) = self.shard_mut(boot, index) else { return sent };
        if !shard.turn(stage, &mut sent) {
            return sent;
        }
        let durable = shard.take_durable();
        self.durable.extend(durable);
        self.move_mail(stage, index);
        sent
    }

    /// Mail goes out as far as the other shards have room.
    fn move_mail(&mut self, stage: &mut Stage, from: ShardIndex) {
        for to in 0..self.shards.len() {
            if to == from.0 {
                continue;
            }
            let mut room = self.shards[to].mail_room(from);
            while let Some(message) = self.shards[from.0].node().take_mail(ShardId(to as u16)) {
                if room == 0 {
                    stage.tally.count(Fault::MailFull);
                    self.shards[from.0].node().untake_mail(ShardId(to as u16), message);
                    let retry = stage.now + Duration::from_micros(100);
                    self.shards[from.0].turn_at(stage, retry);
                    break;
                }
                room -= 1;
                let at = self.shards[to].expect_mail(stage, from);
                stage.at(at, Happening::Mail(self.boot, from, ShardIndex(to), Box::new(message)));
            }
        }
    }

    /// What all shards of this start have done.
    pub(crate) fn counters(&self) -> Vec<Counters> {
        self.shards.iter().map(|shard| *shard.counters()).collect()
    }
}

/// The rule by which the kernel picks a socket: the first byte of the connection id, modulo the number of shards.
fn steer(datagram: &[u8], shards: usize) -> Option<usize> {
    let has_long_header = datagram.first()? & 0x80 != 0;
    let at = if has_long_header { 6 } else { 1 };
    usize::from(*datagram.get(at)?).checked_rem(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_steered_by_the_first_byte_of_their_connection_id() {
        assert_eq!(steer(&[0xc0, 0, 0, 0, 1, 8, 7], 4), Some(3));
        assert_eq!(steer(&[0x40, 5], 2), Some(1));
        assert_eq!((steer(&[0x40, 5], 0), steer(&[], 2), steer(&[0xc0; 6], 2)), (None, None, None));
    }
}
