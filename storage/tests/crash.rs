//! Power cuts on the simulated disk: what was acknowledged is there, the rest may be missing but leaves no gap.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::{collections::BTreeMap, sync::Arc};

use antiphon_storage::{
    Completion, EventLog, Loaded, Op, Outcome, Token,
    conformance::rows::{append, log, put, row},
    dice::Dice,
    embedded::{
        Wake,
        simulated::{SimulatedShard, SimulatedStore},
    },
};

const LOGS: u64 = 5;
/// Power cuts of one store.
const ROUNDS: u64 = 6;

/// What the test knows of one log.
#[derive(Debug, Default, Clone)]
struct Known {
    submitted: u64,
    acknowledged: u64,
    /// Values of the record "n", counted up: the last submitted and the last acknowledged.
    record_submitted: u64,
    record_acknowledged: u64,
}

enum Effect {
    Head { log: u64, head: u64 },
    Record { log: u64, value: u64 },
}

struct Crash {
    seed: u64,
    dice: Dice,
    store: SimulatedStore,
    known: BTreeMap<u64, Known>,
    acknowledged: u64,
    vanished: u64,
}

impl Crash {
    fn new(seed: u64) -> Self {
        let known = (0..LOGS).map(|n| (n, Known::default())).collect();
        let store = SimulatedStore::new(64 << 10);
        Self { seed, dice: Dice::new(seed), store, known, acknowledged: 0, vanished: 0 }
    }

    fn open(&mut self) -> Vec<SimulatedShard> {
        let wake: Wake = Arc::new(|| {});
        let shards = 1 + self.dice.below(4) as u16;
        self.store.open(shards, &wake).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// Works until the power is cut, with writes in every stage of their way.
    fn round(&mut self) {
        let mut shards = self.open();
        self.check(&mut shards);
        let mut effects = BTreeMap::new();
        for step in 0..20 + self.dice.below(150) {
            if self.dice.once_in(2) {
                let (op, effect) = self.write();
                effects.insert(Token(step), effect);
                let shard = usize::from(op.log().partition()) % shards.len();
                shards[shard].submit(op, Token(step));
            }
            let shard = self.dice.below(shards.len() as u64) as usize;
            if self.dice.once_in(3) {
                let choice = self.dice.roll();
                shards[shard].writer_mut().finish_one(choice);
            }
            if self.dice.once_in(2) {
                self.poll(&mut shards[shard], &mut effects);
            }
        }
        let dice = &mut self.dice;
        self.store.crash(dice);
    }

    fn write(&mut self) -> (Op, Effect) {
        let n = self.dice.below(LOGS);
        let known = self.known.get_mut(&n).unwrap();
        if self.dice.once_in(4) {
            known.record_submitted += 1;
            let value = known.record_submitted;
            return (put(n, "n", Some(&value.to_string())), Effect::Record { log: n, value });
        }
        let first = known.submitted + 1;
        known.submitted += 1 + self.dice.below(60);
        (append(n, first..=known.submitted), Effect::Head { log: n, head: known.submitted })
    }

    fn poll(&mut self, shard: &mut SimulatedShard, effects: &mut BTreeMap<Token, Effect>) {
        let mut completions = Vec::new();
        shard.poll_completions(&mut completions);
        for Completion { token, result } in completions {
            assert_eq!(result, Ok(Outcome::Done), "seed {}", self.seed);
            self.acknowledged += 1;
            match effects.remove(&token).unwrap() {
                Effect::Head { log, head } => self.known.get_mut(&log).unwrap().acknowledged = head,
                Effect::Record { log, value } => self.known.get_mut(&log).unwrap().record_acknowledged = value,
            }
        }
    }

    /// Everything acknowledged is there, nothing else than what was submitted is, and there is no gap.
    fn check(&mut self, shards: &mut [SimulatedShard]) {
        for n in 0..LOGS {
            let loaded = match perform(shards, Op::Load { log: log(n) }) {
                Ok(Outcome::Loaded(loaded)) => loaded,
                other => panic!("seed {}: {other:?}", self.seed),
            };
            let value = match perform(shards, antiphon_storage::Op::GetRecord { log: log(n), key: "n".into() }) {
                Ok(Outcome::Record(value)) => value.map_or(0, |v| std::str::from_utf8(&v).unwrap().parse().unwrap()),
                other => panic!("seed {}: {other:?}", self.seed),
            };
            let Loaded { head, tail, .. } = loaded;
            let known = self.known.get_mut(&n).unwrap();
            assert!((known.acknowledged..=known.submitted).contains(&head), "seed {}: {head} {known:?}", self.seed);
            assert!(tail.iter().eq((1..=head).map(row).collect::<Vec<_>>().iter()), "seed {}", self.seed);
            let values = known.record_acknowledged..=known.record_submitted;
            assert!(values.contains(&value), "seed {}: {value} {known:?}", self.seed);
            self.vanished += known.submitted - head;
            *known = Known { submitted: head, acknowledged: head, record_submitted: value, record_acknowledged: value };
        }
    }
}

fn perform(shards: &mut [SimulatedShard], op: Op) -> Result<Outcome, antiphon_storage::StoreError> {
    let shard = usize::from(op.log().partition()) % shards.len();
    let token = Token(u64::MAX);
    shards[shard].submit(op, token);
    let mut completions = Vec::new();
    shards[shard].poll_completions(&mut completions);
    completions.into_iter().find(|completion| completion.token == token).unwrap().result
}

#[test]
fn acknowledged_writes_survive_power_cuts() {
    let (mut acknowledged, mut vanished) = (0, 0);
    for seed in 0..300 {
        let mut crash = Crash::new(seed);
        (0..ROUNDS).for_each(|_| crash.round());
        acknowledged += crash.acknowledged;
        vanished += crash.vanished;
    }
    // The test means something only if both happen.
    assert!(acknowledged > 10_000 && vanished > 1_000, "{acknowledged} acknowledged, {vanished} rows vanished");
}

#[test]
fn a_full_simulated_disk_refuses_and_recovers() {
    let mut crash = Crash::new(1);
    crash.store.disk().limit_bytes(Some(192 << 10));
    let mut shards = crash.open();
    shards.truncate(1);
    let wake: Wake = Arc::new(|| {});
    drop(shards);
    let mut shard = crash.store.open(1, &wake).unwrap().remove(0);
    let mut head = 0;
    let mut attempt = |shard: &mut SimulatedShard| {
        shard.submit(append(1, head + 1..=head + 100), Token(head));
        let mut completions = Vec::new();
        while completions.is_empty() {
            shard.poll_completions(&mut completions);
            shard.writer_mut().finish_one(0);
        }
        head += if completions[0].result.is_ok() { 100 } else { 0 };
        completions.remove(0).result
    };
    let mut stored = 0;
    while attempt(&mut shard).is_ok() {
        stored += 1;
    }
    assert!(stored >= 4);
    assert_eq!(attempt(&mut shard), Err(antiphon_storage::StoreError::Full));
    let full = perform(std::slice::from_mut(&mut shard), Op::Load { log: log(1) });
    assert!(matches!(full, Ok(Outcome::Loaded(loaded)) if loaded.head == stored * 100));
    crash.store.disk().limit_bytes(None);
    assert_eq!(attempt(&mut shard), Ok(Outcome::Done));
}
