//! A descriptor that one thread makes readable for another.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

#[cfg(not(target_os = "linux"))]
pub(super) use SocketPair as WakeFd;

#[cfg(target_os = "linux")]
pub(super) use EventFd as WakeFd;

/// Linux: an event counter.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct EventFd(OwnedFd);

#[cfg(target_os = "linux")]
impl EventFd {
    pub(super) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub(super) fn signal(&self) {
        // Fails only when the counter is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    pub(super) fn clear(&self) {
        // Reading takes the whole counter; an empty one has nothing to clear.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

#[cfg(target_os = "linux")]
impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Elsewhere: a pair of connected sockets.
#[cfg(any(test, not(target_os = "linux")))]
#[derive(Debug)]
pub(super) struct SocketPair {
    reader: OwnedFd,
    writer: OwnedFd,
}

#[cfg(any(test, not(target_os = "linux")))]
impl SocketPair {
    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { reader: reader.into(), writer: writer.into() })
    }

    pub(super) fn signal(&self) {
        // Fails only when the buffer is full, and then the descriptor is readable already.
        let _ = rustix::io::write(&self.writer, &[1]);
    }

    pub(super) fn clear(&self) {
        // A full read may have left bytes behind, a short one has not.
        let mut bytes = [0; 64];
        while rustix::io::read(&self.reader, &mut bytes).is_ok_and(|length| length == bytes.len()) {}
    }
}

#[cfg(any(test, not(target_os = "linux")))]
impl AsFd for SocketPair {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Source, wait};
    use std::time::Duration;

    fn readable(fd: &impl AsFd) -> bool {
        wait([Source::readable(fd)], Some(Duration::ZERO)).unwrap()[0].readable
    }

    #[test]
    fn wake_is_readable_until_cleared() {
        let wake = WakeFd::new().unwrap();
        wake.clear();
        assert!(!readable(&wake));
        wake.signal();
        wake.signal();
        assert!(readable(&wake));
        wake.clear();
        assert!(!readable(&wake));
    }

    #[test]
    fn the_portable_pair_behaves_alike_and_never_blocks() {
        let wake = SocketPair::new().unwrap();
        wake.clear();
        assert!(!readable(&wake));
        for _ in 0..1_000_000 {
            wake.signal();
        }
        assert!(readable(&wake));
        wake.clear();
        assert!(!readable(&wake));
    }
}
