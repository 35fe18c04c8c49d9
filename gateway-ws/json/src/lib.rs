//! Frames in their JSON form: `protocol/SPEC.md`, section 13.
//!
//! ```text
//! encode   frame --read--> members --write--> one line        body of the broker: unknown fields are passed over
//! decode   line --check--> JSON --read by name--> frame       strict: what nobody asked for is refused
//! ```
//!
//! | module | holds |
//! |---|---|
//! | `encode`, `decode` | whole frames: `op`, the header's id, and whose body it is |
//! | `row`, `content`, `envelope` | events, and what is content wherever it occurs |
//! | `schema`, `wire`, `message` | Protobuf bodies, by the descriptors of `antiphon.proto` |
//! | `valid`, `value`, `write` | JSON itself: whether it is, reading, writing |
//!
//! Invariants: what `encode` writes, `decode` reads, and gives back the same frame. A line costs a small multiple of its
//! own length, whatever it holds. EVENT, ACK, PAGE, SKIP and BEHIND are written without an allocation but the output's
//! own, unless an event's `data` has more members than fit the checker's place on the stack.
//!
//! Absent on purpose: whether a request makes sense. Limits of bodies, names of logs inside Protobuf and rights are for
//! the broker to judge, which gets the same frame as from everybody else.

mod content;
mod decode;
mod encode;
mod envelope;
mod error;
mod message;
mod row;
mod schema;
mod valid;
mod value;
mod wire;
mod write;

pub use decode::{Decoded, decode};
pub use encode::encode;
pub use error::{EncodeError, JsonError};
