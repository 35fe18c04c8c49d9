//! Keeps one trunk connected.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{Connection, Endpoint, SendStream, VarInt};
use thiserror::Error;
use tokio::{sync::mpsc, task::JoinSet, time};

use super::{BrokerSettings, Table, streams};

/// Between two attempts: the first comes at once, then this, doubled up to the maximum.
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one: the next attempt comes at once.
const STABLE: Duration = Duration::from_secs(2);
/// How often it is said that no broker answers.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// How long one broker may take to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Frames that one write joins.
const FRAMES_PER_WRITE: usize = 64;

/// Why a connection ended.
#[derive(Debug, Error)]
enum Ended {
    #[error("no broker answers: {0}")]
    Connect(String),
    #[error("the trunk ended: {0}")]
    Connection(#[from] quinn::ConnectionError),
    #[error("the trunk does not take what is written: {0}")]
    Write(#[from] quinn::WriteError),
    #[error(transparent)]
    Stream(#[from] streams::StreamError),
}

pub(super) fn endpoint(broker: &BrokerSettings) -> io::Result<Endpoint> {
    let is_ipv6 = broker.addresses.iter().any(SocketAddr::is_ipv6);
    let any = if is_ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    Endpoint::client(SocketAddr::new(any, 0))
}

/// Connects, serves, connects again; ends with the worker's runtime.
pub(super) async fn keep(table: Arc<Table>, endpoint: Endpoint, broker: BrokerSettings, client: quinn::ClientConfig) {
    let (mut wait, mut told) = (Duration::ZERO, None::<Instant>);
    loop {
        time::sleep(wait).await;
        let connection = match connect(&endpoint, &broker, &client).await {
            Ok(connection) => connection,
            Err(error) => {
                // A broker that starts beside the gateway is not there at the first attempt.
                if wait > Duration::ZERO && told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
                    tracing::warn!(%error, "trunk");
                    told = Some(Instant::now());
                }
                wait = (wait * 2).clamp(RETRY_MIN, RETRY_MAX);
                continue;
            }
        };
        told = None;
        tracing::debug!(remote = %connection.remote_address(), "trunk connected");
        let began = Instant::now();
        let ended = serve(&table, &connection).await;
        table.disconnect();
        connection.close(VarInt::from_u32(0), b"");
        // A broker that does not know this edge ends the connection after the client thinks that it has one.
        wait = if began.elapsed() >= STABLE { Duration::ZERO } else { (wait * 2).clamp(RETRY_MIN, RETRY_MAX) };
        if let Err(error) = ended {
            tracing::info!(%error, "sessions will come back by another trunk");
        }
    }
}

async fn connect(
    endpoint: &Endpoint,
    broker: &BrokerSettings,
    client: &quinn::ClientConfig,
) -> Result<Connection, Ended> {
    let mut last = "no address is configured".to_owned();
    for address in &broker.addresses {
        let attempt = match endpoint.connect_with(client.clone(), *address, &broker.server_name) {
            Ok(attempt) => attempt,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        match time::timeout(CONNECT_TIMEOUT, attempt).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("{address} is silent"),
        }
    }
    Err(Ended::Connect(last))
}

/// Runs until the connection ends, or the broker says something that cannot be read.
async fn serve(table: &Arc<Table>, connection: &Connection) -> Result<(), Ended> {
    let (send, receive) = connection.open_bi().await?;
    let outgoing = table.connect();
    let mut tasks: JoinSet<Result<(), Ended>> = JoinSet::new();
    let read = streams::read(Arc::clone(table), receive);
    tasks.spawn(async move { Ok(read.await?) });
    tasks.spawn(write(send, outgoing));
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let read = streams::read(Arc::clone(table), stream?);
                tasks.spawn(async move { Ok(read.await?) });
            }
            Some(ended) = tasks.join_next() => match ended {
                Ok(result) => return result,
                Err(error) => return Err(Ended::Connect(error.to_string())),
            },
        }
    }
}

async fn write(mut stream: SendStream, mut outgoing: mpsc::Receiver<Bytes>) -> Result<(), Ended> {
    let mut frames = Vec::with_capacity(FRAMES_PER_WRITE);
    while outgoing.recv_many(&mut frames, FRAMES_PER_WRITE).await > 0 {
        stream.write_all_chunks(&mut frames).await?;
        frames.clear();
    }
    Ok(())
}
