//! Who asks: the verified identity behind a request.

use std::sync::Arc;

use antiphon_protocol::{DeviceId, LogName, TenantId, UserId};

use crate::claims::{Ability, ActorKind, Claims, Scope};

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

    /// Whether a grant of the token covers this log.
    pub fn is_granted(&self, log: &LogName, ability: Ability) -> bool {
        !self.claims.grants.is_empty() && self.claims.granted(&log.to_string(), ability)
    }

    /// Whether this is a service that may act for users.
    pub fn may_act_as(&self) -> bool {
        self.claims.kind == ActorKind::Service && self.claims.scopes.contains(Scope::ActAs)
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
