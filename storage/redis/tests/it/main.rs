//! Against a real Redis, which every test starts for itself.
#![allow(clippy::unwrap_used, reason = "tests")]

mod conformance;
mod faults;
mod processes;
mod support;
