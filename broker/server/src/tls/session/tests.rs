//! Two QUIC endpoints in memory and in virtual time, the client with quinn-proto's own session.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    Incoming, StreamId,
    crypto::{ClientConfig as _, ServerConfig as _, rustls::QuicClientConfig},
};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};

use super::*;
use crate::tls::{
    let_rest,
    resting::{kept_packet_keys, provider},
};

const QUIC_V1: u32 = 1;

/// Counts the certificates that it looks at: none is shown when a session is resumed.
#[derive(Debug)]
struct Counting {
    inner: Arc<WebPkiServerVerifier>,
    looked_at: AtomicUsize,
}

impl ServerCertVerifier for Counting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.looked_at.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Both sides' TLS, with a certificate for `localhost`; the server's protocol is `test/1`.
fn tls(client_protocol: &[u8]) -> (Arc<QuicTls>, Arc<QuicClientConfig>, Arc<Counting>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let mut server = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"test/1".to_vec()];

    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let ring = Arc::new(default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&ring)).build().unwrap();
    let verifier = Arc::new(Counting { inner, looked_at: AtomicUsize::new(0) });
    let mut client = rustls::ClientConfig::builder_with_provider(ring)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_no_client_auth();
    client.alpn_protocols = vec![client_protocol.to_vec()];
    let client = QuicClientConfig::try_from(client).unwrap();
    (Arc::new(QuicTls::new(server).unwrap()), Arc::new(client), verifier)
}

/// One side.
struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    incoming: Option<Incoming>,
    is_connected: bool,
    lost: Option<ConnectionError>,
    heard: Vec<u8>,
}

impl End {
    fn new(server: Option<Arc<quinn_proto::ServerConfig>>) -> Self {
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), server, false, None);
        Self { endpoint, connection: None, incoming: None, is_connected: false, lost: None, heard: Vec::new() }
    }

    fn quic(&mut self) -> &mut Connection {
        &mut self.connection.as_mut().unwrap().1
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, packet: BytesMut) -> Option<Vec<u8>> {
        let mut response = Vec::new();
        match self.endpoint.handle(now, from, None, None, packet, &mut response)? {
            DatagramEvent::ConnectionEvent(_, event) => self.quic().handle_event(event),
            DatagramEvent::NewConnection(incoming) => self.incoming = Some(incoming),
            DatagramEvent::Response(transmit) => return Some(response[..transmit.size].to_vec()),
        }
        None
    }

    fn accept(&mut self, now: Instant) {
        let incoming = self.incoming.take().unwrap();
        self.connection = Some(self.endpoint.accept(incoming, now, &mut Vec::new(), None).ok().unwrap());
    }

    /// Looks at what happened, and takes what is to be sent.
    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let Some((handle, connection)) = &mut self.connection else { return Vec::new() };
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                _ => {}
            }
        }
        while let Some(stream) = connection.streams().accept(Dir::Uni) {
            let mut stream = connection.recv_stream(stream);
            let mut chunks = stream.read(true).unwrap();
            while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
                self.heard.extend_from_slice(&chunk.bytes);
            }
            let _ = chunks.finalize();
        }
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        let mut packets = Vec::new();
        let mut buffer = Vec::new();
        while let Some(transmit) = connection.poll_transmit(now, 1, &mut buffer) {
            packets.push(buffer[..transmit.size].to_vec());
            buffer.clear();
        }
        packets
    }

    fn say(&mut self, words: &'static [u8]) {
        let stream: StreamId = self.quic().streams().open(Dir::Uni).unwrap();
        let mut stream = self.quic().send_stream(stream);
        assert_eq!(stream.write_chunks(&mut [Bytes::from_static(words)]).unwrap().bytes, words.len());
        stream.finish().unwrap();
    }
}

struct Pair {
    now: Instant,
    server: End,
    client: End,
    /// Answers new clients with Retry.
    retries: bool,
}

const SERVER: &str = "127.0.0.1:4433";
const CLIENT: &str = "127.0.0.1:5000";

impl Pair {
    fn new(server: Arc<QuicTls>, client: Arc<QuicClientConfig>) -> Self {
        let server = End::new(Some(Arc::new(quinn_proto::ServerConfig::with_crypto(server))));
        let mut pair = Self { now: Instant::now(), server, client: End::new(None), retries: false };
        let config = ClientConfig::new(client);
        let remote = SERVER.parse().unwrap();
        pair.client.connection = Some(pair.client.endpoint.connect(pair.now, config, remote, "localhost").unwrap());
        pair
    }

    /// Carries packets until neither side has any more to send, delayed acknowledgements included.
    fn run(&mut self) {
        self.carry();
        self.wait(Duration::from_millis(30));
    }

    fn carry(&mut self) {
        let (server, client) = (SERVER.parse().unwrap(), CLIENT.parse().unwrap());
        let mut to_server = VecDeque::from(self.client.turn(self.now));
        let mut to_client = VecDeque::from(self.server.turn(self.now));
        while !to_server.is_empty() || !to_client.is_empty() {
            for packet in to_server.drain(..) {
                to_client.extend(self.server.receive(self.now, client, packet[..].into()));
                if self.server.incoming.is_some() {
                    self.meet(&mut to_client);
                }
            }
            for packet in to_client.drain(..) {
                self.client.receive(self.now, server, packet[..].into());
            }
            to_server.extend(self.client.turn(self.now));
            to_client.extend(self.server.turn(self.now));
        }
    }

    fn meet(&mut self, to_client: &mut VecDeque<Vec<u8>>) {
        if self.retries && self.server.incoming.as_ref().is_some_and(Incoming::may_retry) {
            let incoming = self.server.incoming.take().unwrap();
            let mut retry = Vec::new();
            let transmit = self.server.endpoint.retry(incoming, &mut retry).ok().unwrap();
            to_client.push_back(retry[..transmit.size].to_vec());
        } else {
            self.server.accept(self.now);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in [&mut self.client, &mut self.server] {
            end.quic().handle_timeout(self.now);
        }
        self.carry();
    }

    /// Each side says something to the other.
    fn talk(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            end.heard.clear();
            end.say(b"hello");
        }
        self.run();
        assert_eq!((&self.client.heard[..], &self.server.heard[..]), (&b"hello"[..], &b"hello"[..]));
    }

    fn assert_connected(&self) {
        assert!(self.client.is_connected && self.server.is_connected, "{:?} {:?}", self.client.lost, self.server.lost);
    }
}

#[test]
fn a_handshake_is_let_go_when_it_is_over() {
    let (server, client, _) = tls(b"test/1");
    let mut pair = Pair::new(server, client);
    for packet in pair.client.turn(pair.now) {
        pair.server.receive(pair.now, CLIENT.parse().unwrap(), packet[..].into());
    }
    pair.server.accept(pair.now);
    let session = pair.server.quic().crypto_session();
    let data = session.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok()).unwrap();
    assert_eq!((data.protocol.as_deref(), data.server_name.as_deref()), (Some(&b"test/1"[..]), Some("localhost")));
    assert!(session.is_handshaking() && session.transport_parameters().unwrap().is_some());

    pair.run();
    pair.assert_connected();
    let session = pair.server.quic().crypto_session();
    assert!(!session.is_handshaking() && session.handshake_data().is_none());
    assert_eq!(session.transport_parameters(), Ok(None));
    pair.talk();
}

#[test]
fn a_client_proves_its_address_by_retry() {
    let (server, client, _) = tls(b"test/1");
    let mut pair = Pair::new(server, client);
    pair.retries = true;
    pair.run();
    pair.assert_connected();
    pair.talk();
}

#[test]
fn a_client_resumes_its_session_without_a_certificate() {
    let (server, client, certificates) = tls(b"test/1");
    for _ in 0..2 {
        let mut pair = Pair::new(server.clone(), client.clone());
        pair.run();
        pair.assert_connected();
        pair.talk();
    }
    assert_eq!(certificates.looked_at.load(Ordering::Relaxed), 1);
}

/// A handshake without QUIC around it, as far as it comes.
fn shake_hands(client_protocol: &[u8]) -> Result<[Box<dyn crypto::Session>; 2], TransportError> {
    let (server, client, _) = tls(client_protocol);
    let params = TransportParameters::read(Side::Client, &mut &b""[..]).unwrap();
    let mut client = client.start_session(QUIC_V1, "localhost", &params).unwrap();
    let mut server = server.start_session(QUIC_V1, &params);
    while client.is_handshaking() || server.is_handshaking() {
        pass(&mut *client, &mut *server)?;
        pass(&mut *server, &mut *client)?;
    }
    pass(&mut *server, &mut *client)?;
    Ok([client, server])
}

fn pass(from: &mut dyn crypto::Session, to: &mut dyn crypto::Session) -> Result<(), TransportError> {
    loop {
        let mut bytes = Vec::new();
        let keys = from.write_handshake(&mut bytes);
        if keys.is_none() && bytes.is_empty() {
            return Ok(());
        }
        if !bytes.is_empty() {
            to.read_handshake(&bytes)?;
        }
    }
}

#[test]
fn a_client_without_the_protocol_is_told_so() {
    let refused = shake_hands(b"test/2").err().unwrap();
    assert_eq!(refused.code, TransportErrorCode::crypto(AlertDescription::NoApplicationProtocol.into()));
}

#[test]
fn a_client_that_goes_on_talking_tls_is_told_that_nothing_was_expected() {
    const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];
    for bytes in [KEY_UPDATE, &KEY_UPDATE[..1]] {
        let [_, mut server] = shake_hands(b"test/1").unwrap();
        let refused = server.read_handshake(bytes).err().unwrap();
        assert_eq!(refused.code, TransportErrorCode::crypto(AlertDescription::UnexpectedMessage.into()));
    }
}

#[test]
fn both_sides_derive_the_same_keys_for_every_update() {
    let [mut client, mut server] = shake_hands(b"test/1").unwrap();
    let mut seen = Vec::new();
    for number in 0..4 {
        let (ours, theirs) = (server.next_1rtt_keys().unwrap(), client.next_1rtt_keys().unwrap());
        for (local, remote) in [(&ours.local, &theirs.remote), (&theirs.local, &ours.remote)] {
            let mut packet = [b"header-hello".as_slice(), &[0; 16]].concat();
            local.encrypt(number, &mut packet, 7);
            assert!(!seen.contains(&packet), "a key was used again");
            seen.push(packet.clone());
            let mut sealed = BytesMut::from(&packet[7..]);
            assert!(remote.decrypt(number + 1, &packet[..7], &mut sealed.clone()).is_err());
            remote.decrypt(number, &packet[..7], &mut sealed).unwrap();
            assert_eq!(&sealed[..], b"hello");
        }
    }
}

#[test]
fn keys_are_updated_by_either_side_and_expanded_only_then() {
    let (server, client, _) = tls(b"test/1");
    let mut pair = Pair::new(server, client);
    pair.run();
    for round in 0..6 {
        // So long are the keys before an update kept at least.
        pair.wait(Duration::from_secs(5));
        // What was not used since the first call rests after the second.
        (0..2).for_each(|_| let_rest());
        assert_eq!(kept_packet_keys(), 0);
        pair.talk();
        assert_eq!(kept_packet_keys(), 2, "one for each direction, before update {round}");
        let updating = if round % 2 == 0 { &mut pair.client } else { &mut pair.server };
        updating.quic().force_key_update();
        pair.talk();
        assert!(kept_packet_keys() > 2, "after update {round}");
    }
    assert_eq!((&pair.client.lost, &pair.server.lost), (&None, &None));
}
