//! Where the server and its Java are on this machine.

use std::{
    env,
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::LaunchError;

/// What `install` copies; the version is written there only.
const POM: &str = include_str!("../pom.xml");
/// Names the folder that `install` fills, if it is not the usual one.
const FOLDER_VARIABLE: &str = "ANTIPHON_CASSANDRA";
/// Where Debian's packages and most others put theirs.
const JAVA_FOLDERS: &str = "/usr/lib/jvm";
const JAVA_SUPPORTED: [u32; 2] = [17, 11];

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
    /// The `java` to run it with.
    pub(crate) java: PathBuf,
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
        Ok(Self { jars, java: find_java()? })
    }
}

fn usual_folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).unwrap_or(Path::new("."));
    workspace.join("target").join(format!("cassandra-{}", Version::installed().number()))
}

/// The first Java that will do: the one that is asked for, the usual one, then any that is installed.
fn find_java() -> Result<PathBuf, LaunchError> {
    let mut found = Vec::new();
    for java in candidates() {
        match major_version(&java) {
            Some(version) if JAVA_SUPPORTED.contains(&version) => return Ok(java),
            Some(version) => found.push(format!("Java {version} ({})", java.display())),
            None => {}
        }
    }
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    Err(LaunchError::Java { found })
}

fn candidates() -> Vec<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let mut installed: Vec<PathBuf> = fs::read_dir(JAVA_FOLDERS)
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin/java")).collect())
        .unwrap_or_default();
    installed.sort();
    home.into_iter().chain([PathBuf::from("java")]).chain(installed).collect()
}

/// `None` if there is no such program, or it says nothing that can be understood.
fn major_version(java: &Path) -> Option<u32> {
    let output = Command::new(java).arg("-version").output().ok()?;
    parse_major(&String::from_utf8_lossy(&output.stderr))
}

/// `openjdk version "17.0.15" 2025-04-15` is 17.
fn parse_major(said: &str) -> Option<u32> {
    let quoted = said.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
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

    #[test]
    fn java_says_its_version_in_quotes() {
        assert_eq!(parse_major("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(parse_major("openjdk version \"25\" 2025-09-16 LTS\n"), Some(25));
        assert_eq!(parse_major("java version \"1.8.0_202\"\n"), Some(1));
        assert_eq!(parse_major("something else"), None);
    }
}
