//! TLS inside QUIC that lets go of its handshake.
//!
//! The session that comes with quinn-proto keeps all of the handshake, about 4 KiB, for as long as the connection lives.
//! A server needs none of it once the client's Finished is read and the tickets are written: the client has nothing more
//! to say in TLS (RFC 9001, section 6 forbids it even to update its keys that way), and keys are updated from secrets
//! that QUIC has been given. So what stays is those secrets.

use std::{any::Any, fmt, io::Cursor, sync::Arc};

use quinn_proto::{
    ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig as _, UnsupportedVersion,
        rustls::{HandshakeData, NoInitialCipherSuite, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};
use rustls::{
    AlertDescription, ServerConfig,
    quic::{KeyChange, Secrets, ServerConnection, Version},
};

/// TLS for a QUIC server: a configuration and the sessions that are begun with it.
pub struct QuicTls {
    tls: Arc<ServerConfig>,
    /// Keys of the first packets and tags of Retry, which depend on no session.
    initial: QuicServerConfig,
}

impl QuicTls {
    /// Takes a configuration for TLS 1.3 into use. An error means that its provider lacks the cipher of QUIC's first packets.
    pub fn new(tls: ServerConfig) -> Result<Self, NoInitialCipherSuite> {
        let tls = Arc::new(tls);
        Ok(Self { initial: Arc::clone(&tls).try_into()?, tls })
    }
}

impl fmt::Debug for QuicTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTls").field("tls", &self.tls).finish_non_exhaustive()
    }
}

impl crypto::ServerConfig for QuicTls {
    fn initial_keys(&self, version: u32, first_id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.initial.initial_keys(version, first_id)
    }

    fn retry_tag(&self, version: u32, first_id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.initial.retry_tag(version, first_id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut encoded = Vec::new();
        params.write(&mut encoded);
        // It is refused for what no configuration with a cipher for QUIC has; then the client's first bytes are, too.
        let tls = ServerConnection::new(Arc::clone(&self.tls), tls_version(version), encoded).ok();
        let handshake = tls.map(|tls| Box::new(Handshake { tls, has_data: false }));
        Box::new(Session { config: self, version, handshake, next: None })
    }
}

/// Drafts 29 to 32 of QUIC differ from version 1 in their labels. Others than those have no initial keys.
fn tls_version(version: u32) -> Version {
    match version {
        0xff00_001d..=0xff00_0020 => Version::V1Draft,
        _ => Version::V1,
    }
}

struct Handshake {
    tls: ServerConnection,
    /// Whether it is known what the client asks for.
    has_data: bool,
}

/// The TLS session of one connection.
struct Session {
    config: Arc<QuicTls>,
    version: u32,
    /// Until it is over.
    handshake: Option<Box<Handshake>>,
    /// What the keys of the next key update are derived from, once there are keys.
    next: Option<Secrets>,
}

impl Session {
    /// Lets go of the handshake once nothing can come of it any more.
    fn settle(&mut self) {
        let is_over = self.handshake.as_ref().is_some_and(|handshake| !handshake.tls.is_handshaking());
        if is_over && self.next.is_some() {
            self.handshake = None;
        }
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, first_id: &ConnectionId, side: Side) -> Keys {
        debug_assert!(side.is_server());
        // Invariant: a session is begun only for a version that has initial keys.
        match self.config.initial.initial_keys(self.version, first_id) {
            Ok(keys) => keys,
            Err(UnsupportedVersion) => unreachable!("a session of an unsupported version"),
        }
    }

    /// What the client asked for, a [`HandshakeData`]; `None` again once the handshake is over.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let Handshake { tls, .. } = self.handshake.as_deref().filter(|handshake| handshake.has_data)?;
        let protocol = tls.alpn_protocol().map(Into::into);
        Some(Box::new(HandshakeData { protocol, server_name: tls.server_name().map(Into::into) }))
    }

    /// The certificates that the client showed, a `Vec` of them; `None` again once the handshake is over.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let certificates = self.handshake.as_ref()?.tls.peer_certificates()?;
        let owned: Vec<_> = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Box::new(owned))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        let keys = self.handshake.as_ref()?.tls.zero_rtt_keys()?;
        Some((Box::new(keys.header), Box::new(keys.packet)))
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.handshake.as_ref().is_some_and(|handshake| handshake.tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let Some(Handshake { tls, has_data }) = self.handshake.as_deref_mut() else {
            return Err(alert(AlertDescription::UnexpectedMessage, "nothing of TLS follows the handshake".into()));
        };
        if let Err(error) = tls.read_hs(bytes) {
            return Err(match tls.alert() {
                Some(description) => alert(description, error.to_string()),
                None => TransportError {
                    code: TransportErrorCode::PROTOCOL_VIOLATION,
                    frame: None,
                    reason: format!("TLS error: {error}"),
                },
            });
        }
        let is_known = tls.alpn_protocol().is_some() || tls.server_name().is_some() || !tls.is_handshaking();
        Ok(is_known && !std::mem::replace(has_data, is_known))
    }

    /// What the client said of itself; `None` again once the handshake is over.
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let params = self.handshake.as_ref().and_then(|handshake| handshake.tls.quic_transport_parameters());
        let read = params.map(|params| TransportParameters::read(Side::Server, &mut Cursor::new(params)));
        Ok(read.transpose()?)
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let change = self.handshake.as_mut()?.tls.write_hs(out);
        let keys = match change {
            Some(KeyChange::Handshake { keys }) => keys,
            Some(KeyChange::OneRtt { keys, next }) => {
                self.next = Some(next);
                keys
            }
            None => {
                self.settle();
                return None;
            }
        };
        let (local, remote) = (keys.local, keys.remote);
        Some(Keys {
            header: KeyPair { local: Box::new(local.header), remote: Box::new(remote.header) },
            packet: KeyPair { local: Box::new(local.packet), remote: Box::new(remote.packet) },
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    /// Only clients are sent Retry.
    fn is_valid_retry(&self, _: &ConnectionId, _: &[u8], _: &[u8]) -> bool {
        false
    }

    /// The broker exports nothing, so the secret for it is not kept.
    fn export_keying_material(&self, _: &mut [u8], _: &[u8], _: &[u8]) -> Result<(), ExportKeyingMaterialError> {
        Err(ExportKeyingMaterialError)
    }
}

fn alert(description: AlertDescription, reason: String) -> TransportError {
    TransportError { code: TransportErrorCode::crypto(description.into()), frame: None, reason }
}

#[cfg(test)]
mod tests;
