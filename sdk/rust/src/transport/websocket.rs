//! One WebSocket to a gateway.

use std::{future::poll_fn, io, sync::Arc, time::Duration};

use antiphon_protocol::{Class, FrameType, limits::FRAME_BYTES_MAX};
use bytes::Bytes;
use futures_util::{
    Sink as _, SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::WebSocketConfig,
    },
};

use super::{CHUNKS_MAX, Cause, FromControl, Link, Sink, Streams, Writer, close, form::Form, inbox::Inbox};
use crate::WebSocketUrl;

/// What a socket reads at a time. The library's own 128 KiB would be most of a connection's memory.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// What a socket gathers before it writes.
const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// One message is written when what came before has been taken, so there is never more than this.
const WRITE_BUFFER_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// A gateway joins less; one frame in JSON may be longer than itself.
const MESSAGE_BYTES_MAX: usize = 4 * FRAME_BYTES_MAX;
/// Gateways ping every 25 seconds; one from which nothing came for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

type Socket = WebSocketStream<Box<dyn Io>>;

impl From<tungstenite::Error> for Cause {
    fn from(error: tungstenite::Error) -> Self {
        Self::from(&*error.to_string())
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::from(&*error.to_string())
    }
}

/// Where the gateway is, how it is known, and what is spoken.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) url: WebSocketUrl,
    pub(super) tls: Arc<rustls::ClientConfig>,
    pub(super) form: Form,
}

impl Way {
    /// Connects, and leaves the rest to the session: the token is in HELLO.
    pub(super) async fn connect(self) -> Result<Link, Cause> {
        let mut request = self.url.to_string().into_client_request()?;
        let protocol = HeaderValue::from_static(self.form.protocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let (socket, _) = client_async_with_config(request, self.stream().await?, Some(config)).await?;
        let (sink, stream) = socket.split();
        let (control_tx, from_control) = mpsc::channel(CHUNKS_MAX);
        let inbox = Arc::new(Inbox::default());
        let mut readers = JoinSet::new();
        readers.spawn(read(stream, self.form.clone(), control_tx, Arc::clone(&inbox)));
        Ok(Link {
            writer: Writer::new(Sink::WebSocket(Sender { sink, form: self.form, has_unflushed: false })),
            from_control,
            from_broker: Streams::WebSocket(inbox),
            quic: None,
            _readers: readers,
        })
    }

    async fn stream(&self) -> Result<Box<dyn Io>, Cause> {
        let tcp = self.tcp().await?;
        tcp.set_nodelay(true)?;
        if !self.url.is_tls {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(self.url.host.clone()).map_err(|error| Cause::from(&*error.to_string()))?;
        Ok(Box::new(TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await?))
    }

    /// The first address that answers.
    async fn tcp(&self) -> Result<TcpStream, Cause> {
        let mut last = Cause::from("the gateway's name has no address that may be used");
        for address in lookup_host((self.url.host.as_str(), self.url.port)).await? {
            // A name of this machine that somebody leads elsewhere.
            if !self.url.is_tls && !address.ip().is_loopback() {
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(tcp) => return Ok(tcp),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }
}

/// The sending half.
pub(super) struct Sender {
    sink: SplitSink<Socket, Message>,
    form: Form,
    has_unflushed: bool,
}

impl Sender {
    pub(super) fn has_unflushed(&self) -> bool {
        self.has_unflushed
    }

    /// Writes all of it. Cancel-safe: a message that was handed over is no more in `frames`.
    pub(super) async fn write(&mut self, frames: &mut Vec<Bytes>) {
        if self.try_write(frames).await.is_err() {
            frames.clear();
            self.has_unflushed = false;
        }
    }

    async fn try_write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), Cause> {
        while !frames.is_empty() {
            poll_fn(|context| std::pin::Pin::new(&mut self.sink).poll_ready(context)).await?;
            let message = self.form.message(frames).map_err(|error| Cause::from(&*error))?;
            self.sink.start_send_unpin(message)?;
            self.has_unflushed = true;
        }
        self.sink.flush().await?;
        self.has_unflushed = false;
        Ok(())
    }
}

/// Reads until the socket ends, and says why.
async fn read(mut stream: SplitStream<Socket>, form: Form, to_driver: mpsc::Sender<FromControl>, inbox: Arc<Inbox>) {
    let cause = loop {
        let message = match timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(Message::Close(frame)))) => break closed(frame),
            // The library answers them.
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => break error.into(),
            Ok(None) => break "the gateway ended the socket".into(),
            Err(_) => break "the gateway is silent".into(),
        };
        let frames = match form.frames(message) {
            Ok(frames) => frames,
            Err(error) => break Cause::from(&*error),
        };
        let (control, others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.class() == Class::Control);
        if control.iter().any(|frame| frame.frame_type == Some(FrameType::Resume)) {
            inbox.restart();
        }
        let joined = match &control[..] {
            [] => None,
            [frame] => Some(frame.bytes.clone()),
            frames => Some(frames.iter().flat_map(|frame| &frame.bytes[..]).copied().collect()),
        };
        if let Some(bytes) = joined
            && to_driver.send(FromControl::Bytes(bytes)).await.is_err()
        {
            return;
        }
        for frame in others {
            inbox.push(frame).await;
        }
    };
    // A driver that is gone needs no cause.
    let _ = to_driver.send(FromControl::Ended(cause)).await;
}

fn closed(frame: Option<tungstenite::protocol::CloseFrame>) -> Cause {
    let code = frame.map(|frame| u16::from(frame.code));
    let text = match code {
        Some(code) => format!("the gateway closed the socket with {code}"),
        None => "the gateway closed the socket".to_owned(),
    };
    Cause { text, close_code: code.and_then(close::number) }
}
