//! Makes tokens: for development, for the command line, for tests. The broker itself never needs one.

use std::fmt;

use antiphon_core::claims::{ActorKind, Grant, Scope, Scopes};
use antiphon_protocol::{DeviceId, TenantId, UserId};
use jsonwebtoken::{EncodingKey, Header, encode};
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use thiserror::Error;

use super::{IssuerConfig, IssuerKey, IssuerPolicy, VerifierError, VerifyingKey, provider};

/// Signs tokens of one issuer with one Ed25519 key.
#[derive(Clone)]
pub struct Minter {
    issuer: String,
    key_id: String,
    key: EncodingKey,
    public: [u8; 32],
}

/// What a token shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The tenant.
    pub tenant: TenantId,
    /// The user, or the service's own name.
    pub user: UserId,
    /// What kind of program will bear it.
    pub kind: ActorKind,
    /// Binds the token to one device.
    pub device: Option<DeviceId>,
    /// Display name.
    pub name: Option<String>,
    /// Rights on logs.
    pub grants: Vec<Grant>,
    /// Rights that concern no single log.
    pub scopes: Scopes,
    /// Lifetime in seconds; at most a day for users.
    pub lifetime_seconds: u64,
}

impl TokenRequest {
    /// A user's token without extra rights, valid for a day.
    pub fn user(tenant: TenantId, user: UserId) -> Self {
        Self {
            tenant,
            user,
            kind: ActorKind::User,
            device: None,
            name: None,
            grants: Vec::new(),
            scopes: Scopes::NONE,
            lifetime_seconds: 24 * 60 * 60,
        }
    }
}

/// Why no token could be made.
#[derive(Debug, Error)]
pub enum MintError {
    /// The key is not Ed25519 in PKCS #8.
    #[error("the signing key must be an Ed25519 private key in PKCS #8")]
    Key,
    /// The process cannot sign.
    #[error(transparent)]
    Provider(#[from] VerifierError),
    /// The system gave no random bytes for the token's id.
    #[error("the operating system gave no random bytes")]
    Random,
    /// Signing failed.
    #[error("signing failed: {0}")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

impl Minter {
    /// A minter for this issuer name and key id, with an Ed25519 key in PKCS #8 DER.
    pub fn new(issuer: &str, key_id: &str, pkcs8: &[u8]) -> Result<Self, MintError> {
        provider::install()?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| MintError::Key)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| MintError::Key)?;
        Ok(Self { issuer: issuer.to_owned(), key_id: key_id.to_owned(), key: EncodingKey::from_ed_der(pkcs8), public })
    }

    /// As [`Minter::new`], with the key in PEM (`BEGIN PRIVATE KEY`).
    pub fn from_pem(issuer: &str, key_id: &str, pem: &[u8]) -> Result<Self, MintError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| MintError::Key)?;
        Self::new(issuer, key_id, der.secret_pkcs8_der())
    }

    /// The issuer configuration that accepts this minter's tokens for these tenants.
    pub fn issuer(&self, tenants: Vec<TenantId>) -> IssuerConfig {
        IssuerConfig {
            policy: IssuerPolicy {
                issuer: self.issuer.clone(),
                audiences: vec!["antiphon".to_owned()],
                tenants,
                leeway_seconds: 30,
                mapping: None,
            },
            keys: vec![IssuerKey { id: Some(self.key_id.clone()), key: VerifyingKey::ed25519(&self.public) }],
        }
    }

    /// Signs one token, issued at this time (Unix milliseconds).
    pub fn mint(&self, request: &TokenRequest, now_unix_ms: u64) -> Result<String, MintError> {
        let mut header = Header::new(jsonwebtoken::Algorithm::EdDSA);
        header.kid = Some(self.key_id.clone());
        let now_seconds = now_unix_ms / 1_000;
        let payload = json!({
            "iss": self.issuer,
            "aud": "antiphon",
            "sub": request.user.as_str(),
            "iat": now_seconds,
            "exp": now_seconds.saturating_add(request.lifetime_seconds),
            "jti": random_id()?,
            "antiphon": antiphon_claim(request),
        });
        Ok(encode(&header, &payload, &self.key)?)
    }
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Minter({:?}, {:?})", self.issuer, self.key_id)
    }
}

fn antiphon_claim(request: &TokenRequest) -> Value {
    let mut claim = json!({ "v": 1, "tenant": request.tenant.as_str(), "kind": request.kind.word() });
    if let Some(device) = &request.device {
        claim["device"] = device.as_str().into();
    }
    if let Some(name) = &request.name {
        claim["name"] = name.as_str().into();
    }
    if !request.grants.is_empty() {
        claim["grants"] = request.grants.iter().map(grant_json).collect();
    }
    if !request.scopes.is_empty() {
        claim["scopes"] = request.scopes.iter().map(Scope::word).collect();
    }
    claim
}

fn grant_json(grant: &Grant) -> Value {
    let can: Vec<_> = grant.can.iter().map(|ability| ability.word()).collect();
    json!({ "on": grant.on.to_string(), "can": can })
}

fn random_id() -> Result<String, MintError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MintError::Random)?;
    Ok(crate::identity::hex(&bytes))
}

#[cfg(test)]
pub(super) mod tests {
    use antiphon_core::claims::{Ability, GrantPattern};

    use super::{super::Verifier, *};

    const NOW_MS: u64 = 1_800_000_000_123;

    pub(in crate::auth) fn minter() -> Minter {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Minter::new("https://issuer.example", "1", pkcs8.as_ref()).unwrap()
    }

    pub(in crate::auth) fn request(user: &str) -> TokenRequest {
        TokenRequest::user(TenantId::new("acme").unwrap(), UserId::new(user).unwrap())
    }

    #[test]
    fn what_is_minted_is_what_is_verified() {
        let minter = minter();
        let verifier = Verifier::new(vec![minter.issuer(vec![TenantId::new("acme").unwrap()])]).unwrap();
        let grant = Grant {
            on: GrantPattern::new("c:support-*").unwrap(),
            can: [Ability::Read, Ability::Room].into_iter().collect(),
        };
        let wanted = TokenRequest {
            kind: ActorKind::Service,
            device: Some(DeviceId::new("phone-1").unwrap()),
            name: Some("Ann \u{e9}".to_owned()),
            grants: vec![grant],
            scopes: Scopes::NONE.with(Scope::ActAs).with(Scope::AdminRead),
            lifetime_seconds: 1_000_000,
            ..request("ann")
        };
        let claims = verifier.verify(&minter.mint(&wanted, NOW_MS).unwrap(), NOW_MS).unwrap();
        assert_eq!((&claims.tenant, &claims.user, claims.kind), (&wanted.tenant, &wanted.user, wanted.kind));
        assert_eq!((&claims.device, &claims.name), (&wanted.device, &wanted.name));
        assert_eq!((&claims.grants, claims.scopes), (&wanted.grants, wanted.scopes));
        assert_eq!((claims.issued_at_ms, claims.expires_at_ms), (1_800_000_000_000, 1_801_000_000_000));
        assert_eq!(claims.token_id.len(), 32);
        assert!(claims.granted("c:support-7", Ability::Room));
    }

    #[test]
    fn token_ids_do_not_repeat() {
        let minter = minter();
        assert_ne!(minter.mint(&request("ann"), NOW_MS).unwrap(), minter.mint(&request("ann"), NOW_MS).unwrap());
    }

    #[test]
    fn only_ed25519_keys_sign() {
        assert!(matches!(Minter::new("i", "1", b"nonsense"), Err(MintError::Key)));
        let p256 = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(Minter::from_pem("i", "1", p256.as_bytes()), Err(MintError::Key)));
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        let minter = Minter::from_pem("i", "1", ed25519.as_bytes()).unwrap();
        assert_eq!(format!("{minter:?}"), r#"Minter("i", "1")"#);
    }
}
