//! Tokens already proven, by hash: a reconnect storm costs one signature a token, not one a connection.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
};

use antiphon_core::claims::Claims;
use ring::digest::{SHA256, digest};

use super::{TokenError, Verifier};

/// A bounded cache in front of a [`Verifier`]; one per shard, never shared. When full, the oldest entry goes.
///
/// Only proven tokens are kept, so that garbage cannot push them out. Dates are checked again on every use, and a new
/// verifier (after a key reload) starts empty, so that a withdrawn key stops counting at once.
pub struct TokenCache {
    verifier: Arc<Verifier>,
    entries: HashMap<TokenHash, Arc<Claims>>,
    oldest_first: VecDeque<TokenHash>,
    capacity: usize,
}

type TokenHash = [u8; 32];

impl TokenCache {
    /// A cache of at most `capacity` tokens.
    pub fn new(verifier: Arc<Verifier>, capacity: usize) -> Self {
        Self { verifier, entries: HashMap::new(), oldest_first: VecDeque::new(), capacity }
    }

    /// Replaces the verifier and forgets everything.
    pub fn reload(&mut self, verifier: Arc<Verifier>) {
        *self = Self::new(verifier, self.capacity);
    }

    /// The claims of a token proven earlier and still valid at this time (Unix milliseconds); costs a hash.
    pub fn get(&self, token: &str, now_unix_ms: u64) -> Option<Arc<Claims>> {
        let claims = self.entries.get(&hash(token))?;
        (now_unix_ms < claims.expires_at_ms && now_unix_ms >= claims.issued_at_ms).then(|| Arc::clone(claims))
    }

    /// As [`Verifier::verify`], remembering success.
    pub fn verify(&mut self, token: &str, now_unix_ms: u64) -> Result<Arc<Claims>, TokenError> {
        if let Some(claims) = self.get(token, now_unix_ms) {
            return Ok(claims);
        }
        let claims = Arc::new(self.verifier.verify(token, now_unix_ms)?);
        self.keep(hash(token), Arc::clone(&claims));
        Ok(claims)
    }

    fn keep(&mut self, token: TokenHash, claims: Arc<Claims>) {
        if self.entries.insert(token, claims).is_none() {
            self.oldest_first.push_back(token);
        }
        while self.oldest_first.len() > self.capacity {
            if let Some(oldest) = self.oldest_first.pop_front() {
                self.entries.remove(&oldest);
            }
        }
    }
}

impl fmt::Debug for TokenCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenCache({} of {})", self.entries.len(), self.capacity)
    }
}

fn hash(token: &str) -> TokenHash {
    let mut bytes = TokenHash::default();
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::TenantId;

    use super::{super::minter::tests::minter, *};

    const NOW_MS: u64 = 1_800_000_000_000;

    fn cache(capacity: usize) -> (TokenCache, impl Fn(&str) -> String) {
        let minter = minter();
        let issuer = minter.issuer(vec![TenantId::new("acme").unwrap()]);
        let verifier = Arc::new(Verifier::new(vec![issuer]).unwrap());
        let mint = move |user: &str| minter.mint(&super::super::minter::tests::request(user), NOW_MS).unwrap();
        (TokenCache::new(verifier, capacity), mint)
    }

    #[test]
    fn a_proven_token_is_found_until_it_expires() {
        let (mut cache, mint) = cache(8);
        let token = mint("ann");
        assert_eq!(cache.get(&token, NOW_MS), None);
        let claims = cache.verify(&token, NOW_MS).unwrap();
        assert!(Arc::ptr_eq(&claims, &cache.verify(&token, NOW_MS).unwrap()));
        assert_eq!(cache.get(&token, claims.expires_at_ms), None);
        // Past the leeway too, the cache must not answer in the verifier's place.
        assert_eq!(cache.verify(&token, claims.expires_at_ms + 60_000), Err(TokenError::Expired));
    }

    #[test]
    fn refused_tokens_are_not_kept() {
        let (mut cache, mint) = cache(8);
        let mut forged = mint("ann");
        forged.truncate(forged.len() - 4);
        assert!(cache.verify(&forged, NOW_MS).is_err());
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn the_oldest_goes_when_full() {
        let (mut cache, mint) = cache(2);
        let tokens = ["ann", "bob", "cho"].map(mint);
        for token in &tokens {
            cache.verify(token, NOW_MS).unwrap();
        }
        let kept = tokens.each_ref().map(|token| cache.get(token, NOW_MS).is_some());
        assert_eq!(kept, [false, true, true]);
        assert_eq!(cache.entries.len(), cache.oldest_first.len());
    }

    #[test]
    fn a_key_reload_forgets_what_the_old_keys_proved() {
        let (mut cache, mint) = cache(8);
        let token = mint("ann");
        cache.verify(&token, NOW_MS).unwrap();
        cache.reload(Arc::new(Verifier::new(Vec::new()).unwrap()));
        assert_eq!(cache.verify(&token, NOW_MS), Err(TokenError::IssuerUnknown));
    }
}
