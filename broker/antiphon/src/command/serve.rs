//! `antiphon serve`: the broker, until SIGTERM or SIGINT. SIGHUP reads certificate and keys again.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    time::Duration,
};

use antiphon_gateway_ws::{BrokerSettings, Development, Fingerprint, Gateway, GatewayConfig};
use antiphon_sdk::Trust;
use antiphon_server::{
    Broker,
    config::{Config, Overrides},
    identity,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    chaos::{self, Doors, Relay},
    cli::Serve,
    connect::mint,
    failure::Failure,
    logging,
    running::Running,
};

/// How long clients get to leave after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the sockets of the gateway may take to close after that.
const GOODBYE: Duration = Duration::from_secs(1);
/// How often the broker looks whether a shard has ended by itself.
const WATCH: Duration = Duration::from_secs(1);
/// Below so many bytes of receive buffer a burst of handshakes may lose datagrams.
const RECEIVE_BUFFER_WANTED: usize = 2 << 20;

pub(crate) fn run(serve: &Serve) -> Result<(), Failure> {
    let mut config = load(serve)?;
    logging::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    // Registered before the start, so that no signal is missed.
    let signals = {
        let _guard = runtime.enter();
        Signals::register().map_err(Failure::Runtime)?
    };
    let doors = serve.chaos.is_some().then(|| Doors::take(&mut config)).transpose()?;
    let broker = Broker::start(config)?;
    let fingerprint = Fingerprint::new(sha256(broker.fingerprint())?);
    let gateway = start_gateway(&broker, &fingerprint)?;
    let (address, gateway_address) = (broker.address(), gateway.as_ref().map(Gateway::address));
    let relay = match (doors, &serve.chaos) {
        (Some(doors), Some(plan)) => Some(doors.open(plan, address, gateway_address)?),
        _ => None,
    };
    let public = Public {
        address: relay.as_ref().map_or(address, Relay::address),
        gateway: relay.as_ref().map_or(gateway_address, Relay::gateway_address),
        chaos: relay.as_ref().map(Relay::shown),
    };
    Running::of(&broker, public.address).write(&broker.config().data_dir)?;
    announce(&broker, &public).map_err(Failure::Output)?;
    runtime.block_on(signals.wait(&broker, &fingerprint))?;
    tracing::info!(deadline_ms = DRAIN.as_millis() as u64, "draining");
    // The gateway stays until the sessions that it carries have been told and have gone.
    let outcome = broker.stop(DRAIN);
    if let Some(gateway) = gateway {
        gateway.stop(GOODBYE);
    }
    // Last, so that goodbyes still reach the clients.
    drop(relay);
    Ok(outcome?)
}

/// What clients are told: where they connect, which with harm on purpose is the relay.
struct Public<'a> {
    address: SocketAddr,
    gateway: Option<SocketAddr>,
    chaos: Option<&'a str>,
}

fn sha256(hex: &str) -> Result<[u8; 32], Failure> {
    match Trust::fingerprint(hex)? {
        Trust::Fingerprint(sha256) => Ok(sha256),
        Trust::Roots(_) => unreachable!("a fingerprint is read as one"),
    }
}

/// The gateway inside this process: an edge like any other, on trunks over loopback.
fn start_gateway(broker: &Broker, fingerprint: &Fingerprint) -> Result<Option<Gateway>, Failure> {
    let Some(settings) = &broker.config().gateway else { return Ok(None) };
    let shards = usize::from(broker.config().shards.get());
    let workers = shards.min(cores());
    let mut address = broker.trunk_address();
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
    }
    let config = GatewayConfig {
        listen: settings.listen,
        origins: settings.origins.clone(),
        broker: BrokerSettings {
            addresses: vec![address],
            server_name: "localhost".to_owned(),
            fingerprint: Some(fingerprint.clone()),
            roots: Vec::new(),
            certificate_pem: broker.edge().certificate_pem.clone(),
            key_pem: broker.edge().key_pem.to_vec(),
        },
        development: development(broker),
        workers,
        trunks_per_worker: shards.div_ceil(workers),
    };
    Ok(Some(Gateway::start(config)?))
}

/// The configuration from file, environment and flags.
pub(crate) fn load(serve: &Serve) -> Result<Config, Failure> {
    let flags = Overrides {
        listen: serve.listen.clone(),
        admin_listen: serve.admin.clone(),
        data_dir: serve.data.clone(),
        shards: serve.shards,
        development: serve.development,
        tls_certificate: serve.tls_certificate.clone(),
        tls_key: serve.tls_key.clone(),
        trunk_listen: serve.trunk.clone(),
        gateway_listen: serve.gateway.clone(),
        log_format: serve.log_format.clone(),
        log_filter: serve.log_filter.clone(),
        ..Overrides::default()
    };
    let config = Config::load(serve.config.as_deref(), std::env::vars(), flags, cores())?;
    if serve.chaos.is_some() {
        chaos::check(&config)?;
    }
    Ok(config)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Tokens for whoever opens the console on this machine.
fn development(broker: &Broker) -> Option<Development> {
    let minter = broker.config().development.then(|| broker.minter().clone())?;
    Some(Development::new(move |user| {
        let user = user.parse().map_err(|error: antiphon_sdk::InvalidId| error.to_string())?;
        mint(&minter, &identity::development_request(user)).map_err(|error| error.to_string())
    }))
}

/// One fact a line, for people and for programs that start a broker. `ready` follows once clients are let in.
fn announce(broker: &Broker, public: &Public<'_>) -> io::Result<()> {
    let config = broker.config();
    let mut out = io::stdout().lock();
    if config.development {
        writeln!(
            out,
            "DEVELOPMENT MODE: anyone on this machine can be any user. Serving others needs a configuration"
        )?;
        writeln!(out, "with issuers and a certificate; see deploy/antiphon.toml.")?;
    }
    writeln!(out, "address: {}", public.address)?;
    writeln!(out, "trunk: {}", broker.trunk_address())?;
    if let Some(gateway) = public.gateway {
        writeln!(out, "gateway: http://{gateway}")?;
    }
    writeln!(out, "admin: http://{}", broker.admin_address())?;
    writeln!(out, "fingerprint: sha256:{}", broker.fingerprint())?;
    writeln!(out, "data: {}", config.data_dir.display())?;
    writeln!(out, "shards: {}", config.shards)?;
    if let Some(chaos) = public.chaos {
        writeln!(out, "chaos: {chaos}")?;
    }
    if config.development {
        let program = std::env::args().next().unwrap_or_else(|| "antiphon".into());
        let data = match config.data_dir.to_str() {
            Some("antiphon-data" | "./antiphon-data") | None => String::new(),
            Some(other) => format!(" --data {other}"),
        };
        writeln!(out, "next: {program} sub c:lobby --from 0{data}")?;
        writeln!(out, "      {program} pub c:lobby \"hello\" --user ann{data}")?;
    }
    if broker.granted_receive_buffer() < RECEIVE_BUFFER_WANTED {
        let granted = broker.granted_receive_buffer();
        tracing::warn!(granted, wanted = RECEIVE_BUFFER_WANTED, "small UDP receive buffer; raise net.core.rmem_max");
    }
    out.flush()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the broker is to stop.
    async fn wait(mut self, broker: &Broker, fingerprint: &Fingerprint) -> Result<(), Failure> {
        let mut watch = tokio::time::interval(WATCH);
        let mut active = broker.is_active();
        let mut is_said = false;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ok(()),
                _ = self.interrupt.recv() => return Ok(()),
                Ok(_) = active.wait_for(|active| *active), if !is_said => {
                    is_said = true;
                    let mut out = io::stdout().lock();
                    writeln!(out, "ready").and_then(|()| out.flush()).map_err(Failure::Output)?;
                }
                _ = self.hang_up.recv() => match broker.reload() {
                    Ok(served) => {
                        tracing::info!("certificate and keys read again");
                        if let Ok(sha256) = sha256(&served) {
                            fingerprint.replace(sha256);
                        }
                    }
                    Err(error) => tracing::error!(%error, "the old certificate and keys stay in use"),
                },
                _ = watch.tick() => if broker.has_failed() {
                    tracing::error!("a shard has ended by itself");
                    return Ok(());
                },
            }
        }
    }
}
