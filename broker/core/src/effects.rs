//! What a step of the shard leaves behind: effects for the shell, messages for shards, counts.

use std::collections::{BTreeMap, VecDeque};

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
    /// What happened since the boot.
    pub(crate) counters: Counters,
    /// What the store's answers in flight are for.
    pub(crate) purposes: BTreeMap<Token, (LogKey, Purpose)>,
    rng: ChaCha8Rng,
    next_token: u64,
}

impl Effects {
    pub(crate) fn new(shard: ShardId, routing: Routing, seed: [u8; 32]) -> Self {
        Self {
            now: Time::default(),
            shard,
            routing,
            outputs: VecDeque::new(),
            posted: VecDeque::new(),
            counters: Counters::default(),
            purposes: BTreeMap::new(),
            rng: ChaCha8Rng::from_seed(seed),
            next_token: 0,
        }
    }

    pub(crate) fn post(&mut self, shard: ShardId, message: ShardMessage) {
        self.posted.push_back((shard, message));
    }

    /// Submits an operation and remembers what its completion is for.
    pub(crate) fn store(&mut self, op: Op, purpose: Purpose) -> Token {
        let token = Token(self.next_number());
        self.purposes.insert(token, (op.log(), purpose));
        self.outputs.push_back(Output::Store { op, token });
        token
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
