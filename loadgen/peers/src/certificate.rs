//! One certificate for all contenders, and a client that trusts it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::CertificateDer};
use tempfile::TempDir;
use thiserror::Error;

/// The host that it names.
pub const HOST: &str = "localhost";

/// A certificate with a P-256 key, in files that go away with it.
#[derive(Debug)]
pub struct Certificate {
    home: TempDir,
    der: CertificateDer<'static>,
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// It cannot be made.
    #[error("the certificate cannot be made")]
    Make(#[from] rcgen::Error),
    /// It cannot be written.
    #[error("the certificate cannot be written")]
    Write(#[from] io::Error),
    /// It cannot be trusted.
    #[error("the certificate cannot be used")]
    Use(#[from] rustls::Error),
}

impl Certificate {
    /// Makes one.
    pub fn make() -> Result<Self, CertificateError> {
        // The library's default is a P-256 key.
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()])?;
        let home = tempfile::Builder::new().prefix("antiphon-peers-").tempdir()?;
        let certificate = Self { home, der: made.cert.der().clone() };
        std::fs::write(certificate.chain(), made.cert.pem())?;
        std::fs::write(certificate.key(), made.signing_key.serialize_pem())?;
        Ok(certificate)
    }

    /// The certificate, PEM.
    pub fn chain(&self) -> PathBuf {
        self.file("certificate.pem")
    }

    /// Its private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.file("key.pem")
    }

    fn file(&self, name: &str) -> PathBuf {
        let home: &Path = self.home.path();
        home.join(name)
    }

    /// A client of TLS 1.3 that trusts it alone. It offers AES-256-GCM only, which is what QUIC connections here agree on:
    /// left to themselves, servers choose different ciphers.
    pub fn client(&self) -> Result<Arc<ClientConfig>, CertificateError> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone())?;
        let suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_256_GCM_SHA384];
        let provider = CryptoProvider { cipher_suites: suites, ..rustls::crypto::ring::default_provider() };
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(client))
    }
}
