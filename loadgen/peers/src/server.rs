//! A peer's server as a child process with files and a port of its own: over TLS 1.3 only, or plain; those for browsers
//! always plain, as TLS is a reverse proxy's there.

use std::{
    fs,
    io::{self, Read, Seek},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;
use thiserror::Error;

use crate::{
    certificate::Certificate,
    program::{Peer, Program},
};

/// How long a server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How much of its log an error repeats.
const LOG_END_BYTES: u64 = 1_024;

/// What a server's connections are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Encrypted, by TLS 1.3.
    Tls,
    /// As they are.
    Plain,
}

/// What a server does with messages before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Keeping {
    /// They go to who is there.
    Nothing,
    /// They were written to a file, which the kernel has and the disk not yet: the server syncs it now and then.
    Written,
    /// They are on the disk, synced.
    Synced,
}

impl Keeping {
    /// Whether messages are in a file at all before the answer.
    pub fn keeps(self) -> bool {
        self != Self::Nothing
    }
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// It cannot be run, or its files not be made.
    #[error("{0} cannot be started")]
    Start(Peer, #[source] io::Error),
    /// It ended, or does not listen.
    #[error("{peer} does not listen; it said last: {said:?}")]
    NotReady {
        /// Which.
        peer: Peer,
        /// The end of its log.
        said: String,
    },
}

/// A running server. Killed when dropped.
#[derive(Debug)]
pub struct Server {
    peer: Peer,
    address: SocketAddr,
    child: Child,
    _home: TempDir,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(
        program: &Program,
        certificate: &Certificate,
        security: Security,
        keeping: Keeping,
    ) -> Result<Self, ServerError> {
        let peer = program.peer;
        let failed = |error| ServerError::Start(peer, error);
        let home = tempfile::Builder::new().prefix("antiphon-peer-").tempdir().map_err(failed)?;
        // Nobody else takes it in this moment, or the server says so and ends.
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).map_err(failed)?.port();
        let mut log = tempfile::tempfile().map_err(failed)?;
        let (out, err) = (log.try_clone().map_err(failed)?, log.try_clone().map_err(failed)?);
        let mut command = program.command();
        let setup = Setup { peer, home: home.path(), port, certificate, security, keeping };
        configure(&mut command, setup).map_err(failed)?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().map_err(failed)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { peer, address, child, _home: home };
        match server.wait() {
            true => Ok(server),
            false => Err(ServerError::NotReady { peer, said: end_of(&mut log).unwrap_or_default() }),
        }
    }

    /// Which it is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it listens at last.
    fn wait(&mut self) -> bool {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            thread::sleep(POLL_INTERVAL);
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Setup<'a> {
    peer: Peer,
    home: &'a Path,
    port: u16,
    certificate: &'a Certificate,
    security: Security,
    keeping: Keeping,
}

/// What each is told: this port on loopback, TLS 1.3 only or none, no limit that a load could reach, and the level of
/// keeping.
fn configure(command: &mut Command, setup: Setup<'_>) -> io::Result<()> {
    let Setup { peer, home, port, certificate, security, keeping } = setup;
    let (chain, key) = (certificate.chain(), certificate.key());
    let (chain, key) = (chain.display(), key.display());
    let config = home.join("config");
    match peer {
        Peer::Nats => {
            let stream = match keeping {
                Keeping::Nothing => String::new(),
                // Unless it is told otherwise it syncs every two minutes.
                Keeping::Written => format!("jetstream {{ store_dir: {:?} }}\n", home.join("data")),
                Keeping::Synced => {
                    format!("jetstream {{ store_dir: {:?}, sync_interval: always }}\n", home.join("data"))
                }
            };
            let tls = match security {
                Security::Tls => {
                    format!("tls {{ cert_file: \"{chain}\", key_file: \"{key}\", handshake_first: true }}")
                }
                Security::Plain => String::new(),
            };
            fs::write(&config, format!("listen: \"127.0.0.1:{port}\"\n{tls}\n{stream}max_connections: 100000\n"))?;
            command.arg("--config").arg(config);
        }
        Peer::Redis => {
            let append = match keeping {
                Keeping::Nothing => "appendonly no",
                Keeping::Written => "appendonly yes\nappendfsync everysec",
                Keeping::Synced => "appendonly yes\nappendfsync always",
            };
            let listener = match security {
                Security::Tls => format!(
                    "port 0\ntls-port {port}\ntls-cert-file {chain}\ntls-key-file {key}\ntls-ca-cert-file {chain}\n\
                     tls-auth-clients no\ntls-protocols TLSv1.3\n"
                ),
                Security::Plain => format!("port {port}\n"),
            };
            // In its protected mode it takes no other address of the machine than the first one.
            let text = format!(
                "bind 127.0.0.1\nprotected-mode no\n{listener}save \"\"\nmaxclients 19000\n{append}\ndir {}\n",
                home.display()
            );
            fs::write(&config, text)?;
            command.arg(config);
        }
        Peer::Mosquitto => {
            // As root it would become another user, who cannot read the key.
            let tls = match security {
                Security::Tls => format!("certfile {chain}\nkeyfile {key}\ntls_version tlsv1.3\n"),
                Security::Plain => String::new(),
            };
            let text = format!(
                "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n{tls}persistence false\n\
                 set_tcp_nodelay true\nmax_queued_messages 0\n"
            );
            fs::write(&config, text)?;
            command.arg("-c").arg(config);
        }
        // The rooms know the rest.
        Peer::Ws | Peer::SocketIo | Peer::UWebSockets => {
            command.arg(port.to_string());
        }
        Peer::Centrifugo => {
            let text = json!({
                "address": "127.0.0.1", "port": port, "log_level": "error", "allow_anonymous_connect_without_token": true,
                "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
                "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
            });
            let config = config.with_extension("json");
            fs::write(&config, text.to_string())?;
            command.arg("--config").arg(config);
        }
        // Its runtime of a thread for each processor, on io_uring, with one; on tokio a copy took it half as much again.
        // Anybody may do anything. What nobody has read for half a minute would be forgotten, and a connection ended that
        // was not heard of for 10 s, which is no loss of the relay's where the machine is what is slow. Its web pages show
        // that it listens: QUIC does not.
        Peer::MoqRelay => {
            let address = format!("127.0.0.1:{port}");
            command.args(["--listen", &address, "--web-http-listen", &address]).args(["--auth-public", "**"]);
            command.arg("--listen-tls-cert").arg(certificate.chain()).arg("--listen-tls-key").arg(certificate.key());
            command.args(["--runtime-workers", "1", "--runtime-io-uring", "--log-level", "error"]);
            command.args(["--cache-duration", "10m", "--quic-idle-timeout", "60s"]);
        }
    }
    Ok(())
}

fn end_of(log: &mut fs::File) -> io::Result<String> {
    let length = log.metadata()?.len();
    log.seek(io::SeekFrom::Start(length.saturating_sub(LOG_END_BYTES)))?;
    let mut said = Vec::new();
    log.take(LOG_END_BYTES).read_to_end(&mut said)?;
    Ok(String::from_utf8_lossy(&said).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer is told.
    fn config(peer: Peer, security: Security, keeping: Keeping) -> String {
        let (certificate, home) = (Certificate::make().unwrap(), tempfile::tempdir().unwrap());
        let setup = Setup { peer, home: home.path(), port: 4711, certificate: &certificate, security, keeping };
        configure(&mut Command::new("true"), setup).unwrap();
        fs::read_to_string(home.path().join("config")).unwrap()
    }

    #[test]
    fn a_server_listens_with_tls_only_or_without() {
        for peer in [Peer::Nats, Peer::Redis, Peer::Mosquitto] {
            let [encrypted, plain] =
                [Security::Tls, Security::Plain].map(|security| config(peer, security, Keeping::Nothing));
            assert!(encrypted.contains("certificate.pem") && encrypted.contains("4711"), "{encrypted}");
            assert!(!plain.contains("tls") && !plain.contains("pem") && plain.contains("4711"), "{plain}");
        }
        // That of Redis would be another listener beside the one with TLS.
        assert!(config(Peer::Redis, Security::Tls, Keeping::Nothing).contains("port 0\n"));
    }

    #[test]
    fn a_server_keeps_as_it_is_told() {
        let told = |peer, keeping, words: &str| config(peer, Security::Plain, keeping).contains(words);
        assert!(told(Peer::Redis, Keeping::Nothing, "appendonly no"));
        assert!(told(Peer::Redis, Keeping::Written, "appendonly yes\nappendfsync everysec"));
        assert!(told(Peer::Redis, Keeping::Synced, "appendonly yes\nappendfsync always"));
        assert!(!told(Peer::Nats, Keeping::Nothing, "jetstream"));
        assert!(
            told(Peer::Nats, Keeping::Written, "jetstream") && !told(Peer::Nats, Keeping::Written, "sync_interval")
        );
        assert!(told(Peer::Nats, Keeping::Synced, "sync_interval: always"));
    }
}
