//! The task of one socket: reads the client's frames into its channel, writes what waits for it.

use std::{
    collections::VecDeque,
    io,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use antiphon_protocol::{
    Direction, ErrorCode, FrameType,
    control::{Hello, Resume},
    frames,
    header::{FLAG_OPTIONAL, HEADER_BYTES, Header},
    limits::{FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX},
};
use bytes::Bytes;
use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{self, Instant, Sleep},
};

use super::{
    Carrier, Phase, Socket,
    close::{GOING_AWAY, close_code},
    raw,
    wire::{self, Incoming as Wire, Message, WireError},
    writing::Flushed,
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
/// What is read at a time.
const READ_BYTES: usize = 4 << 10;
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
    wire: Wire,
    shared: Arc<Socket>,
    worker: Arc<Worker>,
    remote: SocketAddr,
    /// From the header of the upgrade.
    token: Option<String>,
    channel: Option<Channel>,
    /// Frames of a message whose first ones have to be answered before the next may be looked at.
    backlog: VecDeque<Incoming>,
    heard: Instant,
    /// Since when the socket takes nothing.
    blocked: Option<Instant>,
    /// The code that the client closed the socket with.
    said: Option<u16>,
    /// HELLO or a Ping is due.
    due: Pin<Box<Sleep>>,
}

/// Why a session ends without another word.
struct Gone;

impl From<io::Error> for Gone {
    fn from(_: io::Error) -> Self {
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
    stream: TcpStream,
    read_ahead: Bytes,
    worker: Arc<Worker>,
    remote: SocketAddr,
    carrier: Carrier,
    token: Option<String>,
) {
    let counters = Arc::clone(&worker.counters);
    counters.sockets_opened.one_more();
    counters.sockets.one_more();
    let mut session = Session {
        wire: Wire::default(),
        shared: Arc::new(Socket::new(stream, carrier, Arc::clone(&counters))),
        worker,
        remote,
        token,
        channel: None,
        backlog: VecDeque::new(),
        heard: Instant::now(),
        blocked: None,
        said: None,
        due: Box::pin(time::sleep(HELLO_TIMEOUT)),
    };
    session.wire.buffer().extend_from_slice(&read_ahead);
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
            self.write()?;
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
                readable = shared.stream.readable(), if shared.may_read() => {
                    readable?;
                    self.read()?;
                }
                writable = shared.stream.writable(), if self.blocked.is_some() => writable?,
                () = &mut self.due => self.tick()?,
                _ = stopped.changed() => return self.close(GOING_AWAY).await,
            }
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> Result<(), Gone> {
        match self.shared.write() {
            Flushed::All => self.blocked = None,
            Flushed::Blocked => {
                self.blocked.get_or_insert_with(Instant::now);
            }
            Flushed::Gone => return Err(Gone),
        }
        Ok(())
    }

    /// Reads what is there.
    fn read(&mut self) -> Result<(), Gone> {
        let buffer = self.wire.buffer();
        buffer.reserve(READ_BYTES);
        match self.shared.stream.try_read_buf(buffer) {
            Ok(0) => Err(Gone),
            Ok(_) => {
                self.heard = Instant::now();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks at what was read, as far as the session's phase and bounds allow.
    async fn work_off(&mut self) {
        while self.shared.may_read() {
            if let Some(incoming) = self.backlog.pop_front() {
                match self.shared.phase() {
                    Phase::AwaitHello { is_again } => self.hello(incoming, is_again).await,
                    _ => self.request(incoming).await,
                }
                continue;
            }
            let is_early = matches!(self.shared.phase(), Phase::AwaitHello { .. });
            match self.wire.next(if is_early { PRE_AUTH_BYTES_MAX } else { FRAME_BYTES_MAX }) {
                Ok(Some(message)) => self.take_in(message),
                Ok(None) => return,
                Err(WireError::TooLong) if is_early => {
                    let message = format!("at most {PRE_AUTH_BYTES_MAX} bytes before authentication");
                    self.shared.refuse(0, ErrorCode::LimitExceeded, "", &message);
                }
                Err(WireError::TooLong) => {
                    let message = format!("a message has at most {FRAME_BYTES_MAX} bytes");
                    self.shared.refuse(0, ErrorCode::FrameTooLarge, "", &message);
                }
                Err(error) => {
                    tracing::debug!(%error, remote = %self.remote, "websocket");
                    self.said = Some(error.close_code());
                    self.shared.end(Some(ErrorCode::Malformed));
                }
            }
        }
    }

    /// Reads the frames of a message.
    fn take_in(&mut self, message: Message) {
        match (message, self.shared.carrier) {
            (Message::Text(text), Carrier::Json) => {
                text.split(|byte| *byte == b'\n').for_each(|line| self.take_line(line));
            }
            (Message::Binary(bytes), Carrier::Binary) => self.take_frames(bytes),
            (Message::Text(_), Carrier::Binary) => {
                self.shared.refuse(0, ErrorCode::Malformed, "", "this sub-protocol has binary messages");
            }
            (Message::Binary(_), Carrier::Json) => {
                self.shared.refuse(0, ErrorCode::Malformed, "", "this sub-protocol has text messages");
            }
            (Message::Ping(payload), _) => self.shared.say_raw(wire::pong(&payload)),
            (Message::Pong, _) => {}
            (Message::Close(code), _) => {
                self.said = code;
                self.shared.end(Some(ErrorCode::Closed));
            }
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
            let is_optional = matches!(header, Some(Ok(header)) if header.flags & FLAG_OPTIONAL != 0);
            match raw(&frame) {
                Some(raw) => self.backlog.push_back(Incoming { kind: raw.frame_type, id: raw.id, frame }),
                None if is_optional => {}
                None => return self.shared.refuse(0, ErrorCode::UnknownFrame, "header.type", "an unknown frame"),
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
    fn tick(&mut self) -> Result<(), Gone> {
        if matches!(self.shared.phase(), Phase::AwaitHello { .. }) {
            self.shared.refuse(0, ErrorCode::AuthenticationTimeout, "", "no HELLO in time");
            self.due.as_mut().reset(Instant::now() + PING_INTERVAL);
            return Ok(());
        }
        let is_silent = self.heard.elapsed() >= SILENCE_MAX;
        if is_silent || self.blocked.is_some_and(|since| since.elapsed() >= SILENCE_MAX) {
            return Err(Gone);
        }
        self.due.as_mut().reset(Instant::now() + PING_INTERVAL);
        self.shared.say_raw(wire::ping());
        Ok(())
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::<Socket>::clone(&self.shared)
    }

    /// Says the last word, and waits until the client has it.
    async fn close(&mut self, code: u16) -> Result<(), Gone> {
        // The channel ends first: nothing is for this socket any more.
        self.channel = None;
        self.shared.say_last(wire::close(self.said.unwrap_or(code)));
        time::timeout(CLOSE_TIMEOUT, self.drain()).await??;
        SockRef::from(&self.shared.stream).shutdown(Shutdown::Write)?;
        // A socket that is dropped with unread bytes is reset, and then the client may not see the last frames.
        let rest = async {
            let mut scrap = [0; 1_024];
            while self.shared.stream.readable().await.is_ok() {
                match self.shared.stream.try_read(&mut scrap) {
                    Ok(0) => return,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                    _ => {}
                }
            }
        };
        Ok(time::timeout(CLOSE_TIMEOUT, rest).await?)
    }

    /// Writes everything that waits.
    async fn drain(&self) -> Result<(), Gone> {
        loop {
            match self.shared.write() {
                Flushed::All => return Ok(()),
                Flushed::Blocked => self.shared.stream.writable().await?,
                Flushed::Gone => return Err(Gone),
            }
        }
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
