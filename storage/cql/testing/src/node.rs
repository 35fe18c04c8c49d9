//! One server process: started, waited for, killed, paused, resumed, stopped and started again on the same data.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;

use crate::{
    Connection, ConnectionError, ControlError, LaunchError, installation::Installation, options::Options, settings,
    spawner::spawn,
};

/// How long a node may take to stop by itself; it writes its memtables first.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Of one attempt to reach a node that may still be starting.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of the log an error repeats.
pub(crate) const LOG_END_LINES: usize = 30;

/// What all nodes of a cluster have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) installation: Installation,
    /// What trusts the nodes, if clients must speak TLS.
    pub(crate) trust: Option<Arc<ClientConfig>>,
}

/// One node of a [`Cluster`](crate::Cluster). Can be used from several threads; one thing happens to it at a time.
#[derive(Debug)]
pub struct Node {
    /// Counted from 1.
    number: usize,
    folder: PathBuf,
    address: SocketAddr,
    shared: Arc<Shared>,
    child: Mutex<Option<Child>>,
}

impl Node {
    pub(crate) fn new(number: usize, folder: PathBuf, address: SocketAddr, shared: Arc<Shared>) -> Self {
        Self { number, folder, address, shared, child: Mutex::new(None) }
    }

    /// Its number, counted from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Where it answers CQL; the same for as long as the cluster lives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it, logged in. Every answer, the first included, may take as long as `timeout`.
    ///
    /// # Errors
    ///
    /// If it does not answer, or not in time.
    pub fn connect(&self, timeout: Duration) -> Result<Connection, ConnectionError> {
        Connection::open_with(self.address, timeout, self.shared.trust.clone())
    }

    /// Its process id, if it runs; after each start another one.
    pub fn pid(&self) -> Option<u32> {
        self.running().as_ref().map(Child::id)
    }

    /// Whether there is a process. A paused one is running too.
    pub fn is_running(&self) -> bool {
        self.running().is_some()
    }

    /// Starts it, on the data that it had if it ran before, and waits until it answers CQL. Whether the other nodes have
    /// noticed is another question: [`Cluster::wait_for_ring`](crate::Cluster::wait_for_ring).
    ///
    /// # Errors
    ///
    /// If it runs already, or ends, or does not answer within the start timeout of the options; then it is killed.
    pub fn start(&self) -> Result<(), LaunchError> {
        let mut slot = self.running();
        if slot.is_some() {
            return Err(LaunchError::Running(self.number));
        }
        let mut child = self.spawn()?;
        match self.wait_until_it_answers(&mut child) {
            Ok(()) => {
                *slot = Some(child);
                Ok(())
            }
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// SIGKILL: the process gets no chance to write or say anything more. Returns when it is gone, with its sockets.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn kill(&self) -> Result<(), ControlError> {
        let mut slot = self.running();
        let mut child = slot.take().ok_or(ControlError::NotRunning(self.number))?;
        child.kill().and_then(|()| child.wait()).map_err(|source| self.system(source))?;
        Ok(())
    }

    /// SIGSTOP: the process stays, keeps its connections and answers nothing until it is resumed.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn pause(&self) -> Result<(), ControlError> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: a paused process goes on where it was.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn resume(&self) -> Result<(), ControlError> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, then waits until it has ended by itself. A paused one is resumed for that.
    ///
    /// # Errors
    ///
    /// If it does not run, or has not ended within [`STOP_TIMEOUT`]; then it is killed.
    pub fn stop(&self) -> Result<(), ControlError> {
        let mut slot = self.running();
        let mut child = slot.take().ok_or(ControlError::NotRunning(self.number))?;
        let signalled = [Signal::TERM, Signal::CONT].into_iter().try_for_each(|signal| send(&child, signal));
        let ended = signalled.and_then(|()| wait_for_end(&mut child, STOP_TIMEOUT));
        if !matches!(ended, Ok(Some(_))) {
            end(&mut child);
        }
        match ended.map_err(|source| self.system(source))? {
            Some(_) => Ok(()),
            None => Err(ControlError::NotStopped { node: self.number, within: STOP_TIMEOUT }),
        }
    }

    /// The last `lines` lines of its log. The log goes on over restarts.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<_> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The file of its log, which goes with the cluster.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the process whatever state it is in.
    pub(crate) fn discard(&self) {
        if let Some(mut child) = self.running().take() {
            end(&mut child);
        }
    }

    /// The process, if it has not ended by itself.
    fn running(&self) -> MutexGuard<'_, Option<Child>> {
        // A panic of a thread that held the lock leaves a child or none, and both are fine.
        let mut slot = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = slot.as_mut()
            && !matches!(child.try_wait(), Ok(None))
        {
            *slot = None;
        }
        slot
    }

    fn signal(&self, signal: Signal) -> Result<(), ControlError> {
        let slot = self.running();
        let child = slot.as_ref().ok_or(ControlError::NotRunning(self.number))?;
        send(child, signal).map_err(|source| self.system(source))
    }

    fn spawn(&self) -> Result<Child, LaunchError> {
        let Shared { options, installation, .. } = &*self.shared;
        let mut command = settings::command(&self.folder, options, installation);
        let (out, err) = self.open_log().map_err(|source| LaunchError::Files { path: self.log(), source })?;
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        spawn(command).map_err(|source| LaunchError::Spawn { program, source })
    }

    fn open_log(&self) -> io::Result<(File, File)> {
        let log = OpenOptions::new().create(true).append(true).open(self.log())?;
        Ok((log.try_clone()?, log))
    }

    fn wait_until_it_answers(&self, child: &mut Child) -> Result<(), LaunchError> {
        let within = self.shared.options.start_timeout;
        let deadline = Instant::now() + within;
        while Connection::probe(self.address, PROBE_TIMEOUT, self.shared.trust.clone()).is_err() {
            let ended = child.try_wait().map_err(|source| self.system(source))?;
            if let Some(status) = ended {
                return Err(LaunchError::Ended { node: self.number, status, log_end: self.log_tail(LOG_END_LINES) });
            }
            if Instant::now() >= deadline {
                return Err(LaunchError::NotReady { node: self.number, within, log_end: self.log_tail(LOG_END_LINES) });
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn system(&self, source: io::Error) -> ControlError {
        ControlError::System { node: self.number, source }
    }
}

fn send(child: &Child, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the process id is out of range"))?;
    kill_process(pid, signal).map_err(io::Error::from)
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

fn end(child: &mut Child) {
    // Nothing can be done about a process that cannot be killed; one that has ended is an error here.
    let _ = child.kill();
    let _ = child.wait();
}
