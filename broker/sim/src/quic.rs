//! Settings that make `quinn-proto` endpoints deterministic: every source of chance in them is seeded.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use quinn_proto::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, NoneTokenStore, ServerConfig, TimeSource,
    ValidationTokenConfig,
};

use crate::{
    crypto::{NullCrypto, NullSeal},
    random::Random,
};

/// Bytes of a connection id, as in quinn's default.
const CONNECTION_ID_BYTES: usize = 8;
/// The longest connection id; what a client sends first.
const FIRST_ID_BYTES: usize = 20;

/// An endpoint whose ids, tokens and internal chance come from `random`.
pub(crate) fn endpoint_config(random: &mut Random) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(NullSeal(random.number())));
    let ids = shared(random, CONNECTION_ID_BYTES);
    config.cid_generator(move || Box::new(ids.clone())).rng_seed(Some(random.seed()));
    config
}

/// A client that speaks `crypto`'s protocols.
pub(crate) fn client_config(crypto: Arc<NullCrypto>, random: &mut Random) -> ClientConfig {
    let mut config = ClientConfig::new(crypto);
    let ids = shared(random, FIRST_ID_BYTES);
    config.initial_dst_cid_provider(Arc::new(move || ids.generate()));
    config.token_store(Arc::new(NoneTokenStore));
    config
}

/// A server that speaks `crypto`'s protocols. It gives out no tokens for later connections.
pub(crate) fn server_config(crypto: Arc<NullCrypto>, random: &mut Random) -> ServerConfig {
    let mut config = ServerConfig::new(crypto, Arc::new(NullSeal(random.number())));
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    config.validation_token_config(tokens).time_source(Arc::new(Forever));
    config
}

/// A calendar that stands still: no address validation token expires within a run.
struct Forever;

impl TimeSource for Forever {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
    }
}

/// Connection ids from a stream of chance of their own.
// quinn-proto asks for `Sync`, so the stream stands behind a lock that nobody else ever holds.
#[derive(Clone)]
struct SeededIds {
    random: Arc<Mutex<Random>>,
    len: usize,
}

fn shared(random: &mut Random, len: usize) -> SeededIds {
    SeededIds { random: Arc::new(Mutex::new(Random::new(random.number(), "connection ids"))), len }
}

impl SeededIds {
    fn generate(&self) -> ConnectionId {
        let mut bytes = [0; FIRST_ID_BYTES];
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(&mut bytes);
        ConnectionId::new(&bytes[..self.len])
    }
}

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        self.generate()
    }

    fn cid_len(&self) -> usize {
        self.len
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
