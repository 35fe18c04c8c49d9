//! The atomics of the doorbell's latch: the standard ones, or loom's while its proof runs.
#![allow(unexpected_cfgs, reason = "`loom` is a flag set by hand, for the proof only")]

#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicBool;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::AtomicBool;
