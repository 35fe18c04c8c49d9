//! What a count depends on besides the code: compiler, processor as valgrind shows it, C library, valgrind.

use std::{env, fmt, fs, io, process::Command};

use thiserror::Error;

use crate::callgrind;

/// One combination of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// What `rustc -V` says.
    pub(crate) rustc: String,
    /// The rest, in a line.
    pub(crate) machine: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.rustc, self.machine)
    }
}

/// This program or this machine cannot count.
#[derive(Debug, Error)]
pub(crate) enum ToolchainError {
    #[error("built without `--profile instructions`: budgets are for that profile")]
    Profile,
    #[error("built for a processor that not everybody has: take target-cpu and target-feature out of RUSTFLAGS")]
    Processor,
    #[error("cannot ask `{0}` for its version")]
    Unknown(&'static str, #[source] io::Error),
    #[error("`{0}` does not say its version")]
    Failed(&'static str),
}

/// The one that this program runs with.
pub(crate) fn current() -> Result<Toolchain, ToolchainError> {
    if !is_profile_instructions() {
        return Err(ToolchainError::Profile);
    }
    // Every processor of 64 bits by Intel or AMD has SSE2, and the compiler assumes no more unless it is told to.
    if cfg!(target_feature = "sse3") {
        return Err(ToolchainError::Processor);
    }
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let libc = version("getconf", Command::new("getconf").arg("GNU_LIBC_VERSION"))?;
    let valgrind = version("valgrind", callgrind::valgrind().arg("--version"))?;
    Ok(Toolchain {
        rustc: version("rustc", Command::new(rustc).arg("-V"))?,
        machine: format!("{}, {libc}, {valgrind}", processor()),
    })
}

/// Cargo names the folder after the profile.
fn is_profile_instructions() -> bool {
    let folder = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.file_name()?.to_owned()));
    !cfg!(debug_assertions) && folder.is_some_and(|folder| folder == "instructions")
}

/// Valgrind shows a program one of a few processors, by what the machine's own can do; libraries choose their code by it.
fn processor() -> String {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has_avx2 = flags.lines().any(|line| line.starts_with("flags") && line.split(' ').any(|flag| flag == "avx2"));
    format!("{}{}", env::consts::ARCH, if has_avx2 { " with AVX2" } else { "" })
}

fn version(name: &'static str, command: &mut Command) -> Result<String, ToolchainError> {
    let output = command.output().map_err(|error| ToolchainError::Unknown(name, error))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !said.is_empty() { Ok(said) } else { Err(ToolchainError::Failed(name)) }
}
