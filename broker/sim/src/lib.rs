//! Deterministic simulation of the broker.

pub mod agenda;
pub mod clock;
pub mod crypto;
pub mod digest;
pub mod quic;
pub mod random;
