//! Settings of a store on a CQL cluster.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

/// How to reach the cluster and what to ask of it.
#[derive(Debug, Clone)]
pub struct CqlConfig {
    /// `host:port` of some of its nodes; the others are found.
    pub contact_points: Vec<String>,
    /// Keyspace of the logs; that of the lease is called the same with `_coordination` behind.
    pub keyspace: String,
    /// User and password, if the cluster asks for them.
    pub credentials: Option<Credentials>,
    /// TLS towards the cluster.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The data centre to use; needed where there is more than one.
    pub datacenter: Option<String>,
    /// Of reads and writes.
    pub consistency: Consistency,
    /// Copies that a new keyspace keeps, in each data centre.
    pub replication_factor: u8,
    /// What the operator accepts although it weakens a guarantee.
    pub accepted: BTreeSet<Downgrade>,
    /// How long one statement may take. Longer: it is repeated.
    pub request_timeout: Duration,
    /// How long a request is repeated. Longer: it is given up, and the sender told that the outcome is unknown.
    pub give_up_after: Duration,
}

impl CqlConfig {
    /// The usual settings.
    pub fn new(contact_points: Vec<String>, keyspace: String) -> Self {
        Self {
            contact_points,
            keyspace,
            credentials: None,
            tls: None,
            datacenter: None,
            consistency: Consistency::Quorum,
            replication_factor: 3,
            accepted: BTreeSet::new(),
            request_timeout: Duration::from_secs(3),
            give_up_after: Duration::from_secs(5),
        }
    }

    /// The keyspace of the lease and of the schema's version.
    pub fn coordination(&self) -> String {
        format!("{}_coordination", self.keyspace)
    }
}

/// User and password. Neither is printed.
#[derive(Clone)]
pub struct Credentials {
    /// Who.
    pub user: String,
    /// The secret.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// Majorities of what read and write each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// A majority of all copies.
    Quorum,
    /// A majority of the copies in the chosen data centre.
    LocalQuorum,
}

/// What weakens a guarantee and is refused unless the operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Downgrade {
    /// The servers acknowledge writes before they are on disk: the loss of power on several nodes at once may take
    /// acknowledged messages along.
    PeriodicCommitlog,
    /// Fewer than three copies: one lost node may take messages along or stop the broker.
    LowReplication,
    /// A server's clock is more than five seconds off.
    ClockSkew,
    /// What the servers are set to cannot be read.
    UnknownServer,
}

impl Downgrade {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::PeriodicCommitlog, Self::LowReplication, Self::ClockSkew, Self::UnknownServer];

    /// The name by which it is accepted.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeriodicCommitlog => "periodic-commitlog",
            Self::LowReplication => "low-replication",
            Self::ClockSkew => "clock-skew",
            Self::UnknownServer => "unknown-server",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|downgrade| downgrade.name() == name)
    }
}
