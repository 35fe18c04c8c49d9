//! What a thread and the process have used: processor time, memory, context switches. For metrics and benches.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::rusage;

/// Processor time the calling thread has used, user and kernel together.
pub fn thread_time() -> Duration {
    to_duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// Processor time all threads of the process have used, ended ones included.
pub fn process_time() -> Duration {
    to_duration(clock_gettime(ClockId::ProcessCPUTime))
}

/// What the process has used since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessUsage {
    /// Processor time outside the kernel.
    pub user: Duration,
    /// Processor time in the kernel.
    pub system: Duration,
    /// Most bytes of memory ever resident.
    pub peak_resident_bytes: u64,
    /// Times a thread went to sleep by itself.
    pub voluntary_switches: u64,
    /// Times a thread was taken off its processor.
    pub involuntary_switches: u64,
    /// Page faults that had to wait for a disk.
    pub major_faults: u64,
}

/// The usage of the whole process so far.
pub fn process_usage() -> io::Result<ProcessUsage> {
    rusage::process()
}

/// Bytes of memory resident now. `Unsupported` where the system has no `/proc`.
pub fn resident_bytes() -> io::Result<u64> {
    if !cfg!(target_os = "linux") {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let sizes = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = sizes.split(' ').nth(1).and_then(|pages| pages.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(pages * rustix::param::page_size() as u64)
}

fn to_duration(time: Timespec) -> Duration {
    // These clocks start at 0 and the kernel keeps nanoseconds below a second.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hint::black_box;

    fn burn(until: Duration) {
        let mut x = 1u64;
        while thread_time() < until {
            for _ in 0..10_000 {
                x = black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            }
        }
    }

    #[test]
    fn work_shows_in_the_thread_that_did_it_and_in_the_process() {
        let (here, everywhere) = (thread_time(), process_time());
        let there = std::thread::spawn(|| {
            burn(Duration::from_millis(20));
            thread_time()
        });
        let there = there.join().unwrap();
        assert!(there >= Duration::from_millis(20));
        assert!(process_time() - everywhere >= there);
        burn(here + Duration::from_millis(5));
        let usage = process_usage().unwrap();
        assert!(usage.user + usage.system >= Duration::from_millis(20));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn touched_memory_is_resident() {
        let before = resident_bytes().unwrap();
        let memory = black_box(vec![1u8; 64 << 20]);
        assert!(resident_bytes().unwrap() >= before + (32 << 20));
        assert!(process_usage().unwrap().peak_resident_bytes >= 64 << 20);
        drop(memory);
    }
}
