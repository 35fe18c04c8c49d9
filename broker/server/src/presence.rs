//! The store of presence beside the shards, where presence is shared, and what it says about itself.

use std::sync::{Arc, atomic::Ordering};

use antiphon_storage_contract::presence::Presence;
use antiphon_storage_redis::{Counters, RedisPresence, StartError};
use antiphon_sys::doorbell::Ringer;
use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::config::{ConfigError, PresenceSettings};

/// What `/readyz` notes while the store is away. It speaks against no traffic: no message depends on the store.
pub(crate) const STALE: &str = "presence is unknown: its store is away";

/// A shard's way to the store; `None` where presence is not shared.
pub(crate) type ShardPresence = Option<Box<dyn Presence + Send>>;

/// The store, or its absence.
#[derive(Debug)]
pub(crate) struct PresenceStore {
    redis: Option<RedisPresence>,
    health: PresenceHealth,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// A file that the configuration names.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store itself. That Redis is away is no reason.
    #[error("presence: {0}")]
    Start(#[from] StartError),
}

impl PresenceStore {
    pub(crate) fn open(settings: &PresenceSettings) -> Result<Self, PresenceError> {
        let redis = match settings {
            PresenceSettings::Process => None,
            PresenceSettings::Redis(settings) => Some(RedisPresence::start(&settings.load()?)?),
        };
        let counters = redis.as_ref().map(RedisPresence::counters).unwrap_or_default();
        Ok(Self { redis, health: PresenceHealth(counters) })
    }

    /// For one shard, which is rung when the store says something.
    pub(crate) fn handle(&self, ringer: Ringer) -> ShardPresence {
        let redis = self.redis.as_ref()?;
        Some(Box::new(redis.handle(Arc::new(move || ringer.ring()))))
    }

    pub(crate) fn health(&self) -> PresenceHealth {
        self.health.clone()
    }
}

/// What the store counts. Without one, all is zero.
#[derive(Debug, Clone, Default)]
pub struct PresenceHealth(Arc<Counters>);

impl PresenceHealth {
    /// Says once what the series are.
    pub(crate) fn describe() {
        describe_gauge!("antiphon_presence_stale", "1 while the store that shares presence is away, else 0.");
        describe_counter!("antiphon_presence_turns_total", "Exchanges with the store of presence.");
        describe_counter!("antiphon_presence_turns_failed_total", "Exchanges with the store of presence that failed.");
        describe_counter!("antiphon_presence_reconnects_total", "Connections to the store of presence made again.");
    }

    /// Whether what is shown of presence may be wrong.
    pub(crate) fn is_stale(&self) -> bool {
        self.0.is_stale.load(Ordering::Relaxed)
    }

    /// About once a second.
    pub(crate) fn publish(&self) {
        gauge!("antiphon_presence_stale").set(if self.is_stale() { 1.0 } else { 0.0 });
        counter!("antiphon_presence_turns_total").absolute(self.0.turns.load(Ordering::Relaxed));
        counter!("antiphon_presence_turns_failed_total").absolute(self.0.turns_failed.load(Ordering::Relaxed));
        counter!("antiphon_presence_reconnects_total").absolute(self.0.reconnects.load(Ordering::Relaxed));
    }
}
