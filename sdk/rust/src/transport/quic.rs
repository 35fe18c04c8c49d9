//! One QUIC connection: the control stream, the streams that the broker opens, and tasks that read them.
//!
//! Two bounded channels lead to the driver, so that it can leave events unread while answers keep coming. A reader
//! whose channel is full stops reading, and QUIC's flow control stops the broker.

use std::{collections::VecDeque, fmt, net::SocketAddr};

use antiphon_sdk_core::StreamId;
use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::{sync::mpsc, task::JoinSet};

use crate::Endpoint;

/// Chunks between a reader and the driver.
const CHUNKS_MAX: usize = 8;
/// Longest chunk; a frame may take several.
const CHUNK_BYTES_MAX: usize = 32 << 10;
/// Chunks handed to the transport at once.
const WRITE_CHUNKS_MAX: usize = 32;

/// Signals that wait until everything else is written; the oldest is dropped for the newest.
const SIGNALS_MAX: usize = 64;

/// What the control stream brings.
#[derive(Debug)]
pub(crate) enum FromControl {
    Bytes(Bytes),
    /// The connection is over.
    Ended(Cause),
}

/// Why a connection is over.
#[derive(Debug)]
pub(crate) struct Cause {
    /// For people.
    pub(crate) text: String,
    /// The broker's application close code.
    pub(crate) close_code: Option<u32>,
}

impl Cause {
    fn of(reason: ConnectionError) -> Self {
        let close_code = match &reason {
            ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
            _ => None,
        };
        Self { text: reason.to_string(), close_code }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), close_code: None }
    }
}

/// What the broker's own streams bring.
#[derive(Debug)]
pub(crate) enum FromBroker {
    Bytes(StreamId, Bytes),
    Ended(StreamId),
}

/// A connection that stands. Dropping it closes it and ends its tasks.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Connection,
    pub(crate) writer: Writer,
    pub(crate) from_control: mpsc::Receiver<FromControl>,
    pub(crate) from_broker: mpsc::Receiver<FromBroker>,
    _readers: JoinSet<()>,
}

impl Link {
    /// Connects and opens the control stream.
    pub(crate) async fn connect(
        endpoint: Endpoint,
        config: quinn::ClientConfig,
        address: SocketAddr,
        server_name: String,
    ) -> Result<Self, Cause> {
        let connecting = endpoint.quinn().connect_with(config, address, &server_name);
        let connection = connecting.map_err(|error| Cause::from(&*error.to_string()))?.await.map_err(Cause::of)?;
        let (control, answers) = connection.open_bi().await.map_err(Cause::of)?;
        let (control_tx, from_control) = mpsc::channel(CHUNKS_MAX);
        let (broker_tx, from_broker) = mpsc::channel(CHUNKS_MAX);
        let mut readers = JoinSet::new();
        readers.spawn(read_control(connection.clone(), answers, control_tx));
        readers.spawn(accept_streams(connection.clone(), broker_tx));
        let writer = Writer { control, unwritten: Vec::new(), signals: VecDeque::new() };
        Ok(Self { connection, writer, from_control, from_broker, _readers: readers })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// The control stream's sending half, and what it has not taken yet.
pub(crate) struct Writer {
    control: SendStream,
    unwritten: Vec<Bytes>,
    signals: VecDeque<Bytes>,
}

impl Writer {
    /// Takes bytes to be written by [`write`](Self::write).
    pub(crate) fn push(&mut self, bytes: Bytes) {
        self.unwritten.push(bytes);
    }

    /// Takes a signal, to be written once nothing else waits.
    pub(crate) fn push_signal(&mut self, bytes: Bytes) {
        if self.signals.len() >= SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back(bytes);
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty() || !self.signals.is_empty()
    }

    /// Writes some of what was pushed. Cancel-safe. An error also ends the control stream's reader, which tells.
    pub(crate) async fn write(&mut self) {
        if self.unwritten.is_empty() {
            self.unwritten.extend(self.signals.drain(..));
        }
        let upto = self.unwritten.len().min(WRITE_CHUNKS_MAX);
        match self.control.write_chunks(&mut self.unwritten[..upto]).await {
            Ok(written) => {
                self.unwritten.drain(..written.chunks);
            }
            Err(_) => self.unwritten.clear(),
        }
    }
}

impl fmt::Debug for Writer {
    /// What is written may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} chunks)", self.unwritten.len())
    }
}

async fn read_control(connection: Connection, mut stream: RecvStream, to_driver: mpsc::Sender<FromControl>) {
    while let Ok(Some(chunk)) = stream.read_chunk(CHUNK_BYTES_MAX, true).await {
        if to_driver.send(FromControl::Bytes(chunk.bytes)).await.is_err() {
            return;
        }
    }
    let cause = connection.close_reason().map_or_else(|| Cause::from("the broker ended the control stream"), Cause::of);
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
