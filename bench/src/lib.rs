//! Benches and control programs: what the broker costs, and what the same work costs without it.
//!
//! [`bare`] is the control of a fan-out: the smallest driver of `quinn-proto` that does the same sends over the same
//! transport settings, with no sessions, logs or store. [`floor`] is what the kernel alone takes. [`world`] is a shard
//! with clients, for the micro-benches. The loads themselves are `antiphon-loadgen`'s.

pub mod bare;
pub mod floor;
pub mod rounds;
pub mod world;
