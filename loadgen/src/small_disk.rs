//! A disk that is soon full: a small tmpfs in a mount namespace of this program's own, so that the mount is seen by nobody
//! else and goes with the last process in it.

use std::{
    env, fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use tempfile::TempDir;
use thiserror::Error;

/// Names the namespace that was left, so that the program knows itself in the new one.
const LEFT_NAMESPACE: &str = "ANTIPHON_LOADGEN_LEFT_NAMESPACE";
/// The namespace of mounts that this process lives in.
const OWN_NAMESPACE: &str = "/proc/self/ns/mnt";
const MIB: usize = 1 << 20;

/// Why there is no small disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// Mounting takes a privilege.
    #[error("only root can mount a small disk: run this as root")]
    NotRoot,
    /// A program of util-linux cannot be run.
    #[error("{0} cannot be run")]
    Tool(&'static str, #[source] io::Error),
    /// The kernel refused.
    #[error("{0} ended with {1}")]
    Refused(&'static str, ExitStatus),
    /// A file of the disk cannot be made or removed.
    #[error("the small disk cannot be prepared")]
    File(#[from] io::Error),
}

/// Goes on in a mount namespace of its own: this process becomes `unshare`, and that becomes this program again, with the
/// same arguments. Returns at once where that has happened.
pub fn enter_namespace() -> Result<(), DiskError> {
    let own = fs::read_link(OWN_NAMESPACE)?;
    if env::var_os(LEFT_NAMESPACE).is_some_and(|left| left != own.as_os_str()) {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(DiskError::NotRoot);
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(env::current_exe()?);
    let error = unshare.args(env::args_os().skip(1)).env(LEFT_NAMESPACE, own).exec();
    Err(DiskError::Tool("unshare", error))
}

/// A mounted tmpfs with a ballast. Unmounted when it is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a disk of so many MiB and puts a ballast of so many on it.
    pub fn mount(mib: usize, ballast_mib: usize) -> Result<Self, DiskError> {
        let folder = tempfile::Builder::new().prefix("antiphon-small-disk-").tempdir()?;
        let size = format!("size={mib}m");
        run("mount", Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()))?;
        let disk = Self { folder };
        fs::write(disk.ballast(), vec![0xa5; ballast_mib * MIB])?;
        Ok(disk)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives back the space of the ballast.
    pub fn remove_ballast(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What is still in use goes with the namespace.
        let _ = run("umount", Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

fn run(tool: &'static str, command: &mut Command) -> Result<(), DiskError> {
    let status = command.status().map_err(|error| DiskError::Tool(tool, error))?;
    if status.success() { Ok(()) } else { Err(DiskError::Refused(tool, status)) }
}
