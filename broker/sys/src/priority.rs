//! A thread that the scheduler lets run before ordinary ones.
#![allow(unsafe_code, reason = "the crates used here have no safe interface to sched_setscheduler")]

use std::io;

/// Lets the calling thread run before all ordinary threads of its processors whenever it has something to do, as one of
/// the lowest real-time priority (`SCHED_FIFO`). It has to sleep most of the time, or others starve. Takes `CAP_SYS_NICE`
/// or a limit of real-time priorities above 0; `Unsupported` elsewhere than on Linux.
pub fn come_first() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        parameters.sched_priority = 1;
        // Threads that this one starts are ordinary ones.
        let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
        // SAFETY: the structure is whole and outlives the call; 0 is the calling thread.
        if unsafe { libc::sched_setscheduler(0, policy, &parameters) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
    #[cfg(not(target_os = "linux"))]
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    /// Field 41 of `proc_pid_stat(5)`, counted behind the name of the program.
    fn policy() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn it_comes_first_or_says_why_not_and_whom_it_starts_does_not() {
        std::thread::spawn(|| match come_first() {
            Ok(()) => {
                assert_eq!(policy(), libc::SCHED_FIFO);
                assert_eq!(std::thread::spawn(policy).join().unwrap(), libc::SCHED_OTHER);
            }
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
                assert_eq!(policy(), libc::SCHED_OTHER);
            }
        })
        .join()
        .unwrap();
    }
}
