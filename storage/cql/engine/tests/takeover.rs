//! Owners come and go, writes are lost and arrive late, and an owner that was overtaken goes on: whatever was acknowledged
//! or shown stays, in its place, and no message is stored twice.

mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use antiphon_cql_engine::simulated::{Cluster, Trouble};
use antiphon_protocol::Row;
use antiphon_storage::{
    Completion, Direction, Loaded, Op, Outcome, ReadRows, Token,
    conformance::rows::{ROWS_BEGIN_MS, TestRow, log, user},
    dice::Dice,
};
use bytes::Bytes;
use support::Owner;
use uuid::Uuid;

const LOGS: u64 = 3;
const SENDERS: u64 = 3;

/// What a log's broker keeps in memory.
#[derive(Default)]
struct Memory {
    /// The last row that was submitted; unknown until the log is loaded.
    next: Option<u64>,
    is_loading: bool,
}

/// What must never be undone.
#[derive(Default)]
struct Truth {
    rows: BTreeMap<u64, Bytes>,
    stored: BTreeSet<u128>,
}

/// What an operation was for.
enum Purpose {
    Load(u64),
    Append(u64, Vec<Row>),
    Find(u64, u128),
    Page(u64),
    /// Where a row's time lies, and the head that was known when it was asked.
    Time(u64, u64),
    Other,
}

struct World {
    seed: u64,
    dice: Dice,
    cluster: Rc<RefCell<Cluster>>,
    owner: Owner,
    overtaken: Vec<Owner>,
    memory: BTreeMap<u64, Memory>,
    truth: BTreeMap<u64, Truth>,
    /// Messages that nobody has acknowledged: their senders go on asking.
    unanswered: BTreeMap<u64, VecDeque<u128>>,
    pending: BTreeMap<Token, Purpose>,
    next_token: u64,
    next_message: u128,
    acknowledged: u64,
    takeovers: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let cluster = Rc::new(RefCell::new(Cluster::new(seed)));
        cluster.borrow_mut().trouble = Trouble { writes_lost: 8, reads_lost: 3 };
        Self {
            seed,
            dice: Dice::new(seed),
            owner: Owner::new(&cluster, 1, 0, seed),
            cluster,
            overtaken: Vec::new(),
            memory: BTreeMap::new(),
            truth: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_token: 0,
            next_message: 1,
            acknowledged: 0,
            takeovers: 0,
        }
    }

    fn submit(&mut self, op: Op, purpose: Purpose) {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.pending.insert(token, purpose);
        self.owner.engine.submit(op, token);
    }

    fn step(&mut self) {
        let n = self.dice.below(LOGS);
        match self.dice.below(40) {
            0..=14 => self.send(n),
            15..=17 => self.page(n),
            18 if self.dice.once_in(2) => self.time(n),
            18 => self.checkpoint(n),
            19 => self.cluster.borrow_mut().deliver_late_writes(),
            20 if self.dice.once_in(3) => self.take_over(),
            21 => self.forget(n),
            _ => self.progress(),
        }
    }

    /// A new message, or one that was not answered.
    fn send(&mut self, n: u64) {
        let Some(next) = self.memory.entry(n).or_default().next else { return self.load(n) };
        let waiting = self.unanswered.entry(n).or_default();
        if let Some(message) = waiting.pop_front() {
            // Its outcome is unknown: first ask whether it was stored.
            let find = Op::FindDuplicate {
                log: log(n),
                sender: sender_of(message),
                client_message_id: Uuid::from_u128(message),
            };
            return self.submit(find, Purpose::Find(n, message));
        }
        let count = 1 + self.dice.below(if self.seed.is_multiple_of(3) { 30 } else { 3 });
        let messages: Vec<u128> = (0..count).map(|at| self.next_message + u128::from(at)).collect();
        self.next_message += u128::from(count);
        self.append(n, next, &messages);
    }

    fn append(&mut self, n: u64, next: u64, messages: &[u128]) {
        let rows: Vec<Row> = messages.iter().zip(next..).map(|(message, seq)| self.row(*message, seq)).collect();
        self.memory.entry(n).or_default().next = Some(next + rows.len() as u64);
        self.submit(Op::Append { log: log(n), rows: rows.clone() }, Purpose::Append(n, rows));
    }

    fn row(&self, message: u128, seq: u64) -> Row {
        let body = format!("message {message} in term {}", self.owner.term);
        let sender = message as u64 % SENDERS;
        TestRow { seq, sender, client_message_id: message, body: body.as_bytes() }.row()
    }

    fn load(&mut self, n: u64) {
        let memory = self.memory.entry(n).or_default();
        if !memory.is_loading {
            memory.is_loading = true;
            self.submit(Op::Load { log: log(n) }, Purpose::Load(n));
        }
    }

    fn page(&mut self, n: u64) {
        let head = self.truth.entry(n).or_default().rows.keys().next_back().copied().unwrap_or(0);
        let to = 1 + self.dice.below(head + 2);
        let range = ReadRows { from: 1, to, direction: Direction::Backward, rows_max: 5, bytes_max: usize::MAX };
        self.submit(Op::Read { log: log(n), range }, Purpose::Page(n));
    }

    fn time(&mut self, n: u64) {
        let head = self.truth.entry(n).or_default().rows.keys().next_back().copied().unwrap_or(0);
        let seq = 1 + self.dice.below(head + 2);
        self.submit(Op::FindTime { log: log(n), at_ms: ROWS_BEGIN_MS + seq }, Purpose::Time(seq, head));
    }

    /// Describes rows that are acknowledged, and nothing beyond.
    fn checkpoint(&mut self, n: u64) {
        if self.memory.entry(n).or_default().next.is_none() {
            return;
        }
        let through = self.truth.entry(n).or_default().rows.keys().next_back().copied().unwrap_or(0);
        self.submit(Op::Checkpoint { log: log(n), through, value: Bytes::from_static(b"state") }, Purpose::Other);
    }

    /// The broker lets an idle log go.
    fn forget(&mut self, n: u64) {
        let is_busy = self.pending.values().any(
            |purpose| matches!(purpose, Purpose::Append(m, _) | Purpose::Load(m) | Purpose::Find(m, _) if *m == n),
        );
        if !is_busy {
            self.memory.remove(&n);
        }
    }

    /// The owner is paused or dead; another takes over. What was asked of the old one is never answered.
    fn take_over(&mut self) {
        self.takeovers += 1;
        let seed = self.dice.roll();
        let mut successor = self.owner.successor(seed);
        std::mem::swap(&mut successor, &mut self.owner);
        successor.is_over = true;
        if self.dice.once_in(2) {
            self.overtaken.push(successor);
        }
        self.memory.clear();
        for purpose in std::mem::take(&mut self.pending).into_values() {
            self.unanswered(purpose);
        }
    }

    fn unanswered(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Append(n, rows) => {
                let messages = rows.iter().map(|row| row.client_message_id().as_u128());
                self.unanswered.entry(n).or_default().extend(messages);
            }
            Purpose::Find(n, message) => self.unanswered.entry(n).or_default().push_back(message),
            _ => {}
        }
    }

    fn progress(&mut self) {
        // An owner that was overtaken goes on with what it had begun; nobody listens.
        for at in 0..self.overtaken.len() {
            if self.dice.once_in(20) {
                self.believe_in_ownership(at);
            }
            let owner = &mut self.overtaken[at];
            owner.work();
            owner.answer_one();
        }
        self.owner.work();
        self.owner.answer_one();
        let mut completions = Vec::new();
        self.owner.engine.poll_completions(&mut completions);
        for completion in completions {
            self.completed(completion);
        }
    }

    /// An owner that does not know yet that it was overtaken goes on taking messages.
    fn believe_in_ownership(&mut self, at: usize) {
        let n = self.dice.below(LOGS);
        let next = 1 + self.truth.entry(n).or_default().rows.keys().next_back().copied().unwrap_or(0);
        let row = self.row(self.next_message, next);
        self.next_message += 1;
        for op in [Op::Load { log: log(n) }, Op::Append { log: log(n), rows: vec![row] }] {
            self.next_token += 1;
            self.overtaken[at].engine.submit(op, Token(self.next_token));
        }
    }

    fn completed(&mut self, Completion { token, result }: Completion) {
        let Some(purpose) = self.pending.remove(&token) else { panic!("seed {}: {token:?} twice", self.seed) };
        match (purpose, result) {
            (Purpose::Append(n, rows), Ok(_)) => {
                self.acknowledged += rows.len() as u64;
                for row in rows {
                    self.shown(n, &row);
                }
            }
            (Purpose::Load(n), Ok(Outcome::Loaded(loaded))) => self.loaded(n, &loaded),
            (Purpose::Load(n), Err(error)) => {
                assert!(matches!(error, antiphon_storage::StoreError::Unavailable(_)), "seed {}: {error}", self.seed);
                self.memory.remove(&n);
            }
            (Purpose::Find(n, message), Ok(Outcome::Row(found))) => self.found(n, message, found),
            (Purpose::Page(n), Ok(Outcome::Rows(rows))) => rows.iter().for_each(|row| self.shown(n, row)),
            (Purpose::Time(seq, head), Ok(outcome)) => {
                let Outcome::Position(found) = outcome else { panic!("seed {}: {outcome:?}", self.seed) };
                let is_right = found == seq || (head < found && found < seq);
                assert!(is_right, "seed {}: row {seq} is found at {found}, the head was {head}", self.seed);
            }
            (purpose @ (Purpose::Append(..) | Purpose::Find(..)), Err(error)) => {
                assert!(matches!(error, antiphon_storage::StoreError::Unavailable(_)), "seed {}: {error}", self.seed);
                if let Purpose::Append(n, _) = &purpose {
                    // A broker reads a log anew when an append of it has failed and nothing of it is under way.
                    self.memory.remove(n);
                }
                self.unanswered(purpose);
            }
            _ => {}
        }
    }

    fn found(&mut self, n: u64, message: u128, found: Option<Row>) {
        let next = self.memory.entry(n).or_default().next;
        match (found, next) {
            (Some(row), _) => self.shown(n, &row),
            (None, Some(next)) => self.append(n, next, &[message]),
            (None, None) => self.unanswered.entry(n).or_default().push_back(message),
        }
    }

    /// A row was shown to somebody: it was, is and stays.
    fn shown(&mut self, n: u64, row: &Row) {
        let truth = self.truth.entry(n).or_default();
        let before = truth.rows.insert(row.seq(), row.bytes().clone());
        if let Some(before) = before {
            assert_eq!(before, *row.bytes(), "seed {}: row {} of log {n} has changed", self.seed, row.seq());
        } else {
            let message = row.client_message_id().as_u128();
            assert!(truth.stored.insert(message), "seed {}: message {message} is stored twice", self.seed);
        }
    }

    fn loaded(&mut self, n: u64, loaded: &Loaded) {
        let is_settled = !self.pending.values().any(|purpose| matches!(purpose, Purpose::Append(m, _) if *m == n));
        assert!(is_settled, "a load waits for the appends before it");
        let head = self.truth.entry(n).or_default().rows.keys().next_back().copied().unwrap_or(0);
        assert!(loaded.head >= head, "seed {}: log {n} ends at {} and not at {head}", self.seed, loaded.head);
        for row in &loaded.tail {
            self.shown(n, row);
        }
        let memory = self.memory.entry(n).or_default();
        (memory.is_loading, memory.next) = (false, Some(loaded.head + 1));
    }

    /// Everything that was shown is there, and nothing else.
    fn audit(&mut self) {
        self.cluster.borrow_mut().trouble = Trouble::default();
        let seed = self.dice.roll();
        let mut last = self.owner.successor(seed);
        for n in 0..LOGS {
            let range = ReadRows {
                from: 1,
                to: u64::MAX,
                direction: Direction::Forward,
                rows_max: u32::MAX,
                bytes_max: usize::MAX,
            };
            last.engine.submit(Op::Read { log: log(n), range }, Token(n));
        }
        let mut completions = Vec::new();
        last.settle(&mut completions);
        assert_eq!(completions.len() as u64, LOGS);
        for Completion { token, result } in completions {
            let Ok(Outcome::Rows(rows)) = result else { panic!("seed {}: {result:?}", self.seed) };
            let seqs: Vec<u64> = rows.iter().map(Row::seq).collect();
            assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "seed {}", self.seed);
            rows.iter().for_each(|row| self.shown(token.0, row));
            let shown = self.truth.entry(token.0).or_default().rows.len();
            assert_eq!(shown, rows.len(), "seed {}: log {} has lost rows", self.seed, token.0);
        }
    }
}

fn sender_of(message: u128) -> antiphon_protocol::UserId {
    user(message as u64 % SENDERS)
}

#[test]
fn what_was_acknowledged_or_shown_stays_through_every_takeover() {
    let seeds: u64 =
        std::env::var("ANTIPHON_TAKEOVER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(1_000);
    let (mut acknowledged, mut takeovers) = (0, 0);
    for seed in 0..seeds {
        let mut world = World::new(seed);
        for _ in 0..1_000 {
            world.step();
        }
        world.audit();
        acknowledged += world.acknowledged;
        takeovers += world.takeovers;
    }
    assert!(acknowledged > 20 * seeds && takeovers > 2 * seeds, "{acknowledged} acknowledged, {takeovers} takeovers");
    eprintln!("{seeds} seeds: {acknowledged} rows acknowledged, {takeovers} takeovers");
}
