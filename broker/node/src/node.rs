//! The node: datagrams, mail and completions in; datagrams, mail and effects out.

mod sending;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_core::{ConnectionId, Counters, Held, Input, Output, Shard, ShardConfig, ShardId, ShardMessage};
use antiphon_protocol::ErrorCode;
use bytes::Bytes;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Incoming, ServerConfig, StreamEvent, Transmit,
    VarInt,
};

use self::sending::Sending;
use crate::{
    clock::Clock,
    link::{ControlStreamEnded, Link},
    listener::{Datagram, Listener, PerListener},
    timers::Timers,
    transport::{ACCEPTS_PER_TURN, INCOMING_MAX, RETRY_ABOVE, STREAM_RECEIVE_WINDOW},
};

/// How long a connection that is to be closed may take to get its last frames across.
const LINGER: Duration = Duration::from_millis(500);

/// What a node has to know when it starts.
#[derive(Debug)]
pub struct NodeConfig {
    /// The state machine inside.
    pub shard: ShardConfig,
    /// QUIC endpoint; its connection ids must come from [`crate::ConnectionIds`] of the same shard.
    pub endpoint: Arc<EndpointConfig>,
    /// QUIC server for clients, with [`crate::TransportSettings`] applied.
    pub server: Arc<ServerConfig>,
    /// QUIC server for trunks, which asks for a client certificate; `None` refuses them.
    pub trunk_server: Option<Arc<ServerConfig>>,
    /// Seed of quinn-proto's randomness.
    pub seed: [u8; 32],
    /// Whether the socket never fragments, so that larger packets may be probed for.
    pub allow_mtu_discovery: bool,
    /// Connections at most. Full: further handshakes of clients are refused.
    pub connections_max: usize,
    /// Ties instants to the wall clock.
    pub clock: Clock,
}

/// What the transport of a node has done since its boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportCounters {
    /// Handshakes accepted.
    pub accepted: u64,
    /// Handshakes answered with Retry.
    pub retried: u64,
    /// Handshakes refused for want of room.
    pub refused: u64,
    /// Handshakes that wait now.
    pub incoming: u64,
}

/// What the transport of a node holds at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransportHeld {
    /// Connections that QUIC knows, those that are being closed included.
    pub connections: usize,
    /// Connections with the state of their streams.
    pub links: usize,
    /// Moments at which a connection has something due.
    pub timers: usize,
    /// Handshakes, packets without a connection, and effects that wait.
    pub queued: usize,
    /// Entries in the lists of connections to look at.
    pub listed: usize,
}

/// A shard with its QUIC endpoint.
///
/// # Calling contract
///
/// In a turn: feed datagrams, completions, verdicts and mail; call [`turn`](Self::turn) once; perform
/// [`poll_output`](Self::poll_output) until `None`, send [`poll_transmit`](Self::poll_transmit) until `None`, move
/// mail. Then sleep until an input, or [`poll_timeout`](Self::poll_timeout), unless [`has_work`](Self::has_work).
#[derive(Debug)]
pub struct Node {
    shard: Shard,
    endpoint: Endpoint,
    clock: Clock,
    links: Vec<Option<Box<Link>>>,
    generations: Vec<u32>,
    incoming: VecDeque<(Listener, Incoming)>,
    trunk_server: Option<Arc<ServerConfig>>,
    connections_max: usize,
    /// Connections with events to look at or packets to send.
    listed: Vec<usize>,
    /// Connections with packets to send.
    sending: PerListener<Sending>,
    /// Connections of which something was written while requests may have waited for room in their outbox.
    roomy: Vec<ConnectionId>,
    /// Connections whose session does not take input now.
    paused: Vec<usize>,
    /// When connections have something due: packets to send again, an idle connection to end, one to close.
    timers: Timers,
    responses: PerListener<VecDeque<(Transmit, Bytes)>>,
    effects: VecDeque<Output>,
    counters: TransportCounters,
}

impl Node {
    /// A node without connections.
    pub fn new(config: NodeConfig) -> Self {
        let endpoint =
            Endpoint::new(config.endpoint, Some(config.server), config.allow_mtu_discovery, Some(config.seed));
        Self {
            shard: Shard::new(config.shard),
            endpoint,
            clock: config.clock,
            links: Vec::new(),
            generations: Vec::new(),
            incoming: VecDeque::new(),
            trunk_server: config.trunk_server,
            connections_max: config.connections_max,
            listed: Vec::new(),
            sending: PerListener::default(),
            roomy: Vec::new(),
            paused: Vec::new(),
            timers: Timers::new(config.clock.beginning()),
            responses: PerListener::default(),
            effects: VecDeque::new(),
            counters: TransportCounters::default(),
        }
    }

    /// Takes in a UDP datagram.
    pub fn handle_datagram(&mut self, now: Instant, datagram: Datagram) {
        let Datagram { listener, remote, local_ip, ecn, data } = datagram;
        let mut response = Vec::new();
        match self.endpoint.handle(now, remote, local_ip, ecn, data, &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.get_mut(handle.0).and_then(Option::as_mut) {
                    link.quic.handle_event(event);
                    self.list(handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.queue_incoming(listener, incoming),
            Some(DatagramEvent::Response(transmit)) => self.respond(listener, transmit, response),
            None => {}
        }
    }

    fn respond(&mut self, listener: Listener, transmit: Transmit, mut response: Vec<u8>) {
        response.truncate(transmit.size);
        self.responses[listener].push_back((transmit, response.into()));
    }

    /// Lets a handshake wait its turn, asks it to prove its address, or refuses it.
    fn queue_incoming(&mut self, listener: Listener, incoming: Incoming) {
        let mut response = Vec::new();
        let is_refused = match listener {
            Listener::Clients => self.endpoint.open_connections() >= self.connections_max,
            Listener::Trunks => self.trunk_server.is_none(),
        };
        if is_refused || self.incoming.len() >= INCOMING_MAX {
            self.counters.refused += 1;
            let transmit = self.endpoint.refuse(incoming, &mut response);
            self.respond(listener, transmit, response);
        } else if self.incoming.len() >= RETRY_ABOVE && incoming.may_retry() && !incoming.remote_address_validated() {
            self.counters.retried += 1;
            match self.endpoint.retry(incoming, &mut response) {
                Ok(transmit) => self.respond(listener, transmit, response),
                Err(error) => self.endpoint.ignore(error.into_incoming()),
            }
        } else {
            self.incoming.push_back((listener, incoming));
        }
    }

    fn accept_incoming(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some((listener, incoming)) = self.incoming.pop_front() else { return };
            let mut response = Vec::new();
            let server = match listener {
                Listener::Clients => None,
                Listener::Trunks => self.trunk_server.clone(),
            };
            match self.endpoint.accept(incoming, now, &mut response, server) {
                Ok((handle, connection)) => {
                    self.counters.accepted += 1;
                    self.insert(listener, handle, connection, now);
                }
                Err(error) => {
                    if let Some(transmit) = error.response {
                        self.respond(listener, transmit, response);
                    }
                }
            }
        }
    }

    fn insert(
        &mut self,
        listener: Listener,
        handle: ConnectionHandle,
        connection: quinn_proto::Connection,
        now: Instant,
    ) {
        let slot = handle.0;
        if self.links.len() <= slot {
            self.links.resize_with(slot + 1, || None);
            self.generations.resize(slot + 1, 0);
        }
        self.generations[slot] = self.generations[slot].wrapping_add(1);
        let id = ConnectionId { slot: slot as u32, generation: self.generations[slot] };
        self.links[slot] = Some(Box::new(Link::new(connection, id, listener)));
        let opened = match listener {
            Listener::Clients => Input::ConnectionOpened { connection: id },
            Listener::Trunks => Input::TrunkOpened { connection: id },
        };
        self.shard.handle(self.clock.time(now), opened);
        self.list(slot);
    }

    fn list(&mut self, slot: usize) {
        if let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut)
            && !link.is_listed
        {
            link.is_listed = true;
            self.listed.push(slot);
        }
    }

    /// Takes in a completion, a verdict, mail, or the order to drain.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.shard.handle(self.clock.time(now), input);
    }

    /// Does the work of one turn.
    pub fn turn(&mut self, now: Instant) {
        self.accept_incoming(now);
        self.fire_timers(now);
        for listener in [Listener::Clients, Listener::Trunks] {
            self.sending[listener].begin_turn();
        }
        for connection in std::mem::take(&mut self.roomy) {
            self.shard.written(connection);
        }
        for slot in std::mem::take(&mut self.listed) {
            if let Some(link) = self.links[slot].as_mut() {
                link.is_listed = false;
                self.list_sending(slot);
                self.drive(now, slot);
            }
        }
        for slot in std::mem::take(&mut self.paused) {
            if let Some(link) = self.links[slot].as_mut() {
                link.is_paused = false;
            }
            self.read(now, slot);
        }
        self.shard.end_turn(self.clock.time(now));
        self.sort_outputs(now);
        self.counters.incoming = self.incoming.len() as u64;
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(slot) = self.timers.pop(now) {
            let Some(link) = self.links[slot].as_mut() else { continue };
            link.quic.handle_timeout(now);
            if let Some((code, deadline)) = link.closing
                && deadline <= now
            {
                close(link, code, now);
            }
            self.list(slot);
        }
    }

    /// Looks at everything that a connection has to say.
    fn drive(&mut self, now: Instant, slot: usize) {
        loop {
            let Some(link) = self.links[slot].as_mut() else { return };
            let Some(event) = link.quic.poll() else { break };
            match event {
                Event::Stream(StreamEvent::Opened { dir: quinn_proto::Dir::Bi }) => {
                    link.accept_control();
                    self.read(now, slot);
                }
                Event::Stream(StreamEvent::Readable { .. }) => {
                    link.has_unread = true;
                    self.read(now, slot);
                }
                Event::Stream(StreamEvent::Writable { .. }) => _ = self.write(slot),
                Event::Stream(StreamEvent::Finished { id }) => {
                    if let Some((code, _)) = link.closing
                        && link.is_control(id)
                    {
                        close(link, code, now);
                    }
                }
                Event::ConnectionLost { .. } => {
                    let connection = link.id;
                    self.shard.handle(self.clock.time(now), Input::ConnectionClosed { connection });
                }
                Event::Connected => self.read(now, slot),
                Event::HandshakeDataReady | Event::Stream(_) | Event::DatagramReceived | Event::DatagramsUnblocked => {}
            }
        }
        self.pass_endpoint_events(now, slot);
    }

    /// Hands the control stream's bytes to the session, as far as it takes them.
    fn read(&mut self, now: Instant, slot: usize) {
        while let Some(link) = self.links[slot].as_mut().filter(|link| link.may_read()) {
            let connection = link.id;
            if !self.shard.wants_input(connection) {
                // Each packet that comes meanwhile leads here: once in the list is enough.
                if !std::mem::replace(&mut link.is_paused, true) {
                    self.paused.push(slot);
                }
                return;
            }
            match link.read() {
                Ok(chunks) if chunks.is_empty() => return,
                Ok(chunks) => {
                    for bytes in chunks {
                        self.shard.handle(self.clock.time(now), Input::Received { connection, bytes });
                    }
                    if self.shard.is_established(connection) {
                        link.grow_window();
                    }
                    self.list(slot);
                }
                Err(ControlStreamEnded) => {
                    close(link, ErrorCode::Closed, now);
                    self.list(slot);
                    return;
                }
            }
        }
    }

    /// Carries out the outputs that concern connections; the others are the shell's.
    fn sort_outputs(&mut self, now: Instant) {
        while let Some(output) = self.shard.poll_output() {
            match output {
                Output::Close { connection, code } => self.begin_close(now, connection, code),
                other => self.effects.push_back(other),
            }
        }
    }

    /// Lets the last frames arrive, then closes. A connection that its device has replaced is closed at once: most often nobody
    /// is there any more, and frames would be sent again and again until the time is over; who is there hears the code.
    fn begin_close(&mut self, now: Instant, connection: ConnectionId, code: ErrorCode) {
        let slot = connection.slot as usize;
        let Some(link) = self.links.get_mut(slot).and_then(Option::as_mut).filter(|link| link.id == connection) else {
            return;
        };
        if code == ErrorCode::Replaced {
            close(link, code, now);
        } else {
            link.closing = Some((code, now + LINGER));
            if let Some(outbox) = self.shard.outbox_mut(connection) {
                link.write(outbox);
                if outbox.is_empty() {
                    link.finish_control();
                }
            }
        }
        self.list_sending(slot);
    }

    fn pass_endpoint_events(&mut self, now: Instant, slot: usize) {
        let Some(link) = self.links[slot].as_mut() else { return };
        let mut is_drained = false;
        while let Some(event) = link.quic.poll_endpoint_events() {
            is_drained |= event.is_drained();
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(slot), event) {
                link.quic.handle_event(event);
            }
        }
        if is_drained {
            self.remove(now, slot);
        }
    }

    fn remove(&mut self, now: Instant, slot: usize) {
        let Some(link) = self.links[slot].take() else { return };
        self.timers.set(slot, None);
        self.shard.handle(self.clock.time(now), Input::ConnectionClosed { connection: link.id });
    }

    /// The next effect for the shell: a store operation or a token to verify.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.pop_front()
    }

    /// The oldest message for another shard.
    pub fn take_mail(&mut self, to: ShardId) -> Option<ShardMessage> {
        self.shard.take_mail(to)
    }

    /// Puts back the message that was taken last, because the other shard has no room.
    pub fn untake_mail(&mut self, to: ShardId, message: ShardMessage) {
        self.shard.untake_mail(to, message);
    }

    /// Whether another turn has something to do without any further input.
    pub fn has_work(&self) -> bool {
        let is_listed = !self.listed.is_empty() || !self.roomy.is_empty();
        self.shard.has_work() || !self.incoming.is_empty() || is_listed
    }

    /// When the next turn has to be at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let transport = self.timers.next();
        let shard = self.shard.poll_timeout().map(|time| self.clock.instant(time));
        [transport, shard].into_iter().flatten().min()
    }

    /// Takes new certificates for handshakes from now on: for clients, and for trunks if they were accepted before.
    pub fn set_server_configs(&mut self, server: Arc<ServerConfig>, trunk_server: Option<Arc<ServerConfig>>) {
        self.endpoint.set_server_config(Some(server));
        self.trunk_server = self.trunk_server.take().and(trunk_server);
    }

    /// Closes every connection at once, as at the end of a drain.
    pub fn close_all(&mut self, now: Instant) {
        for slot in 0..self.links.len() {
            if let Some(link) = self.links[slot].as_mut() {
                close(link, ErrorCode::Draining, now);
                self.list(slot);
            }
        }
    }

    /// Whether [`Input::Rest`] has been carried out.
    pub fn is_at_rest(&self) -> bool {
        self.shard.is_at_rest()
    }

    /// What the shard inside has done since its boot.
    pub fn counters(&self) -> &Counters {
        self.shard.counters()
    }

    /// Bytes that wait to be written to connections. Looks at every connection.
    pub fn outbox_bytes(&self) -> usize {
        self.shard.outbox_bytes()
    }

    /// What the shard inside holds now. Looks at every connection.
    pub fn held(&self) -> Held {
        self.shard.held()
    }

    /// What the transport holds now.
    pub fn transport_held(&self) -> TransportHeld {
        TransportHeld {
            connections: self.endpoint.open_connections(),
            links: self.links.iter().flatten().count(),
            timers: self.timers.len(),
            queued: self.incoming.len() + self.responses.sum(VecDeque::len) + self.effects.len(),
            listed: self.listed.len() + self.sending.sum(Sending::len) + self.roomy.len() + self.paused.len(),
        }
    }

    /// What the transport has done since its boot.
    pub fn transport_counters(&self) -> &TransportCounters {
        &self.counters
    }
}

/// Closes now. The reason phrase repeats the code's word for tools that show it.
fn close(link: &mut Link, code: ErrorCode, now: Instant) {
    if !link.quic.is_closed() {
        link.quic.close(now, VarInt::from_u32(code as u32), Bytes::from_static(code.code().as_bytes()));
    }
}

const _: () = assert!(STREAM_RECEIVE_WINDOW as usize >= antiphon_protocol::limits::PRE_AUTH_BYTES_MAX);
