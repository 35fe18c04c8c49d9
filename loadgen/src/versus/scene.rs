//! Where and with what was measured.

use std::{fmt, fs, io, path::Path, process::Command};

use antiphon_peers::Program;
use serde::Serialize;

use super::stranger::Stranger;
use crate::machine::CoreArgs;

/// The machine and the programs.
#[derive(Debug, Clone, Serialize)]
pub struct Scene {
    /// Its processor, and how many of them.
    pub processor: String,
    /// How many.
    pub processors: usize,
    /// The kernel's version.
    pub kernel: String,
    /// Memory, in GiB.
    pub memory_gib: f64,
    /// Processor of the servers.
    pub server_core: Option<usize>,
    /// Processor of the generator.
    pub core: Option<usize>,
    /// Part of all processors that was busy with something else before the first round.
    pub foreign_load: f64,
    /// Bytes per second over loopback by somebody else then; they would count as the contenders'.
    pub foreign_bytes_per_second: f64,
    /// Names and versions of the servers, and of the other client's QUIC stack.
    pub versions: Vec<(String, String)>,
}

impl Scene {
    /// Looks around.
    pub fn look<'a>(
        antiphon: &Path,
        peers: impl Iterator<Item = &'a Program>,
        stranger: Option<&Stranger>,
        cores: CoreArgs,
        (foreign_load, foreign_bytes_per_second): (f64, f64),
    ) -> io::Result<Self> {
        let said = Command::new(antiphon).arg("--version").output()?;
        let own = String::from_utf8_lossy(&said.stdout).trim().trim_start_matches("antiphon ").to_owned();
        let peers = peers.map(|program| (program.peer.name().to_owned(), program.version.clone()));
        let stranger = stranger.map(|program| ("quic-go".to_owned(), program.version.clone()));
        let field = |text: &str, name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.split(':').nth(1));
            value.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let (cpuinfo, meminfo) = (fs::read_to_string("/proc/cpuinfo")?, fs::read_to_string("/proc/meminfo")?);
        let kib = field(&meminfo, "MemTotal").split(' ').next().and_then(|kib| kib.parse::<f64>().ok());
        Ok(Self {
            processor: field(&cpuinfo, "model name"),
            processors: std::thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_gib: kib.unwrap_or_default() / f64::from(1 << 20),
            server_core: cores.server_core,
            core: cores.core,
            foreign_load,
            foreign_bytes_per_second,
            versions: [("Antiphon".to_owned(), own)].into_iter().chain(peers).chain(stranger).collect(),
        })
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, kernel, memory_gib, foreign_load, foreign_bytes_per_second, .. } = self;
        writeln!(f, "- Machine: {processors} x {processor}, {memory_gib:.0} GiB, Linux {kernel}")?;
        let core = |core: Option<usize>| core.map_or_else(|| "any".into(), |core| core.to_string());
        let (server, own) = (core(self.server_core), core(self.core));
        writeln!(f, "- Servers on processor {server}, generator on processor {own}, loopback")?;
        let (percent, kilobytes) = (foreign_load * 100.0, foreign_bytes_per_second / 1e3);
        writeln!(
            f,
            "- Busy with something else before the first round: {percent:.0} %, loopback with {kilobytes:.0} kB/s of others"
        )?;
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        writeln!(f, "- {}", versions.join(", "))
    }
}
