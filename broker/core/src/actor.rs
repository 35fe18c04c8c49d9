//! Who asks: the verified identity behind a request.

use std::sync::Arc;

use antiphon_protocol::{DeviceId, ErrorCode, InvalidId, LogName, TenantId, UserId};

use crate::{
    claims::{Ability, ActorKind, Claims, Scope, Scopes},
    refusal::Refusal,
};

/// One session's identity; shared by its requests on their way through the shards.
#[derive(Debug)]
pub struct Actor {
    /// Whose data.
    pub tenant: TenantId,
    /// Who acts.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    claims: Claims,
}

impl Actor {
    /// The identity that `claims` prove, on `device`.
    pub fn new(claims: Claims, device: DeviceId) -> Arc<Self> {
        Arc::new(Self { tenant: claims.tenant.clone(), user: claims.user.clone(), device, claims })
    }

    /// The broker itself, in a tenant: without any rights, for what no client asks.
    pub(crate) fn broker(tenant: &TenantId) -> Arc<Self> {
        // Invariant: these are ids of the broker's own, within length and alphabet.
        let (Ok(user), Ok(device)) = (UserId::new("~broker"), DeviceId::new("~broker")) else { unreachable!() };
        let claims = Claims {
            tenant: tenant.clone(),
            user,
            kind: ActorKind::Service,
            device: None,
            name: None,
            grants: Vec::new(),
            scopes: Scopes::NONE,
            issued_at_ms: 0,
            expires_at_ms: 0,
            token_id: String::new(),
        };
        Self::new(claims, device)
    }

    /// Whether a grant of the token covers this log.
    pub fn is_granted(&self, log: &LogName, ability: Ability) -> bool {
        !self.claims.grants.is_empty() && self.claims.granted(&log.to_string(), ability)
    }

    /// The user in whose name a request is carried out: the actor, or the one that a service acts for.
    pub(crate) fn acting_user(&self, act_as: &str) -> Result<UserId, Refusal> {
        if act_as.is_empty() {
            return Ok(self.user.clone());
        }
        if !self.acts_for_users() {
            let message = "only a service with scope act_as acts for users";
            return Err(Refusal::field(ErrorCode::Forbidden, "act_as", message));
        }
        act_as.parse().map_err(|error: InvalidId| Refusal::field(ErrorCode::InvalidField, "act_as", error.to_string()))
    }

    /// Whether requests may be carried out in the name of users.
    pub(crate) fn acts_for_users(&self) -> bool {
        self.claims.kind == ActorKind::Service && self.has_scope(Scope::ActAs)
    }

    /// Whether the token has this scope.
    pub(crate) fn has_scope(&self, scope: Scope) -> bool {
        self.claims.scopes.contains(scope)
    }

    /// When the token was issued, Unix milliseconds.
    pub fn issued_at_ms(&self) -> u64 {
        self.claims.issued_at_ms
    }

    /// When the token ends, Unix milliseconds.
    pub fn expires_at_ms(&self) -> u64 {
        self.claims.expires_at_ms
    }

    /// Whether `other` is the same user on the same device.
    pub fn is_same_device(&self, other: &Self) -> bool {
        (&self.tenant, &self.user, &self.device) == (&other.tenant, &other.user, &other.device)
    }
}
