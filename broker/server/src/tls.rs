//! Transport security of the QUIC listener: TLS 1.3 only, one application protocol, no early data.
//!
//! The provider (ring) is passed explicitly: another dependency that brings a second one can then neither replace it
//! nor make the process panic for having two. A reload is a new configuration; connections keep the one they began
//! with.

use std::{fs, io, path::PathBuf, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring::Ticketer,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::TLS13,
};
use thiserror::Error;
use zeroize::Zeroizing;

mod edges;
mod expanded;
mod resting;
mod session;
pub(crate) mod validity;

use self::edges::KnownEdges;
pub(crate) use self::resting::let_rest;
pub use self::session::QuicTls;
use crate::{
    config::Config,
    identity::{Identity, fingerprint_of_pem},
};

/// Why there is no usable certificate. The operator is at fault.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{key}: {path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The configuration key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate where one belongs.
    #[error("tls.certificate: expected a PEM file that begins with the server's certificate")]
    Certificate,
    /// No private key where one belongs.
    #[error("tls.key: expected a PEM file with one private key (PKCS #8, PKCS #1 or SEC 1)")]
    Key,
    /// rustls refuses the pair, for instance because the key is another certificate's.
    #[error("tls: certificate and key cannot be used together: {0}")]
    Refused(rustls::Error),
    /// The provider lacks the cipher that QUIC's first packets need.
    #[error("tls: the cryptography provider lacks TLS13_AES_128_GCM_SHA256")]
    InitialCipher,
}

/// A certificate chain and its key, read but not yet checked against each other.
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Reads the certificate that the configuration names, or else the data directory's own, afresh on every call: this is
/// also what a reload calls.
pub fn server_config(config: &Config, identity: &Identity) -> Result<Arc<QuicTls>, TlsError> {
    let material = match &config.tls {
        Some(files) => Material::read_files(files)?,
        None => Material::parse(identity.certificate_pem.as_bytes(), identity.certificate_key_pem())?,
    };
    material.into_quic()
}

/// The same certificate for trunks: their own application protocol, and only for edges that show a certificate which the
/// configuration names or which is the data directory's own.
pub fn trunk_server_config(config: &Config, identity: &Identity) -> Result<Arc<QuicTls>, TlsError> {
    let material = match &config.tls {
        Some(files) => Material::read_files(files)?,
        None => Material::parse(identity.certificate_pem.as_bytes(), identity.certificate_key_pem())?,
    };
    let own = fingerprint_of_pem(identity.edge().certificate_pem.as_bytes());
    let known = config.trunk.clients.iter().cloned().chain(own).collect();
    let verifier = Arc::new(KnownEdges::new(known));
    let tls = material.into_tls_for(antiphon_protocol::TRUNK_ALPN, Some(verifier))?;
    QuicTls::new(tls).map(Arc::new).map_err(|_| TlsError::InitialCipher)
}

/// Whether the named certificate and key can be used; reads both files.
pub fn check_files(files: &crate::config::TlsFiles) -> Result<(), TlsError> {
    Material::read_files(files)?.into_quic().map(drop)
}

impl Material {
    fn read_files(files: &crate::config::TlsFiles) -> Result<Self, TlsError> {
        let read = |key: &'static str, path: &PathBuf| {
            fs::read(path).map_err(|source| TlsError::Unreadable { key, path: path.clone(), source })
        };
        let chain = read("tls.certificate", &files.certificate)?;
        let key = Zeroizing::new(read("tls.key", &files.key)?);
        Self::parse(&chain, &key)
    }

    fn parse(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(TlsError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        Ok(Self { chain, key })
    }

    fn into_quic(self) -> Result<Arc<QuicTls>, TlsError> {
        QuicTls::new(self.into_tls()?).map(Arc::new).map_err(|_| TlsError::InitialCipher)
    }

    fn into_tls(self) -> Result<ServerConfig, TlsError> {
        self.into_tls_for(antiphon_protocol::ALPN, None)
    }

    fn into_tls_for(self, alpn: &[u8], edges: Option<Arc<KnownEdges>>) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(resting::provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Refused)?;
        let resumes = edges.is_none();
        let builder = match edges {
            Some(edges) => builder.with_client_cert_verifier(edges),
            None => builder.with_no_client_auth(),
        };
        let mut tls = builder.with_single_cert(self.chain, self.key).map_err(TlsError::Refused)?;
        tls.alpn_protocols = vec![alpn.to_vec()];
        // Early data can be replayed; QUIC knows only 0 (off) and u32::MAX (on).
        tls.max_early_data_size = 0;
        // A client keeps its session itself: any number of them can resume, and shards share no table. An edge has none: it
        // proves its key at every connection.
        tls.send_tls13_tickets = usize::from(resumes);
        if resumes {
            tls.ticketer = Ticketer::new().map_err(TlsError::Refused)?;
        }
        Ok(tls)
    }
}

#[cfg(test)]
mod tests {
    use rustls::{
        ClientConfig, ClientConnection, Error, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection,
        crypto::ring::default_provider, pki_types::ServerName,
    };

    use super::*;
    use crate::config::{Overrides, TlsFiles};

    fn development_material(identity: &Identity) -> Material {
        Material::parse(identity.certificate_pem.as_bytes(), identity.certificate_key_pem()).unwrap()
    }

    fn client(trusted: &str, alpn: &[u8]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![alpn.to_vec()];
        Arc::new(client)
    }

    /// A whole handshake in memory; the error is the first one of either side.
    fn handshake(
        server: ServerConfig,
        trusted: &str,
        name: &'static str,
        alpn: &[u8],
    ) -> Result<ServerConnection, Error> {
        connect(&Arc::new(server), &client(trusted, alpn), name)
    }

    fn connect(
        server: &Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
        name: &'static str,
    ) -> Result<ServerConnection, Error> {
        let mut client = ClientConnection::new(client.clone(), ServerName::try_from(name).unwrap())?;
        let mut server = ServerConnection::new(server.clone())?;
        while client.is_handshaking() || server.is_handshaking() || server.wants_write() {
            let mut flight = Vec::new();
            client.write_tls(&mut flight).unwrap();
            server.read_tls(&mut flight.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut flight = Vec::new();
            server.write_tls(&mut flight).unwrap();
            client.read_tls(&mut flight.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(server)
    }

    #[test]
    fn the_development_certificate_serves_every_loopback_name() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        for name in ["localhost", "127.0.0.1", "::1"] {
            let server = development_material(&identity).into_tls().unwrap();
            assert_eq!((server.max_early_data_size, server.max_fragment_size), (0, None));
            let done = handshake(server, &identity.certificate_pem, name, b"antiphon/1").unwrap();
            assert_eq!(done.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            assert_eq!(done.alpn_protocol(), Some(&b"antiphon/1"[..]));
        }
        let server = development_material(&identity).into_tls().unwrap();
        assert!(handshake(server, &identity.certificate_pem, "evil.example", b"antiphon/1").is_err());
    }

    #[test]
    fn as_many_clients_as_like_resume_their_sessions() {
        const CLIENTS: usize = 300;
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        let server = Arc::new(development_material(&identity).into_tls().unwrap());
        let clients: Vec<_> = (0..CLIENTS).map(|_| client(&identity.certificate_pem, b"antiphon/1")).collect();
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            for client in &clients {
                assert_eq!(connect(&server, client, "localhost").unwrap().handshake_kind(), Some(kind));
            }
        }
        // A reload is a new configuration, to which the old tickets mean nothing.
        let server = Arc::new(development_material(&identity).into_tls().unwrap());
        let again = connect(&server, &clients[0], "localhost").unwrap();
        assert_eq!(again.handshake_kind(), Some(HandshakeKind::Full));
    }

    #[test]
    fn an_edge_proves_its_key_at_every_connection() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        let edges = Some(Arc::new(KnownEdges::new(std::collections::BTreeSet::new())));
        let trunks = development_material(&identity).into_tls_for(b"antiphon-trunk/1", edges).unwrap();
        assert!(trunks.send_tls13_tickets == 0 && !trunks.ticketer.enabled());
    }

    #[test]
    fn another_application_protocol_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        for alpn in [&b"h3"[..], b"antiphon/2", b"antiphon-trunk/1"] {
            let server = development_material(&identity).into_tls().unwrap();
            let refused = handshake(server, &identity.certificate_pem, "localhost", alpn);
            assert!(matches!(refused, Err(Error::NoApplicationProtocol)), "{refused:?}");
        }
    }

    #[test]
    fn a_reload_reads_the_files_again() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] =
            ["first", "second"].map(|name| Identity::load_or_create(&folder.path().join(name)).unwrap());
        let files = TlsFiles { certificate: folder.path().join("c.pem"), key: folder.path().join("k.pem") };
        let write = |certificate: &Identity, key: &Identity| {
            fs::write(&files.certificate, &certificate.certificate_pem).unwrap();
            fs::write(&files.key, key.certificate_key_pem()).unwrap();
        };
        let mut config = Config::load(None, [], Overrides::default(), 1).unwrap();
        config.tls = Some(files.clone());
        write(&first, &first);
        assert!(server_config(&config, &first).is_ok());
        write(&second, &second);
        let served = Material::read_files(&files).unwrap().into_tls().unwrap();
        assert!(handshake(served, &second.certificate_pem, "localhost", b"antiphon/1").is_ok());
        // The operator replaced one file and not yet the other: refused, so that the caller keeps the old pair.
        write(&first, &second);
        assert!(matches!(server_config(&config, &first), Err(TlsError::Refused(_))));
        fs::remove_file(&files.key).unwrap();
        let error = server_config(&config, &first).err().unwrap().to_string();
        assert!(error.starts_with("tls.key: ") && error.contains("k.pem"), "{error}");
    }

    #[test]
    fn files_that_hold_something_else_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        let (certificate, key) = (identity.certificate_pem.as_bytes(), identity.certificate_key_pem());
        assert!(matches!(Material::parse(b"", key), Err(TlsError::Certificate)));
        assert!(matches!(Material::parse(key, key), Err(TlsError::Certificate)));
        assert!(matches!(Material::parse(certificate, certificate), Err(TlsError::Key)));
        assert!(server_config(&Config::load(None, [], Overrides::default(), 1).unwrap(), &identity).is_ok());
    }
}
