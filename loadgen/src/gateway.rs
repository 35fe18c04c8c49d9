//! Runs a gateway as a process of its own before a broker of the run's own, so that it can be killed alone.

use std::{
    fs::OpenOptions,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::broker::Broker;

/// How long a gateway may take until it listens.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Why there is no gateway.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// It was not built, or not here.
    #[error("there is no gateway to kill: {program} is missing")]
    Missing {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// Nobody knows where it has to connect to.
    #[error("the broker said nothing of where trunks connect")]
    NoTrunk,
    /// The binary cannot be run, or its port not be chosen.
    #[error("the gateway cannot be started or ended")]
    Process(#[from] io::Error),
    /// It ends, or does nothing.
    #[error("the gateway does not listen on {address}; its log is {log}")]
    NotReady {
        /// Where it should.
        address: SocketAddr,
        /// What it says.
        log: PathBuf,
    },
}

/// A gateway process.
#[derive(Debug)]
pub struct Gateway {
    command: GatewayCommand,
    child: Child,
}

#[derive(Debug)]
struct GatewayCommand {
    program: PathBuf,
    listen: SocketAddr,
    broker: SocketAddr,
    fingerprint: String,
    secrets: PathBuf,
    log: PathBuf,
}

impl Gateway {
    /// Starts the gateway that lies beside the broker's binary, on a port of loopback, with the edge's certificate from the
    /// broker's data, and waits until it listens.
    ///
    /// # Errors
    ///
    /// There is none, or it does not start.
    pub fn start(broker: &Broker) -> Result<Self, GatewayError> {
        let program = broker.program().with_file_name("antiphon-gateway");
        if !program.is_file() {
            return Err(GatewayError::Missing { program });
        }
        let ready = broker.ready();
        let command = GatewayCommand {
            program,
            listen: free_port()?,
            broker: ready.trunk.ok_or(GatewayError::NoTrunk)?,
            fingerprint: ready.fingerprint.clone(),
            secrets: ready.data.join("secrets"),
            log: broker.log().with_file_name("gateway.log"),
        };
        let child = command.spawn()?;
        Ok(Self { command, child })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.command.listen)
    }

    /// `kill -9`, and a new start at the same address.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub fn restart(&mut self) -> Result<(), GatewayError> {
        self.kill()?;
        self.child = self.command.spawn()?;
        Ok(())
    }

    fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed; one that ended already is an error here.
        let _ = self.kill();
    }
}

impl GatewayCommand {
    fn spawn(&self) -> Result<Child, GatewayError> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = Command::new(&self.program)
            .args(["--listen", &self.listen.to_string()])
            .args(["--broker", &self.broker.to_string()])
            .args(["--broker-fingerprint", &self.fingerprint])
            .arg("--certificate")
            .arg(self.secrets.join("edge.pem"))
            .arg("--key")
            .arg(self.secrets.join("edge.key"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while TcpStream::connect(self.listen).is_err() {
            if Instant::now() >= deadline || child.try_wait()?.is_some() {
                let _ = child.kill();
                let _ = child.wait();
                return Err(GatewayError::NotReady { address: self.listen, log: self.log.clone() });
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(child)
    }
}

/// A port that nobody has now. It has to be the same after a restart, so the gateway cannot choose it.
fn free_port() -> io::Result<SocketAddr> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?.local_addr()
}
