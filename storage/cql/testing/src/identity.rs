//! What a cluster shows to clients that speak TLS, made for it alone and gone with it.

use std::{io, net::IpAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

/// File of the root, beside the folders of the nodes.
pub(crate) const ROOT: &str = "ca.pem";
/// File of the nodes' key and certificate, one for all of them.
pub(crate) const IDENTITY: &str = "identity.pem";

/// Makes a root, and below it a certificate for these addresses; writes both. Answers with what trusts them.
pub(crate) fn make(folder: &Path, addresses: &[IpAddr]) -> io::Result<Arc<ClientConfig>> {
    let root_key = KeyPair::generate().map_err(io::Error::other)?;
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).map_err(io::Error::other)?;
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let certificate = CertificateParams::new(names).map_err(io::Error::other)?;
    let certificate = certificate.signed_by(&key, &issuer).map_err(io::Error::other)?;
    std::fs::write(folder.join(ROOT), root_certificate.pem())?;
    std::fs::write(folder.join(IDENTITY), key.serialize_pem() + &certificate.pem())?;
    trusting(root_certificate.der().clone())
}

fn trusting(root: CertificateDer<'static>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(root).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(io::Error::other)?.with_root_certificates(roots);
    Ok(Arc::new(builder.with_no_client_auth()))
}
