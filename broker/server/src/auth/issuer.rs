//! Who may sign tokens, for which tenants, with which keys.

use antiphon_core::claims::{ActorKind, Grant};
use antiphon_protocol::TenantId;

use super::{VerifierError, key::VerifyingKey};

/// Largest tolerated difference between the issuer's clock and ours, in seconds.
pub(super) const LEEWAY_SECONDS_MAX: u8 = 30;

/// One issuer with its keys, ready to verify.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// What the issuer may do.
    pub policy: IssuerPolicy,
    /// Its keys; a token names one by `kid`.
    pub keys: Vec<IssuerKey>,
}

/// What an issuer may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerPolicy {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// `aud` must name one of these; usually `antiphon`.
    pub audiences: Vec<String>,
    /// The tenants it may sign for.
    pub tenants: Vec<TenantId>,
    /// Tolerated clock difference, 0 to 30 seconds.
    pub leeway_seconds: u8,
    /// Replaces the `antiphon` claim for identity providers that cannot write it.
    pub mapping: Option<ClaimMapping>,
}

/// One key of an issuer.
#[derive(Debug, Clone)]
pub struct IssuerKey {
    /// The `kid` that selects it; `None` for tokens without one.
    pub id: Option<String>,
    /// The key, which knows its algorithm.
    pub key: VerifyingKey,
}

/// Where the contents of the `antiphon` claim come from when the token has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMapping {
    /// The tenant.
    pub tenant: TenantSource,
    /// The user's id; usually `sub`.
    pub user: ClaimPath,
    /// The token's id; usually `jti`.
    pub token_id: ClaimPath,
    /// The device, if the provider knows one.
    pub device: Option<ClaimPath>,
    /// The display name.
    pub name: Option<ClaimPath>,
    /// What kind of program bears these tokens.
    pub kind: ActorKind,
    /// Rights that every such token has.
    pub grants: Vec<Grant>,
}

/// Where a mapped token's tenant comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantSource {
    /// Always this one.
    Fixed(TenantId),
    /// A claim, which must name one of the issuer's tenants.
    Claim(ClaimPath),
}

/// A claim by the names that lead to it. Names are whole: a name may hold dots and slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// A path of 1 to 8 names, none empty.
    pub fn new(names: Vec<String>) -> Option<Self> {
        let valid = (1..=8).contains(&names.len()) && names.iter().all(|name| !name.is_empty());
        valid.then_some(Self(names))
    }

    /// A claim at the top of the payload.
    pub fn top(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// The value at the path.
    pub(super) fn find<'v>(&self, payload: &'v super::json::Object) -> Option<&'v serde_json::Value> {
        let (first, rest) = self.0.split_first()?;
        rest.iter().try_fold(payload.get(first)?, |value, name| value.as_object()?.get(name))
    }
}

impl IssuerConfig {
    /// Checks what a verifier relies on.
    pub(super) fn check(&self) -> Result<(), VerifierError> {
        let policy = &self.policy;
        let refuse = |reason| Err(VerifierError::Issuer { issuer: policy.issuer.clone(), reason });
        if policy.issuer.is_empty() {
            return refuse("the issuer's name must not be empty");
        }
        if policy.audiences.is_empty() || policy.audiences.iter().any(String::is_empty) {
            return refuse("at least one audience is needed, none empty");
        }
        if policy.tenants.is_empty() {
            return refuse("at least one tenant is needed");
        }
        if policy.leeway_seconds > LEEWAY_SECONDS_MAX {
            return refuse("the leeway must be 30 seconds or less");
        }
        if self.keys.is_empty() {
            return refuse("at least one key is needed");
        }
        let repeated = |key: &IssuerKey| self.keys.iter().filter(|other| other.id == key.id).count() > 1;
        if self.keys.iter().any(repeated) {
            return refuse("two keys have the same id");
        }
        match &policy.mapping {
            Some(ClaimMapping { tenant: TenantSource::Fixed(tenant), .. }) if !policy.tenants.contains(tenant) => {
                refuse("the fixed tenant must be one of its tenants")
            }
            _ => Ok(()),
        }
    }
}
