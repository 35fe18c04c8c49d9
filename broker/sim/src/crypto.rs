//! QUIC without cryptography, for `quinn-proto`: the same handshake flights and keys per level as TLS, none of the cost.
//!
//! ```text
//! client                         server
//! HELLO (ALPN, name, params) ->                      Initial
//!                            <-  HELLO (nonce)       Initial
//!                            <-  ACCEPT (ALPN, params)  Handshake
//! FINISHED                   ->                      Handshake, then 1-RTT
//! ```
//!
//! Invariants: everything is a function of the bytes exchanged, so a run repeats byte for byte; a packet that was
//! damaged, belongs to another connection, level or key phase, fails its tag and is dropped, as under TLS. Deliberately
//! absent: secrecy, certificates, 0-RTT.

use std::{any::Any, io::Cursor, sync::Arc};

use bytes::{Buf, BytesMut};
use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{self, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion},
    transport_parameters::TransportParameters,
};

use crate::digest::digest;

/// Bytes that a tag adds to a packet, as under TLS.
const TAG_BYTES: usize = 16;
/// TLS alert: no protocol in common.
const NO_APPLICATION_PROTOCOL: u8 = 120;
/// TLS alert: a message out of its order.
const UNEXPECTED_MESSAGE: u8 = 10;
/// TLS alert: a message that cannot be read.
const DECODE_ERROR: u8 = 50;

/// Either side's settings: the application protocols that it speaks, in order of preference.
#[derive(Debug, Clone)]
pub(crate) struct NullCrypto {
    protocols: Vec<Vec<u8>>,
}

impl NullCrypto {
    /// Speaks these application protocols.
    pub(crate) fn new(protocols: &[&[u8]]) -> Arc<Self> {
        Arc::new(Self { protocols: protocols.iter().map(|protocol| protocol.to_vec()).collect() })
    }
}

/// What a finished handshake agreed on; the content of `handshake_data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HandshakeData {
    /// The application protocol.
    pub(crate) protocol: Vec<u8>,
    /// The name that the client asked for; nothing at the client.
    pub(crate) server_name: Option<String>,
}

impl crypto::ClientConfig for NullCrypto {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let mut session = NullSession::new(Side::Client, self.protocols.clone(), params);
        session.server_name = server_name.to_owned();
        Ok(Box::new(session))
    }
}

impl crypto::ServerConfig for NullCrypto {
    fn initial_keys(&self, _version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(initial_keys(dst_cid, Side::Server))
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(orig_dst_cid, &[packet])
    }

    fn start_session(self: Arc<Self>, _version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        Box::new(NullSession::new(Side::Server, self.protocols.clone(), params))
    }
}

/// Seals what an endpoint gives out and wants back unchanged: reset tokens, address validation tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NullSeal(pub(crate) u64);

impl crypto::HmacKey for NullSeal {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.fill(0);
        let tag = digest(self.0, &[data]);
        let len = tag.len().min(signature_out.len());
        signature_out[..len].copy_from_slice(&tag[..len]);
    }

    fn signature_len(&self) -> usize {
        TAG_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if digest(self.0, &[data]) == *signature { Ok(()) } else { Err(CryptoError) }
    }
}

impl crypto::HandshakeTokenKey for NullSeal {
    fn aead_from_hkdf(&self, random_bytes: &[u8]) -> Box<dyn crypto::AeadKey> {
        Box::new(Self(word(&digest(self.0, &[random_bytes]))))
    }
}

impl crypto::AeadKey for NullSeal {
    fn seal(&self, data: &mut Vec<u8>, additional_data: &[u8]) -> Result<(), CryptoError> {
        let tag = digest(self.0, &[data, additional_data]);
        data.extend_from_slice(&tag);
        Ok(())
    }

    fn open<'a>(&self, data: &'a mut [u8], additional_data: &[u8]) -> Result<&'a mut [u8], CryptoError> {
        let len = data.len().checked_sub(TAG_BYTES).ok_or(CryptoError)?;
        let (data, tag) = data.split_at_mut(len);
        if digest(self.0, &[data, additional_data]) == *tag { Ok(data) } else { Err(CryptoError) }
    }
}

/// How far a handshake is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Client: HELLO is to be written.
    Start,
    /// The peer's HELLO is awaited.
    AwaitHello,
    /// The peer's HELLO was read; keys of the handshake follow.
    HelloRead,
    /// Server: ACCEPT is to be written. Client: it is awaited.
    Handshake,
    /// Client: ACCEPT was read; FINISHED is to be written. Server: FINISHED is awaited.
    Finish,
    /// Both sides agree.
    Done,
}

struct NullSession {
    side: Side,
    stage: Stage,
    protocols: Vec<Vec<u8>>,
    server_name: String,
    protocol: Option<Vec<u8>>,
    own_params: Vec<u8>,
    peer_params: Option<TransportParameters>,
    /// Everything exchanged so far.
    transcript: u64,
    /// Of the 1-RTT keys that come next.
    secret: u64,
    received: BytesMut,
}

impl NullSession {
    fn new(side: Side, protocols: Vec<Vec<u8>>, params: &TransportParameters) -> Self {
        let mut own_params = Vec::new();
        params.write(&mut own_params);
        let stage = if side.is_client() { Stage::Start } else { Stage::AwaitHello };
        Self {
            side,
            stage,
            protocols,
            server_name: String::new(),
            protocol: None,
            own_params,
            peer_params: None,
            transcript: 0,
            secret: 0,
            received: BytesMut::new(),
        }
    }

    fn absorb(&mut self, bytes: &[u8]) {
        self.transcript = word(&digest(self.transcript, &[bytes]));
    }

    fn write_message(&mut self, fields: &[&[u8]], out: &mut Vec<u8>) {
        let body: Vec<u8> = fields.iter().flat_map(|field| [&len_bytes(field)[..], field].concat()).collect();
        self.absorb(&body);
        out.extend_from_slice(&len_bytes(&body));
        out.extend_from_slice(&body);
    }

    /// Reads one whole message of the peer; whether it brought the handshake's data.
    fn read_message(&mut self, body: &[u8]) -> Result<bool, TransportError> {
        let mut rest = body;
        match (self.side, self.stage) {
            (Side::Server, Stage::AwaitHello) => {
                let name = field(&mut rest)?;
                self.server_name = String::from_utf8(name.to_vec()).map_err(|_| decode_error())?;
                self.read_params(field(&mut rest)?)?;
                let offered: Vec<&[u8]> = std::iter::from_fn(|| field(&mut rest).ok()).collect();
                let chosen = self.protocols.iter().find(|protocol| offered.contains(&&protocol[..]));
                self.protocol = Some(chosen.cloned().ok_or_else(no_protocol)?);
                self.stage = Stage::HelloRead;
            }
            (Side::Client, Stage::AwaitHello) => self.stage = Stage::HelloRead,
            (Side::Client, Stage::Handshake) => {
                self.protocol = Some(field(&mut rest)?.to_vec());
                self.read_params(field(&mut rest)?)?;
                self.stage = Stage::Finish;
            }
            (Side::Server, Stage::Finish) => self.stage = Stage::Done,
            _ => return Err(alert(UNEXPECTED_MESSAGE, "a message of the handshake out of its order")),
        }
        // FINISHED comes after the keys are made on both sides.
        if self.stage != Stage::Done {
            self.absorb(body);
        }
        Ok(matches!(self.stage, Stage::HelloRead | Stage::Finish) && self.protocol.is_some())
    }

    fn read_params(&mut self, params: &[u8]) -> Result<(), TransportError> {
        self.peer_params = Some(TransportParameters::read(self.side, &mut Cursor::new(params))?);
        Ok(())
    }

    fn next_secret(&mut self) -> u64 {
        self.secret = word(&digest(self.secret, &[b"next"]));
        self.secret
    }
}

impl crypto::Session for NullSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let protocol = self.protocol.clone()?;
        let server_name = self.side.is_server().then(|| self.server_name.clone());
        Some(Box::new(HandshakeData { protocol, server_name }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.stage != Stage::Done
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.received.extend_from_slice(buf);
        let mut data_ready = false;
        while let Some((len, rest)) = self.received.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*len));
            if rest.len() < len {
                break;
            }
            self.received.advance(2);
            let body = self.received.split_to(len);
            data_ready |= self.read_message(&body)?;
        }
        Ok(data_ready)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        Ok(self.peer_params)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        match (self.side, self.stage) {
            (Side::Client, Stage::Start) => {
                let (name, params) = (self.server_name.clone(), self.own_params.clone());
                let protocols = self.protocols.clone();
                let mut fields = vec![name.as_bytes(), &params];
                fields.extend(protocols.iter().map(|protocol| &protocol[..]));
                self.write_message(&fields, buf);
                self.stage = Stage::AwaitHello;
                None
            }
            (side, Stage::HelloRead) => {
                if side.is_server() {
                    let nonce = digest(0, &[&self.own_params]);
                    self.write_message(&[&nonce], buf);
                }
                self.stage = Stage::Handshake;
                Some(level_keys(self.transcript, side))
            }
            (Side::Server, Stage::Handshake) => {
                let (protocol, params) = (self.protocol.clone().unwrap_or_default(), self.own_params.clone());
                self.write_message(&[&protocol, &params], buf);
                self.secret = self.transcript;
                self.stage = Stage::Finish;
                Some(level_keys(self.next_secret(), Side::Server))
            }
            (Side::Client, Stage::Finish) => {
                self.secret = self.transcript;
                self.write_message(&[], buf);
                self.stage = Stage::Done;
                Some(level_keys(self.next_secret(), Side::Client))
            }
            _ => None,
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let secret = self.next_secret();
        Some(level_keys(secret, self.side).packet)
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((payload, tag)) = payload.split_last_chunk::<TAG_BYTES>() else { return false };
        retry_tag(orig_dst_cid, &[header, payload]) == *tag
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        for (block, chunk) in output.chunks_mut(TAG_BYTES).enumerate() {
            let bytes = digest(self.secret, &[label, context, &block.to_le_bytes()]);
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        Ok(())
    }
}

/// Proves that a packet belongs to this connection, level, direction and key phase, and is whole.
struct NullPacketKey(u64);

impl PacketKey for NullPacketKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        // quinn-proto leaves room for the tag behind the payload.
        let (content, tag) = buf.split_at_mut(buf.len() - TAG_BYTES);
        let (header, payload) = content.split_at(header_len);
        tag.copy_from_slice(&digest(self.0 ^ packet, &[header, payload]));
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        let len = payload.len().checked_sub(TAG_BYTES).ok_or(CryptoError)?;
        if digest(self.0 ^ packet, &[header, &payload[..len]]) != payload[len..] {
            return Err(CryptoError);
        }
        payload.truncate(len);
        Ok(())
    }

    fn tag_len(&self) -> usize {
        TAG_BYTES
    }

    fn confidentiality_limit(&self) -> u64 {
        u64::MAX
    }

    fn integrity_limit(&self) -> u64 {
        u64::MAX
    }
}

/// Leaves headers as they are.
struct NullHeaderKey;

impl HeaderKey for NullHeaderKey {
    fn decrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn encrypt(&self, _pn_offset: usize, _packet: &mut [u8]) {}

    fn sample_size(&self) -> usize {
        // As under TLS, so that packets have the same lengths.
        TAG_BYTES
    }
}

fn initial_keys(dst_cid: &ConnectionId, side: Side) -> Keys {
    level_keys(word(&digest(1, &[dst_cid])), side)
}

fn level_keys(secret: u64, side: Side) -> Keys {
    let of = |direction: &[u8]| word(&digest(secret, &[direction]));
    let (client, server) = (of(b"client"), of(b"server"));
    let (local, remote) = if side.is_client() { (client, server) } else { (server, client) };
    Keys {
        header: KeyPair { local: Box::new(NullHeaderKey), remote: Box::new(NullHeaderKey) },
        packet: KeyPair { local: Box::new(NullPacketKey(local)), remote: Box::new(NullPacketKey(remote)) },
    }
}

fn retry_tag(orig_dst_cid: &ConnectionId, packet: &[&[u8]]) -> [u8; TAG_BYTES] {
    digest(word(&digest(2, &[orig_dst_cid])), &[&packet.concat()])
}

fn word(digest: &[u8; TAG_BYTES]) -> u64 {
    digest.iter().rev().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Fields are names, protocols and parameters; all far below 64 KiB.
fn len_bytes(field: &[u8]) -> [u8; 2] {
    (field.len() as u16).to_be_bytes()
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], TransportError> {
    let (len, tail) = rest.split_first_chunk::<2>().ok_or_else(decode_error)?;
    let len = usize::from(u16::from_be_bytes(*len));
    let field = tail.get(..len).ok_or_else(decode_error)?;
    *rest = &tail[len..];
    Ok(field)
}

fn decode_error() -> TransportError {
    alert(DECODE_ERROR, "a message of the handshake cannot be read")
}

fn no_protocol() -> TransportError {
    alert(NO_APPLICATION_PROTOCOL, "no application protocol in common")
}

fn alert(code: u8, reason: &str) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(code), frame: None, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests;
