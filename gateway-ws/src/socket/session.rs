//! The task of one socket: reads the client's frames into its channel, writes what waits for it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use antiphon_protocol::{
    Direction, ErrorCode, FrameType,
    control::{Hello, Resume},
    frames,
    header::{HEADER_BYTES, Header},
    limits::{FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX},
};
use axum::{
    Error,
    extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
};
use bytes::Bytes;
use futures_util::{SinkExt, future::poll_immediate};
use tokio::time::{self, Instant, Sleep};

use super::{
    Carrier, Phase, Socket,
    close::{GOING_AWAY, close_code},
    raw,
};
use crate::{json, reader::Reader, trunk::Channel, worker::Worker};

/// From the upgrade to HELLO.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the client may take to answer the last frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a session waits for a trunk.
const TRUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two Pings.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A socket from which nothing came for so long, or that takes nothing, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// Over how long clients spread their HELLOs after RESUME.
const RESUME_JITTER_MS: u32 = 2_000;

/// A frame of the client that was read.
#[derive(Debug)]
struct Incoming {
    kind: FrameType,
    id: u32,
    frame: Bytes,
}

struct Session {
    ws: WebSocket,
    shared: Arc<Socket>,
    worker: Arc<Worker>,
    remote: SocketAddr,
    /// From the header of the upgrade.
    token: Option<String>,
    channel: Option<Channel>,
    /// Frames of a message whose first ones have to be answered before the next may be looked at.
    backlog: VecDeque<Incoming>,
    heard: Instant,
    /// HELLO or a Ping is due.
    due: Pin<Box<Sleep>>,
}

/// Why a session ends without another word.
struct Gone;

impl From<Error> for Gone {
    fn from(_: Error) -> Self {
        Self
    }
}

impl From<time::error::Elapsed> for Gone {
    fn from(_: time::error::Elapsed) -> Self {
        Self
    }
}

/// Runs until either side ends the socket.
pub(super) async fn run(
    ws: WebSocket,
    worker: Arc<Worker>,
    remote: SocketAddr,
    carrier: Carrier,
    token: Option<String>,
) {
    let (shared, now) = (Arc::new(Socket::new(carrier)), Instant::now());
    let (channel, backlog, due) = (None, VecDeque::new(), Box::pin(time::sleep(HELLO_TIMEOUT)));
    worker.counters.sockets_opened.one_more();
    worker.counters.sockets.one_more();
    let counters = Arc::clone(&worker.counters);
    let mut session = Session { ws, shared, worker, remote, token, channel, backlog, heard: now, due };
    // Boxed: most sockets spend their life in one place of this, and the rest need not be kept for each.
    let _ = Box::pin(session.serve()).await;
    counters.sockets.one_less();
}

impl Session {
    async fn serve(&mut self) -> Result<(), Gone> {
        let shared = Arc::clone(&self.shared);
        let mut stopped = self.worker.stopped.clone();
        loop {
            self.work_off().await;
            self.write().await?;
            match shared.phase() {
                Phase::Over(code) => return self.close(code.map_or(GOING_AWAY, close_code)).await,
                Phase::Lost => {
                    self.resume().await;
                    continue;
                }
                _ => {}
            }
            tokio::select! {
                biased;
                () = shared.changed.notified() => {}
                message = self.ws.recv(), if shared.may_read() && self.backlog.is_empty() => {
                    self.take_in(message.ok_or(Gone)??);
                }
                () = &mut self.due => self.tick().await?,
                _ = stopped.changed() => return self.close(GOING_AWAY).await,
            }
        }
    }

    /// Reads the frames of a message.
    fn take_in(&mut self, message: Message) {
        self.heard = Instant::now();
        let is_early = matches!(self.shared.phase(), Phase::AwaitHello { .. });
        match (message, self.shared.carrier) {
            (Message::Text(text), Carrier::Json) if !is_early || text.len() <= PRE_AUTH_BYTES_MAX => {
                text.as_bytes().split(|byte| *byte == b'\n').for_each(|line| self.take_line(line));
            }
            (Message::Binary(bytes), Carrier::Binary) if !is_early || bytes.len() <= PRE_AUTH_BYTES_MAX => {
                self.take_frames(bytes);
            }
            (Message::Text(_), Carrier::Json) | (Message::Binary(_), Carrier::Binary) => {
                let message = format!("at most {PRE_AUTH_BYTES_MAX} bytes before authentication");
                self.shared.refuse(0, ErrorCode::LimitExceeded, "", &message);
            }
            (Message::Text(_), Carrier::Binary) => {
                self.shared.refuse(0, ErrorCode::Malformed, "", "this sub-protocol has binary messages");
            }
            (Message::Binary(_), Carrier::Json) => {
                self.shared.refuse(0, ErrorCode::Malformed, "", "this sub-protocol has text messages");
            }
            (Message::Close(_), _) => self.shared.end(Some(ErrorCode::Closed)),
            (Message::Ping(_) | Message::Pong(_), _) => {}
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match json::decode(line, Direction::ToBroker) {
            Ok(decoded) => {
                self.backlog.push_back(Incoming { kind: decoded.frame_type, id: decoded.id, frame: decoded.frame });
            }
            Err(error) => {
                let id = error.frame.map_or(0, |(_, id)| id);
                // A HELLO that cannot be read is the end, as on every carrier; a signal has no answer.
                let kind = error.frame.map(|(kind, _)| kind);
                match kind {
                    Some(FrameType::Signal) => {}
                    Some(FrameType::Hello) => self.shared.refuse(0, error.code, &error.field, error.message),
                    _ => self.shared.refuse(id, error.code, &error.field, error.message),
                }
            }
        }
    }

    fn take_frames(&mut self, mut bytes: Bytes) {
        while !bytes.is_empty() {
            let header = bytes.first_chunk().map(|chunk| Header::decode(*chunk, FRAME_BYTES_MAX));
            let length = match header {
                Some(Ok(header)) => HEADER_BYTES + header.length as usize,
                Some(Err(error)) => {
                    return self.shared.refuse(0, error.code(), error.field().unwrap_or_default(), &error.to_string());
                }
                None => usize::MAX,
            };
            if length > bytes.len() {
                return self.shared.refuse(0, ErrorCode::Malformed, "", "a message holds whole frames");
            }
            let frame = bytes.split_to(length);
            match raw(&frame) {
                Some(raw) => self.backlog.push_back(Incoming { kind: raw.frame_type, id: raw.id, frame }),
                None => return self.shared.refuse(0, ErrorCode::UnknownFrame, "header.type", "an unknown frame"),
            }
        }
    }

    /// Looks at what was read, as far as the session's phase and bounds allow.
    async fn work_off(&mut self) {
        while self.shared.may_read()
            && let Some(incoming) = self.backlog.pop_front()
        {
            match self.shared.phase() {
                Phase::AwaitHello { is_again } => self.hello(incoming, is_again).await,
                _ => self.request(incoming).await,
            }
        }
    }

    async fn hello(&mut self, incoming: Incoming, is_again: bool) {
        if incoming.kind != FrameType::Hello {
            // After RESUME: what was under way when the trunk was lost.
            if !is_again {
                self.shared.refuse(0, ErrorCode::UnexpectedFrame, "", "the first frame is HELLO");
            }
            return;
        }
        let frame = match &self.token {
            Some(token) => with_token(&incoming, token),
            None => incoming.frame,
        };
        if self.channel.is_none() {
            let opened = time::timeout(TRUNK_TIMEOUT, self.worker.trunks.open(self.reader(), self.remote)).await;
            match opened {
                Ok(channel) => self.channel = Some(channel),
                Err(_) => return self.shared.refuse(0, ErrorCode::NotActive, "", "no broker answers"),
            }
        }
        self.shared.set_phase(Phase::AwaitWelcome);
        self.shared.asked(incoming.id, FrameType::Hello, frame.len());
        self.due.as_mut().reset(self.heard + PING_INTERVAL);
        send(self.channel.as_ref(), &frame).await;
    }

    async fn request(&mut self, incoming: Incoming) {
        let Incoming { kind, id, frame } = incoming;
        // To the broker these would be the gateway's own.
        if matches!(kind, FrameType::ChannelOpen | FrameType::ChannelClose | FrameType::Lag) {
            return self.shared.refuse(0, ErrorCode::UnexpectedFrame, "", "a frame of trunks");
        }
        if kind != FrameType::Signal {
            self.shared.asked(id, kind, frame.len());
        }
        self.worker.counters.frames_in.one_more();
        send(self.channel.as_ref(), &frame).await;
    }

    /// The trunk was lost: once there is another one, the client says HELLO again.
    async fn resume(&mut self) {
        self.channel = None;
        self.backlog.clear();
        let opened = time::timeout(TRUNK_TIMEOUT, self.worker.trunks.open(self.reader(), self.remote)).await;
        match opened {
            Ok(channel) => {
                self.channel = Some(channel);
                self.shared.set_phase(Phase::AwaitHello { is_again: true });
                self.worker.counters.resumes.one_more();
                let resume = Resume { jitter_ms: RESUME_JITTER_MS };
                self.shared.say(&frames::control(FrameType::Resume, 0, &resume));
                self.due.as_mut().reset(Instant::now() + SILENCE_MAX);
            }
            Err(_) => self.shared.refuse(0, ErrorCode::NotActive, "", "no broker answers"),
        }
    }

    /// Something is due: HELLO, a Ping, or the end of patience.
    async fn tick(&mut self) -> Result<(), Gone> {
        if matches!(self.shared.phase(), Phase::AwaitHello { .. }) {
            self.shared.refuse(0, ErrorCode::AuthenticationTimeout, "", "no HELLO in time");
            self.due.as_mut().reset(Instant::now() + PING_INTERVAL);
            return Ok(());
        }
        if self.heard.elapsed() >= SILENCE_MAX {
            return Err(Gone);
        }
        self.due.as_mut().reset(Instant::now() + PING_INTERVAL);
        patiently(self.ws.send(Message::Ping(Bytes::new()))).await
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::<Socket>::clone(&self.shared)
    }

    async fn write(&mut self) -> Result<(), Gone> {
        let mut has_written = false;
        // A client that takes what it gets needs no timer.
        while let Some(bytes) = self.shared.take() {
            self.worker.counters.messages_out.one_more();
            self.worker.counters.bytes_out.add(bytes.len() as u64);
            let message = match self.shared.carrier {
                // Invariant: lines are made by the encoder, which writes UTF-8.
                Carrier::Json => Message::Text(Utf8Bytes::try_from(bytes).map_err(|_| Gone)?),
                Carrier::Binary => Message::Binary(bytes),
            };
            patiently(self.ws.feed(message)).await?;
            has_written = true;
        }
        if has_written {
            patiently(self.ws.flush()).await?;
        }
        Ok(())
    }

    async fn close(&mut self, code: u16) -> Result<(), Gone> {
        // The channel ends first: nothing is for this socket any more.
        self.channel = None;
        let frame = CloseFrame { code, reason: Utf8Bytes::default() };
        time::timeout(CLOSE_TIMEOUT, self.ws.send(Message::Close(Some(frame)))).await??;
        // A socket that is dropped with unread bytes is reset, and then the client may not see the last frames.
        let rest = async { while let Some(Ok(_)) = self.ws.recv().await {} };
        Ok(time::timeout(CLOSE_TIMEOUT, rest).await?)
    }
}

/// Waits for a write, as long as a client may take nothing.
async fn patiently<T>(write: impl Future<Output = Result<T, Error>>) -> Result<T, Gone> {
    let mut write = pin!(write);
    match poll_immediate(&mut write).await {
        Some(result) => Ok(result?),
        None => Ok(time::timeout(SILENCE_MAX, write).await??),
    }
}

/// A trunk that is lost meanwhile shows in the session's phase.
async fn send(channel: Option<&Channel>, frame: &[u8]) {
    if let Some(channel) = channel {
        let _ = channel.send(frame).await;
    }
}

/// HELLO with the token of the upgrade, unless it has its own.
fn with_token(incoming: &Incoming, token: &str) -> Bytes {
    match frames::decode_request::<Hello>(&incoming.frame.slice(HEADER_BYTES..)) {
        Ok(hello) if hello.token.is_empty() => {
            frames::control(FrameType::Hello, incoming.id, &Hello { token: token.to_owned(), ..hello })
        }
        // The broker says what is wrong with it.
        _ => incoming.frame.clone(),
    }
}
