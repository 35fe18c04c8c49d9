//! The Java to run the server with.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::LaunchError;

/// Where Debian's packages and most others put theirs.
const FOLDERS: &str = "/usr/lib/jvm";
/// Major versions that Cassandra 5 supports.
const SUPPORTED: [u32; 2] = [17, 11];

/// One that the server supports.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub(crate) program: PathBuf,
    pub(crate) major: u32,
    /// Exactly which one, as far as characters of file names go.
    pub(crate) build: String,
}

impl Java {
    /// The first that will do: the one that `JAVA_HOME` names, the usual one, then any that is installed.
    pub(crate) fn find() -> Result<Self, LaunchError> {
        let mut found = Vec::new();
        for java in candidates().into_iter().filter_map(Self::ask) {
            if SUPPORTED.contains(&java.major) {
                return Ok(java);
            }
            found.push(format!("Java {} ({})", java.major, java.program.display()));
        }
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Err(LaunchError::Java { found })
    }

    /// `None` if there is no such program, or it says nothing that can be understood.
    fn ask(program: PathBuf) -> Option<Self> {
        let output = Command::new(&program).arg("-version").output().ok()?;
        let said = String::from_utf8_lossy(&output.stderr);
        Some(Self { program, major: major(&said)?, build: build(&said) })
    }
}

fn candidates() -> Vec<PathBuf> {
    let home = env::var_os("JAVA_HOME").map(|home| Path::new(&home).join("bin/java"));
    let mut installed: Vec<PathBuf> = fs::read_dir(FOLDERS)
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin/java")).collect())
        .unwrap_or_default();
    installed.sort();
    home.into_iter().chain([PathBuf::from("java")]).chain(installed).collect()
}

/// `openjdk version "17.0.15" 2025-04-15` is 17.
fn major(said: &str) -> Option<u32> {
    let quoted = said.split('"').nth(1)?;
    quoted.split(['.', '-', '+']).next()?.parse().ok()
}

/// `OpenJDK Runtime Environment (build 17.0.15+6-Debian-1deb12u1)` is `17.0.15+6-Debian-1deb12u1`.
fn build(said: &str) -> String {
    let named = said.split("(build ").nth(1).and_then(|after| after.split(')').next()).unwrap_or("unknown");
    named.chars().filter(|character| character.is_ascii_alphanumeric() || ".+-".contains(*character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "openjdk version \"17.0.15\" 2025-04-15\n\
                        OpenJDK Runtime Environment (build 17.0.15+6-Debian-1deb12u1)\n\
                        OpenJDK 64-Bit Server VM (build 17.0.15+6-Debian-1deb12u1, mixed mode, sharing)\n";

    #[test]
    fn java_says_its_version_in_quotes_and_its_build_in_brackets() {
        assert_eq!(major(SAID), Some(17));
        assert_eq!(build(SAID), "17.0.15+6-Debian-1deb12u1");
    }

    #[test]
    fn versions_have_several_forms() {
        assert_eq!(major("openjdk version \"25\" 2025-09-16 LTS\n"), Some(25));
        assert_eq!(major("openjdk version \"26-ea\" 2026-03-17\n"), Some(26));
        assert_eq!(major("java version \"1.8.0_202\"\n"), Some(1));
        assert_eq!(major("something else"), None);
    }
}
