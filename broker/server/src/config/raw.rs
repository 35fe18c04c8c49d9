//! What may be written, before anything is believed. Every field is optional, unknown ones are refused.

use std::path::{Path, PathBuf};

use antiphon_core::Secret;
use serde::Deserialize;

/// What flags may set; they beat environment and file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<String>,
    /// `--admin-listen`
    pub admin_listen: Option<String>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--shards`
    pub shards: Option<i64>,
    /// `--development`
    pub development: Option<bool>,
    /// `--tls-certificate`
    pub tls_certificate: Option<PathBuf>,
    /// `--tls-key`
    pub tls_key: Option<PathBuf>,
    /// `--trunk`
    pub trunk_listen: Option<String>,
    /// `--gateway`
    pub gateway_listen: Option<String>,
    /// No flag: `ANTIPHON_ADVERTISE`
    pub advertise: Option<String>,
    /// No flag: `ANTIPHON_STORE_CACHE_MIB`
    pub store_cache_mib: Option<i64>,
    /// No flag: `ANTIPHON_STORE_ENGINE`
    pub store_engine: Option<String>,
    /// No flag: `ANTIPHON_STORE_CONTACT_POINTS`, with commas between them
    pub store_contact_points: Option<Vec<String>>,
    /// No flag: `ANTIPHON_STORE_KEYSPACE`
    pub store_keyspace: Option<String>,
    /// No flag: `ANTIPHON_STORE_USER`
    pub store_user: Option<String>,
    /// No flag: `ANTIPHON_STORE_PASSWORD`
    pub store_password: Option<Secret>,
    /// No flag: `ANTIPHON_STORE_ACCEPT`, with commas between them
    pub store_accept: Option<Vec<String>>,
    /// No flag: `ANTIPHON_STORE_REPLICATION_FACTOR`
    pub store_replication_factor: Option<i64>,
    /// No flag: `ANTIPHON_PRESENCE_ENGINE`
    pub presence_engine: Option<String>,
    /// No flag: `ANTIPHON_PRESENCE_URLS`
    pub presence_urls: Option<Vec<String>>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--log-filter`
    pub log_filter: Option<String>,
    /// No flag: see [`super::Config::test_segment_bytes`].
    pub test_segment_bytes: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) listen: Option<String>,
    pub(super) admin_listen: Option<String>,
    pub(super) advertise: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) shards: Option<i64>,
    pub(super) development: Option<bool>,
    #[serde(default)]
    pub(super) tls: RawTls,
    #[serde(default)]
    pub(super) trunk: RawTrunk,
    #[serde(default)]
    pub(super) gateway: RawGateway,
    #[serde(default)]
    pub(super) limits: RawLimits,
    #[serde(default)]
    pub(super) store: RawStore,
    #[serde(default)]
    pub(super) presence: RawPresence,
    #[serde(default)]
    pub(super) log: RawLog,
    #[serde(default)]
    pub(super) issuers: Vec<RawIssuer>,
    #[serde(skip)]
    pub(super) test_segment_bytes: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrunk {
    pub(super) listen: Option<String>,
    pub(super) clients: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) enabled: Option<bool>,
    pub(super) listen: Option<String>,
    pub(super) origins: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) idle_timeout_seconds: Option<i64>,
    pub(super) connections_per_shard_max: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) engine: Option<String>,
    pub(super) cache_mib: Option<i64>,
    pub(super) contact_points: Option<Vec<String>>,
    pub(super) keyspace: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    /// Only from the environment.
    #[serde(skip)]
    pub(super) password: Option<Secret>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) datacenter: Option<String>,
    pub(super) consistency: Option<String>,
    pub(super) replication_factor: Option<i64>,
    pub(super) accept: Option<Vec<String>>,
    pub(super) give_up_after_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPresence {
    pub(super) engine: Option<String>,
    pub(super) urls: Option<Vec<String>>,
    pub(super) cluster: Option<bool>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) ca: Option<PathBuf>,
    pub(super) namespace: Option<String>,
    pub(super) command_timeout_ms: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
    pub(super) filter: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIssuer {
    pub(super) issuer: Option<String>,
    pub(super) audiences: Option<Vec<String>>,
    pub(super) tenants: Option<Vec<String>>,
    pub(super) leeway_seconds: Option<i64>,
    #[serde(default)]
    pub(super) keys: Vec<RawKey>,
    pub(super) key_set: Option<PathBuf>,
    pub(super) claims: Option<RawClaims>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    pub(super) id: Option<String>,
    pub(super) algorithm: Option<String>,
    pub(super) file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClaims {
    pub(super) tenant: Option<String>,
    pub(super) tenant_claim: Option<RawPath>,
    pub(super) user_claim: Option<RawPath>,
    pub(super) token_id_claim: Option<RawPath>,
    pub(super) device_claim: Option<RawPath>,
    pub(super) name_claim: Option<RawPath>,
    pub(super) kind: Option<String>,
    #[serde(default)]
    pub(super) grants: Vec<RawGrant>,
}

/// A claim at the top by its name, or a nested one by the names that lead to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a claim's name, or the list of names that lead to it")]
pub(super) enum RawPath {
    Top(String),
    Nested(Vec<String>),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGrant {
    pub(super) on: Option<String>,
    pub(super) can: Option<Vec<String>>,
}

impl RawConfig {
    /// Paths in a file count from the file's folder, so that a configuration can be moved as a whole.
    pub(super) fn anchor(&mut self, folder: &Path) {
        let own = [
            &mut self.data_dir,
            &mut self.tls.certificate,
            &mut self.tls.key,
            &mut self.store.password_file,
            &mut self.store.tls_ca,
            &mut self.presence.password_file,
            &mut self.presence.ca,
        ];
        let issuers = self.issuers.iter_mut();
        let theirs = issuers.flat_map(|issuer| {
            issuer.keys.iter_mut().map(|key| &mut key.file).chain(std::iter::once(&mut issuer.key_set))
        });
        for path in own.into_iter().chain(theirs).flatten() {
            *path = folder.join(&*path);
        }
    }

    /// Lays higher values over these.
    pub(super) fn overlay(&mut self, higher: Overrides) {
        fn lay<T>(low: &mut Option<T>, high: Option<T>) {
            if high.is_some() {
                *low = high;
            }
        }
        lay(&mut self.listen, higher.listen);
        lay(&mut self.admin_listen, higher.admin_listen);
        lay(&mut self.data_dir, higher.data_dir);
        lay(&mut self.shards, higher.shards);
        lay(&mut self.development, higher.development);
        lay(&mut self.tls.certificate, higher.tls_certificate);
        lay(&mut self.tls.key, higher.tls_key);
        lay(&mut self.trunk.listen, higher.trunk_listen);
        lay(&mut self.gateway.listen, higher.gateway_listen);
        lay(&mut self.advertise, higher.advertise);
        lay(&mut self.store.cache_mib, higher.store_cache_mib);
        lay(&mut self.store.engine, higher.store_engine);
        lay(&mut self.store.contact_points, higher.store_contact_points);
        lay(&mut self.store.keyspace, higher.store_keyspace);
        lay(&mut self.store.user, higher.store_user);
        lay(&mut self.store.password, higher.store_password);
        lay(&mut self.store.accept, higher.store_accept);
        lay(&mut self.store.replication_factor, higher.store_replication_factor);
        lay(&mut self.presence.engine, higher.presence_engine);
        lay(&mut self.presence.urls, higher.presence_urls);
        lay(&mut self.log.format, higher.log_format);
        lay(&mut self.log.filter, higher.log_filter);
        lay(&mut self.test_segment_bytes, higher.test_segment_bytes);
    }
}
