//! Runs a broker as a child process: start, wait until it is ready, kill, stop, start again at the same addresses.
//!
//! The broker says on standard output, one fact a line, where it listens (`address: ...`, `admin: ...`), who it is
//! (`fingerprint: ...`), where its data is and how many shards it has, and then `ready`. Its log (standard error) goes
//! to a file. The process never outlives its [`Broker`].

use std::{
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::ready::Listen;
pub use crate::ready::Ready;

/// How long a broker may take until it is ready, its recovery included.
pub const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of standard output that wait until they are looked at; the broker then waits too.
const LINES_WAITING_MAX: usize = 64;
/// How much of the log an error repeats.
const LOG_END_BYTES: usize = 2_048;
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How to run a broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The broker's binary.
    pub program: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// Shards; the broker chooses if `None`.
    pub shards: Option<u32>,
    /// Where its standard error is appended.
    pub log: PathBuf,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
    /// Length of a segment of its write-ahead log, in bytes; the usual one if `None`.
    pub segment_bytes: Option<u32>,
    /// Cache of its store's index, in MiB; the usual one if `None`.
    pub cache_mib: Option<u32>,
    /// Further variables of its environment.
    pub environment: Vec<(String, String)>,
}

/// Why there is no broker to talk to.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The binary cannot be run, or its log file not be opened.
    #[error("the broker {program} cannot be started")]
    Start {
        /// What was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it was ready.
    #[error("the broker ended with {status} before it was ready; its log ends with {log_end:?}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        log_end: String,
    },
    /// It takes too long.
    #[error("the broker was not ready within {} s; its log ends with {log_end:?}", READY_TIMEOUT.as_secs())]
    NotReady {
        /// The end of its standard error.
        log_end: String,
    },
    /// It said `ready` without saying all that is expected.
    #[error("the broker said it was ready and did not say its {0}, or not in the expected form")]
    Fact(&'static str),
    /// The process cannot be ended or waited for.
    #[error("the broker process cannot be controlled")]
    Control(#[from] io::Error),
    /// Its store's files cannot be watched.
    #[error("the broker's data directory cannot be watched")]
    Watch(#[source] io::Error),
    /// It does not stop.
    #[error("the broker did not stop within {0:?} of SIGTERM and was killed")]
    NotStopped(Duration),
}

/// A broker process.
#[derive(Debug)]
pub struct Broker {
    config: BrokerConfig,
    child: Child,
    ready: Ready,
    /// What it says after that.
    lines: Receiver<String>,
}

/// For what a start waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Clients are let in.
    Ready,
    /// It listens; another broker may be the active one.
    Listening,
}

impl Broker {
    /// Starts a broker at addresses of its own choice on loopback and waits until it is ready.
    pub fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        let (child, ready, lines) = spawn(&config, &Listen::default(), Until::Ready)?;
        Ok(Self { config, child, ready, lines })
    }

    /// Starts a broker whose logs another one owns, and waits until it listens.
    pub fn stand_by(config: BrokerConfig) -> Result<Self, BrokerError> {
        let (child, ready, lines) = spawn(&config, &Listen::default(), Until::Listening)?;
        Ok(Self { config, child, ready, lines })
    }

    /// Starts it again, at the same addresses, beside a broker that owns the logs now.
    pub fn stand_by_again(&mut self) -> Result<(), BrokerError> {
        self.kill()?;
        (self.child, self.ready, self.lines) = spawn(&self.config, &Listen::again(&self.ready), Until::Listening)?;
        Ok(())
    }

    /// Waits until a broker that stood by is active.
    pub fn wait_active(&self, within: Duration) -> Result<(), BrokerError> {
        let deadline = Instant::now() + within;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line == "ready" {
                return Ok(());
            }
        }
        Err(BrokerError::NotReady { log_end: log_end(&self.config) })
    }

    /// SIGSTOP: it stands still.
    pub fn pause(&self) -> Result<(), BrokerError> {
        self.signal(rustix::process::Signal::STOP)
    }

    /// SIGCONT: it goes on, as if no time had passed.
    pub fn resume(&self) -> Result<(), BrokerError> {
        self.signal(rustix::process::Signal::CONT)
    }

    /// How it ends by itself; nothing if it does not.
    pub fn wait_for_end(&mut self, within: Duration) -> Result<Option<ExitStatus>, BrokerError> {
        Ok(wait_for_end(&mut self.child, within)?)
    }

    /// How it was started.
    pub fn config(&self) -> &BrokerConfig {
        &self.config
    }

    fn signal(&self, signal: rustix::process::Signal) -> Result<(), BrokerError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("the process id is out of range"))?;
        Ok(rustix::process::kill_process(pid, signal).map_err(io::Error::from)?)
    }

    /// What it said when it became ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its binary.
    pub fn program(&self) -> &Path {
        &self.config.program
    }

    /// Where its standard error is appended.
    pub fn log(&self) -> &Path {
        &self.config.log
    }

    /// Its process id; after a restart another one.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: the process gets no chance to write or say anything more.
    pub fn kill(&mut self) -> Result<(), BrokerError> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, then waits for the process to end by itself.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus, BrokerError> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(rustix::process::Signal::TERM)?;
        match wait_for_end(&mut self.child, within)? {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                Err(BrokerError::NotStopped(within))
            }
        }
    }

    /// Further variables of its environment, from the next start on.
    pub fn set_environment(&mut self, environment: Vec<(String, String)>) {
        self.config.environment = environment;
    }

    /// Starts it again on the same data at the same addresses. One that still runs is killed first.
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        self.kill()?;
        let listen = Listen::again(&self.ready);
        (self.child, self.ready, self.lines) = spawn(&self.config, &listen, Until::Ready)?;
        Ok(())
    }

    /// How the process ended, if it did: nobody but this harness may end it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, BrokerError> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be killed; one that ended already is an error here.
        let _ = self.kill();
    }
}

/// Whether a process ended because of `kill -9`.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(rustix::process::Signal::KILL.as_raw())
}

type Spawned = (Child, Ready, Receiver<String>);

fn spawn(config: &BrokerConfig, listen: &Listen, until: Until) -> Result<Spawned, BrokerError> {
    let started = || {
        let log = OpenOptions::new().create(true).append(true).open(&config.log)?;
        let mut command = Command::new(&config.program);
        command.arg("serve").arg("--data").arg(&config.data);
        command.arg("--listen").arg(listen.clients.to_string()).arg("--admin").arg(listen.admin.to_string());
        command.arg("--gateway").arg(listen.gateway.to_string()).arg("--trunk").arg(listen.trunk.to_string());
        if let Some(shards) = config.shards {
            command.arg("--shards").arg(shards.to_string());
        }
        if let Some(bytes) = config.segment_bytes {
            command.env("ANTIPHON_TEST_SEGMENT_BYTES", bytes.to_string());
        }
        if let Some(mib) = config.cache_mib {
            command.env("ANTIPHON_STORE_CACHE_MIB", mib.to_string());
        }
        command.envs(config.environment.iter().map(|(name, value)| (name, value)));
        command.args(&config.args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()
    };
    let mut child = started().map_err(|source| BrokerError::Start { program: config.program.clone(), source })?;
    let lines = lines(&mut child);
    match wait_ready(config, &mut child, &lines, until) {
        Ok(ready) => Ok((child, ready, lines)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn wait_ready(
    config: &BrokerConfig,
    child: &mut Child,
    lines: &Receiver<String>,
    until: Until,
) -> Result<Ready, BrokerError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    let mut facts = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ready" => return Ready::parse(&facts),
            Ok(line) => {
                facts.push(line);
                // The facts come in one piece, so that all are there when the last one is.
                if let (Until::Listening, Ok(ready)) = (until, Ready::parse(&facts)) {
                    return Ok(ready);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Err(BrokerError::NotReady { log_end: log_end(config) }),
            Err(RecvTimeoutError::Disconnected) => {
                // Standard output closes just before the process is gone; one that lives on is of no use.
                return Err(match wait_for_end(child, Duration::from_secs(5))? {
                    Some(status) => BrokerError::Ended { status, log_end: log_end(config) },
                    None => BrokerError::NotReady { log_end: log_end(config) },
                });
            }
        }
    }
}

/// The file may be in a folder that goes with the run, so its end is worth keeping.
fn log_end(config: &BrokerConfig) -> String {
    let log = fs::read(&config.log).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_END_BYTES)..]).trim().to_owned()
}

fn wait_for_end(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + within;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => thread::sleep(POLL_INTERVAL),
            ended => return Ok(ended),
        }
    }
}

/// The lines of the child's standard output. The thread reads on when nobody listens any more, so that a talkative
/// broker never blocks, and ends with the child.
fn lines(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _nobody_listens = sender.send(line);
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::PermissionsExt,
        sync::{Mutex, MutexGuard, PoisonError},
    };

    use tempfile::TempDir;

    use super::*;

    const FACTS: &str = "echo address: 127.0.0.1:4001\necho admin: http://127.0.0.1:4002\n\
                         echo gateway: http://127.0.0.1:4003\necho trunk: 127.0.0.1:4004\n\
                         echo fingerprint: sha256:ab\necho data: /d\necho shards: 2\n";

    /// A child that another test forks while a program is being written holds that file open, and then the program
    /// cannot be run ("text file busy"): one test at a time.
    fn one_at_a_time() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A program that stands in for a broker at the process boundary and notes how it was called.
    fn program(folder: &TempDir, script: &str) -> BrokerConfig {
        let path = folder.path().join("program");
        let script = format!("#!/bin/sh\necho \"$@\" >> '{}'\n{script}", folder.path().join("calls").display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let (data, log) = (folder.path().join("data"), folder.path().join("log"));
        BrokerConfig {
            program: path,
            data,
            shards: Some(2),
            log,
            args: vec!["--x".into()],
            segment_bytes: None,
            cache_mib: None,
            environment: Vec::new(),
        }
    }

    #[test]
    fn a_broker_says_where_it_is_and_is_restarted_there() {
        let _turn = one_at_a_time();
        let folder = TempDir::new().unwrap();
        let mut broker = Broker::start(program(&folder, &format!("{FACTS}echo ready\nexec sleep 600\n"))).unwrap();
        let expected = Ready {
            address: "127.0.0.1:4001".parse().unwrap(),
            admin: "127.0.0.1:4002".parse().unwrap(),
            gateway: Some("http://127.0.0.1:4003".into()),
            trunk: Some("127.0.0.1:4004".parse().unwrap()),
            fingerprint: "sha256:ab".into(),
            data: "/d".into(),
            shards: 2,
        };
        assert_eq!(*broker.ready(), expected);
        let first = broker.pid();
        broker.restart().unwrap();
        assert_ne!(broker.pid(), first);
        let data = folder.path().join("data").display().to_string();
        let calls = fs::read_to_string(folder.path().join("calls")).unwrap();
        let call = |[listen, admin, gateway, trunk]: [u16; 4]| {
            let listen = format!("--listen 127.0.0.1:{listen} --admin 127.0.0.1:{admin}");
            format!(
                "serve --data {data} {listen} --gateway 127.0.0.1:{gateway} --trunk 127.0.0.1:{trunk} --shards 2 --x\n"
            )
        };
        assert_eq!(calls, call([0; 4]) + &call([4001, 4002, 4003, 4004]));
    }

    #[test]
    fn killing_and_stopping_end_the_process() {
        let _turn = one_at_a_time();
        let folder = TempDir::new().unwrap();
        let stopping = format!("{FACTS}trap 'exit 0' TERM\necho ready\nwhile :; do sleep 0.01; done\n");
        let mut broker = Broker::start(program(&folder, &stopping)).unwrap();
        assert!(broker.ended().unwrap().is_none());
        assert!(broker.stop(Duration::from_secs(20)).unwrap().success());
        broker.restart().unwrap();
        broker.kill().unwrap();
        assert!(was_killed(broker.ended().unwrap().unwrap()));
    }

    #[test]
    fn a_program_that_ends_is_not_waited_for() {
        let _turn = one_at_a_time();
        let folder = TempDir::new().unwrap();
        let ended = Broker::start(program(&folder, "echo 'no such thing' >&2\nexit 3\n"));
        let Err(BrokerError::Ended { status, log_end }) = ended else { panic!("{ended:?}") };
        assert_eq!((status.code(), log_end.as_str()), (Some(3), "no such thing"));
    }

    #[test]
    fn a_missing_fact_is_named() {
        let _turn = one_at_a_time();
        let folder = TempDir::new().unwrap();
        let silent = Broker::start(program(&folder, "echo ready\nexec sleep 600\n"));
        assert!(matches!(silent, Err(BrokerError::Fact("admin"))), "{silent:?}");
    }
}
