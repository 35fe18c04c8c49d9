//! One client: the SDK's state machine on a `quinn-proto` endpoint, driven as a shell would drive it.
//!
//! The connection's endpoint is made anew with each connection; an address change or a lost connection is something
//! that the world does to the client from outside.

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
};

use antiphon_protocol::ALPN;
use antiphon_sdk_core::{Client as Core, Command, Config, Input, Output, StreamId as BrokerStream, Time, Token};
use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, ReadError, StreamEvent,
    StreamId, TransportConfig, VarInt, WriteError,
};
use std::time::Duration;

use crate::{
    broker::{ADDRESS, IDLE_TIMEOUT},
    clock::Moment,
    crypto::NullCrypto,
    quic,
    random::Random,
    stage::Stage,
    tap::Tap,
};

/// Streams that the broker may open.
const BROKER_STREAMS_MAX: u32 = 8;
/// Bytes taken from a stream at once.
const CHUNK_BYTES_MAX: usize = 32 << 10;

/// A client's process.
#[derive(Debug)]
pub(crate) struct Client {
    core: Core,
    /// Where its datagrams come from.
    pub(crate) address: SocketAddr,
    link: Option<Box<Link>>,
    random: Random,
    /// Bytes of each broker stream that it lets come ahead of its reading.
    window: u32,
    /// It reads none of the broker's streams until then.
    asleep_until: Moment,
    /// When it wants to be called, as noted in the agenda.
    timer: Option<Moment>,
    /// Watches the broker's streams.
    pub(crate) tap: Tap,
    /// Whether a token is being fetched.
    pub(crate) wants_token: bool,
    outgoing: Vec<BytesMut>,
    news: Vec<Output>,
}

/// One QUIC connection.
#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    control: Option<StreamId>,
    broker_streams: BTreeSet<StreamId>,
    unwritten: VecDeque<Bytes>,
}

impl Client {
    /// A client that wants to connect. `window` bounds what the broker may send ahead.
    pub(crate) fn new(config: Config, address: SocketAddr, window: u32, random: Random) -> Self {
        Self {
            core: Core::new(config),
            address,
            link: None,
            random,
            window,
            asleep_until: Moment::default(),
            timer: None,
            tap: Tap::default(),
            wants_token: false,
            outgoing: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Reads none of the broker's streams until then.
    pub(crate) fn sleep(&mut self, until: Moment) {
        self.asleep_until = self.asleep_until.max(until);
    }

    /// Reads again.
    pub(crate) fn wake(&mut self) {
        self.asleep_until = Moment::default();
    }

    /// What the application wants.
    pub(crate) fn command(&mut self, stage: &Stage, command: Command) {
        self.input(stage, Input::Command(command));
    }

    /// The token provider's answer.
    pub(crate) fn token(&mut self, stage: &Stage, token: Option<String>) {
        self.wants_token = false;
        self.input(
            stage,
            match token {
                Some(token) => Input::Token(Token::new(token)),
                None => Input::TokenFailed { cause: "simulated".into() },
            },
        );
    }

    /// A datagram for its address.
    pub(crate) fn receive(&mut self, stage: &Stage, bytes: BytesMut) {
        let Some(link) = self.link.as_deref_mut() else { return };
        let mut response = Vec::new();
        match link.endpoint.handle(stage.clock.instant(stage.now), ADDRESS, None, None, bytes, &mut response) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => link.connection.handle_event(event),
            Some(DatagramEvent::Response(transmit)) => {
                self.outgoing.push(BytesMut::from(&response[..transmit.size]));
            }
            Some(DatagramEvent::NewConnection(_)) | None => {}
        }
    }

    /// The connection is gone, and nobody tells the broker.
    pub(crate) fn kill(&mut self, stage: &Stage) {
        if self.link.take().is_some() {
            self.lost(stage, "killed".into(), None);
        }
    }

    /// Its address changes under the connection; it may or may not notice.
    pub(crate) fn rebind(&mut self, address: SocketAddr, notices: bool) {
        self.address = address;
        if notices && let Some(link) = &mut self.link {
            link.connection.local_address_changed();
        }
    }

    /// Does everything that can be done now. Returns what the application hears, and the datagrams to send.
    pub(crate) fn step(&mut self, stage: &Stage) -> (Vec<Output>, Vec<BytesMut>) {
        let now = stage.clock.instant(stage.now);
        if let Some(link) = &mut self.link
            && link.connection.poll_timeout().is_some_and(|at| at <= now)
        {
            link.connection.handle_timeout(now);
        }
        let time = core_time(stage.now);
        while self.core.poll_timeout().is_some_and(|at| at <= time) {
            self.input(stage, Input::Timeout);
        }
        self.read_all(stage);
        while self.pass_event(stage) {}
        self.perform_outputs(stage);
        while self.pass_event(stage) {}
        self.transmit(stage);
        (std::mem::take(&mut self.news), std::mem::take(&mut self.outgoing))
    }

    /// When the client next wants to be called, if that has changed.
    pub(crate) fn next_call(&mut self, stage: &Stage) -> Option<Moment> {
        let core = self.core.poll_timeout().map(|at| Moment(at.0 * 1_000));
        let quic = self.link.as_mut().and_then(|link| link.connection.poll_timeout());
        let asleep = Some(self.asleep_until).filter(|until| *until > stage.now);
        let wanted = [core, quic.map(|at| stage.clock.moment(at)), asleep].into_iter().flatten().min();
        let wanted = wanted.map(|at| at.max(stage.now));
        if wanted == self.timer {
            return None;
        }
        self.timer = wanted;
        wanted
    }

    /// Whether the time that it asked for has come.
    pub(crate) fn is_due(&mut self, stage: &Stage) -> bool {
        let is_due = self.timer == Some(stage.now);
        if is_due {
            self.timer = None;
        }
        is_due
    }

    fn input(&mut self, stage: &Stage, input: Input) {
        self.core.handle(core_time(stage.now), input);
        self.perform_outputs(stage);
    }

    fn perform_outputs(&mut self, stage: &Stage) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Connect => self.connect(stage),
                Output::Write(bytes) | Output::WriteSignal(bytes) => {
                    if let Some(link) = &mut self.link {
                        link.unwritten.push_back(bytes);
                        link.write();
                    }
                }
                Output::Close => self.close(stage),
                Output::NeedToken => {
                    self.wants_token = true;
                    self.news.push(Output::NeedToken);
                }
                news => {
                    self.tap.note(&news);
                    self.news.push(news);
                }
            }
        }
    }

    fn connect(&mut self, stage: &Stage) {
        self.close(stage);
        self.tap.connection_ended();
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(Duration::from_secs(3)))
            .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
            .max_concurrent_uni_streams(BROKER_STREAMS_MAX.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .stream_receive_window(self.window.into())
            .mtu_discovery_config(None)
            .enable_segmentation_offload(false);
        let config = Arc::new(quic::endpoint_config(&mut self.random));
        let mut endpoint = Endpoint::new(config, None, false, None);
        let mut client = quic::client_config(NullCrypto::new(&[ALPN]), &mut self.random);
        client.transport_config(Arc::new(transport));
        let now = stage.clock.instant(stage.now);
        self.news.push(Output::Connect);
        match endpoint.connect(now, client, ADDRESS, "broker") {
            Ok((handle, connection)) => {
                self.link = Some(Box::new(Link {
                    endpoint,
                    handle,
                    connection,
                    control: None,
                    broker_streams: BTreeSet::new(),
                    unwritten: VecDeque::new(),
                }));
            }
            Err(error) => self.lost(stage, error.to_string(), None),
        }
    }

    fn close(&mut self, stage: &Stage) {
        if let Some(mut link) = self.link.take() {
            link.write();
            link.connection.close(stage.clock.instant(stage.now), VarInt::from_u32(0), Bytes::new());
            link.transmit(stage, &mut self.outgoing);
        }
    }

    fn lost(&mut self, stage: &Stage, cause: String, close_code: Option<u32>) {
        self.link = None;
        self.tap.connection_ended();
        self.input(stage, Input::Disconnected { cause, close_code });
    }

    /// Looks at the next thing that the transport has to say; whether there was one.
    fn pass_event(&mut self, stage: &Stage) -> bool {
        let Some(link) = self.link.as_deref_mut() else { return false };
        link.exchange_events();
        let Some(event) = link.connection.poll() else { return false };
        match event {
            Event::Connected => {
                // A client may open its first stream as soon as it knows the broker's parameters.
                link.control = link.connection.streams().open(Dir::Bi);
                self.input(stage, Input::Connected);
            }
            Event::ConnectionLost { reason } => {
                let close_code = match &reason {
                    ConnectionError::ApplicationClosed(close) => u32::try_from(close.error_code.into_inner()).ok(),
                    _ => None,
                };
                self.lost(stage, reason.to_string(), close_code);
            }
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                // One event may stand for several streams.
                link.broker_streams.extend(std::iter::from_fn(|| link.connection.streams().accept(Dir::Uni)));
                self.read_all(stage);
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(stage, id),
            Event::Stream(StreamEvent::Writable { .. }) => link.write(),
            _ => {}
        }
        true
    }

    /// Reads one stream, unless it is one that waits until the client is awake.
    fn read(&mut self, stage: &Stage, stream: StreamId) {
        loop {
            let Some(link) = self.link.as_deref_mut() else { return };
            let is_control = link.control == Some(stream);
            if !is_control && self.asleep_until > stage.now {
                return;
            }
            let broker_stream = BrokerStream(VarInt::from(stream).into_inner());
            match link.read_chunk(stream) {
                Some(Chunk::Bytes(bytes)) if is_control => self.input(stage, Input::Control(bytes)),
                Some(Chunk::Bytes(bytes)) => {
                    self.tap.bytes(broker_stream, &bytes);
                    self.input(stage, Input::Stream(broker_stream, bytes));
                }
                Some(Chunk::End) if is_control => {
                    let code = None;
                    self.link = None;
                    return self.lost(stage, "the broker ended the control stream".into(), code);
                }
                Some(Chunk::End) => {
                    link.broker_streams.remove(&stream);
                    return self.input(stage, Input::StreamEnded(broker_stream));
                }
                None => return,
            }
        }
    }

    fn read_all(&mut self, stage: &Stage) {
        if self.asleep_until > stage.now {
            return;
        }
        let streams: Vec<StreamId> = self.link.iter().flat_map(|link| link.broker_streams.iter().copied()).collect();
        for stream in streams {
            self.read(stage, stream);
        }
    }

    fn transmit(&mut self, stage: &Stage) {
        if let Some(link) = self.link.as_deref_mut() {
            link.transmit(stage, &mut self.outgoing);
            link.exchange_events();
        }
    }
}

/// A piece of a stream.
enum Chunk {
    Bytes(Bytes),
    End,
}

impl Link {
    fn exchange_events(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    fn write(&mut self) {
        let Some(control) = self.control else { return };
        while let Some(front) = self.unwritten.front_mut() {
            match self.connection.send_stream(control).write_chunks(std::slice::from_mut(front)) {
                Ok(_) if front.is_empty() => drop(self.unwritten.pop_front()),
                // A rest is offered again: quinn-proto tells of room only after it has refused a write.
                Ok(_) => {}
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => self.unwritten.clear(),
            }
        }
    }

    fn read_chunk(&mut self, stream: StreamId) -> Option<Chunk> {
        let mut stream = self.connection.recv_stream(stream);
        let mut chunks = stream.read(true).ok()?;
        let chunk = chunks.next(CHUNK_BYTES_MAX);
        let _ = chunks.finalize();
        match chunk {
            Ok(Some(chunk)) => Some(Chunk::Bytes(chunk.bytes)),
            Ok(None) | Err(ReadError::Reset(_)) => Some(Chunk::End),
            Err(ReadError::Blocked) => None,
        }
    }

    fn transmit(&mut self, stage: &Stage, outgoing: &mut Vec<BytesMut>) {
        let now = stage.clock.instant(stage.now);
        let mut buffer = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut buffer) {
            outgoing.push(BytesMut::from(&buffer[..transmit.size]));
            buffer.clear();
        }
    }
}

fn core_time(now: Moment) -> Time {
    Time(now.0 / 1_000)
}
