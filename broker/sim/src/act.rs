//! Carries out the workload's actions.

use std::time::Duration;

use antiphon_checker::body_hash;
use antiphon_protocol::{ContentType, FrameType, Position, control};
use antiphon_sdk_core::{Command, CommandId, Direction, From, NewMessage, NewSignal, Range, SubscriptionId};
use bytes::Bytes;
use prost::Message;
use uuid::{Builder, Uuid};

use crate::{
    clock::Moment,
    fading,
    network::Quality,
    person::{Asked, LogIndex, Outgoing},
    phase::Phase,
    recorder::user_name,
    stage::{ClientIndex, Happening},
    tally::Fault,
    workload::{Action, Start},
    world::World,
};

/// Messages of one client that may be unanswered before it waits.
const UNANSWERED_MAX: usize = 200;

impl World {
    /// Begins the workload.
    pub(crate) fn begin_acting(&mut self) {
        self.is_acting = true;
        self.stage.at(self.stage.now, Happening::Act);
    }

    /// Does the next action, and plans the one after it.
    pub(crate) fn act(&mut self) {
        if !self.is_acting {
            return;
        }
        let action = self.workload.next();
        self.perform(action);
        let at = self.stage.now + self.workload.pause();
        self.stage.at(at, Happening::Act);
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Send { client, log, count, bytes } => self.send(client, log, count, bytes),
            Action::Retry { client } => self.retry(client),
            Action::Subscribe { client, log, from } => self.subscribe(client, log, from),
            Action::Unsubscribe { client, log } => self.unsubscribe(client, log),
            Action::Page { client, log, is_backward, rows, from } => self.page(client, log, is_backward, rows, from),
            Action::Cursor { client, log } => self.cursor(client, log),
            Action::Signal { client, log } => self.signal(client, log),
            Action::AddMember { user, log } => self.add_member(user, log),
            Action::RemoveMember { user, log } => self.remove_member(user, log),
            fault => self.strike(fault),
        }
    }

    fn strike(&mut self, fault: Action) {
        let stage = &mut self.stage;
        match fault {
            Action::Cut { client, time } => self.cut_link(client, time),
            Action::CutIn { client, phase } => self.cut_in(client, phase),
            Action::Rebind { client, notices } => {
                stage.tally.count(Fault::Rebind);
                let address = self.new_address(client);
                self.clients[client.0].rebind(address, notices);
                self.poke(client);
            }
            Action::Sleep { client, time } => {
                stage.tally.count(Fault::SlowReader);
                let until = stage.now + time;
                self.clients[client.0].sleep(until);
                self.poke(client);
            }
            Action::RestartClient { client } => self.restart_client(client),
            Action::ChangeLink { client } => self.links[client.0].quality = Quality::any(self.workload.random()),
            Action::Crash { at_writes: true } => self.crash_at_writes = true,
            Action::Crash { at_writes: false } => self.broker.crash(stage),
            Action::Drain => self.broker.drain(stage),
            Action::Pause { shard, time } => self.broker.pause(stage, shard, time),
            Action::StallDisk { shard, time } => self.broker.stall_disk(stage, shard, time),
            Action::FillDisk { time } => self.broker.fill_disk(stage, time),
            Action::FailSync => self.broker.fail_sync(stage),
            _ => {}
        }
    }

    /// Wants the connection cut in a phase. Phases that follow a connect are brought about.
    fn cut_in(&mut self, client: ClientIndex, phase: Phase) {
        self.recorder.people[client.0].cut_in = Some(phase);
        if matches!(phase, Phase::Connect | Phase::HandOver | Phase::Page) {
            self.kill(client);
        }
    }

    fn command(&mut self, client: ClientIndex, command: Command) {
        self.clients[client.0].command(&self.stage, command);
        self.poke(client);
    }

    // ---- sends ----

    fn send(&mut self, client: ClientIndex, log: LogIndex, count: u32, bytes: usize) {
        for _ in 0..count {
            let person = &mut self.recorder.people[client.0];
            if person.outgoing.len() >= UNANSWERED_MAX {
                return;
            }
            let text = format!("{}.{} ", client.0, person.commands);
            let mut body = text.into_bytes();
            body.resize(bytes.max(body.len()), b'x');
            // An id without a time may be used again when its row is gone.
            let id = self.new_id().filter(|id| id.get_version_num() == 7 || !self.recorder.is_fading(log));
            let outgoing = Outgoing { log, hash: body_hash(&body), body: body.into(), id, op: None };
            self.send_one(client, outgoing);
        }
        // Only now, so that a burst leaves together.
        self.poke(client);
    }

    fn send_one(&mut self, client: ClientIndex, outgoing: Outgoing) {
        self.stage.tally.operations += 1;
        let mut message =
            NewMessage::new(self.recorder.logs[outgoing.log.0].clone(), ContentType::Octets, outgoing.body.clone());
        message.client_message_id = outgoing.id;
        let person = &mut self.recorder.people[client.0];
        let id = CommandId(person.next_command());
        person.outgoing.insert(id, outgoing);
        self.clients[client.0].command(&self.stage, Command::Send { id, message });
    }

    /// Mostly the SDK makes the id; some applications make their own, long before they send it, or of another kind.
    fn new_id(&mut self) -> Option<Uuid> {
        let now_ms = self.stage.now.unix_us() / 1_000;
        let random = self.workload.random();
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        let mut tail = [0; 10];
        tail.copy_from_slice(&bytes[..10]);
        match random.below(20) {
            0 => Some(Builder::from_custom_bytes(bytes).into_uuid()),
            1..3 => {
                let age_ms = random.below(40 * 60 * 1_000);
                Some(Builder::from_unix_timestamp_millis(now_ms - age_ms, &tail).into_uuid())
            }
            3..7 => Some(Builder::from_unix_timestamp_millis(now_ms, &tail).into_uuid()),
            _ => None,
        }
    }

    fn retry(&mut self, client: ClientIndex) {
        let lost = &mut self.recorder.people[client.0].lost;
        if lost.is_empty() {
            return;
        }
        self.stage.tally.count(Fault::LateRetry);
        let outgoing = lost.swap_remove(self.workload.random().index(lost.len()));
        self.send_one(client, Outgoing { op: None, ..outgoing });
        self.poke(client);
    }

    // ---- reads ----

    fn subscribe(&mut self, client: ClientIndex, log: LogIndex, start: Start) {
        let person = &mut self.recorder.people[client.0];
        if person.reader_of(log).is_some() {
            return;
        }
        self.stage.tally.operations += 1;
        let from = match start {
            Start::Tail => From::Tail,
            Start::Last(rows) => From::Last(rows),
            Start::Oldest => From::Start,
            Start::Kept => {
                person.kept.get(&log).map_or(From::Tail, |seq| From::Position(Position { epoch: 1, seq: *seq }))
            }
        };
        let id = SubscriptionId(person.next_command());
        self.recorder.subscribe(client, id, log, from);
        let log = self.recorder.logs[log.0].clone();
        self.command(client, Command::Subscribe { id, log, from });
    }

    fn unsubscribe(&mut self, client: ClientIndex, log: LogIndex) {
        if let Some(id) = self.recorder.people[client.0].reader_of(log) {
            self.stage.tally.operations += 1;
            self.command(client, Command::Unsubscribe(id));
        }
    }

    fn page(&mut self, client: ClientIndex, log: LogIndex, is_backward: bool, rows: u32, from: u64) {
        self.stage.tally.operations += 1;
        let from = from.min(self.recorder.heads[log.0]);
        let person = &mut self.recorder.people[client.0];
        let id = CommandId(person.next_command());
        // A third of those that begin anywhere begin at a date instead, somewhere in the run so far.
        let now = self.stage.now;
        let is_dated = from == 0 && rows.is_multiple_of(3);
        let at_ms = if is_dated { Moment(now.0 / 120 * u64::from(rows)).unix_us() / 1_000 } else { 0 };
        person.asked.insert(id, Asked { log, at: now, from, is_backward, at_ms });
        let direction = if is_backward { Direction::Backward } else { Direction::Forward };
        let log = self.recorder.logs[log.0].clone();
        self.command(
            client,
            Command::Fetch { id, range: Range { from, limit: rows, direction, at_ms, ..Range::all(log) } },
        );
    }

    fn cursor(&mut self, client: ClientIndex, log: LogIndex) {
        let person = &self.recorder.people[client.0];
        let Some(last) = person.readers.values().find(|reader| reader.log == log).and_then(|reader| reader.last) else {
            return;
        };
        self.stage.tally.operations += 1;
        let log = self.recorder.logs[log.0].clone();
        self.command(client, Command::Cursor { log, delivered: last, read: last });
    }

    // ---- requests ----

    fn request(&mut self, client: ClientIndex, frame_type: FrameType, body: &impl Message) {
        self.stage.tally.operations += 1;
        let person = &mut self.recorder.people[client.0];
        let id = CommandId(person.next_command());
        person.requests.insert(id);
        self.command(client, Command::Request { id, frame_type, body: Bytes::from(body.encode_to_vec()) });
    }

    /// Nobody waits for a signal: it has no answer.
    fn signal(&mut self, client: ClientIndex, log: LogIndex) {
        self.stage.tally.operations += 1;
        let log = self.recorder.logs[log.0].clone();
        let signal = NewSignal { log, kind: "typing".into(), data: Bytes::new(), ttl_ms: 0 };
        let id = CommandId(self.recorder.people[client.0].next_command());
        self.command(client, Command::Signal { id, signal });
    }

    /// The client that manages conversations.
    pub(crate) fn manager(&self) -> ClientIndex {
        ClientIndex(self.plan.clients)
    }

    fn conversation(&self, log: LogIndex) -> String {
        self.recorder.logs[log.0].to_string().trim_start_matches("c:").to_owned()
    }

    /// Makes a conversation whose members are the users with even numbers.
    pub(crate) fn create_room(&mut self, log: LogIndex) {
        let members = (0..self.plan.users).step_by(2).map(member).collect();
        let retention_s = if self.recorder.is_fading(log) { fading::KEPT_S } else { 0 };
        let conversation = self.conversation(log);
        let body = control::ConversationCreate { conversation, members, retention_s, ..Default::default() };
        self.request(self.manager(), FrameType::ConversationCreate, &body);
    }

    fn add_member(&mut self, user: u32, log: LogIndex) {
        let body = control::MemberAdd {
            conversation: self.conversation(log),
            members: vec![member(user)],
            ..Default::default()
        };
        self.request(self.manager(), FrameType::MemberAdd, &body);
    }

    fn remove_member(&mut self, user: u32, log: LogIndex) {
        let body = control::MemberRemove { conversation: self.conversation(log), user: user_name(user) };
        self.request(self.manager(), FrameType::MemberRemove, &body);
    }

    /// Ends everything that goes wrong: nothing is lost, full, slow or asleep any more.
    pub(crate) fn heal(&mut self) {
        self.is_acting = false;
        self.crash_at_writes = false;
        self.broker.empty_disk();
        for (index, link) in self.links.iter_mut().enumerate() {
            link.heal();
            self.clients[index].wake();
            self.recorder.people[index].cut_in = None;
        }
        for index in 0..self.clients.len() {
            self.poke(ClientIndex(index));
        }
        self.stage.saw(|| "everything heals".into());
        self.run_until(self.stage.now + Duration::from_millis(100));
    }
}

fn member(user: u32) -> control::Member {
    control::Member { user: user_name(user), role: control::Role::Member.into(), joined_seq: 0 }
}
