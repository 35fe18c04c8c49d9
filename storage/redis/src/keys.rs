//! Names of keys and channels. What stands in braces decides the slot of a cluster.

use antiphon_protocol::LogKey;
use antiphon_storage::presence::{Payer, Take, UserKey};
use uuid::Uuid;

/// Buckets of users. A constant of the layout: all processes on one Redis agree on it.
pub(crate) const BUCKETS: usize = 64;

/// The bucket that a user belongs to.
pub(crate) fn bucket_of(user: &UserKey) -> usize {
    // Invariant: below 64, so it fits.
    (xxhash_rust::xxh3::xxh3_64(user_name(user).as_bytes()) % BUCKETS as u64) as usize
}

/// A user in a key. Ids hold neither slash nor brace.
pub(crate) fn user_name(user: &UserKey) -> String {
    format!("{}/{}", user.tenant, user.user)
}

/// The other way round.
pub(crate) fn parse_user(name: &str) -> Option<UserKey> {
    let (tenant, user) = name.split_once('/')?;
    Some(UserKey { tenant: tenant.parse().ok()?, user: user.parse().ok()? })
}

/// Keys of one installation.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    namespace: String,
}

impl Keys {
    pub(crate) fn new(namespace: String) -> Self {
        Self { namespace }
    }

    pub(crate) fn bucket(&self, bucket: usize) -> String {
        format!("{}:{{{bucket}}}", self.namespace)
    }

    /// Where changes of a bucket are announced.
    pub(crate) fn news(&self, bucket: usize) -> String {
        format!("{}:news", self.bucket(bucket))
    }

    /// The bucket of a channel of news.
    pub(crate) fn parse_news(&self, channel: &str) -> Option<usize> {
        let rest = channel.strip_prefix(&self.namespace)?.strip_prefix(":{")?;
        rest.strip_suffix("}:news")?.parse().ok().filter(|bucket| *bucket < BUCKETS)
    }

    pub(crate) fn signals(&self, log: LogKey) -> String {
        format!("{}:signal:{{{}}}", self.namespace, Uuid::from_bytes(log.0))
    }

    pub(crate) fn parse_signals(&self, channel: &str) -> Option<LogKey> {
        let rest = channel.strip_prefix(&self.namespace)?.strip_prefix(":signal:{")?;
        Some(LogKey(Uuid::parse_str(rest.strip_suffix('}')?).ok()?.into_bytes()))
    }

    pub(crate) fn rate(&self, take: &Take) -> String {
        let payer = match &take.payer {
            Payer::Tenant(tenant) => tenant.to_string(),
            Payer::User(user) => user_name(user),
        };
        format!("{}:rate:{{{payer}}}:{}", self.namespace, take.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_understood() {
        let keys = Keys::new("a-b".into());
        assert_eq!(keys.parse_news(&keys.news(63)), Some(63));
        assert_eq!(keys.parse_news("a-b:{64}:news"), None);
        let log = LogKey([7; 16]);
        assert_eq!(keys.parse_signals(&keys.signals(log)), Some(log));
        assert_eq!(keys.parse_signals(&keys.news(1)), None);
    }

    #[test]
    fn users_fill_all_buckets() {
        let user = |n: u32| UserKey { tenant: "t".parse().unwrap(), user: format!("u{n}").parse().unwrap() };
        let filled: std::collections::BTreeSet<usize> = (0..2_000).map(|n| bucket_of(&user(n))).collect();
        assert_eq!(filled.len(), BUCKETS);
        assert_eq!(parse_user(&user_name(&user(1))), Some(user(1)));
    }
}
