//! The stores behind the broker's storage contract: [`memory`], the reference, and [`embedded`], the durable one; and
//! [`presence`] within one process.
//!
//! `conformance` (feature of the same name) is the contract as a test suite that every backend runs, the ones outside
//! this crate included.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod dice;
pub mod embedded;
pub mod memory;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod presence;

pub use antiphon_storage_contract::{
    Completion, Direction, EventLog, Loaded, Op, Outcome, ReadRows, RecordWrite, StoreError, Token,
};
