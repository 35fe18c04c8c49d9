//! What an edge knows of its trunks, without I/O: which channels a frame is for.
//!
//! The broker decides who gets what; an edge copies. [`Groups`] follows the events stream of one trunk, where ATTACH puts a
//! channel into the group of a handle, and BEHIND, DETACH and the channel's end take it out. An [`Outbox`] holds what waits
//! for one socket.
//!
//! Pure: no clock, no randomness, no I/O, no async. The tests of the broker's core and the simulation use the same code as
//! the gateway.

mod groups;
mod outbox;

pub use groups::{Group, Groups, Recipients};
pub use outbox::{CONTROL_BYTES_MAX, EVENT_BYTES_MAX, Outbox, Overflow, STATE_BYTES_MAX};
