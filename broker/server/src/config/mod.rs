//! Configuration: a TOML file, then `ANTIPHON_...` variables, then flags; the last one that says something wins.
//!
//! ```text
//! raw.rs       what may be written: every field optional, unknown ones refused
//! sources.rs   file, environment, flags -> one raw configuration
//! validate.rs  raw -> [`Config`], with the rules between fields
//! ```
//!
//! Every error is one line that names the key, where it was written, and what was expected. A [`Config`] is consistent:
//! nothing that holds one has to check again. `deploy/antiphon.toml` shows every key and is read by a test.

mod presence;
mod raw;
mod sources;
mod store;
mod validate;

use std::{
    fs,
    net::SocketAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use crate::{
    auth::{Algorithm, IssuerConfig, IssuerKey, IssuerPolicy, KeyError, Verifier, VerifierError, VerifyingKey},
    identity::Identity,
    tls::{self, TlsError},
};

pub use presence::{PresenceSettings, RedisSettings};
pub use raw::Overrides;
pub use store::{CqlSettings, Password, StoreSettings};

/// A validated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where QUIC listens (UDP).
    pub listen: SocketAddr,
    /// Where the admin listener listens (TCP).
    pub admin_listen: SocketAddr,
    /// Where data and secrets live.
    pub data_dir: PathBuf,
    /// Shards, one thread each; 1 to 64, any number.
    pub shards: NonZeroU16,
    /// Whether `POST /dev/token` answers and development tokens count.
    pub development: bool,
    /// Certificate and key; `None` uses the data directory's own, which clients must pin.
    pub tls: Option<TlsFiles>,
    /// How edges reach this broker.
    pub trunk: TrunkSettings,
    /// The gateway inside this process; `None` if there is none.
    pub gateway: Option<GatewaySettings>,
    /// Who may sign tokens.
    pub issuers: Vec<IssuerSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Where the logs are kept.
    pub store: StoreSettings,
    /// Where clients of this broker connect, as a broker that stands by tells them; `None` = where it listens.
    pub advertise: Option<String>,
    /// Who is present, as far as this broker knows.
    pub presence: PresenceSettings,
    /// How the process logs.
    pub log: LogSettings,
    /// Length of a segment of the write-ahead log, in tests that want segments full and the index flushed often; the
    /// store's other sizes keep their proportion. Only `ANTIPHON_TEST_SEGMENT_BYTES` sets it: it is nothing to operate.
    pub test_segment_bytes: Option<u32>,
}

/// Certificate chain and private key, both PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, the server's certificate first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How edges, such as a gateway in a process of its own, reach the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkSettings {
    /// Where trunks listen (UDP).
    pub listen: SocketAddr,
    /// SHA-256 of the certificates that edges may show, lower-case hexadecimal. The data directory's own always counts.
    pub clients: Vec<String>,
}

/// The gateway for browsers and back ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewaySettings {
    /// Where HTTP and WebSocket listen (TCP).
    pub listen: SocketAddr,
    /// Origins of pages, besides its own, that may use it, such as `https://chat.example`.
    pub origins: Vec<String>,
}

/// An issuer whose keys have not been read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What it may do.
    pub policy: IssuerPolicy,
    /// Where its keys are.
    pub keys: KeySource,
}

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// One file a key.
    Files(Vec<KeyFile>),
    /// One JSON Web Key Set.
    KeySet(PathBuf),
}

/// One key in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The `kid` that selects it; `None` for tokens without one.
    pub id: Option<String>,
    /// The one algorithm that it proves.
    pub algorithm: Algorithm,
    /// PEM public key, or the bare secret for HS256.
    pub file: PathBuf,
}

/// Bounds that an operator may move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A silent connection is dropped after this long.
    pub idle_timeout: Duration,
    /// Connections of one shard; further handshakes are refused.
    pub connections_per_shard_max: u32,
}

/// How the process logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: `info`, or directives such as `warn,antiphon_server=debug`.
    pub filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no configuration. One line; the operator can mend it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML, or holds an unknown key or a value of the wrong type.
    #[error("{path}, line {line}{key}: {message}", path = path.display(), key = key.as_ref().map(|key| format!(", `{key}`")).unwrap_or_default())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key in that line, where one can be told.
        key: Option<String>,
        /// What was found and expected.
        message: String,
    },
    /// One value is out of its range.
    #[error("{key}: expected {expected}, not {found}")]
    Invalid {
        /// The key, with the way to it.
        key: String,
        /// What would be right.
        expected: &'static str,
        /// What was written.
        found: String,
    },
    /// A needed value is absent.
    #[error("{key} is missing: expected {expected}")]
    Missing {
        /// The key, with the way to it.
        key: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Two values contradict each other, or together would be unsafe.
    #[error("{key}: {rule}")]
    Conflict {
        /// The key to change.
        key: String,
        /// The rule.
        rule: &'static str,
    },
    /// A key file is not usable.
    #[error("{key}: {path} {source}", path = path.display())]
    Key {
        /// The configuration key that names it.
        key: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// Issuers contradict each other.
    #[error("issuers: {0}")]
    Issuers(#[from] VerifierError),
    /// Certificate or key are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Presence cannot be shared like that.
    #[error("presence: {0}")]
    Presence(#[from] antiphon_storage_redis::ConfigError),
}

/// A file that the configuration names.
fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

/// A password in a file. Editors end one with a line break, which is no part of it.
fn read_password(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    Ok(fs::read_to_string(path).map_err(unreadable)?.trim_end_matches(['\r', '\n']).to_owned())
}

impl Config {
    /// Reads every file that the configuration names, without starting anything or touching the data directory.
    pub fn check(&self) -> Result<(), ConfigError> {
        Verifier::new(self.load_issuers()?)?;
        if let Some(files) = &self.tls {
            tls::check_files(files)?;
        }
        if let StoreSettings::Cql(settings) = &self.store {
            settings.store_config()?;
        }
        if let PresenceSettings::Redis(settings) = &self.presence {
            settings.load()?.check()?;
        }
        Ok(())
    }

    /// A verifier with every issuer's keys as the files hold them now, and the development issuer in development mode.
    /// A reload calls this again.
    pub fn verifier(&self, identity: &Identity) -> Result<Verifier, ConfigError> {
        let mut issuers = self.load_issuers()?;
        if self.development {
            issuers.push(identity.development_issuer());
        }
        Ok(Verifier::new(issuers)?)
    }

    fn load_issuers(&self) -> Result<Vec<IssuerConfig>, ConfigError> {
        self.issuers.iter().enumerate().map(|(at, issuer)| issuer.load(at)).collect()
    }
}

impl IssuerSettings {
    /// Reads the keys of the issuer, the `at`-th of the configuration.
    fn load(&self, at: usize) -> Result<IssuerConfig, ConfigError> {
        let failed = |key: String, path: &PathBuf, source| ConfigError::Key { key, path: path.clone(), source };
        let keys = match &self.keys {
            KeySource::KeySet(path) => crate::auth::read_key_set(path)
                .map_err(|error| failed(format!("issuers[{at}].key_set"), path, error))?,
            KeySource::Files(files) => {
                let read = |(nth, file): (usize, &KeyFile)| {
                    let key = VerifyingKey::from_file(file.algorithm, &file.file)
                        .map_err(|error| failed(format!("issuers[{at}].keys[{nth}].file"), &file.file, error))?;
                    Ok(IssuerKey { id: file.id.clone(), key })
                };
                files.iter().enumerate().map(read).collect::<Result<_, ConfigError>>()?
            }
        };
        Ok(IssuerConfig { policy: self.policy.clone(), keys })
    }
}

#[cfg(test)]
mod tests;
