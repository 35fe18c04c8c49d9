//! Makes each shard's node and starts its thread.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use antiphon_core::{ResumeKey, ShardConfig, ShardId};
use antiphon_node::{Clock, ConnectionIds, Listener, Node, NodeConfig, TransportSettings};
use antiphon_sys::mesh::MeshPort;
use quinn_proto::{EndpointConfig, ServerConfig};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Shard, Sockets, StartError, unix_now};
use crate::{
    admin::{Board, health::Health},
    auth::{TokenCache, Verifier},
    config::Config,
    identity::Identity,
    presence::ShardPresence,
    shard::{Control, Datagrams, Mail, ShardThread},
    store::ShardStore,
    tls::{self, QuicTls},
};

/// Proven tokens that a shard remembers.
const TOKENS_REMEMBERED: usize = 16_384;

/// An edge pings more often than that, and is gone after it.
const TRUNK_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// After a crash, clients learn from stateless resets that their connections are gone; quinn's own interval of 20 ms
/// would let thousands of them wait for their idle timeout. A reset is smaller than what provokes it.
const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// Starts every shard.
pub(super) fn start(
    config: &Config,
    identity: &Identity,
    (health, board): (&Health, &Board),
    verifier: &Arc<Verifier>,
    sockets: &Sockets,
    ports: Vec<(MeshPort<Mail>, ShardPresence)>,
    stores: Vec<Option<ShardStore>>,
) -> Result<Vec<Shard>, StartError> {
    let (server, trunk_server) = server_configs(config, identity)?;
    let clock = Clock::new(Instant::now(), unix_now());
    let mut shards = Vec::new();
    let count = usize::from(config.shards.get());
    for (index, ((port, presence), store)) in ports.into_iter().zip(stores).enumerate() {
        let shard = ShardId(index as u16);
        let clients = sockets.clients.socket(index).map_err(StartError::Threads)?;
        let trunks = sockets.trunks.socket(index).map_err(StartError::Threads)?;
        let node = Node::new(NodeConfig {
            shard: ShardConfig {
                shard,
                shards: config.shards.get(),
                seed: random()?,
                resume_key: ResumeKey::new(*identity.resume_key().as_bytes()),
                stands_by: store.is_none(),
                shares_presence: presence.is_some(),
            },
            endpoint: endpoint_config(config, identity, shard)?,
            server: Arc::clone(&server),
            trunk_server: Some(Arc::clone(&trunk_server)),
            seed: random()?,
            allow_mtu_discovery: !clients.may_fragment(),
            connections_max: config.limits.connections_per_shard_max as usize,
            clock,
        });
        let (commands, receiver) = mpsc::channel();
        let control = Control { commands, ringer: port.doorbell().ringer() };
        let thread = ShardThread {
            shard,
            node,
            store,
            presence,
            clients: Datagrams::new(clients, Listener::Clients, shard, count),
            trunks: Datagrams::new(trunks, Listener::Trunks, shard, count),
            port,
            commands: receiver,
            tokens: TokenCache::new(Arc::clone(verifier), TOKENS_REMEMBERED),
            clock,
            board: board.clone(),
            heartbeat: health.heartbeat(shard.0).ok_or(StartError::NoStore)?,
        };
        let name = format!("shard-{index}");
        let thread = thread::Builder::new().name(name).spawn(move || thread.run()).map_err(StartError::Threads)?;
        shards.push(Shard { control, thread: Some(thread) });
    }
    Ok(shards)
}

/// The QUIC server side for clients and for trunks, the same for every shard.
pub(super) fn server_configs(
    config: &Config,
    identity: &Identity,
) -> Result<(Arc<ServerConfig>, Arc<ServerConfig>), StartError> {
    let settings = TransportSettings { idle_timeout: config.limits.idle_timeout, ..TransportSettings::default() };
    let mut clients = quic_server(tls::server_config(config, identity)?, identity);
    settings.apply(&mut clients);
    let mut trunks = quic_server(tls::trunk_server_config(config, identity)?, identity);
    TransportSettings { idle_timeout: TRUNK_IDLE_TIMEOUT, ..settings }.apply_to_trunks(&mut trunks);
    Ok((Arc::new(clients), Arc::new(trunks)))
}

fn quic_server(crypto: Arc<QuicTls>, identity: &Identity) -> ServerConfig {
    let mut server = ServerConfig::with_crypto(crypto);
    server.token_key(identity.retry_token_key());
    server
}

fn endpoint_config(config: &Config, identity: &Identity, shard: ShardId) -> Result<Arc<EndpointConfig>, StartError> {
    let ids = ConnectionIds::new(shard, config.shards.get(), *identity.connection_id_key().as_bytes(), random()?);
    let mut endpoint = EndpointConfig::new(identity.reset_key());
    endpoint.cid_generator(move || Box::new(ids.clone())).min_reset_interval(RESET_INTERVAL);
    Ok(Arc::new(endpoint))
}

fn random() -> Result<[u8; 32], StartError> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(bytes)
}
