//! `[presence]`: whether this broker decides alone who is present, or shares it with others.

use std::{path::PathBuf, time::Duration};

use antiphon_storage_redis::{RedisConfig, Secret, Timing, Tls};

use super::{
    ConfigError,
    raw::RawPresence,
    read, read_password,
    validate::{invalid, quoted, within},
};

/// Who knows who is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceSettings {
    /// This process alone.
    Process,
    /// All brokers on one Redis.
    Redis(RedisSettings),
}

/// How Redis is reached. Its files have not been read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://HOST[:PORT]`, or `rediss://` for TLS.
    pub urls: Vec<String>,
    /// Whether they are nodes of a Redis Cluster.
    pub is_cluster: bool,
    /// A user of Redis' access control lists.
    pub username: Option<String>,
    /// Where the password is.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities to trust, PEM; `None` trusts this machine's.
    pub ca: Option<PathBuf>,
    /// First part of every key.
    pub namespace: String,
    /// After how long a command is given up.
    pub command_timeout: Duration,
}

impl RedisSettings {
    /// Reads the files that are named.
    pub fn load(&self) -> Result<RedisConfig, ConfigError> {
        let password = self.password_file.as_deref().map(read_password).transpose()?;
        let tls = match &self.ca {
            Some(path) => Tls::Pem(read(path)?),
            None => Tls::System,
        };
        Ok(RedisConfig {
            urls: self.urls.clone(),
            is_cluster: self.is_cluster,
            username: self.username.clone(),
            password: password.map(Secret),
            tls,
            namespace: self.namespace.clone(),
            timing: Timing { command_timeout: self.command_timeout, ..Timing::default() },
        })
    }
}

pub(super) fn validate(raw: RawPresence) -> Result<PresenceSettings, ConfigError> {
    // Longer, and an absent store would be noticed later than is promised.
    let timeout_ms =
        within("presence.command_timeout_ms", raw.command_timeout_ms, 1_000, 100..=1_500, "100 to 1500 milliseconds")?;
    let settings = RedisSettings {
        urls: raw.urls.unwrap_or_default(),
        is_cluster: raw.cluster.unwrap_or(false),
        username: raw.username,
        password_file: raw.password_file,
        ca: raw.ca,
        namespace: raw.namespace.unwrap_or_else(|| "antiphon".to_owned()),
        command_timeout: Duration::from_millis(timeout_ms.into()),
    };
    // What is written for later is held to the same rules.
    let (username, namespace) = (settings.username.clone(), settings.namespace.clone());
    let (urls, is_cluster) = (settings.urls.clone(), settings.is_cluster);
    let without_files = RedisConfig { urls, is_cluster, username, namespace, ..RedisConfig::single("") };
    if !settings.urls.is_empty() {
        without_files.check_addresses()?;
    }
    match raw.engine.as_deref() {
        None | Some("process") => Ok(PresenceSettings::Process),
        Some("redis") if settings.urls.is_empty() => {
            Err(ConfigError::Missing { key: "presence.urls".to_owned(), expected: "where Redis is: redis://HOST:PORT" })
        }
        Some("redis") => Ok(PresenceSettings::Redis(settings)),
        Some(other) => Err(invalid("presence.engine", "process or redis", quoted(other))),
    }
}
