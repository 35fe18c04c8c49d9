//! The gateway as a process of its own, in front of brokers elsewhere. Until SIGTERM or SIGINT; SIGHUP changes nothing.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use antiphon_gateway_ws::{BrokerSettings, Fingerprint, Gateway, GatewayConfig, GatewayError};
use clap::Parser;
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// How long sockets may take to close.
const GOODBYE: Duration = Duration::from_secs(5);

/// WebSocket and HTTP for browsers and back ends, in front of an Antiphon broker.
#[derive(Debug, Parser)]
#[command(name = "antiphon-gateway", version)]
struct Cli {
    /// TCP address for browsers and back ends.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7080", env = "ANTIPHON_GATEWAY_LISTEN")]
    listen: SocketAddr,
    /// UDP address of a broker's trunk listener; several are tried in turn.
    #[arg(long, value_name = "ADDRESS", required = true, value_delimiter = ',', env = "ANTIPHON_GATEWAY_BROKERS")]
    broker: Vec<SocketAddr>,
    /// Name in the broker's certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    server_name: String,
    /// SHA-256 of the broker's certificate.
    #[arg(long, value_name = "SHA256", conflicts_with = "ca")]
    broker_fingerprint: Option<String>,
    /// Roots that the broker's certificate leads to (PEM).
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate that this gateway shows (PEM); the broker's `trunk.clients` has its SHA-256.
    #[arg(long, value_name = "FILE", env = "ANTIPHON_GATEWAY_CERTIFICATE")]
    certificate: PathBuf,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", env = "ANTIPHON_GATEWAY_KEY")]
    key: PathBuf,
    /// Origin of pages, besides its own, that may use it, such as https://chat.example.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    origin: Vec<String>,
    /// TCP address of /metrics, for operators.
    #[arg(long, value_name = "ADDRESS", env = "ANTIPHON_GATEWAY_ADMIN")]
    admin: Option<SocketAddr>,
    /// Trunks; as many as the broker has shards.
    #[arg(long, value_name = "N")]
    trunks: Option<NonZeroUsize>,
    /// What is logged, such as info or warn,antiphon_gateway_ws=debug.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_filter: String,
}

/// Why it does not run. The operator is at fault.
#[derive(Debug, Error)]
enum Failure {
    #[error("{path} cannot be read: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("--broker-fingerprint: expected sha256: and 64 hexadecimal digits")]
    Fingerprint,
    #[error("--ca: expected a PEM file with certificates")]
    Roots,
    #[error("one of --broker-fingerprint and --ca says how the broker is known")]
    NoTrust,
    #[error("--log-filter: {0}")]
    LogFilter(#[from] tracing_subscriber::filter::ParseError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[source] io::Error),
    #[error("--admin: cannot listen on {listen}: {source}")]
    Admin { listen: SocketAddr, source: io::Error },
    #[error("another library has installed its own metrics recorder in this process")]
    Recorder,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("antiphon-gateway: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&cli.log_filter)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    // Registered before the start, so that no signal is missed.
    let [mut terminate, mut interrupt, mut hangup] = {
        let _guard = runtime.enter();
        let register = |kind| signal(kind).map_err(Failure::Runtime);
        [register(SignalKind::terminate())?, register(SignalKind::interrupt())?, register(SignalKind::hangup())?]
    };
    let admin = cli.admin.map(|listen| runtime.block_on(serve_metrics(listen))).transpose()?;
    let gateway = Gateway::start(config(cli)?)?;
    let mut out = io::stdout().lock();
    // Whoever started it may not care for its words.
    let admin = admin.map_or_else(String::new, |address| format!("admin: http://{address}\n"));
    let _ = writeln!(out, "gateway: http://{}\n{admin}ready", gateway.address()).and_then(|()| out.flush());
    drop(out);
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                Some(()) = hangup.recv() => tracing::info!("SIGHUP: files are read at the start only"),
            }
        }
    });
    gateway.stop(GOODBYE);
    Ok(())
}

/// `/metrics`, on the main thread's runtime, which has nothing else to do.
async fn serve_metrics(listen: SocketAddr) -> Result<SocketAddr, Failure> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| Failure::Recorder)?;
    let failed = |source| Failure::Admin { listen, source };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let render = move || {
        handle.run_upkeep();
        std::future::ready(handle.render())
    };
    let router = axum::Router::new().route("/metrics", axum::routing::get(render));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

fn config(cli: &Cli) -> Result<GatewayConfig, Failure> {
    let read = |path: &PathBuf| fs::read(path).map_err(|source| Failure::File { path: path.clone(), source });
    let fingerprint = cli.broker_fingerprint.as_deref().map(parse_fingerprint).transpose()?.map(Fingerprint::new);
    let roots = match &cli.ca {
        Some(path) => roots(&read(path)?)?,
        None if fingerprint.is_none() => return Err(Failure::NoTrust),
        None => Vec::new(),
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let trunks = cli.trunks.map_or(cores, NonZeroUsize::get);
    let workers = cores.min(trunks);
    Ok(GatewayConfig {
        listen: cli.listen,
        origins: cli.origin.clone(),
        broker: BrokerSettings {
            addresses: cli.broker.clone(),
            server_name: cli.server_name.clone(),
            fingerprint,
            roots,
            certificate_pem: String::from_utf8_lossy(&read(&cli.certificate)?).into_owned(),
            key_pem: read(&cli.key)?,
        },
        development: None,
        workers,
        trunks_per_worker: trunks.div_ceil(workers),
    })
}

fn parse_fingerprint(text: &str) -> Result<[u8; 32], Failure> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let digits: Option<Vec<u32>> = hex.chars().map(|digit| digit.to_digit(16)).collect();
    let bytes = digits.filter(|digits| digits.len() == 64).ok_or(Failure::Fingerprint)?;
    let bytes: Vec<u8> = bytes.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
    bytes.try_into().map_err(|_| Failure::Fingerprint)
}

fn roots(pem: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let roots = roots.ok().filter(|roots| !roots.is_empty()).ok_or(Failure::Roots)?;
    Ok(roots.into_iter().map(|root| root.to_vec()).collect())
}
