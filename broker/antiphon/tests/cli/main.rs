//! The binary as its user runs it: real processes, real sockets, real files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod broker;
mod chaos;
mod cluster;
mod importing;
mod moving;
mod operating;
mod talking;
