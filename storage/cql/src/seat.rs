//! Where a process sits that may own the logs.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
};

/// Names a data directory on this machine since its boot, by the file that is locked while a process uses the directory.
/// Whoever holds the lock may be sure that any other process with the same seat is dead. A copy of the directory is another
/// file and so another seat.
pub fn seat(lock: &File) -> io::Result<String> {
    let file = lock.metadata()?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(format!("{} {}:{}", boot.trim(), file.dev(), file.ino()))
}
