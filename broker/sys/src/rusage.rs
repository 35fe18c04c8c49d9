//! `getrusage`, turned into [`ProcessUsage`].
#![allow(unsafe_code, reason = "the crates used here have no safe interface to getrusage")]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::cpu::ProcessUsage;

pub(crate) fn process() -> io::Result<ProcessUsage> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is to memory of the size and alignment of the structure the call fills.
    let result = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled the structure.
    let usage = unsafe { usage.assume_init() };
    // Linux and the BSDs count kibibytes, Apple's systems bytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Ok(ProcessUsage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        peak_resident_bytes: usage.ru_maxrss as u64 * unit,
        voluntary_switches: usage.ru_nvcsw as u64,
        involuntary_switches: usage.ru_nivcsw as u64,
        major_faults: usage.ru_majflt as u64,
    })
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}
