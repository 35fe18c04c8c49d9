//! One QUIC connection to the broker, driven by hand: it writes whatever bytes it is given.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_protocol::{ALPN, Decoder, RawFrame, limits::FRAME_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, Event, StreamEvent, StreamId,
    TransportConfig, VarInt, WriteError,
};

use crate::{
    broker::{ADDRESS, IDLE_TIMEOUT},
    crypto::NullCrypto,
    quic,
    random::Random,
};

/// Streams that the broker may open.
const BROKER_STREAMS_MAX: u32 = 8;
/// Bytes taken from a stream at once.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// How a peer treats its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Habits {
    /// It reads nothing, and lets the broker send so much ahead on each stream.
    pub(super) deaf_window: Option<u32>,
    /// It writes at most so many bytes at a time.
    pub(super) write_bytes_max: usize,
    /// It keeps every frame of every stream, not only those of the control stream.
    pub(super) hears_all: bool,
}

/// A connection from the client's side.
#[derive(Debug)]
pub(super) struct Peer {
    /// Where its datagrams come from.
    pub(super) address: SocketAddr,
    /// The shard that its datagrams reach.
    pub(super) shard: usize,
    /// What came, oldest first, until it is taken.
    pub(super) heard: VecDeque<RawFrame>,
    /// Why the connection is gone.
    pub(super) lost: Option<ConnectionError>,
    /// Whether frames may be written.
    pub(super) is_connected: bool,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    habits: Habits,
    control: Option<StreamId>,
    decoders: BTreeMap<StreamId, Decoder>,
    unwritten: VecDeque<Bytes>,
    unwritten_bytes: usize,
}

impl Peer {
    /// A connection that is about to be made.
    pub(super) fn new(now: Instant, address: SocketAddr, shard: usize, habits: Habits, random: &mut Random) -> Self {
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(IDLE_TIMEOUT.try_into().ok())
            .max_concurrent_uni_streams(BROKER_STREAMS_MAX.into())
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .mtu_discovery_config(None)
            .enable_segmentation_offload(false);
        if habits.hears_all {
            transport.keep_alive_interval(Some(Duration::from_secs(3)));
        }
        if let Some(window) = habits.deaf_window {
            transport.stream_receive_window(window.into());
        }
        let mut endpoint = Endpoint::new(Arc::new(quic::endpoint_config(random)), None, false, None);
        let mut client = quic::client_config(NullCrypto::new(&[ALPN]), random);
        client.transport_config(Arc::new(transport));
        // Invariant: a fixed address, a fixed name and a configuration without limits that could be reached.
        #[expect(clippy::unwrap_used, reason = "nothing of the configuration can be refused")]
        let (handle, connection) = endpoint.connect(now, client, ADDRESS, "broker").unwrap();
        Self {
            address,
            shard,
            heard: VecDeque::new(),
            lost: None,
            is_connected: false,
            endpoint,
            handle,
            connection,
            habits,
            control: None,
            decoders: BTreeMap::new(),
            unwritten: VecDeque::new(),
            unwritten_bytes: 0,
        }
    }

    /// Puts bytes behind those that wait to be written.
    pub(super) fn write(&mut self, bytes: Vec<u8>) {
        self.unwritten_bytes += bytes.len();
        self.unwritten.push_back(bytes.into());
    }

    /// Bytes that wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten_bytes
    }

    /// Ends the control stream in an orderly manner.
    pub(super) fn finish(&mut self) {
        if let Some(control) = self.control {
            let _ = self.connection.send_stream(control).finish();
        }
    }

    /// Ends the control stream, whatever was on its way.
    pub(super) fn reset(&mut self) {
        if let Some(control) = self.control {
            let _ = self.connection.send_stream(control).reset(VarInt::from_u32(7));
        }
    }

    /// Wants nothing more of any stream of the broker, control included.
    pub(super) fn stop(&mut self) {
        for stream in self.decoders.keys() {
            let _ = self.connection.recv_stream(*stream).stop(VarInt::from_u32(7));
        }
    }

    /// Closes the connection with some code of its own.
    pub(super) fn close(&mut self, now: Instant, code: u32) {
        self.connection.close(now, VarInt::from_u32(code), Bytes::from_static(b"enough"));
    }

    /// A datagram for its address.
    pub(super) fn receive(&mut self, now: Instant, bytes: BytesMut) {
        let mut response = Vec::new();
        if let Some(DatagramEvent::ConnectionEvent(_, event)) =
            self.endpoint.handle(now, ADDRESS, None, None, bytes, &mut response)
        {
            self.connection.handle_event(event);
        }
    }

    /// Does everything that can be done now; its datagrams go to `out`.
    pub(super) fn step(&mut self, now: Instant, out: &mut Vec<BytesMut>) {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.exchange_events();
        while let Some(event) = self.connection.poll() {
            self.event(event);
        }
        self.write_some();
        let mut buffer = Vec::new();
        while let Some(transmit) = self.connection.poll_transmit(now, 1, &mut buffer) {
            out.push(BytesMut::from(&buffer[..transmit.size]));
            buffer.clear();
        }
        self.exchange_events();
    }

    fn exchange_events(&mut self) {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                self.control = self.connection.streams().open(Dir::Bi);
                self.decoders.extend(self.control.map(|control| (control, Decoder::new(FRAME_BYTES_MAX))));
                self.is_connected = true;
            }
            Event::ConnectionLost { reason } => self.lost = Some(reason),
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(stream) = self.connection.streams().accept(Dir::Uni) {
                    self.decoders.insert(stream, Decoder::new(FRAME_BYTES_MAX));
                    self.read(stream);
                }
            }
            Event::Stream(StreamEvent::Readable { id }) => self.read(id),
            _ => {}
        }
    }

    fn read(&mut self, stream: StreamId) {
        if self.habits.deaf_window.is_some() {
            return;
        }
        let is_heard = self.habits.hears_all || self.control == Some(stream);
        let mut receiver = self.connection.recv_stream(stream);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let Some(decoder) = self.decoders.get_mut(&stream) else { return };
        while let Ok(Some(chunk)) = chunks.next(CHUNK_BYTES_MAX) {
            if is_heard {
                decoder.push(chunk.bytes);
            }
        }
        let _ = chunks.finalize();
        while let Ok(Some(frame)) = decoder.next_frame() {
            self.heard.push_back(frame);
        }
    }

    fn write_some(&mut self) {
        let Some(control) = self.control else { return };
        let mut room = self.habits.write_bytes_max;
        while room > 0
            && let Some(front) = self.unwritten.front_mut()
        {
            let mut piece = [front.slice(..front.len().min(room))];
            let offered = piece[0].len();
            match self.connection.send_stream(control).write_chunks(&mut piece) {
                Ok(_) => {}
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => {
                    self.unwritten.clear();
                    self.unwritten_bytes = 0;
                    return;
                }
            }
            let written = offered - piece[0].len();
            room -= written;
            self.unwritten_bytes -= written;
            let _ = front.split_to(written);
            if front.is_empty() {
                self.unwritten.pop_front();
            }
            if written == 0 {
                return;
            }
        }
    }
}
