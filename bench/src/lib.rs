//! Micro-benches: what parts of the broker cost by themselves.
//!
//! [`world`] is a shard with clients. The loads on a whole broker, and the controls beside them, are `antiphon-loadgen`'s.

pub mod world;
