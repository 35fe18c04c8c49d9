//! What a client keeps while it is away: its token, and the tickets of its TLS sessions unless its process ended.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use antiphon_sdk::Trust;
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// Servers whose tickets a peer's client keeps, as many as the broker's.
pub(crate) const TICKETS_MAX: usize = 8;

/// One client's.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) token: String,
    /// Holds the tickets, if it keeps them.
    pub(crate) quic: Option<quinn::ClientConfig>,
}

impl Kept {
    /// Of a client that has not connected yet, and keeps its tickets, as the SDK's clients do.
    pub(crate) fn with_tickets(
        trust: &Trust,
        token: String,
        handshakes: &FullHandshakes,
    ) -> Result<Self, Box<antiphon_sdk::Error>> {
        let verifier = handshakes.verifier(trust);
        let quic = antiphon_sdk::quic_config_with(trust, |tls| {
            if let Some(verifier) = verifier {
                tls.dangerous().set_certificate_verifier(verifier);
            }
        });
        Ok(Self { token, quic: Some(quic.map_err(Box::new)?) })
    }
}

/// Counts the handshakes in which the server shows its certificate: in those that resume a session it does not.
#[derive(Debug, Clone, Default)]
pub(crate) struct FullHandshakes(Arc<AtomicUsize>);

impl FullHandshakes {
    /// So far.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Trusts one certificate and counts; nothing where the trust is another one.
    fn verifier(&self, trust: &Trust) -> Option<Arc<dyn ServerCertVerifier>> {
        let Trust::Fingerprint(sha256) = *trust else { return None };
        Some(Arc::new(Counting { inner: antiphon_sdk::pinned_certificate(sha256), shown: self.0.clone() }))
    }
}

#[derive(Debug)]
struct Counting {
    inner: Arc<dyn ServerCertVerifier>,
    shown: Arc<AtomicUsize>,
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
        self.shown.fetch_add(1, Ordering::Relaxed);
        self.inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
