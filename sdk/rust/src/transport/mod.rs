//! A connection to the broker, whatever carries it: what is written, what is read, and tasks that read.
//!
//! ```text
//! quic        a control stream, and the streams that the broker opens
//! websocket   one socket for all of it, through a gateway: frames are cut, split by class, and held in an inbox
//! ways        which of the two
//! ```
//!
//! Two bounded ways lead to the driver, so that it can leave events unread while answers keep coming.

mod close;
#[cfg(feature = "test-hooks")]
mod codec;
mod form;
mod inbox;
mod quic;
mod route;
mod ways;
mod websocket;

use std::{collections::VecDeque, fmt, sync::Arc};

use antiphon_sdk_core::StreamId;
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

#[cfg(feature = "test-hooks")]
pub use codec::MessageCodec;
pub(crate) use route::{News as RouteNews, Route};
pub(crate) use ways::Ways;

use crate::Carrier;
use inbox::Inbox;

/// Chunks between a reader and the driver.
const CHUNKS_MAX: usize = 8;
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

/// Where the broker's own streams are read.
#[derive(Debug)]
pub(crate) enum Streams {
    /// A reader whose channel is full stops reading, and QUIC's flow control stops the broker.
    Quic(mpsc::Receiver<FromBroker>),
    /// Answers come on the same socket, so its reader cannot stop for long.
    WebSocket(Arc<Inbox>),
}

impl Streams {
    /// The next thing; `None` when there is none any more. Cancel-safe.
    pub(crate) async fn recv(&mut self) -> Option<FromBroker> {
        match self {
            Self::Quic(receiver) => receiver.recv().await,
            Self::WebSocket(inbox) => Some(inbox.recv().await),
        }
    }

    /// The next thing, if it is here.
    pub(crate) fn try_recv(&mut self) -> Option<FromBroker> {
        match self {
            Self::Quic(receiver) => receiver.try_recv().ok(),
            Self::WebSocket(inbox) => inbox.try_recv(),
        }
    }

    /// Says whether the driver leaves events unread because the application does not take them.
    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        if let Self::WebSocket(inbox) = self {
            inbox.set_stalled(is_stalled);
        }
    }
}

/// A connection that stands. Dropping it closes it and ends its tasks.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) writer: Writer,
    pub(crate) from_control: mpsc::Receiver<FromControl>,
    pub(crate) from_broker: Streams,
    quic: Option<quic::Guard>,
    _readers: JoinSet<()>,
}

impl Link {
    /// What carries it.
    pub(crate) fn carrier(&self) -> Carrier {
        match self.from_broker {
            Streams::Quic(_) => Carrier::Quic,
            Streams::WebSocket(_) => Carrier::WebSocket,
        }
    }

    /// Whether it is not known to be over.
    fn stands(&self) -> bool {
        self.quic.as_ref().is_none_or(quic::Guard::stands)
    }
}

/// What is to be written and has not been taken yet.
pub(crate) struct Writer {
    sink: Sink,
    unwritten: Vec<Bytes>,
    signals: VecDeque<Bytes>,
}

enum Sink {
    Quic(quinn::SendStream),
    WebSocket(websocket::Sender),
}

impl Writer {
    fn new(sink: Sink) -> Self {
        Self { sink, unwritten: Vec::new(), signals: VecDeque::new() }
    }

    /// Takes whole frames to be written by [`write`](Self::write).
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
        let is_gathered = match &self.sink {
            Sink::Quic(_) => false,
            Sink::WebSocket(sender) => sender.has_unflushed(),
        };
        is_gathered || !self.unwritten.is_empty() || !self.signals.is_empty()
    }

    /// Writes some of what was pushed. Cancel-safe. After an error there is nothing to write any more; the reader tells.
    pub(crate) async fn write(&mut self) {
        if self.unwritten.is_empty() {
            self.unwritten.extend(self.signals.drain(..));
        }
        match &mut self.sink {
            Sink::Quic(stream) => quic::write(stream, &mut self.unwritten).await,
            Sink::WebSocket(sender) => sender.write(&mut self.unwritten).await,
        }
    }
}

impl fmt::Debug for Writer {
    /// What is written may hold a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Writer({} chunks)", self.unwritten.len())
    }
}
