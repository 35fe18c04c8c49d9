//! What a step of the shard leaves behind: effects for the shell, messages for shards, counts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use antiphon_protocol::{ErrorCode, LogKey};
use antiphon_storage_contract::{Op, Token};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use uuid::{Builder, Uuid};

use crate::{
    connection_id::ConnectionId,
    counters::Counters,
    hash_key::HashKey,
    ids::Ids,
    log::Purpose,
    output::Output,
    routing::{Routing, ShardId},
    shard_message::ShardMessage,
    time::Time,
};

/// Collects the consequences of one input.
#[derive(Debug)]
pub(crate) struct Effects {
    /// The moment of the input that is being handled.
    pub(crate) now: Time,
    /// This shard.
    pub(crate) shard: ShardId,
    /// Who owns what.
    pub(crate) routing: Routing,
    /// For the shell.
    pub(crate) outputs: VecDeque<Output>,
    /// For shards, this one included; the shard sorts them out.
    pub(crate) posted: VecDeque<(ShardId, ShardMessage)>,
    /// When which log, or journal, has something to do.
    pub(crate) wakes: BTreeSet<(Time, LogKey)>,
    /// What happened since the boot.
    pub(crate) counters: Counters,
    /// Ids that logs name.
    pub(crate) ids: Ids,
    /// What the store's answers in flight are for.
    purposes: BTreeMap<Token, (LogKey, Purpose)>,
    /// How many operations of each log the store has not answered.
    in_flight: BTreeMap<LogKey, u32>,
    /// For tables whose keys come from outside.
    pub(crate) hash_key: HashKey,
    rng: ChaCha8Rng,
    next_token: u64,
}

impl Effects {
    /// Counts a refused request.
    pub(crate) fn refused(&mut self, code: ErrorCode) {
        self.counters.refusals.add(code);
    }

    pub(crate) fn new(shard: ShardId, routing: Routing, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        Self {
            now: Time::default(),
            shard,
            routing,
            outputs: VecDeque::new(),
            posted: VecDeque::new(),
            wakes: BTreeSet::new(),
            counters: Counters::default(),
            ids: Ids::default(),
            purposes: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            hash_key: HashKey::new(&mut rng),
            rng,
            next_token: 0,
        }
    }

    /// Lets the owner of something be woken after a while.
    pub(crate) fn wake(&mut self, key: LogKey, after: Duration) {
        self.wake_at(key, self.now + after);
    }

    /// The same at a moment.
    pub(crate) fn wake_at(&mut self, key: LogKey, at: Time) {
        self.wakes.insert((at, key));
    }

    pub(crate) fn post(&mut self, shard: ShardId, message: ShardMessage) {
        self.posted.push_back((shard, message));
    }

    /// Submits an operation and remembers what its completion is for.
    pub(crate) fn store(&mut self, op: Op, purpose: Purpose) -> Token {
        self.store_for(op.log(), op, purpose)
    }

    /// Submits an operation on behalf of a log, which need not be the one that it concerns.
    pub(crate) fn store_for(&mut self, log: LogKey, op: Op, purpose: Purpose) -> Token {
        let token = Token(self.next_number());
        self.purposes.insert(token, (log, purpose));
        *self.in_flight.entry(log).or_default() += 1;
        self.outputs.push_back(Output::Store { op, token });
        token
    }

    /// What the completed operation was for.
    pub(crate) fn completed(&mut self, token: Token) -> Option<(LogKey, Purpose)> {
        let (key, purpose) = self.purposes.remove(&token)?;
        if let Some(count) = self.in_flight.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.in_flight.remove(&key);
            }
        }
        Some((key, purpose))
    }

    /// Whether the store owes an answer about the log.
    pub(crate) fn is_in_flight(&self, key: LogKey) -> bool {
        self.in_flight.contains_key(&key)
    }

    /// Operations that the store has not answered.
    pub(crate) fn awaited(&self) -> usize {
        self.purposes.len()
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, code: ErrorCode) {
        self.outputs.push_back(Output::Close { connection, code });
    }

    /// A number that this shard has not given out since the boot.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// A UUIDv7 (RFC 9562) of this moment.
    pub(crate) fn new_event_id(&mut self) -> Uuid {
        let mut random = [0; 10];
        self.rng.fill_bytes(&mut random);
        Builder::from_unix_timestamp_millis(self.now.unix_ms(), &random).into_uuid()
    }

    /// A random UUIDv4.
    pub(crate) fn new_random_id(&mut self) -> Uuid {
        let mut random = [0; 16];
        self.rng.fill_bytes(&mut random);
        Builder::from_random_bytes(random).into_uuid()
    }
}
