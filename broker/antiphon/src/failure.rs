//! Why a command failed: one line and an exit code.

use std::{io, path::PathBuf, process::ExitCode};

use antiphon_server::{StartError, auth::MintError, config::ConfigError, identity::IdentityError};
use antiphon_storage::embedded::{BackupError, OpenError};
use antiphon_storage_copy::CopyError;
use antiphon_storage_cql::CqlError;
use thiserror::Error;

use crate::chaos::ChaosError;

/// A failed command. The text says whose fault it is and what was expected.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The configuration is not usable.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The broker did not start or end well.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The gateway did not start.
    #[error(transparent)]
    Gateway(#[from] antiphon_gateway_ws::GatewayError),
    /// No harm can be done on purpose.
    #[error(transparent)]
    Chaos(#[from] ChaosError),
    /// No thread or timer.
    #[error("the runtime cannot be started: {0}")]
    Runtime(#[source] io::Error),
    /// Nothing has ever run with this data directory.
    #[error("{path} holds no broker's data; start the broker first, or name its folder with --data", path = .0.display())]
    NoData(PathBuf),
    /// A value on the command line.
    #[error("{argument}: {problem}")]
    Argument {
        /// Which.
        argument: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Secrets of the data directory.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A token cannot be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The broker said no, or did not answer.
    #[error("{0}")]
    Client(Box<antiphon_sdk::Error>),
    /// The subscription ended.
    #[error("the subscription ended: {0}")]
    Detached(String),
    /// The admin listener.
    #[error("the broker's admin listener at {address}: {problem}")]
    Admin {
        /// Where.
        address: String,
        /// What happened.
        problem: String,
    },
    /// Copying the store.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// Reading the store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The cluster that keeps the logs.
    #[error("the store: {0}")]
    Cluster(#[from] CqlError),
    /// Moving everything to another store.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The store weakens a guarantee that nobody has given up.
    #[error("{0} things weaken a guarantee; name them in `store.accept` to run all the same")]
    Weak(usize),
    /// The store is not as it should be.
    #[error("{0} problems found")]
    Damaged(usize),
    /// Files of the data directory.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Lines of an import that were refused, each with its reason.
    #[error("{0} lines were not imported")]
    NotImported(u64),
    /// Standard output is gone.
    #[error("the output cannot be written: {0}")]
    Output(#[source] io::Error),
}

impl From<antiphon_sdk::Error> for Failure {
    fn from(error: antiphon_sdk::Error) -> Self {
        Self::Client(Box::new(error))
    }
}

impl Failure {
    /// 2 for what the caller wrote, 1 for everything else.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) | Self::Argument { .. } | Self::NoData(_) | Self::Chaos(ChaosError::NotDevelopment) => {
                ExitCode::from(2)
            }
            _ => ExitCode::FAILURE,
        }
    }
}
