//! The world: one broker, its clients, the links between them, and the loop that lets time pass.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use antiphon_checker::At;
use antiphon_sdk_core::{Config, OutboxLimits, Output};
use bytes::BytesMut;

use crate::{
    audit::Audit,
    broker::{Broker, Sent},
    client::Client,
    clock::Moment,
    fading,
    network::{Link, Quality, Way},
    phase::Phase,
    random::Random,
    recorder::{Recorder, user_name},
    shard::Arrival,
    stage::{ClientIndex, Happening, Stage},
    tally::Fault,
    tokens,
    workload::{Plan, Workload},
};

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    /// Time, agenda, chance, record.
    pub(crate) stage: Stage,
    /// The broker's process.
    pub(crate) broker: Broker,
    /// Every client; the last ones are the manager and, at the end, the auditor.
    pub(crate) clients: Vec<Client>,
    /// Their links.
    pub(crate) links: Vec<Link>,
    /// What applications heard.
    pub(crate) recorder: Recorder,
    /// What happens next.
    pub(crate) workload: Workload,
    /// Sizes.
    pub(crate) plan: Plan,
    /// Who reads the histories at the end.
    pub(crate) audit: Option<Audit>,
    /// The broker crashes at the next moment with writes under way.
    pub(crate) crash_at_writes: bool,
    /// Whether the workload goes on.
    pub(crate) is_acting: bool,
    seed: u64,
    ports: u16,
    tokens: u64,
}

impl World {
    /// A world in which nothing has happened.
    pub(crate) fn new(seed: u64, plan: Plan, with_trace: bool) -> Self {
        let open = (0..plan.open_logs).map(|n| format!("{}{n}", tokens::OPEN_PREFIX));
        let rooms = (0..plan.rooms).map(|n| format!("c:room-{n}"));
        let fading = (0..plan.fading_rooms).map(|n| format!("{}{n}", fading::PREFIX));
        // Names of this form are always valid.
        let logs = open.chain(rooms).chain(fading).filter_map(|name| name.parse().ok()).collect();
        Self {
            stage: Stage::new(seed, with_trace),
            broker: Broker::new(seed, plan.shard_counts.clone()),
            clients: Vec::new(),
            links: Vec::new(),
            recorder: Recorder::new(logs),
            workload: Workload::new(seed, &plan),
            plan,
            audit: None,
            crash_at_writes: false,
            is_acting: false,
            seed,
            ports: 1_000,
            tokens: 0,
        }
    }

    /// Adds a client of a user and lets it connect.
    pub(crate) fn add_client(&mut self, user: u32, quality: Quality) -> ClientIndex {
        let index = self.recorder.join(user);
        let client = self.make_client(index);
        self.clients.push(client);
        self.links.push(Link::new(quality));
        self.poke(index);
        index
    }

    fn make_client(&mut self, index: ClientIndex) -> Client {
        let life = self.recorder.people[index.0].life;
        let mut random = Random::new(self.seed, &format!("client {} {life}", index.0));
        let config = Config {
            device: format!("d{}", index.0).parse().ok(),
            client_name: "sim".into(),
            follow_mine: false,
            outbox: OutboxLimits::default(),
            seed: random.seed(),
        };
        let window = if random.per_mille(300) { 16 << 10 } else { 256 << 10 };
        let address = self.new_address(index);
        Client::new(config, address, window, random)
    }

    /// An address that no client has had.
    pub(crate) fn new_address(&mut self, index: ClientIndex) -> SocketAddr {
        self.ports += 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, index.0 as u8, 1)), self.ports)
    }

    /// The client's process ends, and another one of the same user and device begins.
    pub(crate) fn restart_client(&mut self, index: ClientIndex) {
        self.stage.tally.count(Fault::ClientRestart);
        self.stage.saw(|| format!("client {} restarts", index.0));
        self.recorder.restart(At(self.stage.now.0), index);
        let client = self.make_client(index);
        self.clients[index.0] = client;
        self.poke(index);
    }

    // ---- time ----

    /// Lets time pass until then.
    pub(crate) fn run_until(&mut self, end: Moment) {
        while let Some(next) = self.stage.agenda.next().filter(|next| *next <= end) {
            self.stage.now = next;
            while let Some(happening) = self.stage.agenda.take(next) {
                self.happen(happening);
            }
        }
        self.stage.now = self.stage.now.max(end);
    }

    /// Lets time pass until something is so, at most so long; whether it is.
    pub(crate) fn run_until_so(&mut self, at_most: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let end = self.stage.now + at_most;
        while !is_so(self) {
            if self.stage.now >= end {
                return false;
            }
            self.run_until((self.stage.now + Duration::from_millis(20)).min(end));
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        let stage = &mut self.stage;
        match happening {
            Happening::AtBroker { from, bytes } => self.broker.receive(stage, from, bytes),
            Happening::AtClient { client, to, bytes } => {
                if self.clients[client.0].address == to {
                    stage.saw_bytes(&bytes);
                    self.clients[client.0].receive(stage, bytes);
                    self.poke(client);
                }
            }
            Happening::Turn(boot, shard) => {
                let sent = self.broker.turn(stage, boot, shard);
                self.carry_to_clients(sent);
                self.after_turn();
            }
            Happening::ShardDue(boot, shard) => {
                self.broker.shard_mut(boot, shard).into_iter().for_each(|shard| shard.due(stage));
            }
            Happening::DiskDone(boot, shard) => {
                self.broker.shard_mut(boot, shard).into_iter().for_each(|shard| shard.disk_done(stage));
            }
            Happening::Ready(boot, shard, input) => {
                if let Some(shard) = self.broker.shard_mut(boot, shard) {
                    shard.arrive(stage, Arrival::Input(*input));
                }
            }
            Happening::Verified(boot, shard, ticket, result) => {
                if let Some(shard) = self.broker.shard_mut(boot, shard) {
                    let input = antiphon_core::Input::TokenVerified { ticket, result: *result };
                    shard.arrive(stage, Arrival::Input(input));
                }
            }
            Happening::Mail(boot, from, to, message) => {
                if let Some(shard) = self.broker.shard_mut(boot, to) {
                    shard.receive_mail(stage, from, *message);
                }
            }
            Happening::Crash(boot) if boot == self.broker.boot() => self.broker.crash(stage),
            Happening::Stop(boot) if boot == self.broker.boot() && self.broker.is_up() => {
                let sent = self.broker.stop(stage);
                self.carry_to_clients(sent);
            }
            Happening::Ended(boot) if boot == self.broker.boot() && self.broker.is_up() => self.broker.end(stage),
            Happening::Crash(_) | Happening::Stop(_) | Happening::Ended(_) => {}
            Happening::Start => {
                if let Err(error) = self.broker.start(stage) {
                    self.recorder.violation(stage, None, error);
                }
            }
            Happening::SpaceReturns => self.broker.empty_disk(),
            Happening::ClientDue(client) => {
                if self.clients[client.0].is_due(stage) {
                    self.poke(client);
                }
            }
            Happening::Token(client, life) => self.give_token(client, life),
            Happening::Act => self.act(),
        }
    }

    /// What fate waits for in the broker's doings.
    fn after_turn(&mut self) {
        if self.crash_at_writes && self.broker.disk_requests() > 0 {
            self.crash_at_writes = false;
            self.broker.crash(&mut self.stage);
        }
        for index in 0..self.clients.len() {
            if self.recorder.people[index].cut_in == Some(Phase::Ack) {
                self.cut_if_in_phase(ClientIndex(index));
            }
        }
    }

    // ---- clients ----

    /// Lets a client do what it can do now, and passes on what comes of it.
    pub(crate) fn poke(&mut self, index: ClientIndex) {
        let client = &mut self.clients[index.0];
        let (news, datagrams) = client.step(&self.stage);
        self.stage.tally.fetched += client.tap.take_fetched();
        for output in news {
            match (output, &mut self.audit) {
                (Output::NeedToken, _) => {
                    let delay = Duration::from_micros(500 + self.stage.random.below(30_000));
                    let life = self.recorder.people[index.0].life;
                    self.stage.at(self.stage.now + delay, Happening::Token(index, life));
                }
                (Output::Page { result, .. }, Some(audit)) if audit.client == index => {
                    audit.page_came(result);
                }
                (output, _) => self.recorder.hear(&mut self.stage, index, output),
            }
        }
        for bytes in datagrams {
            self.carry_to_broker(index, bytes);
        }
        self.cut_if_in_phase(index);
        if let Some(at) = self.clients[index.0].next_call(&self.stage) {
            self.stage.at(at, Happening::ClientDue(index));
        }
    }

    fn give_token(&mut self, index: ClientIndex, life: u32) {
        let person = &self.recorder.people[index.0];
        if person.life != life || !self.clients[index.0].wants_token {
            return;
        }
        let now_ms = self.stage.now.unix_us() / 1_000;
        let lasts_ms = match self.stage.random.below(100) {
            // After a quiet end nothing more may go wrong.
            _ if !self.is_acting => 3_600_000,
            0..5 => {
                self.stage.tally.count(Fault::TokenFailure);
                return self.answer_token(index, None);
            }
            5..10 => self.stage.random.below(20),
            10..35 => 5_000 + self.stage.random.below(60_000),
            _ => 3_600_000,
        };
        self.tokens += 1;
        let token = tokens::token(&user_name(person.user), now_ms + lasts_ms, self.tokens);
        self.answer_token(index, Some(token));
    }

    fn answer_token(&mut self, index: ClientIndex, token: Option<String>) {
        self.clients[index.0].token(&self.stage, token);
        self.poke(index);
    }

    // ---- cuts ----

    /// Cuts the client's connection if that was wanted and the moment is right.
    fn cut_if_in_phase(&mut self, index: ClientIndex) {
        let person = &mut self.recorder.people[index.0];
        let Some(phase) = person.cut_in else { return };
        let durable = &self.broker.durable;
        if person.is_in(phase, &self.clients[index.0].tap, |id| durable.contains(id))
            && self.stage.random.per_mille(500)
        {
            person.cut_in = None;
            self.cut_connection(index, phase);
        }
    }

    /// The connection is lost in one way or another.
    pub(crate) fn cut_connection(&mut self, index: ClientIndex, phase: Phase) {
        self.stage.tally.count_cut(phase);
        self.stage.saw(|| format!("client {} is cut in phase {}", index.0, phase.word()));
        if self.stage.random.per_mille(700) {
            self.kill(index);
        } else {
            let time = self.workload.cut_time();
            self.cut_link(index, time);
        }
    }

    /// The connection is gone at once.
    pub(crate) fn kill(&mut self, index: ClientIndex) {
        self.stage.tally.count(Fault::Kill);
        self.clients[index.0].address = self.new_address(index);
        self.clients[index.0].kill(&self.stage);
        self.poke(index);
    }

    /// The link carries nothing for so long.
    pub(crate) fn cut_link(&mut self, index: ClientIndex, time: Duration) {
        self.stage.tally.count(Fault::Cut);
        let until = self.stage.now + time;
        self.links[index.0].cut(until);
    }

    // ---- datagrams ----

    fn carry_to_broker(&mut self, index: ClientIndex, mut bytes: BytesMut) {
        let stage = &mut self.stage;
        let arrivals =
            self.links[index.0].carry(stage.now, Way::ToBroker, &mut bytes, &mut stage.random, &mut stage.tally);
        let from = self.clients[index.0].address;
        for at in arrivals.into_iter().flatten() {
            stage.at(at, Happening::AtBroker { from, bytes: bytes.clone() });
        }
    }

    fn carry_to_clients(&mut self, sent: Vec<Sent>) {
        for Sent { to, mut bytes } in sent {
            let IpAddr::V4(ip) = to.ip() else { continue };
            let client = ClientIndex(usize::from(ip.octets()[2]));
            let stage = &mut self.stage;
            let Some(link) = self.links.get_mut(client.0) else { continue };
            let arrivals = link.carry(stage.now, Way::ToClient, &mut bytes, &mut stage.random, &mut stage.tally);
            for at in arrivals.into_iter().flatten() {
                stage.at(at, Happening::AtClient { client, to, bytes: bytes.clone() });
            }
        }
    }
}
