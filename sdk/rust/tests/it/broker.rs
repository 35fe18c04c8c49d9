//! Just enough of a broker to exercise the SDK's tasks, streams and flow control. It never refuses anything.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use antiphon_protocol::{
    ALPN, Class, ContentType, Decoder, EventKind, FrameType, NewRow, RawFrame, Row, UserId,
    control::{self, subscribe},
    frames::{self, Ack, Page, Send},
    limits::FRAME_BYTES_MAX,
};
use antiphon_sdk::Trust;
use bytes::Bytes;
use quinn::{Connection, Endpoint, SendStream, crypto::rustls::QuicServerConfig};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;
use uuid::Uuid;

const HANDLE: u32 = 1;
const PAGE_ROWS: usize = 100;
const INLINE_ROWS: u64 = 64;

pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    certificate: Vec<u8>,
    state: Arc<Mutex<State>>,
    /// Every frame that clients have sent, in order.
    seen: mpsc::UnboundedReceiver<FrameType>,
}

#[derive(Default)]
struct State {
    rows: Vec<Row>,
    /// Positions by `client_message_id`.
    sent: BTreeMap<Uuid, u64>,
    /// Writers of the connections that follow the log.
    live: BTreeMap<usize, mpsc::UnboundedSender<(Class, Bytes)>>,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let (saw, seen) = mpsc::unbounded_channel();
        tokio::spawn(accept(endpoint, state.clone(), saw));
        Self { address, certificate: certificate.to_vec(), state, seen }
    }

    pub(crate) fn pin(&self) -> Trust {
        let digest = ring::digest::digest(&ring::digest::SHA256, &self.certificate);
        Trust::Fingerprint(digest.as_ref().try_into().unwrap())
    }

    pub(crate) fn root(&self) -> Trust {
        Trust::Roots(vec![self.certificate.clone()])
    }

    /// Appends somebody else's events.
    pub(crate) fn append(&self, count: usize, body_bytes: usize) {
        let mut state = lock(&self.state);
        for _ in 0..count {
            state.append(Uuid::nil(), &vec![b'x'; body_bytes]);
        }
    }

    /// Waits until a client sends a frame of this type, and forgets those before it.
    pub(crate) async fn saw(&mut self, frame_type: FrameType) {
        while self.seen.recv().await.expect("the broker runs") != frame_type {}
    }

    /// How many frames of this type have come since the last look, of those not waited for.
    pub(crate) fn count(&mut self, frame_type: FrameType) -> usize {
        std::iter::from_fn(|| self.seen.try_recv().ok()).filter(|seen| *seen == frame_type).count()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}

impl State {
    fn append(&mut self, client_message_id: Uuid, body: &[u8]) -> Row {
        let seq = self.rows.len() as u64 + 1;
        let row = NewRow {
            seq,
            msgno: seq,
            time_ms: seq,
            event_id: Uuid::from_u128(seq.into()),
            client_message_id,
            kind: EventKind::MESSAGE,
            content_type: ContentType::Text,
            sender: &UserId::new("ann").unwrap(),
            via: None,
            envelope: b"",
            body,
        }
        .to_row();
        self.rows.push(row.clone());
        self.live.retain(|_, writer| writer.send((Class::Events, frames::event(HANDLE, &row))).is_ok());
        row
    }
}

async fn accept(endpoint: Endpoint, state: Arc<Mutex<State>>, saw: mpsc::UnboundedSender<FrameType>) {
    while let Some(incoming) = endpoint.accept().await {
        let (state, saw) = (state.clone(), saw.clone());
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                serve(connection.clone(), state.clone(), saw).await;
                lock(&state).live.remove(&connection.stable_id());
            }
        });
    }
}

async fn serve(connection: Connection, state: Arc<Mutex<State>>, saw: mpsc::UnboundedSender<FrameType>) {
    let Ok((answers, mut requests)) = connection.accept_bi().await else { return };
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let (control, control_rx) = mpsc::unbounded_channel();
    let (other, other_rx) = mpsc::unbounded_channel();
    tokio::spawn(write_control(answers, control_rx));
    tokio::spawn(write_streams(connection.clone(), other_rx));
    while let Ok(Some(chunk)) = requests.read_chunk(1 << 16, true).await {
        decoder.push(chunk.bytes);
        while let Some(frame) = decoder.next_frame().unwrap() {
            let mut state = lock(&state);
            for (class, bytes) in answer(&mut state, &frame) {
                let sent =
                    if class == Class::Control { control.send((class, bytes)) } else { other.send((class, bytes)) };
                sent.unwrap();
            }
            match frame.frame_type {
                FrameType::Subscribe => drop(state.live.insert(connection.stable_id(), other.clone())),
                FrameType::Unsubscribe => drop(state.live.remove(&connection.stable_id())),
                _ => {}
            }
            // The test may have seen enough.
            let _ = saw.send(frame.frame_type);
        }
    }
}

async fn write_control(mut stream: SendStream, mut frames: mpsc::UnboundedReceiver<(Class, Bytes)>) {
    while let Some((_, bytes)) = frames.recv().await {
        if stream.write_chunk(bytes).await.is_err() {
            return;
        }
    }
}

async fn write_streams(connection: Connection, mut frames: mpsc::UnboundedReceiver<(Class, Bytes)>) {
    let mut streams: BTreeMap<Class, SendStream> = BTreeMap::new();
    while let Some((class, bytes)) = frames.recv().await {
        let stream = match streams.entry(class) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(vacant) => {
                let Ok(mut stream) = connection.open_uni().await else { return };
                if stream.write_chunk(frames::open(class)).await.is_err() {
                    return;
                }
                vacant.insert(stream)
            }
        };
        if stream.write_chunk(bytes).await.is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, frame: &RawFrame) -> Vec<(Class, Bytes)> {
    let id = frame.id;
    let (class, bytes) = match frame.frame_type {
        FrameType::Hello => {
            let welcome = control::Welcome {
                version: 1,
                resume_token: Bytes::from_static(b"resume"),
                server_time_ms: 1_700_000_000_000,
                user: "ann".into(),
                ..Default::default()
            };
            (Class::Control, frames::control(FrameType::Welcome, id, &welcome))
        }
        FrameType::Subscribe => return subscribe(state, frame),
        FrameType::Fetch => (Class::Backfill, fetch(state, frame)),
        FrameType::Send => {
            let send = Send::decode(&frame.body).unwrap();
            let key = send.client_message_id;
            let duplicate = state.sent.contains_key(&key);
            if !duplicate {
                let seq = state.append(key, &send.body).seq();
                state.sent.insert(key, seq);
            }
            let row = &state.rows[state.sent[&key] as usize - 1];
            (Class::Control, Ack::of(row, 1, duplicate).to_frame(id))
        }
        FrameType::ConversationCreate => {
            let create: control::ConversationCreate = frames::decode_request(&frame.body).unwrap();
            let conversation = control::Conversation {
                conversation: create.conversation,
                members: create.members,
                created: true,
                ..Default::default()
            };
            (Class::Control, frames::control(FrameType::Ok, id, &conversation))
        }
        FrameType::Bye => {
            let error = control::Error { number: 5004, code: "closed".into(), ..Default::default() };
            (Class::Control, frames::control(FrameType::Error, 0, &error))
        }
        FrameType::Signal => return Vec::new(),
        _ => (Class::Control, frames::raw(FrameType::Ok, id, &[])),
    };
    vec![(class, bytes)]
}

fn subscribe(state: &State, frame: &RawFrame) -> Vec<(Class, Bytes)> {
    let body: control::Subscribe = frames::decode_request(&frame.body).unwrap();
    let live_from = state.rows.len() as u64 + 1;
    let replay_from = match body.from.unwrap() {
        subscribe::From::Tail(_) => live_from,
        subscribe::From::Last(rows) => live_from.saturating_sub(rows.into()).max(1),
        subscribe::From::After(position) => position.seq + 1,
    };
    let inlined = live_from - replay_from <= INLINE_ROWS;
    let attach = control::Attach {
        handle: HANDLE,
        log: body.log,
        epoch: 1,
        live_from,
        replay_from,
        inlined,
        head: live_from - 1,
        floor: 1,
        ..Default::default()
    };
    let mut out = vec![(Class::Events, frames::control(FrameType::Attach, frame.id, &attach))];
    if inlined {
        out.extend(
            state.rows[replay_from as usize - 1..].iter().map(|row| (Class::Events, frames::event(HANDLE, row))),
        );
    }
    out
}

fn fetch(state: &State, frame: &RawFrame) -> Bytes {
    let body: control::Fetch = frames::decode_request(&frame.body).unwrap();
    let head = state.rows.len() as u64;
    let from = body.from.max(1);
    let to = if body.to == 0 { head + 1 } else { body.to };
    let upto = to.min(from + PAGE_ROWS as u64);
    let rows = state.rows[from as usize - 1..upto as usize - 1].to_vec();
    Page { next: if upto < to { upto } else { 0 }, head, floor: 1, epoch: 1, rows }.to_frame(frame.id)
}
