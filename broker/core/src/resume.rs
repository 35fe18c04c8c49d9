//! Resume tokens: a session's identity, sealed, so that any shard of any broker with the key can take it up again.
//!
//! ```text
//! 0 session_id [16] | 16 HMAC-SHA256(key, session_id, tenant 0 user 0 device) [32]
//! ```
//!
//! The token grants nothing by itself: a resuming client still shows an access token of the same user.

use antiphon_protocol::UserId;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::actor::Actor;

/// Seals and opens resume tokens. The key outlives restarts.
#[derive(Clone)]
pub struct ResumeKey([u8; 32]);

impl std::fmt::Debug for ResumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResumeKey")
    }
}

impl ResumeKey {
    /// With 32 random bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn mac(&self, session_id: Uuid, actor: &Actor) -> Option<Hmac<Sha256>> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0).ok()?;
        mac.update(session_id.as_bytes());
        let user: &UserId = &actor.user;
        for part in [actor.tenant.as_str(), user.as_str(), actor.device.as_str()] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        Some(mac)
    }

    /// The token with which `actor` may resume the session.
    pub(crate) fn seal(&self, session_id: Uuid, actor: &Actor) -> Bytes {
        let Some(mac) = self.mac(session_id, actor) else { return Bytes::new() };
        [&session_id.as_bytes()[..], &mac.finalize().into_bytes()].concat().into()
    }

    /// The session that the token says it resumes; proven by [`Self::open`] only.
    pub(crate) fn claimed_session(token: &[u8]) -> Option<Uuid> {
        token.first_chunk::<16>().map(|id| Uuid::from_bytes(*id))
    }

    /// The session that the token resumes, if it was sealed for `actor`.
    pub(crate) fn open(&self, token: &[u8], actor: &Actor) -> Option<Uuid> {
        let (session_id, seal) = token.split_first_chunk::<16>()?;
        let session_id = Uuid::from_bytes(*session_id);
        self.mac(session_id, actor)?.verify_slice(seal).ok()?;
        Some(session_id)
    }
}
