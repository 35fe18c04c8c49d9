//! One world: a broker, two witnesses, a crowd that comes and goes, and what is looked at after each round.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use antiphon_core::Held;
use antiphon_node::TransportHeld;
use antiphon_protocol::limits::FRAME_BYTES_MAX;
use bytes::BytesMut;

use super::{
    Outcome, Settings,
    guilty::{Fate, Guilty},
    mill::Mill,
    noise::Noise,
    peer::{Habits, Peer},
    rig::{Rig, SHARDS},
    witness::{self, Witness},
};
use crate::{broker::Sent, random::Random};

/// Guilty clients at a time.
const CROWD: usize = 40;
/// Frames of one round, all shards together.
const ROUND_FRAMES: u64 = 50_000;
/// Time between two steps: half a round trip.
const STEP: Duration = Duration::from_micros(200);
/// The same while all is quiet, and how long that may take: idle timeouts and the grace of presences.
const QUIET_STEP: Duration = Duration::from_millis(10);
const QUIET_STEPS: u32 = 6_000;
/// The same while the last ones are being closed.
const OVERDUE_STEP: Duration = Duration::from_millis(2);
const OVERDUE_STEPS: u32 = 3_000;
/// Such steps until the witnesses are let in for good.
const SET_UP_STEPS: u32 = 700;
/// Steps in which nothing at all is read before a round is given up.
const STUCK_STEPS: u32 = 200_000;
/// Bytes that the broker may hold of one connection: the bounds of its outbox, and of a frame that is on its way.
const OUTBOX_BYTES_MAX: usize = 512 << 10;
/// What a log in memory may cost that nothing was written to, what a witness's send may, and what may differ beside.
const LOG_BYTES: i64 = 6 << 10;
const PING_BYTES: i64 = 1 << 10;
const HEAP_SLACK: i64 = 256 << 10;
/// Rounds after which buffers have grown to what they need.
const WARM_ROUNDS: u64 = 2;
/// Violations kept of one world.
const VIOLATIONS_MAX: usize = 20;

type AllHeld = Vec<(Held, TransportHeld)>;

/// A world.
#[derive(Debug)]
pub(super) struct World {
    settings: Settings,
    rig: Rig,
    mill: Mill,
    noise: Noise,
    random: Random,
    witnesses: Vec<Witness>,
    crowd: Vec<Option<Guilty>>,
    born: u64,
    outcome: Outcome,
    sent: Vec<Sent>,
    datagrams: Vec<BytesMut>,
    is_store_full: bool,
    /// Bytes in use, logs in memory, and sends of witnesses once the world is warm.
    warm: Option<[i64; 3]>,
}

impl World {
    /// A world in which nothing has happened.
    pub(super) fn new(settings: Settings) -> Self {
        let seed = settings.seed;
        Self {
            settings,
            rig: Rig::new(seed),
            mill: Mill::new(seed),
            noise: Noise::new(seed),
            random: Random::new(seed, "crowd"),
            witnesses: Vec::new(),
            crowd: (0..CROWD).map(|_| None).collect(),
            born: 0,
            outcome: Outcome::default(),
            sent: Vec::new(),
            datagrams: Vec::new(),
            is_store_full: seed % 2 == 1,
            warm: None,
        }
    }

    /// Runs it to its end.
    pub(super) fn run(mut self) -> Outcome {
        self.set_up();
        let before = self.rig.held();
        while self.outcome.frames < self.settings.frames && self.outcome.violations.is_empty() {
            self.round();
            self.come_to_rest(&before);
            self.look_at_heap();
            self.outcome.rounds += 1;
        }
        self.outcome.refused = self.rig.counters().map(|counters| counters.refusals.total()).sum();
        self.outcome.appended = self.rig.counters().map(|counters| counters.appends).sum();
        self.outcome.datagrams = self.noise.made;
        self.outcome.pings = self.witnesses.iter().map(|witness| witness.pings).sum();
        self.outcome
    }

    fn violation(&mut self, what: String) {
        if self.outcome.violations.len() < VIOLATIONS_MAX {
            self.outcome.violations.push(format!("seed {}: {what}", self.settings.seed));
        }
    }

    /// Lets the witnesses in, and lets all become quiet.
    fn set_up(&mut self) {
        let habits = Habits { deaf_window: None, write_bytes_max: 64 << 10, hears_all: true };
        for shard in 0..SHARDS {
            let address = address(CROWD + shard, 1);
            let peer = Peer::new(self.rig.instant(), address, shard, habits, &mut self.random);
            self.witnesses.push(Witness::new(peer, shard));
        }
        // Until nothing is due of their beginning any more.
        for _ in 0..SET_UP_STEPS {
            self.step(false);
            self.rig.pass(QUIET_STEP);
        }
        if !self.witnesses.iter().all(Witness::is_ready) {
            self.violation("the witnesses were not let in".into());
        }
        if self.is_store_full {
            let logs: Vec<_> = (0..SHARDS).map(|shard| witness::log(shard).1).collect();
            self.rig.fill_store(&logs);
        }
    }

    /// A crowd comes and goes until enough frames were read.
    fn round(&mut self) {
        let end = (self.outcome.frames + ROUND_FRAMES).min(self.settings.frames);
        let (mut stuck, mut steps) = (0, 0_u64);
        while self.outcome.frames < end && self.outcome.violations.is_empty() {
            let before = self.outcome.frames;
            self.fill_crowd();
            self.make_noise(steps);
            self.step(true);
            stuck = if self.outcome.frames > before { 0 } else { stuck + 1 };
            if stuck > STUCK_STEPS {
                self.violation("nothing is read any more".into());
            }
            steps += 1;
            if steps % 64 == 0 {
                self.look_at_bounds();
            }
        }
    }

    fn fill_crowd(&mut self) {
        let (now, at) = (self.rig.now, self.rig.instant());
        for slot in 0..CROWD {
            // Not all at once, and not one after the other.
            if self.crowd[slot].is_some() || !self.random.per_mille(200) {
                continue;
            }
            self.born += 1;
            self.outcome.connections += 1;
            let (address, shard) = (address(slot, self.born as u16), self.random.index(SHARDS));
            let random = &mut self.random;
            let peer = |at, habits| Peer::new(at, address, shard, habits, random);
            self.crowd[slot] = Some(Guilty::new(now, at, peer, &mut self.mill));
        }
    }

    fn make_noise(&mut self, steps: u64) {
        for _ in 0..self.random.below(3) {
            let (from, bytes) = self.noise.make();
            self.rig.receive(self.random.index(SHARDS), from, bytes);
        }
        if steps == 300 {
            let shard = self.random.index(SHARDS);
            for (from, bytes) in self.noise.flood(self.rig.instant(), shard) {
                self.rig.receive(shard, from, bytes);
            }
        }
    }

    /// Half a round trip: everybody does what there is to do, and time passes.
    fn step(&mut self, sends: bool) {
        let (now, at) = (self.rig.now, self.rig.instant());
        self.mill.unix_ms = now.unix_us() / 1_000;
        self.step_witnesses(sends);
        for slot in 0..CROWD {
            let Some(guilty) = self.crowd[slot].as_mut() else { continue };
            let fate = guilty.step(at, &mut self.mill, &mut self.datagrams);
            let (address, shard) = (guilty.peer.address, guilty.peer.shard);
            self.carry_to_broker(address, shard);
            match fate {
                None => continue,
                Some(Fate::Left) => {}
                Some(Fate::Closed(code)) => *self.outcome.closed.entry(code).or_default() += 1,
                Some(Fate::Wronged(what)) => self.violation(what),
            }
            self.crowd[slot] = None;
        }
        self.rig.turn(&mut self.sent);
        self.carry_to_peers();
        self.outcome.frames = self.rig.counters().map(|counters| counters.frames_received).sum();
        self.rig.pass(STEP);
    }

    fn step_witnesses(&mut self, sends: bool) {
        let (now, at) = (self.rig.now, self.rig.instant());
        for index in 0..self.witnesses.len() {
            let acked = self.witnesses[index].acked();
            let are_all_served = self.witnesses.iter().all(|other| other.seen(index) >= acked);
            let witness = &mut self.witnesses[index];
            witness.step(now, at, sends, are_all_served, &mut self.datagrams);
            let complaint = witness.complaint.take();
            let (address, shard) = (witness.peer.address, witness.peer.shard);
            self.carry_to_broker(address, shard);
            complaint.into_iter().for_each(|what| self.violation(what));
        }
    }

    fn carry_to_broker(&mut self, from: SocketAddr, shard: usize) {
        for bytes in self.datagrams.drain(..) {
            self.noise.notice(&bytes);
            self.rig.receive(shard, from, bytes);
        }
    }

    fn carry_to_peers(&mut self) {
        let at = self.rig.instant();
        for Sent { to, bytes } in self.sent.drain(..) {
            let Some(slot) = slot(to) else { continue };
            let guilty = self.crowd.get_mut(slot).and_then(Option::as_mut).map(|guilty| &mut guilty.peer);
            let peer = match slot.checked_sub(CROWD) {
                Some(witness) => self.witnesses.get_mut(witness).map(|witness| &mut witness.peer),
                None => guilty,
            };
            // The slot may have another tenant by now.
            if let Some(peer) = peer.filter(|peer| peer.address == to) {
                peer.receive(at, bytes);
            }
        }
    }

    /// Everybody goes, and what the broker holds must become what it was.
    fn come_to_rest(&mut self, before: &AllHeld) {
        // Whoever is to be closed has time to be; the last ones are those who said nothing for five seconds.
        for _ in 0..OVERDUE_STEPS {
            if !self.crowd.iter().flatten().any(Guilty::is_overdue) {
                break;
            }
            self.step(true);
            self.rig.pass(OVERDUE_STEP);
        }
        for slot in 0..CROWD {
            let Some(mut guilty) = self.crowd[slot].take() else { continue };
            if guilty.is_overdue() {
                self.violation(format!("{} was not closed", guilty.name()));
            }
            guilty.leave(self.rig.instant(), &mut self.mill, &mut self.datagrams);
            self.carry_to_broker(guilty.peer.address, guilty.peer.shard);
        }
        for _ in 0..QUIET_STEPS {
            if self.is_as(before) || !self.outcome.violations.is_empty() {
                return;
            }
            self.step(false);
            self.rig.pass(QUIET_STEP);
        }
        let held = self.rig.held();
        self.violation(format!("what the broker holds was {before:?} and is {held:?}"));
    }

    /// Whether the broker holds what it held then. Logs stay in memory by design, up to their bound.
    fn is_as(&self, before: &AllHeld) -> bool {
        let without_logs = |(held, transport): &(Held, TransportHeld)| {
            // A witness that keeps its connection alive may or may not be in a list now.
            (Held { logs: 0, ..*held }, TransportHeld { listed: 0, timers: 0, ..*transport })
        };
        let held = self.rig.held();
        let have_timers_gone = held.iter().all(|(_, transport)| transport.timers <= 2 * transport.links);
        self.witnesses.iter().all(Witness::is_quiet)
            && have_timers_gone
            && held.iter().map(without_logs).eq(before.iter().map(without_logs))
    }

    /// While the crowd is there, nobody holds more than the bounds of a connection allow.
    fn look_at_bounds(&mut self) {
        for (held, transport) in self.rig.held() {
            let (links, connections) = (transport.links, held.connections);
            let bounds = [
                ("bytes in outboxes", held.outbox_bytes, connections * OUTBOX_BYTES_MAX),
                ("bytes that nobody has looked at", held.unread_bytes, connections * 2 * FRAME_BYTES_MAX),
                ("entries in lists", transport.listed, 4 * links + 8),
                ("timers of the transport", transport.timers, 4 * links + 8),
                ("handshakes that wait", transport.queued, 200),
                ("messages for shards", held.mail, 20_000),
            ];
            for (what, found, bound) in bounds {
                if found > bound {
                    self.violation(format!("{found} {what} with {links} connections"));
                }
            }
        }
    }

    /// Where nothing is stored, memory does not grow from round to round.
    fn look_at_heap(&mut self) {
        // What was found wrong already ended the round before everybody had gone.
        if !self.is_store_full || self.outcome.rounds < WARM_ROUNDS || !self.outcome.violations.is_empty() {
            return;
        }
        let logs = self.rig.held().iter().map(|(held, _)| held.logs as i64).sum::<i64>();
        let pings = self.witnesses.iter().map(|witness| witness.pings as i64).sum();
        let now = [(self.settings.heap)(), logs, pings];
        let warm = *self.warm.get_or_insert(now);
        let [bytes, logs, pings] = [0, 1, 2].map(|n| now[n] - warm[n]);
        if bytes > HEAP_SLACK + LOG_BYTES * logs + PING_BYTES * pings {
            let rounds = self.outcome.rounds;
            self.violation(format!("{bytes} bytes more after round {rounds}, with {logs} logs and {pings} pings more"));
        }
    }
}

/// Where the peer of a slot is.
fn address(slot: usize, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 2, 0, slot as u8)), port.max(1))
}

fn slot(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[..3] == [10, 2, 0] => Some(usize::from(ip.octets()[3])),
        _ => None,
    }
}
