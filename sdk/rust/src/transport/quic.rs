//! One QUIC connection: the control stream, the streams that the broker opens, and tasks that read them.

use std::net::SocketAddr;

use antiphon_sdk_core::StreamId;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::{sync::mpsc, task::JoinSet};

use super::{CHUNKS_MAX, Cause, FromBroker, FromControl, Link, Sink, Streams, Writer};
use crate::Endpoint;

/// Longest chunk; a frame may take several.
const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Chunks handed to the transport at once.
const WRITE_CHUNKS_MAX: usize = 32;

impl From<ConnectionError> for Cause {
    fn from(reason: ConnectionError) -> Self {
        let close_code = match &reason {
            ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
            _ => None,
        };
        Self { text: reason.to_string(), close_code }
    }
}

/// Where the broker is, and how it is known.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    pub(super) tls: quinn::ClientConfig,
    pub(super) address: SocketAddr,
    pub(super) server_name: String,
}

impl Way {
    /// Connects and opens the control stream.
    pub(super) async fn connect(self) -> Result<Link, Cause> {
        let connecting = self.endpoint.quinn().connect_with(self.tls, self.address, &self.server_name);
        let connection = connecting.map_err(|error| Cause::from(&*error.to_string()))?.await?;
        let guard = Guard(connection.clone());
        let (control, answers) = connection.open_bi().await?;
        let (control_tx, from_control) = mpsc::channel(CHUNKS_MAX);
        let (broker_tx, from_broker) = mpsc::channel(CHUNKS_MAX);
        let mut readers = JoinSet::new();
        readers.spawn(read_control(connection.clone(), answers, control_tx));
        readers.spawn(accept_streams(connection, broker_tx));
        Ok(Link {
            writer: Writer::new(Sink::Quic(control)),
            from_control,
            from_broker: Streams::Quic(from_broker),
            quic: Some(guard),
            _readers: readers,
        })
    }
}

/// Closes the connection when it is dropped.
#[derive(Debug)]
pub(super) struct Guard(Connection);

impl Guard {
    pub(super) fn stands(&self) -> bool {
        self.0.close_reason().is_none()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.close(VarInt::from_u32(0), b"");
    }
}

/// Writes some of it. Cancel-safe. An error also ends the control stream's reader, which tells.
pub(super) async fn write(control: &mut SendStream, unwritten: &mut Vec<Bytes>) {
    let upto = unwritten.len().min(WRITE_CHUNKS_MAX);
    match control.write_chunks(&mut unwritten[..upto]).await {
        Ok(written) => {
            unwritten.drain(..written.chunks);
        }
        Err(_) => unwritten.clear(),
    }
}

async fn read_control(connection: Connection, mut stream: RecvStream, to_driver: mpsc::Sender<FromControl>) {
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK_BYTES_MAX, true).await {
        if to_driver.send(FromControl::Bytes(chunk.bytes)).await.is_err() {
            return;
        }
    }
    let ended = || Cause::from("the broker ended the control stream");
    let cause = connection.close_reason().map_or_else(ended, Cause::from);
    // A driver that is gone needs no cause.
    let _ = to_driver.send(FromControl::Ended(cause)).await;
}

async fn accept_streams(connection: Connection, to_driver: mpsc::Sender<FromBroker>) {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => match stream {
                Ok(stream) => {
                    readers.spawn(read_stream(stream, to_driver.clone()));
                }
                Err(_) => break,
            },
            Some(_) = readers.join_next() => {}
        }
    }
    while readers.join_next().await.is_some() {}
}

async fn read_stream(mut stream: RecvStream, to_driver: mpsc::Sender<FromBroker>) {
    let id = StreamId(VarInt::from(stream.id()).into_inner());
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK_BYTES_MAX, true).await {
        if to_driver.send(FromBroker::Bytes(id, chunk.bytes)).await.is_err() {
            return;
        }
    }
    // A driver that is gone does not care.
    let _ = to_driver.send(FromBroker::Ended(id)).await;
}
