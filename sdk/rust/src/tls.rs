//! TLS 1.3 on ring, for pinned certificates and for roots.

use std::{sync::Arc, time::Duration};

use antiphon_protocol::ALPN;
use quinn::{IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{Error, Result, Trust};

/// QUIC's own keep-alive is the heartbeat; three lost ones end the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const IDLE_MS_MAX: u32 = 30_000;
/// One per class of frames is what the broker opens; the rest is room for later versions.
const BROKER_STREAMS_MAX: u32 = 16;

/// What a QUIC connection is made with, once `adjust` has changed its TLS.
pub(crate) fn quic_config(
    trust: &Trust,
    adjust: impl FnOnce(&mut rustls::ClientConfig),
) -> Result<quinn::ClientConfig> {
    let mut tls = client_config(trust, ALPN)?;
    adjust(&mut tls);
    let quic = QuicClientConfig::try_from(tls).map_err(|error| Error::Trust(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport_config()));
    Ok(config)
}

/// What a WebSocket is made with.
pub(crate) fn websocket_config(trust: &Trust) -> Result<Arc<rustls::ClientConfig>> {
    Ok(Arc::new(client_config(trust, b"http/1.1")?))
}

fn client_config(trust: &Trust, alpn: &[u8]) -> Result<rustls::ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: rustls::Error| Error::Trust(error.to_string());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?;
    let mut tls = match trust {
        Trust::Fingerprint(sha256) => {
            let verifier = PinnedCertificate { sha256: *sha256, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
        Trust::Roots(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(CertificateDer::from(root.as_slice()).into_owned()).map_err(unusable)?;
            }
            builder.with_root_certificates(store).with_no_client_auth()
        }
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    // A client knows one broker; the default cache, for 256 servers, is far larger than the rest of a client.
    tls.resumption = Resumption::in_memory_sessions(8);
    Ok(tls)
}

fn transport_config() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        // Packets of 1,200 bytes pass everywhere (RFC 9000, section 14), and a client seldom fills one. To probe for more would
        // cost each connection a packet of padding and its acknowledgement; the broker, which sends history, does.
        .mtu_discovery_config(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .max_concurrent_uni_streams(VarInt::from_u32(BROKER_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    transport
}

/// Accepts exactly one certificate, whatever its name and dates; the handshake's signature must still be by its key.
#[derive(Debug)]
struct PinnedCertificate {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// The same for a load generator, which counts what it is shown.
#[cfg(feature = "test-hooks")]
pub(crate) fn pinned_certificate(sha256: [u8; 32]) -> Arc<dyn ServerCertVerifier> {
    Arc::new(PinnedCertificate { sha256, provider: Arc::new(ring::default_provider()) })
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, end_entity);
        if digest.as_ref() == self.sha256 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
