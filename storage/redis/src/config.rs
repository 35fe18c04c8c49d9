//! Where Redis is, and how it is reached.

use std::{fmt, sync::Arc, time::Duration};

use antiphon_storage::presence::{FRESH_WITHIN, REVOCATION_TTL, SEAT_REFRESH, SEAT_TTL, STALE_WITHIN};
use fred::types::{
    RespVersion,
    config::{Config, Server, ServerConfig, TlsConfig, TlsConnector, TlsHostMapping},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use thiserror::Error;

/// Why a configuration is of no use.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// An address is not `redis://host:port`, or `rediss://` for TLS.
    #[error(
        "{0:?} is not an address of Redis: redis://HOST[:PORT], or rediss:// for TLS; credentials have their own keys"
    )]
    Address(String),
    /// Some addresses ask for TLS and some do not.
    #[error("addresses of one cluster are all redis:// or all rediss://")]
    Mixed,
    /// One address is needed, and only a cluster has more.
    #[error("{0} addresses were given; a single server has one, a cluster at least one")]
    Count(usize),
    /// A brace would move keys to other slots.
    #[error("{0:?} is no namespace: 1 to 32 of a-z 0-9 -")]
    Namespace(String),
    /// The certificates to trust cannot be used.
    #[error("the certificates that Redis is to be trusted by: {0}")]
    Tls(String),
}

/// A password. Never logged.
#[derive(Clone)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whom to trust, where addresses ask for TLS.
#[derive(Debug, Clone, Default)]
pub enum Tls {
    /// The certificate authorities of this machine.
    #[default]
    System,
    /// These, in PEM.
    Pem(Vec<u8>),
}

/// Everything that [`crate::RedisPresence::start`] needs.
#[derive(Debug, Clone)]
pub struct RedisConfig {
    /// `redis://host:port`, or `rediss://` for TLS.
    pub urls: Vec<String>,
    /// Whether the addresses are nodes of a Redis Cluster.
    pub is_cluster: bool,
    /// A user of Redis' access control lists.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// Whom to trust.
    pub tls: Tls,
    /// First part of every key, for several installations on one Redis.
    pub namespace: String,
    /// How often, and for how long.
    pub timing: Timing,
}

impl RedisConfig {
    /// One server without credentials.
    pub fn single(url: &str) -> Self {
        Self {
            urls: vec![url.to_owned()],
            is_cluster: false,
            username: None,
            password: None,
            tls: Tls::System,
            namespace: "antiphon".into(),
            timing: Timing::default(),
        }
    }

    /// Whether it can be used, without asking anybody.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.to_client().map(|_| ())
    }

    /// The same, but for what is in files.
    pub fn check_addresses(&self) -> Result<(), ConfigError> {
        self.servers().map(|_| ())
    }

    pub(crate) fn to_client(&self) -> Result<Config, ConfigError> {
        let (server, has_tls) = self.servers()?;
        Ok(Config {
            // A Redis that is away at the start comes later.
            fail_fast: false,
            username: self.username.clone(),
            password: self.password.as_ref().map(|password| password.0.clone()),
            server,
            version: RespVersion::RESP3,
            tls: if has_tls { Some(self.tls.to_client()?) } else { None },
            ..Config::default()
        })
    }

    /// Where to connect, and whether with TLS.
    fn servers(&self) -> Result<(ServerConfig, bool), ConfigError> {
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&self.namespace.len()) || !self.namespace.bytes().all(fits) {
            return Err(ConfigError::Namespace(self.namespace.clone()));
        }
        let parsed: Vec<(Server, bool)> = self.urls.iter().map(|url| parse(url)).collect::<Result<_, _>>()?;
        let has_tls = parsed.iter().any(|(_, is_tls)| *is_tls);
        if has_tls && !parsed.iter().all(|(_, is_tls)| *is_tls) {
            return Err(ConfigError::Mixed);
        }
        let mut hosts: Vec<Server> = parsed.into_iter().map(|(server, _)| server).collect();
        let server = match (self.is_cluster, hosts.len()) {
            (true, 1..) => ServerConfig::Clustered { hosts, policy: Default::default() },
            (false, 1) => ServerConfig::Centralized { server: hosts.remove(0) },
            (_, count) => return Err(ConfigError::Count(count)),
        };
        Ok((server, has_tls))
    }
}

fn parse(url: &str) -> Result<(Server, bool), ConfigError> {
    let wrong = || ConfigError::Address(url.to_owned());
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let is_tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return Err(wrong()),
    };
    // An IPv6 address has its colons in brackets.
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (rest, 6379),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(wrong());
    }
    Ok((Server::new(host, port), is_tls))
}

impl Tls {
    fn to_client(&self) -> Result<TlsConfig, ConfigError> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            Self::Pem(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    let certificate = certificate.map_err(|error| ConfigError::Tls(error.to_string()))?;
                    roots.add(certificate).map_err(|error| ConfigError::Tls(error.to_string()))?;
                }
            }
        }
        if roots.is_empty() {
            return Err(ConfigError::Tls("there are none".into()));
        }
        // Named, not the process's default: nobody else in the process has to agree.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ConfigError::Tls(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        // Nodes of a cluster are told by address; their certificates name the host of the address that was given.
        Ok(TlsConfig { connector: TlsConnector::Rustls(connector), hostnames: TlsHostMapping::DefaultHost })
    }
}

/// How often, and for how long. The contract's figures by default; tests have less time.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a seat counts that is not restated.
    pub seat_ttl: Duration,
    /// How often a seat is restated.
    pub refresh: Duration,
    /// How often a bucket has a turn at least.
    pub beat: Duration,
    /// How often all that is watched is read again, whatever was announced meanwhile.
    pub reread: Duration,
    /// After how long a command is given up.
    pub command_timeout: Duration,
    /// From the last right answer until watchers are told, less what a command may take.
    pub stale_after: Duration,
    /// From a loss of data until all processes have stated their seats again.
    pub settle: Duration,
    /// A bucket without a turn for so long was away, and its seats are given [`Self::settle`] to be restated.
    pub gap: Duration,
    /// How often subscriptions are asked for again: a cluster that moves a slot drops them without a word.
    pub resubscribe: Duration,
    /// How long a revocation is kept.
    pub revocation_ttl: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            seat_ttl: SEAT_TTL,
            refresh: SEAT_REFRESH,
            beat: Duration::from_secs(1),
            reread: Duration::from_secs(20),
            command_timeout: Duration::from_secs(1),
            stale_after: Duration::from_secs(3),
            settle: Duration::from_secs(10),
            gap: Duration::from_secs(5),
            resubscribe: Duration::from_secs(10),
            revocation_ttl: REVOCATION_TTL,
        }
    }
}

impl Timing {
    /// How long Redis keeps what nobody renews: longer than any seat, so that its end is noticed.
    pub(crate) fn keep(&self) -> Duration {
        self.seat_ttl * 2
    }

    /// How often the driver looks at the clock.
    pub(crate) fn tick(&self) -> Duration {
        self.beat / 10
    }
}

/// The longest wait between two attempts to connect.
pub(crate) const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(1);

/// What the contract promises, from what is configured: see [`Timing::default`].
const _: () = {
    let (command_timeout_s, stale_after_s, settle_s) = (1, 3, 10);
    assert!(stale_after_s + command_timeout_s < STALE_WITHIN.as_secs());
    assert!(settle_s + 5 * (RECONNECT_AFTER_MAX.as_secs() + command_timeout_s) < FRESH_WITHIN.as_secs());
};

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(change: impl FnOnce(&mut RedisConfig)) -> Result<(), String> {
        let mut config = RedisConfig::single("redis://localhost:6380");
        change(&mut config);
        config.check().map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_checked_and_credentials_do_not_stand_in_them() {
        assert_eq!(checked(|_| {}), Ok(()));
        for good in ["redis://cache", "redis://[::1]:6379", "redis://[::1]", "redis://10.0.0.1:1"] {
            assert_eq!(checked(|config| config.urls = vec![good.into()]), Ok(()), "{good}");
        }
        for bad in ["cache:6379", "http://cache", "redis://", "redis://u:p@cache", "redis://cache:70000", "redis://c/0"]
        {
            assert!(checked(|config| config.urls = vec![bad.into()]).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn a_single_server_has_one_address_and_a_cluster_at_least_one() {
        let two = || vec!["redis://a".to_owned(), "redis://b".to_owned()];
        assert!(checked(|config| config.urls = two()).is_err());
        assert!(checked(|config| (config.urls, config.is_cluster) = (Vec::new(), true)).is_err());
        assert_eq!(checked(|config| (config.urls, config.is_cluster) = (two(), true)), Ok(()));
        let mixed = vec!["redis://a".to_owned(), "rediss://b".to_owned()];
        assert!(checked(|config| (config.urls, config.is_cluster) = (mixed, true)).is_err());
    }

    #[test]
    fn what_cannot_be_trusted_or_named_is_refused() {
        for pem in ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let tls = Tls::Pem(pem.into());
            let refused = checked(|config| (config.urls, config.tls) = (vec!["rediss://a".into()], tls));
            assert!(refused.is_err(), "{pem:?}");
        }
        for namespace in ["", "a{b}", "a:b", &"x".repeat(33)] {
            assert!(checked(|config| config.namespace = namespace.into()).is_err(), "{namespace:?}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let config = RedisConfig { password: Some(Secret("hidden".into())), ..RedisConfig::single("redis://a") };
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
