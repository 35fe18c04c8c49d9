//! Starts processes that die with this one.
//!
//! The kernel kills a child at the end of the *thread* that started it (`PR_SET_PDEATHSIG`), and a test's thread ends
//! with the test while others may still use the cluster. So one thread starts all nodes and lives as long as the process.

use std::{
    io,
    process::{Child, Command},
    sync::{
        OnceLock,
        mpsc::{self, Sender},
    },
    thread,
};

type Job = (Command, Sender<io::Result<Child>>);

/// Program that asks the kernel for the child's end and then becomes the node, so that the process id is the node's.
const SETPRIV: &str = "setpriv";

/// A command that runs `program` under the promise that it is killed when its parent ends.
pub(crate) fn bound_to_parent(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(SETPRIV);
    command.arg("--pdeathsig").arg("KILL").arg("--").arg(program);
    command
}

/// Starts it on the thread that does not end.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let (reply, result) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    SPAWNER.get_or_init(run_spawner).send((command, reply)).map_err(|_| gone(mpsc::RecvError))?;
    result.recv().map_err(gone)?
}

fn run_spawner() -> Sender<Job> {
    let (jobs, waiting) = mpsc::channel::<Job>();
    thread::spawn(move || {
        for (mut command, reply) in waiting {
            let _nobody_waits = reply.send(command.spawn());
        }
    });
    jobs
}
