//! What runs on which processor, and what a process holds in memory.

use std::{fs, io, thread, time::Duration};

use clap::Args;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Processors for the two sides of a measurement.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct CoreArgs {
    /// Run a broker of one's own on this processor only.
    #[arg(long, value_name = "N", conflicts_with = "broker")]
    pub server_core: Option<usize>,
    /// Run the generator on this processor only.
    #[arg(long, value_name = "N")]
    pub core: Option<usize>,
}

impl CoreArgs {
    /// Starts a child on its own processor, and goes on, on another.
    pub fn around<T>(self, start_server: impl FnOnce() -> T) -> io::Result<T> {
        if let Some(core) = self.server_core {
            // Inherited by what the calling thread starts.
            pin(core)?;
        }
        let server = start_server();
        match (self.core, self.server_core) {
            (Some(core), _) => pin(core)?,
            (None, Some(_)) => sched_setaffinity(None, &every_processor())?,
            (None, None) => {}
        }
        Ok(server)
    }
}

/// Lets the calling thread, and what it starts from now on, run on one processor only.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such processor"));
    }
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

fn every_processor() -> CpuSet {
    let mut set = CpuSet::new();
    // The kernel ignores those that do not exist.
    (0..CpuSet::MAX_CPU).for_each(|core| set.set(core));
    set
}

/// Resident memory of a process in KiB, counted page by page: `VmRSS` may be some hundred KiB behind.
pub fn resident_kib(pid: u32) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "smaps_rollup has no Rss"))
}

/// What the kernel holds for its objects, sockets among them, in KiB.
pub fn kernel_kib() -> io::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let line = meminfo.lines().find_map(|line| line.strip_prefix("Slab:"));
    line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "meminfo has no Slab"))
}

/// Part of all processors' time that is not idle, looked at for so long.
pub fn load(look: Duration) -> io::Result<f64> {
    let before = processor_ticks()?;
    thread::sleep(look);
    let after = processor_ticks()?;
    let (idle, all) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
    Ok(if all == 0 { 0.0 } else { 1.0 - idle as f64 / all as f64 })
}

/// Idle ticks and all ticks of all processors since the boot.
fn processor_ticks() -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let idle = ticks.iter().skip(3).take(2).sum();
    Ok((idle, ticks.iter().take(8).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_its_processor() {
        let thread = std::thread::spawn(|| {
            pin(0).unwrap();
            rustix::thread::sched_getaffinity(None).unwrap()
        });
        let allowed = thread.join().unwrap();
        assert!(allowed.is_set(0));
        assert_eq!(allowed.count(), 1);
        assert!(pin(usize::MAX).is_err());
    }

    #[test]
    fn this_process_is_resident() {
        let memory = std::hint::black_box(vec![1_u8; 8 << 20]);
        assert!(resident_kib(std::process::id()).unwrap() >= 8 << 10);
        drop(memory);
    }
}
