//! Where the logs are kept: in the data directory, or on a CQL cluster.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use antiphon_core::Secret;
use antiphon_storage_cql::{Consistency, CqlConfig, Credentials, Downgrade, schema};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    ConfigError,
    raw::RawStore,
    read, read_password,
    validate::{invalid, quoted, within},
};

/// Where the logs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// In the data directory.
    Embedded {
        /// Cache of the index, for the whole process, in bytes.
        cache_bytes: u64,
    },
    /// On a ScyllaDB or Cassandra cluster.
    Cql(CqlSettings),
}

/// How to reach a cluster and what to ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CqlSettings {
    /// `host:port` of some of its nodes.
    pub contact_points: Vec<String>,
    /// The keyspace of the logs.
    pub keyspace: String,
    /// User and where the password is, if the cluster asks for them.
    pub user: Option<(String, Password)>,
    /// Roots that the nodes' certificates must lead to (PEM); `None` speaks without TLS.
    pub tls_ca: Option<PathBuf>,
    /// The data centre to use.
    pub datacenter: Option<String>,
    /// Whether a majority in that data centre is enough.
    pub is_local: bool,
    /// Copies that a new keyspace keeps.
    pub replication_factor: u8,
    /// What the operator accepts although it weakens a guarantee.
    pub accepted: BTreeSet<Downgrade>,
    /// How long a request is repeated before it is given up.
    pub give_up_after: Duration,
}

/// Where a password is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// In a file, without the line's end.
    File(PathBuf),
    /// It was in the environment.
    Given(Secret),
}

impl CqlSettings {
    /// The settings with everything that they name read.
    pub fn store_config(&self) -> Result<CqlConfig, ConfigError> {
        let mut config = CqlConfig::new(self.contact_points.clone(), self.keyspace.clone());
        config.credentials = self.user.as_ref().map(|(user, password)| password.read(user)).transpose()?;
        config.tls = self.tls_ca.as_deref().map(tls).transpose()?;
        config.datacenter.clone_from(&self.datacenter);
        config.consistency = if self.is_local { Consistency::LocalQuorum } else { Consistency::Quorum };
        config.replication_factor = self.replication_factor;
        config.accepted.clone_from(&self.accepted);
        config.give_up_after = self.give_up_after;
        Ok(config)
    }
}

impl Password {
    fn read(&self, user: &str) -> Result<Credentials, ConfigError> {
        let password = match self {
            Self::Given(password) => password.0.clone(),
            Self::File(path) => read_password(path)?,
        };
        Ok(Credentials { user: user.to_owned(), password })
    }
}

fn tls(ca: &Path) -> Result<Arc<ClientConfig>, ConfigError> {
    let unusable = || invalid("store.tls_ca", "PEM certificates of roots", ca.display());
    let pem = read(ca)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(|_| unusable())?).map_err(|_| unusable())?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(|_| unusable())?.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}

pub(super) fn store(raw: RawStore) -> Result<StoreSettings, ConfigError> {
    match raw.engine.as_deref() {
        None | Some("embedded") => {
            refuse_cluster_keys(&raw)?;
            let mib = within("store.cache_mib", raw.cache_mib, 64, 1..=1 << 20, "1 to 1048576 MiB")?;
            Ok(StoreSettings::Embedded { cache_bytes: u64::from(mib) << 20 })
        }
        Some("scylla" | "cassandra") => cluster(raw).map(StoreSettings::Cql),
        Some(other) => Err(invalid("store.engine", "\"embedded\", \"scylla\" or \"cassandra\"", quoted(other))),
    }
}

/// A key that does nothing is a mistake that somebody would find too late.
fn refuse_cluster_keys(raw: &RawStore) -> Result<(), ConfigError> {
    let keys = [
        ("store.contact_points", raw.contact_points.is_some()),
        ("store.keyspace", raw.keyspace.is_some()),
        ("store.user", raw.user.is_some()),
        ("store.password_file", raw.password_file.is_some()),
        ("store.tls_ca", raw.tls_ca.is_some()),
        ("store.datacenter", raw.datacenter.is_some()),
        ("store.consistency", raw.consistency.is_some()),
        ("store.replication_factor", raw.replication_factor.is_some()),
        ("store.accept", raw.accept.is_some()),
        ("store.give_up_after_seconds", raw.give_up_after_seconds.is_some()),
    ];
    match keys.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(ConfigError::Conflict {
            key: key.to_owned(),
            rule: "is for logs on a cluster: set `store.engine` to \"scylla\" or \"cassandra\"",
        }),
        None => Ok(()),
    }
}

fn cluster(raw: RawStore) -> Result<CqlSettings, ConfigError> {
    let missing = |key: &str, expected| ConfigError::Missing { key: key.to_owned(), expected };
    if raw.cache_mib.is_some() {
        let rule = "is for logs in the data directory";
        return Err(ConfigError::Conflict { key: "store.cache_mib".to_owned(), rule });
    }
    let contact_points = raw.contact_points.filter(|points| !points.is_empty());
    let contact_points =
        contact_points.ok_or_else(|| missing("store.contact_points", "host and port of some nodes of the cluster"))?;
    for (at, point) in contact_points.iter().enumerate() {
        let port = point.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse().ok());
        port.filter(|port: &u16| *port > 0).ok_or_else(|| {
            invalid(format!("store.contact_points[{at}]"), "host and port such as db1.example:9042", quoted(point))
        })?;
    }
    let user = match (raw.user, raw.password, raw.password_file) {
        (None, None, None) => None,
        (Some(user), Some(password), None) => Some((user, Password::Given(password))),
        (Some(user), None, Some(file)) => Some((user, Password::File(file))),
        _ => return Err(missing("store.user", "`user` and `password_file` together")),
    };
    let is_local = match raw.consistency.as_deref() {
        None | Some("quorum") => false,
        Some("local-quorum") => true,
        Some(other) => return Err(invalid("store.consistency", "\"quorum\" or \"local-quorum\"", quoted(other))),
    };
    if is_local && raw.datacenter.is_none() {
        return Err(missing("store.datacenter", "the data centre whose majority counts"));
    }
    let accept = |(at, name): (usize, &String)| {
        let expected = "periodic-commitlog, low-replication, clock-skew or unknown-server";
        Downgrade::from_name(name).ok_or_else(|| invalid(format!("store.accept[{at}]"), expected, quoted(name)))
    };
    let accepted = raw.accept.unwrap_or_default().iter().enumerate().map(accept).collect::<Result<_, _>>()?;
    let copies = within("store.replication_factor", raw.replication_factor, 3, 1..=9, "1 to 9 copies")?;
    let give_up = within("store.give_up_after_seconds", raw.give_up_after_seconds, 5, 1..=60, "1 to 60 seconds")?;
    Ok(CqlSettings {
        contact_points,
        keyspace: keyspace(raw.keyspace)?,
        user,
        tls_ca: raw.tls_ca,
        datacenter: raw.datacenter,
        is_local,
        // Invariant: `within` has just bounded it by 9.
        replication_factor: copies as u8,
        accepted,
        give_up_after: Duration::from_secs(give_up.into()),
    })
}

fn keyspace(raw: Option<String>) -> Result<String, ConfigError> {
    let name = raw.unwrap_or_else(|| "antiphon".to_owned());
    if schema::is_keyspace(&name) {
        return Ok(name);
    }
    Err(invalid("store.keyspace", schema::KEYSPACE_EXPECTED, quoted(&name)))
}
