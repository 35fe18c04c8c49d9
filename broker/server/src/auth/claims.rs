//! The payload of a token whose signature has been proven -> [`Claims`].

use antiphon_core::claims::{
    Abilities, Ability, ActorKind, Claims, GRANTS_MAX, Grant, GrantPattern, NAME_BYTES_MAX, Scope, Scopes,
    TOKEN_ID_BYTES_MAX,
};
use antiphon_protocol::{DeviceId, InvalidId, TenantId, UserId};
use serde_json::Value;

use super::{
    TokenError,
    issuer::{ClaimMapping, IssuerPolicy, TenantSource},
    json::Object,
};

const MS_PER_SECOND: u64 = 1_000;
/// Longest life of a user's token, in seconds.
const USER_LIFETIME_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Seconds beyond this are no date; it also keeps milliseconds below 2^64.
const SECONDS_MAX: u64 = 1 << 53;

/// Reads and checks every claim.
pub(super) fn read(payload: &Object, policy: &IssuerPolicy, now_ms: u64) -> Result<Claims, TokenError> {
    check_audience(payload, policy)?;
    let (issued_at_ms, expires_at_ms) = read_times(payload, policy, now_ms)?;
    let subject = text(member(payload, "sub")?, "sub")?;
    let who = match &policy.mapping {
        Some(_) if payload.contains_key("antiphon") => return Err(TokenError::AntiphonUnexpected),
        Some(mapping) => mapped(payload, mapping)?,
        None => written(payload, subject)?,
    };
    if !policy.tenants.contains(&who.tenant) {
        return Err(TokenError::TenantNotAllowed);
    }
    let lifetime_ms = expires_at_ms - issued_at_ms;
    if who.kind == ActorKind::User && lifetime_ms > USER_LIFETIME_SECONDS_MAX * MS_PER_SECOND {
        return Err(TokenError::LifetimeTooLong);
    }
    Ok(Claims { issued_at_ms, expires_at_ms, ..who })
}

/// `aud` is one string or a list of strings, and names this broker.
fn check_audience(payload: &Object, policy: &IssuerPolicy) -> Result<(), TokenError> {
    let wrong_type = TokenError::ClaimType { claim: "aud" };
    let named = |audience: &str| policy.audiences.iter().any(|ours| ours == audience);
    let ours = match member(payload, "aud")? {
        Value::String(audience) => named(audience),
        Value::Array(audiences) => {
            let texts: Option<Vec<&str>> = audiences.iter().map(Value::as_str).collect();
            texts.ok_or(wrong_type)?.into_iter().any(named)
        }
        _ => return Err(wrong_type),
    };
    if ours { Ok(()) } else { Err(TokenError::Audience) }
}

/// (`iat`, `exp`) in milliseconds, with `exp` after `iat`.
fn read_times(payload: &Object, policy: &IssuerPolicy, now_ms: u64) -> Result<(u64, u64), TokenError> {
    let leeway_ms = u64::from(policy.leeway_seconds) * MS_PER_SECOND;
    let expires_at_ms = date_ms(member(payload, "exp")?, "exp")?;
    let issued_at_ms = date_ms(member(payload, "iat")?, "iat")?;
    let not_before_ms = payload.get("nbf").map_or(Ok(0), |date| date_ms(date, "nbf"))?;
    if not_before_ms > now_ms.saturating_add(leeway_ms) {
        return Err(TokenError::NotYetValid);
    }
    if issued_at_ms > now_ms.saturating_add(leeway_ms) {
        return Err(TokenError::IssuedInFuture);
    }
    if expires_at_ms <= issued_at_ms {
        return Err(TokenError::LifetimeEmpty);
    }
    if expires_at_ms.saturating_add(leeway_ms) <= now_ms {
        return Err(TokenError::Expired);
    }
    Ok((issued_at_ms, expires_at_ms))
}

/// The contents of a token's own `antiphon` claim.
fn written(payload: &Object, subject: &str) -> Result<Claims, TokenError> {
    const KNOWN: [&str; 8] = ["v", "tenant", "kind", "device", "name", "grants", "scopes", "limits"];

    let claim = member(payload, "antiphon")?;
    let antiphon = claim.as_object().ok_or(TokenError::ClaimType { claim: "antiphon" })?;
    // The version comes first: it decides what the other members mean.
    let version = antiphon.get("v").ok_or(TokenError::ClaimMissing { claim: "antiphon.v" })?;
    if version.as_u64() != Some(1) {
        return Err(TokenError::VersionUnsupported);
    }
    if antiphon.keys().any(|name| !KNOWN.contains(&name.as_str())) {
        return Err(TokenError::ClaimUnknown { claim: "antiphon" });
    }
    let tenant = antiphon.get("tenant").ok_or(TokenError::ClaimMissing { claim: "antiphon.tenant" })?;
    let kind = read_kind(antiphon.get("kind").ok_or(TokenError::ClaimMissing { claim: "antiphon.kind" })?)?;
    check_limits(antiphon.get("limits"))?;
    Ok(Claims {
        tenant: read_tenant(tenant, "antiphon.tenant")?,
        user: read_user(subject, "sub")?,
        kind,
        device: antiphon.get("device").map(|device| read_device(device, "antiphon.device")).transpose()?,
        name: antiphon.get("name").map(|name| read_name(name, "antiphon.name")).transpose()?,
        grants: antiphon.get("grants").map(read_grants).transpose()?.unwrap_or_default(),
        scopes: antiphon.get("scopes").map(|scopes| read_scopes(scopes, kind)).transpose()?.unwrap_or_default(),
        issued_at_ms: 0,
        expires_at_ms: 0,
        token_id: read_token_id(member(payload, "jti")?, "jti")?,
    })
}

/// The same from the issuer's configuration and the claims that it points at.
fn mapped(payload: &Object, mapping: &ClaimMapping) -> Result<Claims, TokenError> {
    let user = mapping.user.find(payload).ok_or(TokenError::ClaimMissing { claim: "mapped user" })?;
    let token_id = mapping.token_id.find(payload).ok_or(TokenError::ClaimMissing { claim: "mapped token id" })?;
    let tenant = match &mapping.tenant {
        TenantSource::Fixed(tenant) => tenant.clone(),
        TenantSource::Claim(path) => {
            let tenant = path.find(payload).ok_or(TokenError::ClaimMissing { claim: "mapped tenant" })?;
            read_tenant(tenant, "mapped tenant")?
        }
    };
    let device = mapping.device.as_ref().and_then(|path| path.find(payload));
    let name = mapping.name.as_ref().and_then(|path| path.find(payload));
    Ok(Claims {
        tenant,
        user: read_user(text(user, "mapped user")?, "mapped user")?,
        kind: mapping.kind,
        device: device.map(|device| read_device(device, "mapped device")).transpose()?,
        name: name.map(|name| read_name(name, "mapped name")).transpose()?,
        grants: mapping.grants.clone(),
        scopes: Scopes::NONE,
        issued_at_ms: 0,
        expires_at_ms: 0,
        token_id: read_token_id(token_id, "mapped token id")?,
    })
}

fn member<'v>(payload: &'v Object, claim: &'static str) -> Result<&'v Value, TokenError> {
    payload.get(claim).ok_or(TokenError::ClaimMissing { claim })
}

fn text<'v>(value: &'v Value, claim: &'static str) -> Result<&'v str, TokenError> {
    value.as_str().ok_or(TokenError::ClaimType { claim })
}

/// A date is a JSON number of whole seconds; anything else is an error, never an absent date.
fn date_ms(value: &Value, claim: &'static str) -> Result<u64, TokenError> {
    let seconds = value.as_u64().filter(|seconds| *seconds < SECONDS_MAX);
    seconds.map(|seconds| seconds * MS_PER_SECOND).ok_or(TokenError::ClaimType { claim })
}

/// Reads an id of an application's choosing; those that begin with `~` are the broker's.
fn chosen_id<T>(id: &str, claim: &'static str, new: fn(&str) -> Result<T, InvalidId>) -> Result<T, TokenError> {
    if id.starts_with('~') {
        return Err(TokenError::ClaimIdReserved { claim });
    }
    new(id).map_err(|_| TokenError::ClaimId { claim })
}

fn read_tenant(value: &Value, claim: &'static str) -> Result<TenantId, TokenError> {
    chosen_id(text(value, claim)?, claim, TenantId::new)
}

fn read_user(user: &str, claim: &'static str) -> Result<UserId, TokenError> {
    chosen_id(user, claim, UserId::new)
}

fn read_device(value: &Value, claim: &'static str) -> Result<DeviceId, TokenError> {
    chosen_id(text(value, claim)?, claim, DeviceId::new)
}

fn read_name(value: &Value, claim: &'static str) -> Result<String, TokenError> {
    bounded(text(value, claim)?, claim, NAME_BYTES_MAX)
}

fn read_token_id(value: &Value, claim: &'static str) -> Result<String, TokenError> {
    bounded(text(value, claim)?, claim, TOKEN_ID_BYTES_MAX)
}

fn bounded(text: &str, claim: &'static str, bytes_max: usize) -> Result<String, TokenError> {
    if text.is_empty() || text.len() > bytes_max || text.chars().any(char::is_control) {
        return Err(TokenError::ClaimText { claim });
    }
    Ok(text.to_owned())
}

fn read_kind(value: &Value) -> Result<ActorKind, TokenError> {
    ActorKind::from_word(text(value, "antiphon.kind")?).ok_or(TokenError::KindUnknown)
}

fn read_grants(value: &Value) -> Result<Vec<Grant>, TokenError> {
    let grants = value.as_array().ok_or(TokenError::ClaimType { claim: "antiphon.grants" })?;
    if grants.len() > GRANTS_MAX {
        return Err(TokenError::GrantInvalid);
    }
    grants.iter().map(|grant| read_grant(grant).ok_or(TokenError::GrantInvalid)).collect()
}

fn read_grant(value: &Value) -> Option<Grant> {
    let grant = value.as_object().filter(|grant| grant.len() == 2)?;
    let can: Option<Abilities> =
        grant.get("can")?.as_array()?.iter().map(|word| Ability::from_word(word.as_str()?)).collect();
    Some(Grant { on: GrantPattern::new(grant.get("on")?.as_str()?).ok()?, can: can? })
}

fn read_scopes(value: &Value, kind: ActorKind) -> Result<Scopes, TokenError> {
    let words = value.as_array().ok_or(TokenError::ClaimType { claim: "antiphon.scopes" })?;
    let scopes: Option<Scopes> = words.iter().map(|word| Scope::from_word(word.as_str()?)).collect();
    let scopes = scopes.ok_or(TokenError::ScopeUnknown)?;
    if scopes.contains(Scope::ActAs) && kind != ActorKind::Service {
        return Err(TokenError::ScopeNotAllowed);
    }
    Ok(scopes)
}

/// Version 1 knows no limits: accepting one without enforcing it would widen the token.
fn check_limits(limits: Option<&Value>) -> Result<(), TokenError> {
    match limits {
        None => Ok(()),
        Some(Value::Object(limits)) if limits.is_empty() => Ok(()),
        Some(Value::Object(_)) => Err(TokenError::LimitsUnsupported),
        Some(_) => Err(TokenError::ClaimType { claim: "antiphon.limits" }),
    }
}
