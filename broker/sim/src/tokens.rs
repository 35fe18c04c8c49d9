//! Access tokens as plain text, granted from a fixed script: who may do what in the simulated tenant.
//!
//! `<user>.<expiry>.<number>`; a token says nothing about conversations: those open to all are granted by name, the
//! others by membership.

use antiphon_core::{
    Claims, TokenRefusal,
    claims::{Abilities, Ability, ActorKind, Grant, GrantPattern, Scopes},
};
use antiphon_protocol::UserId;

/// Logs that every user may read and write begin so.
pub(crate) const OPEN_PREFIX: &str = "c:open-";
/// The user who manages the other conversations and has not joined any.
pub(crate) const MANAGER: &str = "manager";

/// A token for a user, good until then.
pub(crate) fn token(user: &str, expires_at_ms: u64, number: u64) -> String {
    format!("{user}.{expires_at_ms}.{number}")
}

/// What the broker's shell finds out about a token.
pub(crate) fn verdict(token: &str, now_ms: u64) -> Result<Claims, TokenRefusal> {
    let refuse = |expired, reason: &str| Err(TokenRefusal { expired, reason: reason.to_owned() });
    let mut parts = token.split('.');
    let (Some(user), Some(Ok(expires_at_ms)), Some(number), None) =
        (parts.next(), parts.next().map(str::parse::<u64>), parts.next(), parts.next())
    else {
        return refuse(false, "malformed");
    };
    let (Ok(user), Ok(tenant)) = (user.parse::<UserId>(), "sim".parse()) else { return refuse(false, "malformed") };
    if expires_at_ms <= now_ms {
        return refuse(true, "expired");
    }
    let grants = if user.as_str() == MANAGER {
        grants("c:*", &[Ability::Read, Ability::Send, Ability::Manage])
    } else {
        grants(&format!("{OPEN_PREFIX}*"), &[Ability::Read, Ability::Send, Ability::Signal])
    };
    Ok(Claims {
        tenant,
        user,
        kind: ActorKind::User,
        device: None,
        name: None,
        grants,
        scopes: Scopes::NONE,
        issued_at_ms: 0,
        expires_at_ms,
        token_id: number.to_owned(),
    })
}

fn grants(pattern: &str, can: &[Ability]) -> Vec<Grant> {
    let can: Abilities = can.iter().copied().collect();
    GrantPattern::new(pattern).map(|on| Grant { on, can }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_until_it_ends() {
        let token = token("ann", 1_000, 7);
        let claims = verdict(&token, 999).unwrap();
        assert_eq!((claims.user.as_str(), claims.expires_at_ms), ("ann", 1_000));
        assert!(claims.granted("c:open-1", Ability::Send) && !claims.granted("c:room-1", Ability::Read));
        assert!(verdict(&token, 1_000).unwrap_err().expired);
        assert!(!verdict("nonsense", 0).unwrap_err().expired);
    }
}
