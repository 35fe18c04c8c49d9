//! What the broker's work would cost with less of it: the controls of a comparison.
//!
//! [`bare`] is the smallest driver of `quinn-proto` that does the same sends over the same transport settings, with no
//! sessions, logs or store. [`floor`] is what the kernel alone takes.

pub mod bare;
pub mod floor;
pub mod sync;
