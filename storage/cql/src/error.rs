//! Why the store cannot be used. One line each; the operator can mend it.

use thiserror::Error;

use crate::config::Downgrade;

/// What went wrong.
#[derive(Debug, Error)]
pub enum CqlError {
    /// The configuration says something impossible.
    #[error("{0}")]
    Config(String),
    /// No node answers. May pass.
    #[error("no node of the cluster answers at {contact_points}: {reason}")]
    Unreachable {
        /// Where it was tried.
        contact_points: String,
        /// What the driver said.
        reason: String,
    },
    /// The cluster refuses the credentials.
    #[error("the cluster refuses the credentials of user `{user}`: {reason}")]
    Credentials {
        /// Who was refused.
        user: String,
        /// What it said.
        reason: String,
    },
    /// The two sides disagree about TLS.
    #[error("TLS towards the cluster at {contact_points}: {reason}")]
    Tls {
        /// Where it was tried.
        contact_points: String,
        /// What is wrong.
        reason: String,
    },
    /// There is no schema, or an older one.
    #[error("keyspace `{keyspace}` {found}: run `antiphon schema apply`")]
    SchemaMissing {
        /// Which.
        keyspace: String,
        /// What is there.
        found: String,
    },
    /// A later version of the broker has been here.
    #[error(
        "keyspace `{keyspace}` has schema version {found}, which is newer than this program's {known}: use a newer antiphon"
    )]
    SchemaNewer {
        /// Which.
        keyspace: String,
        /// Its version.
        found: i32,
        /// The newest one that is known.
        known: i32,
    },
    /// What is there is a part of another store.
    #[error("keyspace `{keyspace}` holds an unfinished copy of another store; let `antiphon copy` finish it")]
    UnfinishedCopy {
        /// Which.
        keyspace: String,
    },
    /// Something weakens a guarantee.
    #[error("{what}; to run all the same, add \"{}\" to `store.accept`", .downgrade.name())]
    Refused {
        /// What.
        what: String,
        /// By which name it is accepted.
        downgrade: Downgrade,
    },
    /// A statement failed. May pass.
    #[error("{doing}: {reason}")]
    Statement {
        /// What was tried.
        doing: &'static str,
        /// What the driver or server said.
        reason: String,
    },
    /// A thread or runtime cannot be started.
    #[error("the store's threads cannot be started: {0}")]
    Threads(#[from] std::io::Error),
}

impl CqlError {
    /// A failed statement.
    pub(crate) fn statement(doing: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::Statement { doing, reason: reason.to_string() }
    }

    /// Whether it may pass by itself, so that trying again makes sense.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Statement { .. })
    }
}
