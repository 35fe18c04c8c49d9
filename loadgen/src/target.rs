//! What a run aims at: a broker of its own, started for it and gone with it, or one that runs already.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_sdk::{Client, Config, DeviceId, Endpoint, Trust};
use clap::Args;
use tempfile::TempDir;

use crate::{
    broker::{Broker, BrokerConfig},
    carrier::Carriers,
    cassandra::Cassandra,
    loopback::Traffic,
    machine::resident_kib,
    probe::{self, METRIC_DELIVERIES, METRIC_DELIVERIES_CROSSED, METRIC_FORWARDED, METRIC_FSYNCS, Metrics},
    report::ServerFigures,
    tickets::Kept,
    tokens::{IssuerArgs, TokenSigner},
};

/// How long a session may take until it stands; thousands begin at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Where the broker is.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Address of a running broker. Default: start one for this run.
    #[arg(long, value_name = "ADDR", requires = "fingerprint", requires = "token_key")]
    broker: Option<SocketAddr>,
    /// SHA-256 of its certificate.
    #[arg(long, value_name = "SHA256", requires = "broker")]
    fingerprint: Option<String>,
    /// Private key that signs tokens which it accepts, such as DATA/secrets/development.key.
    #[arg(long, value_name = "FILE", requires = "broker")]
    token_key: Option<PathBuf>,
    /// Its admin listener, for its metrics.
    #[arg(long, value_name = "ADDR", requires = "broker")]
    admin: Option<SocketAddr>,
    /// Its process, for its CPU time and memory.
    #[arg(long, value_name = "PID", requires = "broker")]
    broker_pid: Option<u32>,
    #[command(flatten)]
    issuer: IssuerArgs,
    #[command(flatten)]
    own: OwnArgs,
}

/// A broker of one's own.
#[derive(Debug, Args)]
pub struct OwnArgs {
    /// The broker's binary. Default: `antiphon` beside this program.
    #[arg(long, value_name = "PATH", env = "ANTIPHON", conflicts_with = "broker")]
    antiphon: Option<PathBuf>,
    /// Its data directory, which is kept. Default: a temporary one.
    #[arg(long, value_name = "DIR", conflicts_with = "broker")]
    data: Option<PathBuf>,
    /// Its shards. Default: its own choice.
    #[arg(long, value_name = "N", conflicts_with = "broker")]
    shards: Option<u32>,
    /// Segments of its write-ahead log, in bytes: small ones are full often. Default: its own choice, and 1 MiB where it
    /// is killed.
    #[arg(long, value_name = "BYTES", conflicts_with = "broker")]
    segment_bytes: Option<u32>,
    /// Cache of its store's index, in MiB. Default: its own choice, and 4 where its memory is measured.
    #[arg(long, value_name = "MIB", conflicts_with = "broker")]
    cache_mib: Option<u32>,
    /// Its logs are on a Cassandra cluster of so many nodes, each with every row, which is started for this run.
    #[arg(long, value_name = "NODES", conflicts_with_all = ["broker", "cache_mib"], value_parser = clap::value_parser!(u8).range(1..=3))]
    cassandra: Option<u8>,
    /// It begins on its data directory all the same, and moves.
    #[arg(skip)]
    begins_embedded: bool,
    /// That many of a hundred writes of its broker are answered with a timeout; every other of those is carried out.
    #[arg(long, value_name = "PERCENT", requires = "cassandra", value_parser = clap::value_parser!(u8).range(1..=50))]
    forge_timeouts: Option<u8>,
}

impl TargetArgs {
    /// Gives a broker of one's own a cluster of so many nodes, unless another one was asked for.
    pub fn prefer_cluster(&mut self, nodes: u8) {
        self.own.cassandra.get_or_insert(nodes);
    }

    /// Lets a broker of one's own begin on its data directory beside a cluster.
    pub fn begin_embedded(&mut self) {
        self.own.begins_embedded = true;
    }

    /// Lets a broker of one's own have a cache of this size, unless another one was asked for.
    pub fn prefer_cache(&mut self, mib: u32) {
        self.own.cache_mib.get_or_insert(mib);
    }

    /// Lets a broker of one's own have segments of this length, unless another one was asked for.
    pub fn prefer_segments(&mut self, bytes: u32) {
        self.own.segment_bytes.get_or_insert(bytes);
    }
}

/// A broker that a scenario starts for itself, in development mode.
#[derive(Debug)]
pub struct OwnBroker {
    /// Its binary; `antiphon` beside this program if `None`.
    pub program: Option<PathBuf>,
    /// Its data directory.
    pub data: PathBuf,
    /// Where its standard error goes.
    pub log: PathBuf,
    /// Its shards; its own choice if `None`.
    pub shards: Option<u32>,
    /// Segments of its write-ahead log, in bytes; the usual ones if `None`.
    pub segment_bytes: Option<u32>,
    /// Cache of its store's index, in MiB; its own choice if `None`.
    pub cache_mib: Option<u32>,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
}

impl OwnBroker {
    /// `antiphon` beside this program, in this folder, as it is usually.
    pub fn new(home: &std::path::Path) -> Self {
        Self {
            program: None,
            data: home.join("data"),
            log: home.join("broker.log"),
            shards: None,
            segment_bytes: None,
            cache_mib: None,
            args: Vec::new(),
        }
    }
}

/// A broker that answers.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    trust: Trust,
    signer: TokenSigner,
    admin: Option<SocketAddr>,
    gateway: Option<SocketAddr>,
    pid: Option<u32>,
    alternatives: Vec<SocketAddr>,
    carriers: Carriers,
    cassandra: Option<Arc<Cassandra>>,
    // Deleted with the target, which must outlive the broker that runs in it.
    _data: Option<TempDir>,
}

impl Target {
    /// Finds the broker, or starts one, which then ends with the second value.
    pub fn find(args: TargetArgs) -> Result<(Self, Option<Broker>), Box<dyn Error>> {
        let (Some(address), Some(fingerprint), Some(key)) = (args.broker, args.fingerprint, args.token_key) else {
            return Self::start(args.own, args.issuer);
        };
        let target = Self {
            address,
            trust: pinned(&fingerprint)?,
            signer: TokenSigner::read(&key, args.issuer)?,
            admin: args.admin,
            gateway: None,
            pid: args.broker_pid,
            carriers: Carriers::default(),
            alternatives: Vec::new(),
            cassandra: None,
            _data: None,
        };
        Ok((target, None))
    }

    fn start(own: OwnArgs, issuer: IssuerArgs) -> Result<(Self, Option<Broker>), Box<dyn Error>> {
        let program = own.antiphon.map_or_else(beside_this_program, Ok)?;
        let temporary = own.data.is_none().then(|| tempfile::Builder::new().prefix("antiphon-loadgen-").tempdir());
        let temporary = temporary.transpose()?;
        let home = own.data.or_else(|| Some(temporary.as_ref()?.path().to_owned())).unwrap_or_default();
        let (data, log) = (home.join("data"), home.join("broker.log"));
        std::fs::create_dir_all(&data)?;
        let OwnArgs { shards, segment_bytes, cache_mib, cassandra, begins_embedded, forge_timeouts, .. } = own;
        let start = |nodes: u8| Cassandra::start(nodes.into(), forge_timeouts, &program);
        let cassandra = cassandra.map(start).transpose()?.map(Arc::new);
        let from_start = cassandra.as_ref().filter(|_| !begins_embedded);
        let environment = from_start.map(|cassandra| cassandra.environment()).unwrap_or_default();
        let cache_mib = cache_mib.filter(|_| cassandra.is_none());
        let config =
            BrokerConfig { program, data, shards, log, args: Vec::new(), segment_bytes, cache_mib, environment };
        let (target, broker) = Self::of_own(Broker::start(config)?, issuer, temporary)?;
        Ok((Self { cassandra, ..target }, Some(broker)))
    }

    /// Starts a broker in development mode, which ends with the second value.
    pub fn start_own(own: OwnBroker) -> Result<(Self, Broker), Box<dyn Error>> {
        let OwnBroker { program, data, log, shards, segment_bytes, cache_mib, args } = own;
        let program = program.map_or_else(beside_this_program, Ok)?;
        let config =
            BrokerConfig { program, data, shards, log, args, segment_bytes, cache_mib, environment: Vec::new() };
        let (target, broker) = Self::of_own(Broker::start(config)?, IssuerArgs::development(), None)?;
        Ok((target, broker))
    }

    fn of_own(
        broker: Broker,
        issuer: IssuerArgs,
        temporary: Option<TempDir>,
    ) -> Result<(Self, Broker), Box<dyn Error>> {
        let ready = broker.ready();
        let target = Self {
            address: ready.address,
            trust: pinned(&ready.fingerprint)?,
            signer: TokenSigner::read(&ready.data.join("secrets").join("development.key"), issuer)?,
            admin: Some(ready.admin),
            gateway: ready.gateway.as_deref().and_then(|url| url.strip_prefix("http://")?.parse().ok()),
            pid: Some(broker.pid()),
            carriers: Carriers::default(),
            alternatives: Vec::new(),
            cassandra: None,
            _data: temporary,
        };
        Ok((target, broker))
    }

    /// The broker was started again, at the same addresses.
    pub(crate) fn restarted(&mut self, broker: &Broker) {
        self.pid = Some(broker.pid());
    }

    /// Lets sessions go these ways; without it all are on QUIC.
    pub fn set_carriers(&mut self, carriers: Carriers) {
        self.carriers = carriers;
    }

    /// The ways of its sessions.
    pub fn carriers(&self) -> &Carriers {
        &self.carriers
    }

    /// Starts a second broker on the same cluster, with the same keys, which stands by; sessions know of both.
    pub fn stand_by(&mut self, active: &Broker) -> Result<Broker, Box<dyn Error>> {
        let mut config = active.config().clone();
        let home = config.data.with_file_name("standby");
        let secrets = home.join("secrets");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&secrets)?;
        for secret in std::fs::read_dir(config.data.join("secrets"))? {
            let secret = secret?;
            std::fs::copy(secret.path(), secrets.join(secret.file_name()))?;
        }
        (config.data, config.log) = (home, config.log.with_file_name("standby.log"));
        let standby = Broker::stand_by(config)?;
        self.alternatives = vec![standby.ready().address];
        Ok(standby)
    }

    /// The cluster that its logs are on, if it was started for this run.
    pub fn cassandra(&self) -> Option<&Arc<Cassandra>> {
        self.cassandra.as_ref()
    }

    /// A UDP socket for some of the run's sessions.
    pub fn endpoint(&self) -> Result<Endpoint, Box<antiphon_sdk::Error>> {
        Endpoint::for_remote(self.address).map_err(Box::new)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How its certificate is known.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where its gateway answers without TLS, if that is known.
    pub fn gateway(&self) -> Option<SocketAddr> {
        self.gateway
    }

    /// Its process, if it is known.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// A token that makes its bearer this user.
    pub fn user_token(&self, user: &str) -> String {
        self.signer.user(user, since_1970())
    }

    /// A token for a reader of logs that nobody created.
    pub fn reader_token(&self, user: &str, log: &str) -> String {
        self.signer.reader(user, log, since_1970())
    }

    /// A token for a back end, which may send to any conversation.
    pub fn service_token(&self, name: &str) -> String {
        self.signer.service(name, since_1970())
    }

    /// Connects as a user, by the way of the session with this number.
    pub async fn connect(&self, user: &str, endpoint: Endpoint, session: usize) -> antiphon_sdk::Result<Client> {
        let mut config = self.config(self.user_token(user), endpoint);
        self.carriers.apply(session, &mut config);
        Client::connect(config).await
    }

    /// Connects on a device with what a client has kept; an older session of that device is over then.
    pub(crate) async fn connect_again(
        &self,
        kept: &Kept,
        device: DeviceId,
        endpoint: Endpoint,
    ) -> antiphon_sdk::Result<Client> {
        let config = self.config(kept.token.clone(), endpoint);
        Client::connect(Config { device: Some(device), quic: kept.quic.clone(), ..config }).await
    }

    /// Connects as the service that makes the conversations.
    pub async fn connect_service(&self, name: &str) -> antiphon_sdk::Result<Client> {
        let endpoint = self.endpoint().map_err(|error| *error)?;
        Client::connect(self.config(self.service_token(name), endpoint)).await
    }

    fn config(&self, token: String, endpoint: Endpoint) -> Config {
        let mut config = Config::new(self.address, "localhost", self.trust.clone(), token);
        config.client_name = concat!("antiphon-loadgen/", env!("CARGO_PKG_VERSION")).into();
        config.connect_timeout = CONNECT_TIMEOUT;
        config.endpoint = Some(endpoint);
        config.alternatives.clone_from(&self.alternatives);
        config
    }

    /// What the broker has used up so far, as far as it can be known.
    pub fn usage(&self) -> Usage {
        let metrics = self.admin.and_then(|admin| Metrics::scrape(admin).ok());
        Usage { metrics, ..self.process_usage() }
    }

    /// The same without its metrics, which take a request.
    pub fn process_usage(&self) -> Usage {
        self.pid.map(Usage::of_process).unwrap_or_default()
    }

    /// CPU time that its threads have used so far, in nanoseconds.
    pub fn cpu_ns(&self) -> Option<u64> {
        self.pid.and_then(|pid| probe::cpu_ns(pid).ok())
    }

    /// What a run between two readings used.
    pub fn figures(&self, before: &Usage, after: &Usage, acked: u64, delivered: u64) -> ServerFigures {
        let grown = |name| after.metrics.as_ref()?.growth(before.metrics.as_ref()?, name);
        let per = |amount: f64, count: f64| (count > 0.0).then(|| amount / count);
        ServerFigures {
            cpu_us_per_delivery: probe::cpu_us_between(before.cpu_ns, after.cpu_ns)
                .and_then(|us| per(us, delivered as f64)),
            fsyncs_per_1000_messages: grown(METRIC_FSYNCS).and_then(|fsyncs| per(fsyncs * 1e3, acked as f64)),
            cross_shard_share: grown(METRIC_DELIVERIES_CROSSED)
                .zip(grown(METRIC_DELIVERIES))
                .and_then(|(crossed, all)| per(crossed, all)),
            datagrams_forwarded: grown(METRIC_FORWARDED),
            rss_kib: self.pid.and_then(|pid| probe::rss_kib(pid).ok()),
        }
    }
}

/// A reading of the broker's counters.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// CPU time of all its threads.
    pub cpu_ns: Option<u64>,
    /// Times that one of its threads went to sleep.
    pub wake_ups: Option<u64>,
    /// Its memory, in KiB.
    pub resident_kib: Option<u64>,
    /// What went over loopback, which is all of its traffic if it and its clients are here.
    pub loopback: Option<Traffic>,
    /// Its metrics page, which is up to a second old.
    pub metrics: Option<Metrics>,
}

impl Usage {
    /// Of a process, without a metrics page.
    pub fn of_process(pid: u32) -> Self {
        Self {
            cpu_ns: probe::cpu_ns(pid).ok(),
            wake_ups: probe::wake_ups(pid).ok(),
            resident_kib: resident_kib(pid).ok(),
            loopback: Traffic::read().ok(),
            metrics: None,
        }
    }
}

fn pinned(fingerprint: &str) -> Result<Trust, Box<dyn Error>> {
    Ok(Trust::fingerprint(fingerprint.strip_prefix("sha256:").unwrap_or(fingerprint))?)
}

/// The broker's binary in this program's folder.
pub(crate) fn beside_this_program() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("antiphon"))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
