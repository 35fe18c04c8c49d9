//! Thousands of random operations, delays and failures, against a model of what was promised: what is acknowledged is
//! stored once, positions are dense, every reader sees one order without gap or repetition, each sender's messages keep
//! their order, and whoever resumes ends with everything.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{ErrorCode, FrameType, Row, control, frames::Ack};
use antiphon_storage_contract::StoreError;
use uuid::Uuid;

use super::harness::*;

const LOGS: [&str; 3] = ["c:a", "c:b", "c:c"];

/// A client program as it ought to be: numbers its sends, repeats what was not acknowledged in order, resumes after
/// its last row.
#[derive(Debug, Default)]
struct Program {
    who: Option<Who>,
    is_welcome: bool,
    user: String,
    /// Sends that have no ACK, in order, by log: draft and request.
    unacked: BTreeMap<&'static str, Vec<(Draft, Option<u32>)>>,
    dseq: BTreeMap<&'static str, u64>,
    /// Rows by log and position.
    have: BTreeMap<&'static str, BTreeMap<u64, Row>>,
    /// Owed ranges that are being pulled: log, next, end, request.
    pulls: Vec<(&'static str, u64, u64, Option<u32>)>,
    subscribing: BTreeMap<u32, &'static str>,
    seen_events: usize,
}

#[derive(Debug, Default)]
struct Model {
    acked: BTreeMap<Uuid, (&'static str, Ack)>,
    refusals: usize,
    restarts: usize,
    sent: BTreeMap<(String, &'static str), Vec<Uuid>>,
}

struct World {
    c: Cluster,
    dice: Dice,
    programs: Vec<Program>,
    model: Model,
}

impl World {
    fn new(seed: u64, shards: usize) -> Self {
        let mut c = Cluster::new(shards);
        let owner = c.connect(0, "owner");
        let users = ["ann", "bob", "eve", "joe"];
        LOGS.iter().for_each(|log| c.group(owner, &log[2..], &users));
        let program = |user: &&str| Program { user: (*user).into(), ..Program::default() };
        let programs = users.iter().map(program).collect();
        Self { c, dice: Dice(seed), programs, model: Model::default() }
    }

    fn step(&mut self) {
        let program = self.dice.roll(self.programs.len() as u64) as usize;
        match self.dice.roll(100) {
            0..50 => self.send(program),
            50..62 => self.subscribe(program),
            62..66 => self.unsubscribe(program),
            66..70 => self.stop_or_start_reading(program),
            70..72 => self.drop_connection(program),
            72..75 => self.fail_something(),
            75 if self.dice.chance(20) => self.restart(),
            75..80 => self.c.now.0 += self.dice.roll(400_000),
            80..90 => self.hold_something(),
            _ => self.move_a_cursor(program),
        }
        self.connect_again(program);
        for _ in 0..self.dice.roll(3) {
            self.c.turn();
        }
        self.digest();
    }

    fn connect_again(&mut self, program: usize) {
        let is_connected = self.programs[program].who.is_some_and(|who| !self.c.client(who).is_gone);
        if is_connected {
            return;
        }
        let shard = self.dice.roll(self.c.shards.len() as u64) as usize;
        let user = self.programs[program].user.clone();
        let who = self.c.open_established(shard, &user);
        let program = &mut self.programs[program];
        program.who = Some(who);
        program.seen_events = 0;
        program.subscribing.clear();
        program.pulls.clear();
        program.is_welcome = false;
        program.unacked.values_mut().flatten().for_each(|(_, request)| *request = None);
    }

    /// The process ends; another one, with as many shards as it likes, takes the store up.
    fn restart(&mut self) {
        let shards = [1, 2, 4][self.dice.roll(3) as usize];
        let writes_survive = self.dice.chance(50);
        self.c.held_mail.clear();
        self.c.restart(shards, writes_survive);
        self.model.restarts += 1;
    }

    /// The program's session, once it is established.
    fn ready(&self, program: usize) -> Option<Who> {
        let program = &self.programs[program];
        program.who.filter(|who| program.is_welcome && !self.c.client(*who).is_gone)
    }

    fn log(&mut self) -> &'static str {
        LOGS[self.dice.roll(LOGS.len() as u64) as usize]
    }

    fn send(&mut self, program: usize) {
        let log = self.log();
        let Some(who) = self.ready(program) else { return };
        // Now and then an id from long ago, which has to be looked up.
        let id = if self.dice.chance(10) { self.c.new_id_at(START_MS - 1_000_000) } else { self.c.new_id() };
        let program = &mut self.programs[program];
        let dseq = program.dseq.entry(log).or_default();
        *dseq += 1;
        // Now and then a long one, so that whoever does not read falls behind.
        let length = if self.dice.chance(10) { 12_000 } else { 0 };
        let draft = Draft::text(log, id, &format!("{} {dseq} {}", program.user, "x".repeat(length))).dseq(*dseq);
        let request = self.c.send(who, &draft);
        if self.dice.chance(5) {
            self.c.send(who, &draft);
        }
        program.unacked.entry(log).or_default().push((draft, Some(request)));
        self.model.sent.entry((program.user.clone(), log)).or_default().push(id);
    }

    fn subscribe(&mut self, program: usize) {
        let log = self.log();
        let Some(who) = self.ready(program) else { return };
        let program = &mut self.programs[program];
        let is_busy = program.pulls.iter().any(|pull| pull.0 == log) || program.subscribing.values().any(|l| *l == log);
        if is_busy || self.c.client(who).handle(log).is_some() {
            return;
        }
        let from = after(program.last(log));
        let subscribe = control::Subscribe { log: log.into(), from: Some(from) };
        let id = self.c.ask(who, FrameType::Subscribe, &subscribe);
        program.subscribing.insert(id, log);
    }

    fn unsubscribe(&mut self, program: usize) {
        let log = self.log();
        let Some(who) = self.ready(program) else { return };
        if let Some(handle) = self.c.client(who).handle(log) {
            self.c.ask(who, FrameType::Unsubscribe, &control::Unsubscribe { handle });
        }
    }

    fn stop_or_start_reading(&mut self, program: usize) {
        let reads = self.dice.chance(50);
        if let Some(who) = self.programs[program].who {
            self.c.client_mut(who).reads[1] = reads;
        }
    }

    fn drop_connection(&mut self, program: usize) {
        if let Some(who) = self.programs[program].who {
            self.c.disconnect(who);
        }
    }

    fn fail_something(&mut self) {
        let unavailable = StoreError::Unavailable("test".into());
        let kinds =
            [Kind::Append, Kind::Append, Kind::Load, Kind::FindDuplicate, Kind::Read, Kind::FindTime, Kind::PutRecords];
        let kind = kinds[self.dice.roll(kinds.len() as u64) as usize];
        let (error, applies) = match self.dice.roll(3) {
            0 if kind == Kind::Append => (StoreError::Full, false),
            1 => (unavailable, true),
            _ => (unavailable, false),
        };
        self.c.store.faults.retain(|fault| fault.times > 0);
        self.c.store.faults.push(Fault { kind, error, applies, times: 1 });
    }

    fn hold_something(&mut self) {
        let kinds = [Kind::Append, Kind::FindDuplicate, Kind::Read, Kind::FindTime, Kind::Load, Kind::Checkpoint];
        self.c.store.held = kinds.into_iter().filter(|_| self.dice.chance(25)).collect();
        let shards = self.c.shards.len();
        let pairs = (0..shards).flat_map(|from| (0..shards).map(move |to| (from, to)));
        self.c.held_mail = pairs.filter(|_| self.dice.chance(20)).collect();
    }

    fn move_a_cursor(&mut self, program: usize) {
        let log = self.log();
        let Some(who) = self.ready(program) else { return };
        let read = self.programs[program].last(log);
        self.c.ask(
            who,
            FrameType::Cursor,
            &control::Cursor { log: log.into(), delivered: read, read, act_as: String::new() },
        );
    }

    /// Lets every program look at what came.
    fn digest(&mut self) {
        for program in 0..self.programs.len() {
            let Some(who) = self.programs[program].who else { continue };
            self.digest_events(program, who);
            self.digest_answers(program, who);
            self.pull(program, who);
        }
    }

    fn digest_events(&mut self, program: usize, who: Who) {
        let program = &mut self.programs[program];
        let events = &self.c.client(who).events;
        for (name, event) in &events[program.seen_events..] {
            let log = LOGS.into_iter().find(|log| log == name).unwrap();
            if let Event::Row(row) = event {
                program.keep(log, row);
            }
        }
        program.seen_events = events.len();
    }

    fn digest_answers(&mut self, program: usize, who: Who) {
        let replies = std::mem::take(&mut self.c.client_mut(who).replies);
        for (id, reply) in replies {
            if let Some(log) = self.programs[program].subscribing.remove(&id) {
                if let Reply::Attach(attach) = reply
                    && !attach.inlined
                {
                    self.programs[program].pulls.push((log, attach.replay_from, attach.live_from, None));
                }
                continue;
            }
            match reply {
                Reply::Ack(ack) => self.acked(program, id, ack),
                Reply::Page(page) => self.programs[program].page(id, &page),
                Reply::Error(error) => self.refused(program, id, &error),
                Reply::Welcome(_) => {
                    self.programs[program].is_welcome = true;
                    self.repeat();
                }
                _ => {}
            }
        }
    }

    fn acked(&mut self, program: usize, id: u32, ack: Ack) {
        for (log, drafts) in &mut self.programs[program].unacked {
            if let Some(at) = drafts.iter().position(|(_, request)| *request == Some(id)) {
                let (draft, _) = drafts.remove(at);
                self.model.acked.insert(draft.id, (log, ack));
            }
        }
    }

    fn refused(&mut self, program: usize, id: u32, error: &control::Error) {
        let code = ErrorCode::from_number(error.number).unwrap();
        let is_transient = code.action() == antiphon_protocol::Action::Retry;
        assert!(is_transient, "no request of this test is refused for good: {error:?}");
        self.model.refusals += 1;
        let program = &mut self.programs[program];
        for (_, request) in program.unacked.values_mut().flatten().filter(|(_, request)| *request == Some(id)) {
            *request = None;
        }
        for pull in program.pulls.iter_mut().filter(|pull| pull.3 == Some(id)) {
            pull.3 = None;
        }
        self.repeat();
    }

    /// Sends what was refused, or not answered before the connection went, once nothing of its log is under way, so
    /// that it goes in order and before anything new.
    fn repeat(&mut self) {
        for program in &mut self.programs {
            let is_ready = |who: &Who| program.is_welcome && !self.c.client(*who).is_gone;
            let Some(who) = program.who.filter(is_ready) else { continue };
            for drafts in program.unacked.values_mut() {
                if drafts.iter().all(|(_, request)| request.is_none()) {
                    for (draft, request) in drafts.iter_mut() {
                        *request = Some(self.c.send(who, draft));
                    }
                }
            }
        }
    }

    fn pull(&mut self, program: usize, who: Who) {
        if self.c.client(who).is_gone {
            return;
        }
        for (log, from, to, request) in &mut self.programs[program].pulls {
            if request.is_none() {
                // A date before everything changes nothing, but has to be found.
                let at_ms = self.dice.roll(2);
                let fetch = control::Fetch { log: (*log).into(), from: *from, to: *to, at_ms, ..Default::default() };
                *request = Some(self.c.ask(who, FrameType::Fetch, &fetch));
            }
        }
    }

    /// Everything works again: in the end everybody has everything.
    fn finish(&mut self) {
        self.c.held_mail = BTreeSet::new();
        self.c.store.hold(&[]);
        self.c.store.faults.clear();
        for _ in 0..12 {
            for program in 0..self.programs.len() {
                self.connect_again(program);
                if let Some(who) = self.programs[program].who {
                    self.c.client_mut(who).reads = [true; 5];
                }
            }
            self.c.settle();
            self.digest();
            self.repeat();
            for program in 0..self.programs.len() {
                for _ in 0..LOGS.len() * 4 {
                    self.subscribe(program);
                }
            }
            self.c.settle();
            self.digest();
        }
    }

    fn check(&self) {
        let owner = Who(0);
        for log in LOGS {
            let stored = self.c.stored(owner, log);
            let seqs: Vec<u64> = stored.rows.keys().copied().collect();
            assert_eq!(seqs, (1..=stored.head()).collect::<Vec<_>>(), "positions are dense");
            let mut places: BTreeMap<Uuid, u64> = BTreeMap::new();
            for row in stored.rows.values().filter(|row| row.msgno_counts()) {
                assert_eq!(places.insert(row.client_message_id(), row.seq()), None, "stored once");
            }
            for (id, (_, ack)) in self.model.acked.iter().filter(|(_, (of, _))| *of == log) {
                assert_eq!(places.get(id), Some(&ack.position.seq), "what was acknowledged is where it was said to be");
            }
            for program in &self.programs {
                assert!(program.unacked.get(log).is_none_or(Vec::is_empty), "everything is acknowledged in the end");
                let empty = Vec::new();
                let sent = self.model.sent.get(&(program.user.clone(), log)).unwrap_or(&empty);
                let order: Vec<u64> = sent.iter().map(|id| places[id]).collect();
                assert!(order.is_sorted(), "{} in {log}: {order:?}", program.user);
                let have: Vec<_> = program.have.get(log).into_iter().flatten().map(|(_, row)| row.event_id()).collect();
                let all: Vec<_> = stored.rows.values().map(Row::event_id).collect();
                assert_eq!(have, all, "{} has all of {log} in its order", program.user);
            }
        }
    }
}

impl Program {
    /// The last position without a gap before it.
    fn last(&self, log: &str) -> u64 {
        let have = self.have.get(log);
        (1..).find(|seq| have.is_none_or(|have| !have.contains_key(seq))).unwrap_or(1) - 1
    }

    fn keep(&mut self, log: &'static str, row: &Row) {
        let known = self.have.entry(log).or_default().insert(row.seq(), row.clone());
        assert!(known.is_none_or(|known| known.event_id() == row.event_id()), "a position is one event");
    }

    fn page(&mut self, id: u32, page: &antiphon_protocol::frames::Page) {
        let Some(at) = self.pulls.iter().position(|pull| pull.3 == Some(id)) else { return };
        let log = self.pulls[at].0;
        page.rows.iter().for_each(|row| self.keep(log, row));
        match page.next {
            0 => {
                self.pulls.remove(at);
            }
            next => (self.pulls[at].1, self.pulls[at].3) = (next, None),
        }
    }
}

/// How often the interesting things happened.
#[derive(Debug, Default)]
struct Tally {
    acked: usize,
    repeated: usize,
    refusals: usize,
    restarts: usize,
    behind: usize,
    lookups: u64,
}

fn run(seeds: std::ops::Range<u64>, shards: usize) {
    let mut tally = Tally::default();
    for seed in seeds {
        let mut world = World::new(seed, shards);
        (0..4_000).for_each(|_| world.step());
        world.finish();
        world.check();
        let events = world.c.clients.iter().flat_map(|client| &client.events);
        tally.behind += events.filter(|(_, event)| matches!(event, Event::Behind)).count();
        tally.acked += world.model.acked.len();
        tally.repeated += world.model.acked.values().filter(|(_, ack)| ack.duplicate).count();
        tally.refusals += world.model.refusals;
        tally.restarts += world.model.restarts;
        tally.lookups += world.c.store.count(Kind::FindDuplicate);
    }
    let Tally { acked, repeated, refusals, restarts, behind, lookups } = tally;
    assert!(acked > 10_000, "{acked} acknowledged");
    let rare = [repeated, refusals, restarts, behind, lookups as usize];
    assert!(rare.iter().all(|count| *count > 20), "a path was not taken: {tally:?}");
}

#[test]
fn one_shard_keeps_its_promises() {
    run(0..10, 1);
}

#[test]
fn two_shards_keep_their_promises() {
    run(10..20, 2);
}

#[test]
fn four_shards_keep_their_promises() {
    run(20..30, 4);
}
