//! QUIC settings of a broker: few streams, small windows, nothing before the handshake.

use std::{sync::Arc, time::Duration};

use quinn_proto::{IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};

/// Bytes of one connection that wait for their acknowledgement. Bounds what a stalled reader costs in the transport.
pub(crate) const SEND_WINDOW: u64 = 96 << 10;
/// Bytes that a client may send ahead on its control stream.
pub(crate) const STREAM_RECEIVE_WINDOW: u32 = 256 << 10;
/// Bytes that a connection may send ahead before its session is established; afterwards
/// [`STREAM_RECEIVE_WINDOW`].
pub(crate) const PRE_AUTH_RECEIVE_WINDOW: u32 = 20 << 10;
/// The same on a trunk, where many sessions share it.
pub(crate) const TRUNK_SEND_WINDOW: u64 = 8 << 20;
/// Bytes that an edge may send ahead on the control stream of a trunk.
pub(crate) const TRUNK_RECEIVE_WINDOW: u32 = 1 << 20;
/// Handshakes that wait to be accepted. Full: further ones are refused.
pub(crate) const INCOMING_MAX: usize = 4_096;
/// Above so many waiting handshakes, a client first proves its address by Retry, which takes a round trip and the broker
/// three datagrams. So many are half a second's work and 2 MiB: whoever waits for so long has not sent anything again (RFC
/// 9002, section 6.2.2: a second).
pub(crate) const RETRY_ABOVE: usize = 1_024;
/// Handshakes accepted per turn; each costs about 300 us of TLS.
pub(crate) const ACCEPTS_PER_TURN: usize = 2;

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct TransportSettings {
    /// A connection without any packet for so long is gone. Clients keep theirs alive.
    pub idle_timeout: Duration,
    /// Probe for packets of 1,452 bytes instead of 1,200.
    pub mtu_discovery: bool,
    /// Send bursts to one peer as one segmented datagram.
    pub segmentation_offload: bool,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(60), mtu_discovery: true, segmentation_offload: true }
    }
}

impl TransportSettings {
    /// Puts these settings, and the bounds above, into a QUIC server configuration.
    pub fn apply(self, server: &mut ServerConfig) {
        self.apply_with(server, SEND_WINDOW, STREAM_RECEIVE_WINDOW, PRE_AUTH_RECEIVE_WINDOW);
    }

    /// The same for trunks: the same streams, windows for many sessions.
    pub fn apply_to_trunks(self, server: &mut ServerConfig) {
        self.apply_with(server, TRUNK_SEND_WINDOW, TRUNK_RECEIVE_WINDOW, TRUNK_RECEIVE_WINDOW);
    }

    fn apply_with(self, server: &mut ServerConfig, send: u64, stream_receive: u32, receive: u32) {
        let mut transport = TransportConfig::default();
        // Invariant: far below 2^62 milliseconds.
        let idle = IdleTimeout::try_from(self.idle_timeout).unwrap_or(VarInt::from_u32(60_000).into());
        transport
            .max_concurrent_bidi_streams(1_u32.into())
            .max_concurrent_uni_streams(0_u32.into())
            .max_idle_timeout(Some(idle))
            .stream_receive_window(stream_receive.into())
            .receive_window(receive.into())
            .send_window(send)
            .crypto_buffer_size(16 << 10)
            .datagram_receive_buffer_size(None)
            .enable_segmentation_offload(self.segmentation_offload);
        transport.mtu_discovery_config(self.mtu_discovery.then(mtu_discovery));
        server
            .transport_config(Arc::new(transport))
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size(16 << 10)
            .incoming_buffer_size_total(8 << 20);
    }
}

/// One probe of the largest packet that fits Ethernet, instead of a search by halves: most connections carry small packets,
/// and every probe and its acknowledgement cost as much as a delivery. Where 1,452 bytes do not pass, packets stay at 1,200.
fn mtu_discovery() -> MtuDiscoveryConfig {
    const SMALLEST: u16 = 1_200;
    const LARGEST: u16 = 1_452;
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(LARGEST).minimum_change(LARGEST - SMALLEST);
    discovery
}
