//! Signs the access tokens of a run: one service that makes the conversations, and one user per participant.
//!
//! The key is an Ed25519 private key that the broker trusts: the development key of its data directory
//! (`<data>/secrets/development.key`), or that of an issuer in its configuration. Never printed.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Args;
use ring::signature::Ed25519KeyPair;
use serde_json::{Value, json};
use thiserror::Error;

/// Lifetime of every token; a run is shorter.
const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Who signs, and for which tenant.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct IssuerArgs {
    /// Issuer that the broker trusts.
    #[arg(long = "token-issuer", value_name = "NAME", default_value = "antiphon-development")]
    pub issuer: String,
    /// Id of the key under which the broker knows it.
    #[arg(long = "token-key-id", value_name = "ID", default_value = "development")]
    pub key_id: String,
    /// Tenant of all users of the run.
    #[arg(long, value_name = "TENANT", default_value = "dev")]
    pub tenant: String,
}

impl IssuerArgs {
    /// The issuer of a broker in development mode.
    pub fn development() -> Self {
        Self { issuer: "antiphon-development".into(), key_id: "development".into(), tenant: "dev".into() }
    }
}

/// Why tokens cannot be signed.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The key file is absent or not readable.
    #[error("token key {path} cannot be read")]
    Read {
        /// The file that was named.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another kind of key, or none.
    #[error("token key {0} is not an Ed25519 private key in PKCS #8, DER or PEM")]
    Key(PathBuf),
}

/// Signs tokens.
pub struct TokenSigner {
    issuer: IssuerArgs,
    key: Ed25519KeyPair,
}

impl fmt::Debug for TokenSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSigner({:?})", self.issuer)
    }
}

impl TokenSigner {
    /// Reads a private key in PKCS #8, DER or PEM.
    pub fn read(path: &Path, issuer: IssuerArgs) -> Result<Self, TokenError> {
        let bytes = fs::read(path).map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        let der = if bytes.starts_with(b"-----BEGIN") { pem_body(&bytes) } else { Some(bytes) };
        let key = der.and_then(|der| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok());
        let key = key.ok_or_else(|| TokenError::Key(path.to_owned()))?;
        Ok(Self { issuer, key })
    }

    /// The token of an ordinary user, issued at `now` after 1970.
    pub fn user(&self, user: &str, now: Duration) -> String {
        self.sign(user, now, &json!({ "v": 1, "tenant": self.issuer.tenant, "kind": "user" }))
    }

    /// The token of a user who may read a log whoever is a member of it.
    pub fn reader(&self, user: &str, log: &str, now: Duration) -> String {
        let grants = json!([{ "on": log, "can": ["read"] }]);
        self.sign(user, now, &json!({ "v": 1, "tenant": self.issuer.tenant, "kind": "user", "grants": grants }))
    }

    /// The token of a back end that may make conversations in the name of users and read their whole history.
    pub fn service(&self, name: &str, now: Duration) -> String {
        let claim = json!({
            "v": 1,
            "tenant": self.issuer.tenant,
            "kind": "service",
            "grants": [{ "on": "c:*", "can": ["read", "send", "manage"] }],
            "scopes": ["act_as"],
        });
        self.sign(name, now, &claim)
    }

    fn sign(&self, subject: &str, now: Duration, claim: &Value) -> String {
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": self.issuer.key_id });
        let payload = json!({
            "iss": self.issuer.issuer,
            "aud": "antiphon",
            "sub": subject,
            "iat": now.as_secs(),
            "exp": (now + LIFETIME).as_secs(),
            "jti": format!("{subject}-{}", now.as_nanos()),
            "antiphon": claim,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&payload));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn pem_body(pem: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(pem).ok()?;
    let body: String = text.lines().skip(1).take_while(|line| !line.starts_with("-----END")).map(str::trim).collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use ring::{
        rand::SystemRandom,
        signature::{ED25519, KeyPair, UnparsedPublicKey},
    };

    use super::*;

    fn issuer() -> IssuerArgs {
        IssuerArgs { issuer: "i".into(), key_id: "k".into(), tenant: "t".into() }
    }

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn key() -> Vec<u8> {
        Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref().to_vec()
    }

    #[test]
    fn a_token_verifies_and_says_who_bears_it() {
        let signer = TokenSigner::read(file(&key()).path(), issuer()).unwrap();
        let token = signer.user("ann", Duration::from_secs(1_000));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let public = UnparsedPublicKey::new(&ED25519, signer.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let payload: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((&payload["sub"], &payload["exp"]), (&json!("ann"), &json!(87_400)));
        assert_eq!(payload["antiphon"], json!({ "v": 1, "tenant": "t", "kind": "user" }));
    }

    #[test]
    fn the_same_key_is_read_from_der_and_pem() {
        let der = key();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(&der));
        let token = |bytes: &[u8]| {
            let signer = TokenSigner::read(file(bytes).path(), issuer()).unwrap();
            signer.service("loadgen", Duration::from_secs(5))
        };
        assert_eq!(token(&der), token(pem.as_bytes()));
    }

    #[test]
    fn other_files_are_refused_and_keys_not_printed() {
        let wrong = TokenSigner::read(file(b"-----BEGIN nothing").path(), issuer());
        assert!(matches!(wrong, Err(TokenError::Key(_))));
        assert!(matches!(TokenSigner::read(Path::new("/nonexistent"), issuer()), Err(TokenError::Read { .. })));
        let signer = TokenSigner::read(file(&key()).path(), issuer()).unwrap();
        assert!(!format!("{signer:?}").to_lowercase().contains("key:"));
    }
}
