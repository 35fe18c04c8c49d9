//! One shard with its QUIC endpoint, still sans-IO: what the server's threads and the simulator both drive.
//!
//! datagram -> `quinn-proto` -> control stream -> `antiphon-core` -> outboxes -> streams by class -> datagrams
//!
//! Time is a parameter, randomness comes from seeds. There is no socket, thread, clock or file in this crate.

mod clock;
mod connection_ids;
mod link;
mod listener;
mod node;
mod timers;
mod transport;

pub use clock::Clock;
pub use connection_ids::{CONNECTION_ID_BYTES, ConnectionIds};
pub use listener::{Datagram, Listener};
pub use node::{Node, NodeConfig, TransportCounters, TransportHeld};
pub use timers::Timers;
pub use transport::TransportSettings;
