//! Deterministic simulation: the broker's own code, its clients and their network, in one thread of virtual time.
//!
//! ```text
//! workload -> client (sdk-core, quinn-proto) <-> link <-> shard (node, quinn-proto, store) <-> disk
//!                     |                                     <-> mail <-> other shards
//!                 recorder -> checker
//! ```
//!
//! One seed is one run, byte for byte: all time is virtual, all chance comes from the seed, and QUIC runs without
//! cryptography. Nothing of the broker or the SDK is replaced but the edges: sockets, disks, clocks, and the
//! verification of tokens.
//!
//! A run ends when its operations are done. Then everything heals, every client must get what it is owed, the power is
//! cut once more, and the checker judges what everybody saw against the history that is left.
//!
//! [`hostile`] is another world in the same virtual time: clients that mean no good, and what they must not be able to do.
//!
//! Deliberately absent: sockets, files, threads, and a wall clock.

mod act;
mod agenda;
mod audit;
mod broker;
mod client;
mod clock;
mod crypto;
mod digest;
mod fading;
pub mod hostile;
#[cfg(feature = "mutants")]
mod mutants;
mod network;
mod person;
mod phase;
mod quic;
mod random;
mod recorder;
mod run;
mod shard;
mod stage;
mod tally;
mod tap;
mod tokens;
mod workload;
mod world;

#[cfg(feature = "mutants")]
pub use mutants::Mutant;
pub use phase::Phase;
pub use run::{Report, run, run_plan};
pub use tally::{Fault, Tally};
pub use workload::Plan;
