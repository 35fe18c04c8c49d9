//! TLS of a trunk: the broker is known by fingerprint or by chain, and this edge shows its certificate.

use std::{sync::Arc, time::Duration};

use antiphon_protocol::TRUNK_ALPN;
use quinn::{IdleTimeout, TransportConfig, VarInt, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::{BrokerSettings, Fingerprint};
use crate::GatewayError;

/// Three lost ones end a trunk.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
const IDLE_MS_MAX: u32 = 10_000;
/// Bytes that the broker may send ahead on one stream, and on all.
const STREAM_WINDOW: u32 = 4 << 20;
const WINDOW: u32 = 12 << 20;

/// What every trunk of a gateway connects with.
pub(crate) fn client_config(broker: &BrokerSettings) -> Result<quinn::ClientConfig, GatewayError> {
    let unusable = |error: rustls::Error| GatewayError::Credentials(error.to_string());
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?;
    let builder = match broker.fingerprint.clone() {
        Some(fingerprint) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinnedCertificate { fingerprint, provider }))
        }
        None => {
            let mut roots = RootCertStore::empty();
            for root in &broker.roots {
                roots.add(CertificateDer::from(root.as_slice()).into_owned()).map_err(unusable)?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(broker.certificate_pem.as_bytes()).collect();
    let no_certificate = || GatewayError::Credentials("the edge's certificate is not a PEM certificate".into());
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(no_certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&broker.key_pem)
        .map_err(|_| GatewayError::Credentials("the edge's key is not a PEM private key".into()))?;
    let mut tls = builder.with_client_auth_cert(chain, key).map_err(unusable)?;
    tls.alpn_protocols = vec![TRUNK_ALPN.to_vec()];
    let quic = QuicClientConfig::try_from(tls).map_err(|error| GatewayError::Credentials(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .max_concurrent_uni_streams(VarInt::from_u32(16))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(WINDOW.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// Accepts exactly one certificate, whatever its name and dates; the handshake's signature must still be by its key.
#[derive(Debug)]
struct PinnedCertificate {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, end_entity);
        if self.fingerprint.is(digest.as_ref()) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
