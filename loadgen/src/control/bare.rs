//! One publisher, many subscribers, on a bare `quinn-proto` driver: the control that the broker's fan-out is compared to.
//!
//! One thread drives `quinn-proto` with this workspace's socket layer: `recvmmsg` with receive offload, one `sendmmsg`
//! for up to 64 packets to different connections. Each round writes one frame, the broker's EVENT with a row, to one
//! long-lived stream of every connection of a room, and if it is asked to, syncs it to a file before. Certificate type,
//! cipher, transport settings, socket options and the receiving side are the broker's and its load generator's, down to the
//! check of every position, so that what differs is what the broker does besides: receive, decode, order, index,
//! acknowledge, hand out.

use std::{
    collections::VecDeque,
    error::Error,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::sync::SyncFile;
use crate::{
    fanout::SESSIONS_PER_SOCKET,
    follower::{End, Tally, follow},
    loopback::Traffic,
    machine::pin,
    probe::thread_wake_ups,
    wire::{Dialer, FrameReader, KEEP_ALIVE},
};
use antiphon_core::ShardId;
use antiphon_node::{ConnectionIds, Timers, TransportSettings};
use antiphon_protocol::{ALPN, Class, ContentType, EventKind, NewRow, UserId, frames};
use antiphon_sdk::Trust;
use antiphon_sys::{
    cpu::thread_time,
    group::{GroupOptions, SocketGroup},
    poller::{Source, wait},
    udp::{Ecn, PacketArena, Receiver, SendBatch, ShardSocket, Transmit},
};
use bytes::{Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint, Endpoint, EndpointConfig, Event, ServerConfig,
    StreamId, crypto::rustls::QuicServerConfig,
};
use tokio::{sync::watch, task::JoinSet, time::sleep};
use uuid::Uuid;

/// Datagrams taken between two looks at the clock, as the broker's budget.
const RECEIVED_PER_TURN: usize = 64;
/// From the last connection to the first round, and from the last round to the end.
const REST: Duration = Duration::from_millis(500);
/// How often is looked whether all frames have arrived, and how long after the last round at most.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Rooms, whose turn it is one after the other.
    pub rooms: usize,
    /// Receivers of each.
    pub members: usize,
    /// Whether each round is written to a file and synced before it is sent.
    pub synced: bool,
    /// Payload of a frame.
    pub bytes: usize,
    /// Rounds per second.
    pub rate: f64,
    /// Length of the measurement.
    pub seconds: f64,
    /// Rounds before it.
    pub warm_up: f64,
    /// Processor of the driver.
    pub server_core: Option<usize>,
    /// Processor of the receivers.
    pub core: Option<usize>,
}

impl Load {
    /// Receivers of all rooms.
    pub fn receivers(&self) -> usize {
        self.rooms * self.members
    }

    fn rounds(&self) -> u64 {
        (self.seconds * self.rate).round().max(1.0) as u64
    }

    fn warm_up_rounds(&self) -> u64 {
        (self.warm_up * self.rate).round() as u64
    }
}

/// What it cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// CPU time of the driver's thread per frame that arrived.
    pub cpu_us_per_delivery: f64,
    /// Packets sent per frame.
    pub datagrams_out_per_delivery: f64,
    /// Packets received per frame.
    pub datagrams_in_per_delivery: f64,
    /// Times per round that the driver's thread went to sleep.
    pub wake_ups_per_round: f64,
    /// Bytes and packets over loopback per frame, if the kernel says so.
    pub wire_per_delivery: Option<[f64; 2]>,
}

/// Runs the load; an error also if a frame did not arrive.
pub fn measure(load: Load) -> Result<Figures, Box<dyn Error>> {
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.cert.der());
    let trust = Trust::Fingerprint(digest.as_ref().try_into()?);
    let group = SocketGroup::bind(([127, 0, 0, 1], 0).into(), 1, GroupOptions::default())?;
    let (address, socket) = (group.local_addr(), group.socket(0)?);
    let server = server_config(certificate)?;

    let sender = UserId::new("publisher")?;
    let progress = Arc::new(Progress::default());
    let seen = progress.clone();
    let driver = thread::Builder::new().name("bare-driver".into()).spawn(move || -> io::Result<Counts> {
        if let Some(core) = load.server_core {
            pin(core)?;
        }
        Driver::new(socket, server, load, sender, seen)?.run()
    })?;
    if let Some(core) = load.core {
        pin(core)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let received = runtime.block_on(receive(load, address, trust, &progress));
    progress.is_over.store(true, Ordering::Release);
    let counts = driver.join().map_err(|_| "the bare driver panicked")??;
    received?;
    let deliveries = (load.rounds() * load.members as u64) as f64;
    Ok(Figures {
        cpu_us_per_delivery: counts.cpu.as_secs_f64() * 1e6 / deliveries,
        datagrams_out_per_delivery: counts.out as f64 / deliveries,
        datagrams_in_per_delivery: counts.received as f64 / deliveries,
        wake_ups_per_round: counts.wake_ups as f64 / load.rounds() as f64,
        wire_per_delivery: counts.wire.map(|wire| wire.per(deliveries)),
    })
}

fn server_config(certificate: rcgen::CertifiedKey<rcgen::KeyPair>) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key.into())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    TransportSettings::default().apply(&mut server);
    Ok(Arc::new(server))
}

/// What the two threads tell each other.
#[derive(Debug, Default)]
struct Progress {
    /// Frames that arrived, over all receivers.
    tally: Arc<Tally>,
    is_over: AtomicBool,
}

impl Progress {
    fn delivered(&self) -> u64 {
        self.tally.delivered.load(Ordering::Relaxed)
    }
}

/// Connects the receivers and reads until every frame is there.
async fn receive(
    load: Load,
    address: SocketAddr,
    trust: Trust,
    progress: &Arc<Progress>,
) -> Result<(), Box<dyn Error>> {
    let sockets = load.receivers().div_ceil(SESSIONS_PER_SOCKET);
    let dialer = Dialer::new(address, &trust, sockets, KEEP_ALIVE)?;
    let (_plan, no_latencies) = watch::channel(None);
    let (mut connections, mut readers) = (Vec::new(), JoinSet::new());
    for number in 0..load.receivers() {
        let connection = dialer.connect(number).await?;
        let (stream, tally, plan) = (connection.clone(), progress.tally.clone(), no_latencies.clone());
        connections.push(connection);
        readers.spawn(async move {
            let closed = |error: String| End::Closed(error);
            let mut events = match stream.accept_uni().await {
                Ok(stream) => FrameReader::new(stream),
                Err(error) => return closed(error.to_string()),
            };
            match events.next().await {
                Ok(_) => follow(events, 1, plan, tally).await.1,
                Err(error) => closed(error.to_string()),
            }
        });
    }
    let expected = (load.warm_up_rounds() + load.rounds()) * load.members as u64;
    let deadline = Instant::now() + Duration::from_secs_f64(load.seconds + load.warm_up) + PATIENCE;
    while progress.delivered() < expected {
        tokio::select! {
            () = sleep(LOOK) => {}
            Some(reader) = readers.join_next() => return Err(reader?.into()),
        }
        if Instant::now() > deadline {
            return Err("a frame of the bare driver did not arrive".into());
        }
    }
    // Until the driver has read the clock after the last frame.
    sleep(REST).await;
    Ok(())
}

/// What the driver counted between the first round of the measurement and the arrival of its last frame.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    cpu: Duration,
    out: u64,
    received: u64,
    wake_ups: u64,
    wire: Option<Traffic>,
}

struct Peer {
    quic: Connection,
    is_listed: bool,
    stream: Option<StreamId>,
    /// What the window had no room for, the oldest first.
    waiting: VecDeque<Bytes>,
}

impl Peer {
    /// Writes a frame behind those that wait. One whose connection is gone shows as a frame that does not arrive.
    fn write(&mut self, frame: Bytes) {
        self.waiting.push_back(frame);
        self.write_waiting();
    }

    fn write_waiting(&mut self) {
        let Some(stream) = self.stream else { return };
        while let Some(frame) = self.waiting.front_mut() {
            // What is not written stays in its place.
            let written = self.quic.send_stream(stream).write_chunks(std::slice::from_mut(frame));
            if written.is_err() || !frame.is_empty() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

struct Driver {
    socket: ShardSocket,
    endpoint: Endpoint,
    peers: Vec<Option<Peer>>,
    listed: Vec<usize>,
    timers: Timers,
    receiver: Receiver,
    arena: PacketArena,
    batch: SendBatch,
    connected: usize,
    out: u64,
    received: u64,
    load: Load,
    sender: UserId,
    body: Vec<u8>,
    sync: Option<SyncFile>,
    rounds: u64,
    progress: Arc<Progress>,
}

impl Driver {
    fn new(
        socket: ShardSocket,
        server: Arc<ServerConfig>,
        load: Load,
        sender: UserId,
        progress: Arc<Progress>,
    ) -> io::Result<Self> {
        let mut config = EndpointConfig::new(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32])));
        let ids = ConnectionIds::new(ShardId(0), 1, [7; 32], [8; 32]);
        config.cid_generator(move || Box::new(ids.clone()));
        Ok(Self {
            endpoint: Endpoint::new(Arc::new(config), Some(server), !socket.may_fragment(), None),
            socket,
            peers: Vec::new(),
            listed: Vec::new(),
            timers: Timers::new(Instant::now()),
            receiver: Receiver::default(),
            arena: PacketArena::default(),
            batch: SendBatch::default(),
            connected: 0,
            out: 0,
            received: 0,
            sender,
            body: vec![b'x'; load.bytes],
            sync: load.synced.then(SyncFile::make).transpose()?,
            rounds: 0,
            load,
            progress,
        })
    }

    /// Serves handshakes, sends the rounds on schedule, and counts until the last frame has arrived.
    fn run(mut self) -> io::Result<Counts> {
        while self.connected < self.load.receivers() {
            if self.is_over() {
                return Ok(Counts::default());
            }
            self.turn(Instant::now() + REST)?;
        }
        let interval = Duration::from_secs_f64(1.0 / self.load.rate);
        let warm_up = self.load.warm_up_rounds();
        let mut due = Instant::now() + REST;
        for _ in 0..warm_up {
            self.round(due)?;
            due += interval;
        }
        self.turn_until(due + REST, warm_up)?;
        let before = self.counts()?;
        let mut due = Instant::now();
        for _ in 0..self.load.rounds() {
            self.round(due)?;
            due += interval;
        }
        self.turn_until(due + Duration::from_secs(15), warm_up + self.load.rounds())?;
        let after = self.counts()?;
        let counts = Counts {
            cpu: after.cpu.saturating_sub(before.cpu),
            out: after.out - before.out,
            received: after.received - before.received,
            wake_ups: after.wake_ups - before.wake_ups,
            wire: Traffic::between(before.wire, after.wire),
        };
        while !self.is_over() {
            self.turn(Instant::now() + REST)?;
        }
        Ok(counts)
    }

    fn counts(&self) -> io::Result<Counts> {
        let (cpu, wake_ups, wire) = (thread_time(), thread_wake_ups()?, Traffic::read().ok());
        Ok(Counts { cpu, out: self.out, received: self.received, wake_ups, wire })
    }

    fn is_over(&self) -> bool {
        self.progress.is_over.load(Ordering::Acquire)
    }

    /// Works until `due`, then writes one frame to every connection of the room whose turn it is.
    fn round(&mut self, due: Instant) -> io::Result<()> {
        while Instant::now() < due {
            self.turn(due)?;
        }
        let room = (self.rounds % self.load.rooms as u64) as usize;
        let frame = self.next_frame();
        if let Some(file) = &mut self.sync {
            file.append(&frame)?;
        }
        let first = room * self.load.members;
        for slot in first..first + self.load.members {
            let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) else { continue };
            if peer.stream.is_none() {
                peer.stream = peer.quic.streams().open(Dir::Uni);
                peer.write(frames::open(Class::Events));
            }
            peer.write(frame.clone());
            self.list(slot);
        }
        self.transmit(Instant::now())
    }

    /// The frame that a broker would send for the next message, numbered within its room.
    fn next_frame(&mut self) -> Bytes {
        let seq = self.rounds / self.load.rooms as u64 + 1;
        self.rounds += 1;
        let row = NewRow {
            seq,
            msgno: seq,
            time_ms: seq,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id: Uuid::from_u128(seq.into()),
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender: &self.sender,
            via: None,
            envelope: &[],
            body: &self.body,
        };
        frames::new_event(1, &row).0
    }

    /// Works until every connection has got `rounds` frames, at most until `deadline`.
    fn turn_until(&mut self, deadline: Instant, rounds: u64) -> io::Result<()> {
        let expected = rounds * self.load.members as u64;
        while self.progress.delivered() < expected && Instant::now() < deadline {
            self.turn(Instant::now() + Duration::from_millis(5))?;
        }
        Ok(())
    }

    /// Sleeps until there is something to do, at most until `until`, and does it.
    fn turn(&mut self, until: Instant) -> io::Result<()> {
        let due = self.timers.next().map_or(until, |at| until.min(at));
        wait([Source::readable(&self.socket)], Some(due.saturating_duration_since(Instant::now())))?;
        let now = Instant::now();
        while self.receive(now)? == RECEIVED_PER_TURN {}
        while let Some(slot) = self.timers.pop(now) {
            if let Some(peer) = self.peers[slot].as_mut() {
                peer.quic.handle_timeout(now);
            }
            self.list(slot);
        }
        self.transmit(now)
    }

    fn list(&mut self, slot: usize) {
        if let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut)
            && !peer.is_listed
        {
            peer.is_listed = true;
            self.listed.push(slot);
        }
    }

    fn receive(&mut self, now: Instant) -> io::Result<usize> {
        let (arena, mut received) = (&mut self.arena, Vec::new());
        let count = self.receiver.receive(&self.socket, RECEIVED_PER_TURN, |datagram| {
            let ecn = datagram.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
            received.push((datagram.remote, datagram.local_ip, ecn, arena.copy(datagram.payload)));
        })?;
        self.received += count as u64;
        for (remote, local_ip, ecn, data) in received {
            self.handle(now, remote, local_ip, ecn, data);
        }
        Ok(count)
    }

    fn handle(
        &mut self,
        now: Instant,
        remote: SocketAddr,
        local_ip: Option<std::net::IpAddr>,
        ecn: Option<EcnCodepoint>,
        data: BytesMut,
    ) {
        let mut response = Vec::new();
        match self.endpoint.handle(now, remote, local_ip, ecn, data, &mut response) {
            Some(DatagramEvent::ConnectionEvent(ConnectionHandle(slot), event)) => {
                if let Some(peer) = self.peers.get_mut(slot).and_then(Option::as_mut) {
                    peer.quic.handle_event(event);
                    self.list(slot);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                if let Ok((ConnectionHandle(slot), quic)) = self.endpoint.accept(incoming, now, &mut response, None) {
                    self.peers.resize_with(self.peers.len().max(slot + 1), || None);
                    self.peers[slot] = Some(Peer { quic, is_listed: false, stream: None, waiting: VecDeque::new() });
                    self.list(slot);
                }
            }
            // Nobody on this machine sends what needs another response.
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Looks at every listed connection and sends what it has.
    fn transmit(&mut self, now: Instant) -> io::Result<()> {
        for slot in std::mem::take(&mut self.listed) {
            let Some(peer) = self.peers[slot].as_mut() else { continue };
            peer.is_listed = false;
            peer.write_waiting();
            let mut is_drained = false;
            while let Some(event) = peer.quic.poll_endpoint_events() {
                is_drained |= event.is_drained();
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(slot), event) {
                    peer.quic.handle_event(event);
                }
            }
            while let Some(event) = peer.quic.poll() {
                self.connected += usize::from(matches!(event, Event::Connected));
            }
            self.send(slot, now)?;
            if is_drained {
                self.peers[slot] = None;
                self.timers.set(slot, None);
            }
        }
        self.flush()
    }

    fn send(&mut self, slot: usize, now: Instant) -> io::Result<()> {
        let segments = self.socket.max_segments();
        loop {
            if self.batch.is_full() {
                self.flush()?;
            }
            let Some(peer) = self.peers[slot].as_mut() else { return Ok(()) };
            let pushed = self.batch.push_with(|buffer| {
                let transmit = peer.quic.poll_transmit(now, segments, buffer)?;
                buffer.truncate(transmit.size);
                Some(Transmit {
                    destination: transmit.destination,
                    src_ip: transmit.src_ip,
                    ecn: transmit.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                    segment_size: transmit.segment_size,
                })
            });
            if pushed != Ok(true) {
                break;
            }
            self.out += 1;
        }
        let Some(peer) = self.peers[slot].as_mut() else { return Ok(()) };
        self.timers.set(slot, peer.quic.poll_timeout());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.batch.is_empty() {
            self.batch.flush(&self.socket)?;
            if !self.batch.is_empty() {
                wait([Source::readable(&self.socket).or_writable(true)], None)?;
            }
        }
        Ok(())
    }
}
