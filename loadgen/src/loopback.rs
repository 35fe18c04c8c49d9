//! What went over the loopback interface: everybody's, so it says something only where nobody else uses it.

use std::{fs, io, ops::Sub};

/// Where the kernel says so.
const DEVICES: &str = "/proc/net/dev";
/// Of the fields behind the interface's name, those of what was sent; on loopback, the same was received.
const BYTES: usize = 8;
const PACKETS: usize = 9;

/// All that was sent so far, in both directions of every conversation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// With the headers of all layers; Ethernet's are 14 bytes here, too.
    pub bytes: u64,
    /// As the interface got them: what a stack would cut for a network is one here.
    pub packets: u64,
}

impl Traffic {
    /// Up to now.
    pub fn read() -> io::Result<Self> {
        Self::parse(&fs::read_to_string(DEVICES)?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{DEVICES} has no loopback interface")))
    }

    /// Between two readings; nothing if one of them failed.
    pub fn between(before: Option<Self>, after: Option<Self>) -> Option<Self> {
        Some(after? - before?)
    }

    /// Bytes and packets for each of so many copies.
    pub fn per(self, copies: f64) -> [f64; 2] {
        [self.bytes, self.packets].map(|count| count as f64 / copies)
    }

    fn parse(devices: &str) -> Option<Self> {
        let fields = devices.lines().find_map(|line| line.trim_start().strip_prefix("lo:"))?;
        let field = |number| fields.split_ascii_whitespace().nth(number)?.parse().ok();
        Some(Self { bytes: field(BYTES)?, packets: field(PACKETS)? })
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(before.bytes), packets: self.packets.saturating_sub(before.packets) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn the_sent_side_of_loopback_is_read() {
        let devices = "Inter-|   Receive  |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
                       \x20 eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n    lo:    5     6 0 0 0 0 0 0 7 8 0 0 0 0 0 0\n";
        assert_eq!(Traffic::parse(devices), Some(Traffic { bytes: 7, packets: 8 }));
        assert_eq!(Traffic::parse("  eth0: 1 2 0 0 0 0 0 0 3 4 0 0 0 0 0 0\n"), None);
        assert_eq!(Traffic::parse("lo: 5 6\n"), None);
    }

    #[test]
    fn what_is_sent_is_counted() {
        let (socket, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let before = Traffic::read().unwrap();
        socket.send_to(&[0; 1_000], other.local_addr().unwrap()).unwrap();
        // Other tests send, too.
        let sent = Traffic::read().unwrap() - before;
        assert!(sent.bytes >= 1_000 + 8 + 20 && sent.packets >= 1, "{sent:?}");
    }
}
