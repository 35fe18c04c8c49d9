//! Sessions on bare QUIC connections, for loads in which the SDK's own work would hide the broker's.
//!
//! A session here says HELLO, follows logs and sends; it checks nothing by itself, never reconnects and treats whatever
//! it does not expect as the end of the run. TLS and stream limits are the SDK's.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use antiphon_protocol::{
    Class, DecodeError, Decoder, FrameType, LogName, RawFrame, VERSION,
    control::{self, subscribe::From},
    frames,
    limits::FRAME_BYTES_MAX,
};
use antiphon_sdk::Trust;
use bytes::Bytes;
use quinn::{Connection, Endpoint, EndpointConfig, RecvStream, SendStream, TokioRuntime, TransportConfig, VarInt};
use thiserror::Error;

use crate::target::Target;

/// How often a client of a load says that it is there, where the load is not about that.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// Connections that are being made at a time, to the broker and to peers alike.
pub(crate) const OPENING_MAX: usize = 64;
/// Asked of the kernel for every socket; it grants less where its limit is lower.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// One per class of frames is what the broker opens.
const BROKER_STREAMS_MAX: u32 = 16;
/// Bytes taken from a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// A connection without any packet for so long is gone.
const IDLE_MS_MAX: u32 = 120_000;

/// What ended a bare session, or never let it begin.
#[derive(Debug, Error)]
pub enum WireError {
    /// A socket cannot be made.
    #[error("a socket of the load generator cannot be made")]
    Socket(#[from] io::Error),
    /// The broker's certificate cannot be pinned.
    #[error("the trust settings cannot be used")]
    Trust(#[source] Box<antiphon_sdk::Error>),
    /// Settings of the generator's own that quinn refuses.
    #[error("the connection cannot be begun")]
    Begin(#[from] quinn::ConnectError),
    /// The connection ended.
    #[error("the connection ended")]
    Connection(#[from] quinn::ConnectionError),
    /// A stream cannot be read.
    #[error("a stream of the broker cannot be read")]
    Read(#[from] quinn::ReadError),
    /// A stream cannot be written.
    #[error("the control stream cannot be written")]
    Write(#[from] quinn::WriteError),
    /// The broker sent bytes that are no frame, or a frame that is not what its type says.
    #[error("the broker sent something that cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The broker ended a stream that lasts as long as its connection.
    #[error("the broker ended a stream")]
    StreamEnded,
    /// The broker refused a request.
    #[error("the broker refused a request with {code}: {message}")]
    Refused {
        /// The word of the error.
        code: String,
        /// For people.
        message: String,
    },
    /// Some other frame than the one that must come next.
    #[error("the broker sent {0}, which nothing asked for")]
    Unexpected(&'static str),
}

/// Opens connections to one broker over a few sockets.
#[derive(Debug)]
pub struct Dialer {
    address: SocketAddr,
    config: quinn::ClientConfig,
    endpoints: Vec<Endpoint>,
}

impl Dialer {
    /// Binds `sockets` sockets. Must be called within a Tokio runtime.
    pub fn new(address: SocketAddr, trust: &Trust, sockets: usize, keep_alive: Duration) -> Result<Self, WireError> {
        let mut config = antiphon_sdk::quic_config(trust).map_err(|error| WireError::Trust(Box::new(error)))?;
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(keep_alive))
            .max_idle_timeout(Some(VarInt::from_u32(IDLE_MS_MAX).into()))
            .max_concurrent_uni_streams(VarInt::from_u32(BROKER_STREAMS_MAX))
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .datagram_receive_buffer_size(None);
        config.transport_config(Arc::new(transport));
        let endpoints: Result<_, _> = (0..sockets.max(1)).map(|_| endpoint(address)).collect();
        Ok(Self { address, config, endpoints: endpoints? })
    }

    /// The connection of this number; neighbours use different sockets.
    pub async fn connect(&self, number: usize) -> Result<Connection, WireError> {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        Ok(endpoint.connect_with(self.config.clone(), self.address, "localhost")?.await?)
    }
}

fn endpoint(remote: SocketAddr) -> io::Result<Endpoint> {
    let any: SocketAddr = match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // Where the kernel grants less there are losses, which QUIC repairs and the broker's CPU time shows.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))
}

/// Cuts one stream into frames.
#[derive(Debug)]
pub struct FrameReader {
    stream: RecvStream,
    decoder: Decoder,
}

impl FrameReader {
    /// Reads a stream from its beginning.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, decoder: Decoder::new(FRAME_BYTES_MAX) }
    }

    /// The next frame. Cancel-safe.
    pub async fn next(&mut self) -> Result<RawFrame, WireError> {
        loop {
            if let Some(frame) = self.next_buffered()? {
                return Ok(frame);
            }
            let chunk = self.stream.read_chunk(CHUNK_BYTES_MAX, true).await?.ok_or(WireError::StreamEnded)?;
            self.decoder.push(chunk.bytes);
        }
    }

    /// The next frame, if its bytes were read already.
    pub fn next_buffered(&mut self) -> Result<Option<RawFrame>, WireError> {
        Ok(self.decoder.next_frame()?)
    }
}

/// An established session. Dropping it closes the connection.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    requests: SendStream,
    answers: FrameReader,
    /// The stream that live events come on; the broker opens it with the first subscription.
    events: Option<FrameReader>,
    /// The stream that pages come on; the broker opens it with the first one.
    pages: Option<FrameReader>,
    request_id: u32,
}

impl Session {
    /// Connects and says HELLO.
    pub async fn open(dialer: &Dialer, number: usize, token: String) -> Result<Self, WireError> {
        let connection = dialer.connect(number).await?;
        let (requests, answers) = connection.open_bi().await?;
        let mut session =
            Self { connection, requests, answers: FrameReader::new(answers), events: None, pages: None, request_id: 0 };
        let sender_instance = Bytes::copy_from_slice(&(number as u128 + 1).to_be_bytes());
        let client = concat!("antiphon-loadgen/", env!("CARGO_PKG_VERSION")).to_owned();
        let hello = control::Hello { versions: vec![VERSION], token, sender_instance, client, ..Default::default() };
        let id = session.next_id();
        session.write(frames::control(FrameType::Hello, id, &hello)).await?;
        expect(FrameType::Welcome, &session.answers.next().await?)?;
        Ok(session)
    }

    /// A number for a request.
    pub fn next_id(&mut self) -> u32 {
        self.request_id += 1;
        self.request_id
    }

    /// Writes one request or several.
    pub async fn write(&mut self, frames: Bytes) -> Result<(), WireError> {
        Ok(self.requests.write_chunk(frames).await?)
    }

    /// The next answer on the control stream. Cancel-safe.
    pub async fn answer(&mut self) -> Result<RawFrame, WireError> {
        self.answers.next().await
    }

    /// The next answer, if its bytes were read already.
    pub fn answer_buffered(&mut self) -> Result<Option<RawFrame>, WireError> {
        self.answers.next_buffered()
    }

    /// Follows a log from now on.
    pub async fn subscribe(&mut self, log: &LogName) -> Result<control::Attach, WireError> {
        let id = self.next_id();
        let subscribe = control::Subscribe { log: log.to_string(), from: Some(From::Tail(true)) };
        self.write(frames::control(FrameType::Subscribe, id, &subscribe)).await?;
        let attach = tokio::select! {
            frame = class_frame(&self.connection, Class::Events, &mut self.events) => frame?,
            refusal = self.answers.next() => refusal?,
        };
        expect(FrameType::Attach, &attach)?;
        Ok(frames::decode_answer(&attach.body)?)
    }

    /// The newest rows of a log before a position, the newest first; 0 = before its end. As many as fit a page, at most `limit`.
    pub async fn page_before(&mut self, log: &LogName, before: u64, limit: u32) -> Result<frames::Page, WireError> {
        let id = self.next_id();
        let fetch =
            control::Fetch { log: log.to_string(), to: before, limit, backward: true, ..control::Fetch::default() };
        self.write(frames::control(FrameType::Fetch, id, &fetch)).await?;
        let page = tokio::select! {
            frame = class_frame(&self.connection, Class::Backfill, &mut self.pages) => frame?,
            refusal = self.answers.next() => refusal?,
        };
        expect(FrameType::Page, &page)?;
        Ok(frames::Page::decode(&page.body)?)
    }

    /// The stream of live events, to be read apart from the session, which must stay.
    pub fn take_events(&mut self) -> Option<FrameReader> {
        self.events.take()
    }
}

/// The next frame of the broker's stream of this class, which is accepted if it is new.
async fn class_frame(
    connection: &Connection,
    class: Class,
    stream: &mut Option<FrameReader>,
) -> Result<RawFrame, WireError> {
    if let Some(stream) = stream {
        return stream.next().await;
    }
    let mut reader = FrameReader::new(connection.accept_uni().await?);
    let open = reader.next().await?;
    match (open.frame_type, Class::from_number(open.id)) {
        (FrameType::Open, Some(found)) if found == class => stream.insert(reader).next().await,
        (other, _) => Err(WireError::Unexpected(other.name())),
    }
}

/// Nothing, if the frame has this type; what it says, if it is a refusal.
pub fn expect(frame_type: FrameType, frame: &RawFrame) -> Result<(), WireError> {
    match frame.frame_type {
        found if found == frame_type => Ok(()),
        FrameType::Error => {
            let control::Error { code, message, .. } = frames::decode_answer(&frame.body)?;
            Err(WireError::Refused { code, message })
        }
        other => Err(WireError::Unexpected(other.name())),
    }
}

/// Opens the sessions of `users`, in their order, a bounded number at a time.
pub async fn open_all(target: &Target, dialer: &Arc<Dialer>, users: &[String]) -> Result<Vec<Session>, WireError> {
    let open = |(number, user): (usize, &String)| {
        let (dialer, token) = (dialer.clone(), target.user_token(user));
        async move { Session::open(&dialer, number, token).await }
    };
    at_a_time(users.iter().enumerate().map(open)).await
}

/// What these come to, in their order. No more than [`OPENING_MAX`] are under way at a time.
pub(crate) async fn at_a_time<F>(openings: impl Iterator<Item = F>) -> Result<Vec<Session>, WireError>
where
    F: Future<Output = Result<Session, WireError>> + Send + 'static,
{
    let (mut sessions, mut opening) = (Vec::new(), VecDeque::new());
    for next in openings {
        if opening.len() >= OPENING_MAX
            && let Some(first) = opening.pop_front()
        {
            sessions.push(joined(first).await?);
        }
        opening.push_back(tokio::spawn(next));
    }
    for last in opening {
        sessions.push(joined(last).await?);
    }
    Ok(sessions)
}

async fn joined(task: tokio::task::JoinHandle<Result<Session, WireError>>) -> Result<Session, WireError> {
    task.await.map_err(io::Error::other)?
}
