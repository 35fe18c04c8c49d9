//! Secrets that a data directory owns: made at the first start, read at every later one.
//!
//! ```text
//! <data>/secrets/                        0700
//!   certificate.pem  certificate.key     the development certificate, self-signed
//!   edge.pem  edge.key                   what this broker's own gateway shows on trunks, self-signed
//!   development.key                      signs development tokens (Ed25519, PKCS #8)
//!   reset.key  connection-id.key         QUIC: stateless resets, connection ids; 32 bytes each
//!   retry.key  resume.key                QUIC retry tokens; sealed resume tokens; 32 bytes each
//!   admin.token                          bearer token of the admin listener, scope admin:write
//! ```
//!
//! Invariants: every file is created 0600 and whole (written aside, synced, linked), never overwritten; a file that
//! others can read, or of the wrong size, stops the start with its name. Deleting a file makes a new secret at the next
//! start. Bytes are erased when dropped and never printed.

use std::{
    fmt::{self, Write as _},
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use antiphon_core::claims::{Abilities, Ability, Grant, GrantPattern};
use antiphon_protocol::{TenantId, UserId};
use quinn_proto::crypto::{HandshakeTokenKey, HmacKey};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd};
use ring::{
    digest::{SHA256, digest},
    hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
    signature::Ed25519KeyPair,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::auth::{IssuerConfig, MintError, Minter, TokenRequest};

/// The tenant of development tokens.
pub const DEVELOPMENT_TENANT: &str = "dev";
/// The issuer name of development tokens.
pub const DEVELOPMENT_ISSUER: &str = "antiphon-development";

/// The secrets of one data directory.
pub struct Identity {
    /// PEM certificate for development, self-signed for localhost, 127.0.0.1 and ::1.
    pub certificate_pem: String,
    /// Its P-256 key, PEM.
    certificate_key_pem: Zeroizing<Vec<u8>>,
    edge: EdgeCertificate,
    /// Makes development tokens.
    minter: Minter,
    reset: SecretKey,
    connection_id: SecretKey,
    retry: SecretKey,
    resume: SecretKey,
    admin_token: AdminToken,
}

/// 32 random bytes. Erased when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// The certificate that an edge shows on trunks, and its key, both PEM. The key is erased when dropped, never printed.
#[derive(Clone)]
pub struct EdgeCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for EdgeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EdgeCertificate({})", fingerprint_of_pem(self.certificate_pem.as_bytes()).unwrap_or_default())
    }
}

/// The bearer token that commands on this machine use towards the admin listener. Erased when dropped, never printed.
#[derive(Clone)]
pub struct AdminToken(Zeroizing<String>);

impl AdminToken {
    /// What a command sends after `Authorization: Bearer `.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether this is the token; takes the same time for every wrong one.
    pub fn is(&self, presented: &str) -> bool {
        // Tags of a key that nobody knows leak nothing about the token, however they are compared.
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_bytes());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, presented.as_bytes()), b"antiphon admin");
        hmac::verify(&key, b"antiphon admin", tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

/// Why a data directory's secrets cannot be used. The operator can mend it.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file system refuses.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Other users can read a secret.
    #[error("{path} is open to other users (mode {mode:04o}); expected 0600 or less", path = path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is not what it should be.
    #[error("{path} is damaged: expected {expected}; delete it to get a new one", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
    },
    /// Nothing could be generated.
    #[error("no secret could be generated: {0}")]
    Generate(&'static str),
}

impl Identity {
    /// Reads the secrets of a data directory, making those that do not exist yet. The caller holds the directory's lock.
    pub fn load_or_create(data_dir: &Path) -> Result<Self, IdentityError> {
        let folder = Folder::open(data_dir.join("secrets"))?;
        let (certificate_pem, certificate_key_pem) = folder.certificate("certificate", "Antiphon development")?;
        let (edge_pem, edge_key_pem) = folder.certificate("edge", "Antiphon edge")?;
        Ok(Self {
            certificate_pem,
            certificate_key_pem,
            edge: EdgeCertificate { certificate_pem: edge_pem, key_pem: edge_key_pem },
            minter: folder.minter()?,
            reset: folder.key("reset.key")?,
            connection_id: folder.key("connection-id.key")?,
            retry: folder.key("retry.key")?,
            resume: folder.key("resume.key")?,
            admin_token: folder.admin_token()?,
        })
    }

    /// The private key of the development certificate, PEM.
    pub fn certificate_key_pem(&self) -> &[u8] {
        &self.certificate_key_pem
    }

    /// What a gateway on this machine shows on trunks.
    pub fn edge(&self) -> &EdgeCertificate {
        &self.edge
    }

    /// Signs development tokens.
    pub fn minter(&self) -> &Minter {
        &self.minter
    }

    /// The issuer that accepts development tokens, for the tenant `dev` only.
    pub fn development_issuer(&self) -> IssuerConfig {
        self.minter.issuer(vec![development_tenant()])
    }

    /// Authenticates stateless resets, so that they work after a restart.
    pub fn reset_key(&self) -> Arc<dyn HmacKey> {
        Arc::new(hmac::Key::new(hmac::HMAC_SHA256, self.reset.as_bytes()))
    }

    /// Seals QUIC retry and validation tokens, for every shard alike.
    pub fn retry_token_key(&self) -> Arc<dyn HandshakeTokenKey> {
        Arc::new(hkdf::Salt::new(hkdf::HKDF_SHA256, b"antiphon retry").extract(self.retry.as_bytes()))
    }

    /// Keys the check inside connection ids.
    pub fn connection_id_key(&self) -> &SecretKey {
        &self.connection_id
    }

    /// Seals resume tokens.
    pub fn resume_key(&self) -> &SecretKey {
        &self.resume
    }

    /// Opens the admin listener's write side to commands that can read the data directory.
    pub fn admin_token(&self) -> &AdminToken {
        &self.admin_token
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", fingerprint_of_pem(self.certificate_pem.as_bytes()).unwrap_or_default())
    }
}

/// The tenant of development tokens.
pub fn development_tenant() -> TenantId {
    // Invariant: the constant is a valid id; a test reads it.
    TenantId::new(DEVELOPMENT_TENANT).unwrap_or_else(|_| unreachable!("`dev` is a valid id"))
}

/// The token that a development user gets: the rights that make `c:lobby` usable without anything being created.
pub fn development_request(user: UserId) -> TokenRequest {
    let lobby = GrantPattern::new("c:lobby")
        .map(|on| Grant { on, can: Abilities::NONE.with(Ability::Read).with(Ability::Send).with(Ability::Signal) });
    TokenRequest { grants: lobby.into_iter().collect(), ..TokenRequest::user(development_tenant(), user) }
}

/// SHA-256 of a certificate (DER), in hex: what clients pin in development.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(digest(&SHA256, certificate).as_ref())
}

/// [`fingerprint`] of the first certificate of a PEM text.
pub fn fingerprint_of_pem(pem: &[u8]) -> Option<String> {
    CertificateDer::from_pem_slice(pem).ok().map(|certificate| fingerprint(&certificate))
}

/// The admin token of a data directory, for commands that talk to a running broker. Never makes one.
pub fn read_admin_token(data_dir: &Path) -> Result<AdminToken, IdentityError> {
    let path = data_dir.join("secrets").join("admin.token");
    let token = read_secret(&path)?.ok_or_else(|| IdentityError::Io {
        path: path.clone(),
        source: io::Error::new(io::ErrorKind::NotFound, "no broker has started with this data directory yet"),
    })?;
    parse_admin_token(&path, &token)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The folder `secrets`.
struct Folder(PathBuf);

impl Folder {
    fn open(path: PathBuf) -> Result<Self, IdentityError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|source| IdentityError::Io { path: path.clone(), source })?;
        Ok(Self(path))
    }

    fn certificate(&self, name: &str, common_name: &str) -> Result<(String, Zeroizing<Vec<u8>>), IdentityError> {
        let (name, key_name) = (format!("{name}.pem"), format!("{name}.key"));
        let (path, key_path) = (self.0.join(&name), self.0.join(&key_name));
        // The key goes first: a certificate is on disk only with its key, whatever a crash leaves behind.
        let key_pem = self.load_or_create(&key_name, || {
            let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
            let pair = pair.map_err(|_| IdentityError::Generate("a P-256 key"))?;
            Ok(Zeroizing::new(pair.serialize_pem().into_bytes()))
        })?;
        let damaged_key = || IdentityError::Damaged { path: key_path.clone(), expected: "a PEM private key" };
        let key_text = std::str::from_utf8(&key_pem).map_err(|_| damaged_key())?;
        let pair = KeyPair::from_pem(key_text).map_err(|_| damaged_key())?;
        let pem = self.load_or_create(&name, || self_signed(&pair, common_name))?;
        let damaged = || IdentityError::Damaged { path: path.clone(), expected: "a PEM certificate" };
        let pem = String::from_utf8(pem.to_vec()).map_err(|_| damaged())?;
        fingerprint_of_pem(pem.as_bytes()).ok_or_else(damaged)?;
        Ok((pem, key_pem))
    }

    fn minter(&self) -> Result<Minter, IdentityError> {
        let pkcs8 = self.load_or_create("development.key", || {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
            let document = document.map_err(|_| IdentityError::Generate("an Ed25519 key"))?;
            Ok(Zeroizing::new(document.as_ref().to_vec()))
        })?;
        Minter::new(DEVELOPMENT_ISSUER, "development", &pkcs8).map_err(|error| match error {
            MintError::Key => {
                let path = self.0.join("development.key");
                IdentityError::Damaged { path, expected: "an Ed25519 key in PKCS #8" }
            }
            _ => IdentityError::Generate("another library has installed its own token cryptography"),
        })
    }

    fn key(&self, name: &str) -> Result<SecretKey, IdentityError> {
        let bytes = self.load_or_create(name, || random(32))?;
        let damaged = |_| IdentityError::Damaged { path: self.0.join(name), expected: "32 bytes" };
        bytes.as_slice().try_into().map(SecretKey).map_err(damaged)
    }

    fn admin_token(&self) -> Result<AdminToken, IdentityError> {
        let create = || Ok(Zeroizing::new(format!("{}\n", hex(&random(32)?)).into_bytes()));
        parse_admin_token(&self.0.join("admin.token"), &self.load_or_create("admin.token", create)?)
    }

    fn load_or_create(
        &self,
        name: &str,
        create: impl FnOnce() -> Result<Zeroizing<Vec<u8>>, IdentityError>,
    ) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let path = self.0.join(name);
        if let Some(bytes) = read_secret(&path)? {
            return Ok(bytes);
        }
        let bytes = create()?;
        self.write_whole(name, &bytes).map_err(|source| IdentityError::Io { path, source })?;
        Ok(bytes)
    }

    /// Writes aside, syncs, then links under the final name: a crash leaves the whole file or none.
    fn write_whole(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = self.0.join(format!("{name}.new"));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&aside, self.0.join(name))?;
        fs::remove_file(&aside)?;
        fs::File::open(&self.0)?.sync_all()
    }
}

/// The contents of a secret file, `None` if it does not exist; an error if others can read it.
fn read_secret(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, IdentityError> {
    let failed = |source| IdentityError::Io { path: path.to_owned(), source };
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    fs::read(path).map(|bytes| Some(Zeroizing::new(bytes))).map_err(failed)
}

fn parse_admin_token(path: &Path, bytes: &[u8]) -> Result<AdminToken, IdentityError> {
    let text = std::str::from_utf8(bytes).map(str::trim_ascii_end).unwrap_or_default();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(IdentityError::Damaged { path: path.to_owned(), expected: "64 hexadecimal digits" });
    }
    Ok(AdminToken(Zeroizing::new(text.to_owned())))
}

fn random(length: usize) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let mut bytes = Zeroizing::new(vec![0; length]);
    SystemRandom::new().fill(&mut bytes).map_err(|_| IdentityError::Generate("random bytes"))?;
    Ok(bytes)
}

fn self_signed(pair: &KeyPair, common_name: &str) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
    let failed = |_| IdentityError::Generate("a certificate");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).map_err(failed)?;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Clients pin the fingerprint, so the dates only have to hold for as long as anyone may keep the directory.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    let certificate = params.self_signed(pair).map_err(failed)?;
    Ok(Zeroizing::new(certificate.pem().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILES: [&str; 10] = [
        "admin.token",
        "certificate.key",
        "certificate.pem",
        "connection-id.key",
        "development.key",
        "edge.key",
        "edge.pem",
        "reset.key",
        "resume.key",
        "retry.key",
    ];

    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(folder.join("secrets")).unwrap().map(|entry| entry.unwrap());
        let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        let mut files: Vec<_> = entries.map(read).collect();
        files.sort();
        files
    }

    #[test]
    fn secrets_are_made_once_and_reused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(folder.path()).unwrap();
        let written = files(folder.path());
        let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, FILES);
        let second = Identity::load_or_create(folder.path()).unwrap();
        assert_eq!(files(folder.path()), written);
        assert_eq!(first.certificate_pem, second.certificate_pem);
        assert_eq!(first.connection_id.as_bytes(), second.connection_id.as_bytes());
        assert_eq!(first.admin_token().reveal(), second.admin_token().reveal());
        assert_eq!(read_admin_token(folder.path()).unwrap().reveal(), first.admin_token().reveal());
    }

    #[test]
    fn every_secret_differs_between_directories() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Identity::load_or_create(one.path()).unwrap();
        Identity::load_or_create(two.path()).unwrap();
        for ((name, first), (_, second)) in files(one.path()).iter().zip(files(two.path())) {
            assert_ne!(*first, second, "{name}");
        }
    }

    #[test]
    fn files_are_private_and_an_open_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Identity::load_or_create(folder.path()).unwrap();
        let secrets = folder.path().join("secrets");
        assert_eq!(fs::metadata(&secrets).unwrap().mode() & 0o777, 0o700);
        for name in FILES {
            let path = secrets.join(name);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "{name}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let error = Identity::load_or_create(folder.path()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("0640"), "{error}");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        for name in FILES {
            let folder = tempfile::tempdir().unwrap();
            Identity::load_or_create(folder.path()).unwrap();
            let path = folder.path().join("secrets").join(name);
            fs::write(&path, b"torn").unwrap();
            let error = Identity::load_or_create(folder.path()).unwrap_err();
            assert!(matches!(&error, IdentityError::Damaged { path: named, .. } if *named == path), "{name}: {error}");
            assert_eq!(fs::read(&path).unwrap(), b"torn");
        }
    }

    #[test]
    fn a_crash_while_writing_leaves_no_half_secret() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = folder.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        for name in FILES {
            fs::write(secrets.join(format!("{name}.new")), b"half").unwrap();
        }
        Identity::load_or_create(folder.path()).unwrap();
        assert_eq!(files(folder.path()).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), FILES);
    }

    #[test]
    fn a_deleted_secret_comes_back_new() {
        let folder = tempfile::tempdir().unwrap();
        let before = Identity::load_or_create(folder.path()).unwrap();
        fs::remove_file(folder.path().join("secrets/admin.token")).unwrap();
        assert!(read_admin_token(folder.path()).is_err());
        let after = Identity::load_or_create(folder.path()).unwrap();
        assert!(!after.admin_token().is(before.admin_token().reveal()));
    }

    #[test]
    fn the_admin_token_is_compared_whole() {
        let token = AdminToken(Zeroizing::new("a".repeat(64)));
        assert!(token.is(&"a".repeat(64)));
        for wrong in ["", "a", &"a".repeat(63), &"a".repeat(65), &"A".repeat(64)] {
            assert!(!token.is(wrong), "{wrong}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(folder.path()).unwrap();
        let printed = format!("{identity:?} {:?} {:?}", identity.admin_token(), identity.resume_key());
        assert!(!printed.contains(identity.admin_token().reveal()));
        assert!(!printed.contains(&hex(identity.resume_key().as_bytes())));
        assert_eq!(printed.split(' ').nth(1), Some("AdminToken"));
    }

    #[test]
    fn the_fingerprint_is_sha256_of_the_certificate() {
        assert_eq!(hex(&[0, 0x0f, 0xa0, 0xff]), "000fa0ff");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(fingerprint(&CertificateDer::from(Vec::new())), empty);
        assert_eq!(fingerprint_of_pem(b"none"), None);
    }

    #[test]
    fn development_tokens_are_for_their_own_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Identity::load_or_create(folder.path()).unwrap().development_issuer();
        assert_eq!(issuer.policy.tenants, [development_tenant()]);
    }
}
