//! The chat-log checker: decides whether what clients saw could have come from a broker that keeps its promises.
//!
//! Flow: whoever drives clients (the load generator with real sockets, the simulator with none) tells a [`Checker`]
//! what happened in the order in which it happened: every send when it was made and how it ended, every delivery to
//! every reader, every head that was read, and at the end the whole history of each log. [`Checker::finish`] returns a
//! [`Verdict`]: how often each [`Rule`] was broken, with the first examples.
//!
//! General linearizability is NP-complete. Here an acknowledged send returns its position and the history is read in
//! full at the end, so the order is known and checking is a few sorted sweeps: O(n log n) in the number of events.
//! Deliveries are checked as they come in and not kept, so a fan-out to thousands costs memory per row, not per copy.
//!
//! Invariants: the crate is pure (no clock, no randomness, no I/O), and the same calls give the same verdict. One
//! check covers one epoch of each log; a reader whose epoch changes reports a reset.
//!
//! Deliberately absent: what only the inside of a broker knows, such as which position was synced to disk when.

mod event;
mod history;
mod order;
mod rules;
mod stream;
mod verdict;

pub use event::{At, Attempt, Author, BodyHash, Instance, Log, OpId, Outcome, Row, Subscriber, User, body_hash};
pub use history::Checker;
pub use verdict::{Counts, EXAMPLES_MAX, Finding, Rule, Verdict, Violation};
