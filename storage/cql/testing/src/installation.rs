//! Where the server is on this machine.

use std::{
    env,
    fmt::{self, Display},
    path::{Path, PathBuf},
};

use crate::{LaunchError, classes::Classes, java::Java};

/// What `install` copies; the version is written there only.
const POM: &str = include_str!("../pom.xml");
/// Names the folder that `install` fills, if it is not the usual one.
const FOLDER_VARIABLE: &str = "ANTIPHON_CASSANDRA";

/// The server's version; displayed as "Apache Cassandra 5.0.9".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(&'static str);

impl Version {
    /// The version that `install` installs, and that is run.
    pub fn installed() -> Self {
        let after = POM.split_once("<cassandra.version>").map_or("", |(_, after)| after);
        Self(after.split('<').next().unwrap_or_default())
    }

    /// The number alone, `5.0.9`.
    pub fn number(self) -> &'static str {
        self.0
    }
}

impl Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Apache Cassandra {}", self.0)
    }
}

/// A server that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Installation {
    /// Folder of the jars.
    pub(crate) jars: PathBuf,
    /// The Java to run it with.
    pub(crate) java: Java,
    /// How it comes by its classes.
    pub(crate) classes: Classes,
}

impl Installation {
    /// The one that `install` made.
    pub(crate) fn find() -> Result<Self, LaunchError> {
        let folder = env::var_os(FOLDER_VARIABLE).map_or_else(usual_folder, PathBuf::from);
        Self::in_folder(&folder)
    }

    fn in_folder(folder: &Path) -> Result<Self, LaunchError> {
        let jars = folder.join("lib");
        // `install` moves the whole folder into place, so one jar stands for all.
        if !jars.join(format!("cassandra-all-{}.jar", Version::installed().number())).exists() {
            return Err(LaunchError::NotInstalled(folder.to_owned()));
        }
        Ok(Self { jars, java: Java::find()?, classes: Classes::Read })
    }
}

fn usual_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap_or(Path::new("."));
    workspace.join("target").join(format!("cassandra-{}", Version::installed().number()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_pom() {
        let version = Version::installed();
        assert!(version.number().starts_with("5.0."), "{version}");
        assert_eq!(version.to_string(), format!("Apache Cassandra {}", version.number()));
    }

    #[test]
    fn a_folder_without_the_server_names_the_command_that_installs_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Installation::in_folder(folder.path()).unwrap_err();
        assert!(matches!(error, LaunchError::NotInstalled(_)));
        assert!(error.to_string().contains("`storage/cql/testing/install` installs it"), "{error}");
    }
}
