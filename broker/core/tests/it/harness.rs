//! Some shards, the mail between them, their store, and clients, driven turn by turn in virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_core::{
    Claims, ConnectionId, Input, Output, ResumeKey, Shard, ShardConfig, ShardId, Time, TokenRefusal, VerifyTicket,
    claims::{Ability, ActorKind, Grant, GrantPattern, Scope, Scopes},
    explain::Explanation,
};
use antiphon_protocol::{
    Class, ErrorCode, FrameType, LogKey, LogName, Row, TenantId, VERSION,
    control::{self, Role, subscribe::From},
    frames,
};
use antiphon_storage_contract::presence::PresenceOp;
use bytes::Bytes;
use prost::Message;
use uuid::Uuid;

pub(crate) use super::{
    client::{Client, Draft, Event, Reply, Told},
    edge::{Carried, Edge, carry},
    store::{Fault, Kind, Store, StoredLog},
};

pub(crate) const START_MS: u64 = 1_800_000_000_000;
const TURNS_MAX: u32 = 200_000;

/// One of the harness's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who(pub(crate) usize);

#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) shards: Vec<Shard>,
    pub(crate) store: Store,
    pub(crate) clients: Vec<Client>,
    /// Verdicts by token; a token that is not here is invalid.
    pub(crate) tokens: BTreeMap<String, Result<Claims, TokenRefusal>>,
    pub(crate) holds_verdicts: bool,
    /// The transport is slow to end connections that were closed.
    pub(crate) keeps_closed: bool,
    /// Mail from one shard to another that stays where it is.
    pub(crate) held_mail: BTreeSet<(usize, usize)>,
    /// One for each shard, if clients come on trunks.
    pub(crate) edges: Vec<Edge>,
    /// Answers to operators' questions, and the shard that gave them.
    pub(crate) explained: Vec<(usize, Explanation)>,
    /// What was stated to the store of presence, if there is one, and the shard that did.
    pub(crate) stated: Vec<(usize, PresenceOp)>,
    shares_presence: bool,
    verdicts: VecDeque<(usize, VerifyTicket, String)>,
    slots: Vec<u32>,
    boot: u8,
    ids: u64,
}

impl Cluster {
    pub(crate) fn new(shards: usize) -> Self {
        Self::with(shards, false)
    }

    /// Whose presence is shared with other brokers; the test is the store.
    pub(crate) fn sharing_presence(shards: usize) -> Self {
        Self::with(shards, true)
    }

    fn with(shards: usize, shares_presence: bool) -> Self {
        let mut cluster = Self {
            now: Time::from_unix_ms(START_MS),
            shards: Vec::new(),
            store: Store::default(),
            clients: Vec::new(),
            tokens: BTreeMap::new(),
            holds_verdicts: false,
            keeps_closed: false,
            held_mail: BTreeSet::new(),
            edges: Vec::new(),
            explained: Vec::new(),
            stated: Vec::new(),
            shares_presence,
            verdicts: VecDeque::new(),
            slots: vec![0; shards],
            boot: 0,
            ids: 0,
        };
        cluster.boot(shards);
        cluster
    }

    fn boot(&mut self, shards: usize) {
        self.boot += 1;
        let shares_presence = self.shares_presence;
        let config = |shard: usize| {
            let mut seed = [self.boot; 32];
            seed[0] = shard as u8;
            let (shard, resume_key) = (ShardId(shard as u16), ResumeKey::new([7; 32]));
            ShardConfig { shard, shards: shards as u16, seed, resume_key, stands_by: false, shares_presence }
        };
        self.shards = (0..shards).map(|shard| Shard::new(config(shard))).collect();
        self.slots = vec![0; shards];
        if super::ON_TRUNKS {
            self.edges = (0..shards).map(|shard| self.open_trunk(shard)).collect();
        }
    }

    /// A trunk is gone, and its edge opens another.
    pub(crate) fn lose_trunk(&mut self, shard: usize) {
        let connection = self.edges[shard].trunk;
        for client in self.clients.iter_mut().filter(|client| client.shard == shard) {
            client.is_gone = true;
        }
        self.input(shard, Input::ConnectionClosed { connection });
        let farewell = self.edges[shard].farewell.take();
        self.edges[shard] = self.open_trunk(shard);
        self.edges[shard].farewell = farewell;
    }

    fn open_trunk(&mut self, shard: usize) -> Edge {
        let connection = ConnectionId { slot: self.slots[shard], generation: 0 };
        self.slots[shard] += 1;
        self.shards[shard].handle(self.now, Input::TrunkOpened { connection });
        Edge::new(connection)
    }

    /// The process ends and another one takes the store up.
    pub(crate) fn restart(&mut self, shards: usize, writes_survive: bool) {
        self.store.crash(writes_survive);
        self.verdicts.clear();
        for client in &mut self.clients {
            client.is_gone = true;
        }
        self.boot(shards);
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.now = Time(self.now.0 + ms * 1_000);
        self.settle();
    }

    /// A fresh UUIDv7 of this moment.
    pub(crate) fn new_id(&mut self) -> Uuid {
        self.new_id_at(self.now.unix_ms())
    }

    pub(crate) fn new_id_at(&mut self, ms: u64) -> Uuid {
        self.ids += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(ms, &random).into_uuid()
    }

    /// Turns until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            if !self.turn() {
                return;
            }
        }
        panic!("the shards do not come to rest");
    }

    /// One turn of every shard. False if nothing happened and nothing is left to do.
    pub(crate) fn turn(&mut self) -> bool {
        let mut moved = self.feed();
        moved |= self.answer_verdicts();
        moved |= self.carry_mail();
        for _ in 0..self.store.eligible().len() {
            // Indices move as operations complete, so the first one is looked up anew.
            let Some(first) = self.store.eligible().first().copied() else { break };
            self.complete(first);
            moved = true;
        }
        let now = self.now;
        self.shards.iter_mut().for_each(|shard| shard.end_turn(now));
        // What was due may have become mail.
        moved |= self.carry_mail();
        moved |= self.perform();
        moved |= self.read();
        moved || self.shards.iter().any(Shard::has_work)
    }

    pub(crate) fn complete(&mut self, index: usize) {
        let (shard, completion) = self.store.complete(index);
        self.input(shard, Input::Stored(completion));
    }

    pub(crate) fn input(&mut self, shard: usize, input: Input) {
        self.shards[shard].handle(self.now, input);
        self.perform();
    }

    /// Hands over what clients have to say, as far as the shards want it.
    fn feed(&mut self) -> bool {
        let mut moved = false;
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            let (shard, connection) = (client.shard, client.connection);
            if client.channel != 0 {
                moved |= self.feed_edge(index);
                continue;
            }
            while !self.clients[index].is_gone && self.shards[shard].wants_input(connection) {
                let Some(bytes) = self.clients[index].outgoing.pop_front() else { break };
                self.input(shard, Input::Received { connection, bytes });
                moved = true;
            }
        }
        moved
    }

    fn feed_edge(&mut self, index: usize) -> bool {
        let mut moved = false;
        while !self.clients[index].is_gone && !self.clients[index].awaits_welcome {
            let client = &mut self.clients[index];
            let Some(frame) = client.outgoing.pop_front() else { break };
            client.awaits_welcome = frame[4] == FrameType::Hello as u8;
            let (shard, connection, bytes) = (client.shard, client.connection, carry(client.channel, &frame));
            self.input(shard, Input::Received { connection, bytes });
            moved = true;
        }
        moved
    }

    fn answer_verdicts(&mut self) -> bool {
        if self.holds_verdicts {
            return false;
        }
        let verdicts = std::mem::take(&mut self.verdicts);
        let moved = !verdicts.is_empty();
        for (shard, ticket, token) in verdicts {
            let unknown = || Err(TokenRefusal { expired: false, reason: "signature".into() });
            let result = self.tokens.get(&token).cloned().unwrap_or_else(unknown);
            self.input(shard, Input::TokenVerified { ticket, result });
        }
        moved
    }

    fn carry_mail(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            for to in 0..self.shards.len() {
                while !self.held_mail.contains(&(from, to)) && self.carry_one(from, to) {
                    moved = true;
                }
            }
        }
        moved
    }

    /// Moves one message. False if there is none.
    pub(crate) fn carry_one(&mut self, from: usize, to: usize) -> bool {
        let Some(message) = self.shards[from].take_mail(ShardId(to as u16)) else { return false };
        self.input(to, Input::Mail { from: ShardId(from as u16), message });
        true
    }

    /// Performs the effects of every shard.
    fn perform(&mut self) -> bool {
        let mut moved = false;
        for shard in 0..self.shards.len() {
            while let Some(output) = self.shards[shard].poll_output() {
                moved = true;
                match output {
                    Output::Store { op, token } => self.store.submit(shard, op, token),
                    Output::Verify { ticket, token } => self.verdicts.push_back((shard, ticket, token.0)),
                    Output::Explained(explanation) => self.explained.push((shard, *explanation)),
                    Output::Presence(op) => self.stated.push((shard, op)),
                    Output::Close { connection, code } => self.close(shard, connection, code),
                }
            }
        }
        moved
    }

    fn close(&mut self, shard: usize, connection: ConnectionId, code: ErrorCode) {
        if self.edges.get(shard).is_some_and(|edge| edge.trunk == connection) {
            self.read_trunk(shard);
            return self.lose_trunk(shard);
        }
        let index = self.index_of(shard, connection);
        self.clients[index].is_writable = true;
        self.read_one(index);
        let client = &mut self.clients[index];
        assert_eq!(client.closed, None, "a connection is closed once");
        client.closed = Some(code);
        if !self.keeps_closed {
            self.disconnect(Who(index));
        }
    }

    fn index_of(&self, shard: usize, connection: ConnectionId) -> usize {
        let is_it = |client: &Client| client.shard == shard && client.connection == connection && !client.is_gone;
        self.clients.iter().position(is_it).expect("effects name connections that exist")
    }

    /// Lets clients read what their outboxes hold.
    fn read(&mut self) -> bool {
        let mut moved = false;
        for shard in 0..self.shards.len() {
            while let Some(connection) = self.shards[shard].poll_writable() {
                if self.edges.get(shard).is_some_and(|edge| edge.trunk == connection) {
                    moved |= self.read_trunk(shard);
                    continue;
                }
                let index = self.index_of(shard, connection);
                self.clients[index].is_writable = true;
            }
        }
        for index in 0..self.clients.len() {
            moved |= self.read_one(index);
        }
        moved
    }

    /// Hands on what a trunk brings.
    pub(crate) fn read_trunk(&mut self, shard: usize) -> bool {
        let trunk = self.edges[shard].trunk;
        if !self.edges[shard].reads {
            return false;
        }
        let mut moved = false;
        for class in Class::ALL {
            let mut bytes = Vec::new();
            while let Some(part) = self.shards[shard].outbox_mut(trunk).and_then(|outbox| outbox.lane_mut(class).pop())
            {
                bytes.extend_from_slice(&part);
            }
            moved |= !bytes.is_empty();
            self.edges[shard].read(class, bytes.into());
            while let Some(recipients) = self.edges[shard].next(class) {
                recipients.into_iter().for_each(|carried| self.hand(shard, carried));
            }
        }
        if moved && self.shards[shard].awaits_room(trunk) {
            self.shards[shard].written(trunk);
        }
        moved
    }

    fn hand(&mut self, shard: usize, carried: Carried) {
        let (Carried::Frame { channel, .. } | Carried::Closed { channel, .. }) = carried;
        let is_it = |client: &Client| client.shard == shard && client.channel == channel && !client.is_gone;
        let Some(index) = self.clients.iter().position(is_it) else { return };
        match carried {
            Carried::Closed { number, .. } => {
                self.read_one(index);
                let client = &mut self.clients[index];
                assert_eq!(client.closed, None, "a channel is closed once");
                client.closed = ErrorCode::from_number(number);
                client.is_gone = !self.keeps_closed;
            }
            Carried::Frame { class, frame, .. } => {
                let waiting = self.clients[index].waiting_events();
                if let Some(bytes) = self.edges[shard].lag(channel, waiting, &frame) {
                    let connection = self.edges[shard].trunk;
                    return self.input(shard, Input::Received { connection, bytes });
                }
                self.clients[index].waiting[class as usize].push_back(frame);
            }
        }
    }

    fn read_edge(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        let mut moved = false;
        for class in Class::ALL {
            while !client.is_gone && client.reads[class as usize] {
                let Some(frame) = client.waiting[class as usize].pop_front() else { break };
                client.absorb(class, frame, &self.store);
                moved = true;
            }
        }
        moved
    }

    fn read_one(&mut self, index: usize) -> bool {
        let client = &mut self.clients[index];
        if client.channel != 0 {
            return self.read_edge(index);
        }
        if !client.is_writable || client.is_gone {
            return false;
        }
        let Some(outbox) = self.shards[client.shard].outbox_mut(client.connection) else { return false };
        let mut moved = false;
        let reads = client.reads;
        for class in Class::ALL.into_iter().filter(|class| reads[*class as usize]) {
            while let Some(frame) = outbox.lane_mut(class).pop() {
                client.absorb(class, frame, &self.store);
                moved = true;
            }
        }
        client.is_writable = !outbox.is_empty();
        let (shard, connection) = (client.shard, client.connection);
        if moved && self.shards[shard].awaits_room(connection) {
            self.shards[shard].written(connection);
        }
        moved
    }
}

/// Clients.
impl Cluster {
    /// Claims of an ordinary user that end in a day.
    pub(crate) fn claims(&self, user: &str) -> Claims {
        Claims {
            tenant: TenantId::new("acme").unwrap(),
            user: user.parse().unwrap(),
            kind: ActorKind::User,
            device: None,
            name: None,
            grants: Vec::new(),
            scopes: Scopes::NONE,
            issued_at_ms: self.now.unix_ms(),
            expires_at_ms: self.now.unix_ms() + 24 * 3_600_000,
            token_id: "t".into(),
        }
    }

    pub(crate) fn service(&self, user: &str) -> Claims {
        Claims { kind: ActorKind::Service, scopes: Scopes::NONE.with(Scope::ActAs), ..self.claims(user) }
    }

    pub(crate) fn granted(&self, user: &str, on: &str, can: &[Ability]) -> Claims {
        let grants = vec![Grant { on: GrantPattern::new(on).unwrap(), can: can.iter().copied().collect() }];
        Claims { grants, ..self.claims(user) }
    }

    /// A connection that has said nothing yet.
    pub(crate) fn open(&mut self, shard: usize) -> Who {
        if super::ON_TRUNKS {
            return self.open_channel(shard);
        }
        let connection = ConnectionId { slot: self.slots[shard], generation: 0 };
        self.slots[shard] += 1;
        let client = Client::new(shard, connection, TenantId::new("acme").unwrap());
        self.clients.push(client);
        self.input(shard, Input::ConnectionOpened { connection });
        Who(self.clients.len() - 1)
    }

    fn open_channel(&mut self, shard: usize) -> Who {
        let edge = &mut self.edges[shard];
        edge.channels += 1;
        let (connection, channel) = (edge.trunk, edge.channels);
        let mut client = Client::new(shard, connection, TenantId::new("acme").unwrap());
        client.channel = channel;
        self.clients.push(client);
        let open = control::ChannelOpen { remote: "192.0.2.1:5000".into() };
        let bytes = carry(channel, &frames::control(FrameType::ChannelOpen, 0, &open));
        self.input(shard, Input::Received { connection, bytes });
        Who(self.clients.len() - 1)
    }

    /// A session of `user` on a device of its own.
    pub(crate) fn connect(&mut self, shard: usize, user: &str) -> Who {
        let claims = self.claims(user);
        self.connect_with(shard, claims)
    }

    pub(crate) fn connect_with(&mut self, shard: usize, claims: Claims) -> Who {
        let who = self.open(shard);
        let token = format!("token {}", who.0);
        self.clients[who.0].tenant = claims.tenant.clone();
        self.tokens.insert(token.clone(), Ok(claims));
        let id = self.ask(who, FrameType::Hello, &hello(&token, &format!("device-{}", who.0)));
        self.settle();
        assert!(matches!(self.take(who, id), Reply::Welcome(_)), "the session begins");
        who
    }

    /// A session that begins while other things are in the middle of happening.
    pub(crate) fn open_established(&mut self, shard: usize, user: &str) -> Who {
        let who = self.open(shard);
        let token = format!("token {}", who.0);
        let claims = self.claims(user);
        self.tokens.insert(token.clone(), Ok(claims));
        self.ask(who, FrameType::Hello, &hello(&token, &format!("device-{}", who.0)));
        who
    }

    /// Goes away in the middle of things: with a subscription, a page and a send under way.
    pub(crate) fn ask_and_leave(&mut self, who: Who) {
        self.ask(who, FrameType::Subscribe, &control::Subscribe { log: "c:g1".into(), from: Some(after(0)) });
        self.ask(who, FrameType::Fetch, &control::Fetch { log: "c:g2".into(), ..Default::default() });
        let draft = self.draft("c:g3", "bye");
        self.send(who, &draft);
        self.turn();
        self.disconnect(who);
    }

    /// A session that begins although mail between shards is held back: the harness carries what it needs.
    pub(crate) fn connect_held(&mut self, shard: usize, user: &str) -> Who {
        let held = std::mem::take(&mut self.held_mail);
        let who = self.connect(shard, user);
        self.held_mail = held;
        who
    }

    pub(crate) fn disconnect(&mut self, who: Who) {
        let (shard, connection) = (self.client(who).shard, self.client(who).connection);
        if !std::mem::replace(&mut self.clients[who.0].is_gone, true) {
            let channel = self.client(who).channel;
            if channel != 0 {
                self.edges[shard].groups.close(channel);
                let bytes = carry(channel, &frames::raw(FrameType::ChannelClose, 0, b""));
                return self.input(shard, Input::Received { connection, bytes });
            }
            self.input(shard, Input::ConnectionClosed { connection });
        }
    }

    pub(crate) fn client(&self, who: Who) -> &Client {
        &self.clients[who.0]
    }

    pub(crate) fn client_mut(&mut self, who: Who) -> &mut Client {
        &mut self.clients[who.0]
    }

    /// Queues bytes as they are.
    pub(crate) fn raw(&mut self, who: Who, bytes: Bytes) {
        self.clients[who.0].outgoing.push_back(bytes);
    }

    /// Queues a request.
    pub(crate) fn ask(&mut self, who: Who, frame_type: FrameType, body: &impl Message) -> u32 {
        let id = self.clients[who.0].next_request_id();
        if frame_type != FrameType::Signal {
            self.clients[who.0].unanswered.insert(id, None);
        }
        self.raw(who, frames::control(frame_type, id, body));
        id
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, who: Who, frame_type: FrameType, body: &impl Message) -> Reply {
        let id = self.ask(who, frame_type, body);
        self.settle();
        self.take(who, id)
    }

    /// The answer to a request, which must have come.
    pub(crate) fn take(&mut self, who: Who, id: u32) -> Reply {
        let farewell = self.client(who).farewell.clone();
        let reply = self.clients[who.0].replies.remove(&id);
        reply.unwrap_or_else(|| panic!("request {id} has no answer; farewell: {farewell:?}"))
    }

    pub(crate) fn is_answered(&self, who: Who, id: u32) -> bool {
        self.client(who).replies.contains_key(&id)
    }

    /// Queues a SEND.
    pub(crate) fn send(&mut self, who: Who, draft: &Draft) -> u32 {
        let id = self.clients[who.0].next_request_id();
        let key = self.key(who, &draft.log);
        self.clients[who.0].unanswered.insert(id, Some((key, draft.id)));
        self.raw(who, draft.to_frame(id));
        id
    }

    pub(crate) fn draft(&mut self, log: &str, body: &str) -> Draft {
        let id = self.new_id();
        Draft::text(log, id, body)
    }

    /// Sends, and waits for the answer.
    pub(crate) fn say(&mut self, who: Who, log: &str, body: &str) -> Reply {
        let draft = self.draft(log, body);
        self.send_now(who, &draft)
    }

    pub(crate) fn send_now(&mut self, who: Who, draft: &Draft) -> Reply {
        let id = self.send(who, draft);
        self.settle();
        self.take(who, id)
    }

    pub(crate) fn subscribe(&mut self, who: Who, log: &str, from: From) -> Reply {
        self.call(who, FrameType::Subscribe, &control::Subscribe { log: log.into(), from: Some(from) })
    }

    pub(crate) fn follow(&mut self, who: Who, log: &str) {
        self.subscribe(who, log, From::Tail(true)).attach();
    }

    pub(crate) fn fetch(&mut self, who: Who, log: &str, from: u64, to: u64) -> Reply {
        self.call(who, FrameType::Fetch, &control::Fetch { log: log.into(), from, to, ..Default::default() })
    }

    pub(crate) fn get(&mut self, who: Who, id: &str) -> Reply {
        self.call(who, FrameType::ConversationGet, &control::ConversationGet { conversation: id.into() })
    }

    /// Creates a group with the client as its owner.
    pub(crate) fn group(&mut self, who: Who, id: &str, members: &[&str]) {
        let members = members.iter().map(|user| member(user, Role::Member)).collect();
        let create = control::ConversationCreate { conversation: id.into(), members, ..Default::default() };
        assert!(self.call(who, FrameType::ConversationCreate, &create).conversation().created);
    }

    pub(crate) fn key(&self, who: Who, log: &str) -> LogKey {
        log.parse::<LogName>().unwrap().key(&self.client(who).tenant)
    }

    /// The log as it is stored.
    pub(crate) fn stored(&self, who: Who, log: &str) -> StoredLog {
        self.store.logs.get(&self.key(who, log)).cloned().unwrap_or_default()
    }

    /// Bodies of the rows that came live or inlined.
    pub(crate) fn heard(&self, who: Who, log: &str) -> Vec<String> {
        self.client(who).rows(log).iter().filter(|row| row.msgno_counts()).map(text).collect()
    }

    /// A conversation id whose owner is this shard.
    pub(crate) fn id_on(&self, shard: usize) -> String {
        let tenant = TenantId::new("acme").unwrap();
        let owner = |id: &String| {
            let key = format!("c:{id}").parse::<LogName>().unwrap().key(&tenant);
            usize::from(key.partition()) % self.shards.len()
        };
        (0..).map(|n| format!("room-{n}")).find(|id| owner(id) == shard).unwrap()
    }
}

/// Whether a row is a message, of which tests look at the text.
pub(crate) trait Counts {
    fn msgno_counts(&self) -> bool;
}

impl Counts for Row {
    fn msgno_counts(&self) -> bool {
        self.kind() == antiphon_protocol::EventKind::MESSAGE
    }
}

pub(crate) fn text(row: &Row) -> String {
    String::from_utf8(row.body().to_vec()).unwrap()
}

pub(crate) fn hello(token: &str, device: &str) -> control::Hello {
    control::Hello { versions: vec![VERSION], token: token.into(), device: device.into(), ..Default::default() }
}

pub(crate) fn member(user: &str, role: Role) -> control::Member {
    control::Member { user: user.into(), role: role.into(), joined_seq: 0 }
}

pub(crate) fn after(seq: u64) -> From {
    From::After(control::Position { epoch: 1, seq })
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}
