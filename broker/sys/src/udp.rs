//! A shard's UDP socket: packets in and out, many per system call.
//!
//! [`ShardSocket`] is the socket with its QUIC-friendly options, [`Receiver`] hands over datagrams under a budget,
//! [`SendBatch`] gathers a turn's packets and sends them together, [`PacketArena`] turns borrowed payloads into owned
//! ones without an allocation each. Receiving is quinn-udp's (`recvmmsg`, receive offload); it has no batched send
//! across destinations, so on Linux that is `mmsg`, and elsewhere one call per packet through quinn-udp.

mod arena;
mod batch;
#[cfg(target_os = "linux")]
mod mmsg;
mod receiver;
mod socket;

pub use arena::PacketArena;
pub use batch::{BatchFull, MAX_BATCH, SendBatch, Transmit};
pub use quinn_udp::EcnCodepoint as Ecn;
pub use receiver::{Datagram, Receiver};
pub use socket::{MAX_SEGMENTS, ShardSocket};
