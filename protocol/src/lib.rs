//! Antiphon's wire protocol: bytes <-> frames and rows. `SPEC.md` beside this crate is normative and changes in the
//! same commit.
//!
//! | module | holds |
//! |---|---|
//! | [`ids`] | tenants, users, devices, conversations, logs, positions |
//! | [`row`] | one event, as stored and delivered |
//! | [`envelope`] | attributes of an event: relation, reply, thread, mentions, attachments, properties |
//! | [`frame_type`] | the registry: number, name, direction, stream, authority of every frame |
//! | [`header`], [`decoder`], [`frames`] | bytes <-> frames |
//! | [`trunk`] | the same frames, many sessions to a connection |
//! | [`control`] | Protobuf bodies, generated from `proto/antiphon.proto` |
//! | [`fold`] | what later events make of a message |
//! | [`error`] | what can be wrong with bytes and with requests |
//! | [`limits`] | every bound of the wire |
//!
//! Pure: no clock, no randomness, no I/O, no async.

// Generated; its documentation is `proto/antiphon.proto`.
#[allow(missing_debug_implementations, unreachable_pub)]
#[rustfmt::skip]
pub mod control;
mod cutter;
pub mod decoder;
pub mod envelope;
pub mod error;
pub mod fold;
pub mod frame_type;
pub mod frames;
pub mod header;
pub mod ids;
pub mod limits;
pub mod row;
pub mod trunk;

pub use decoder::{Decoder, RawFrame};
pub use envelope::{Attachment, Envelope, EnvelopeError, EventRef, NewEnvelope, Property, Rel, Relation};
pub use error::{Action, DecodeError, ErrorCode};
pub use frame_type::{Authority, Class, Direction, FrameType};
pub use ids::{ConversationId, DeviceId, InvalidId, LogKey, LogName, Position, TenantId, UserId};
pub use row::{ContentType, EventKind, InvalidRow, NewRow, Row};

/// Application protocol of TLS (ALPN) on native connections.
pub const ALPN: &[u8] = b"antiphon/1";
/// The same for trunks.
pub const TRUNK_ALPN: &[u8] = b"antiphon-trunk/1";
/// Every body of [`control`], as a Protobuf `FileDescriptorSet`: for carriers that name the fields.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");

/// The protocol version that this crate speaks.
pub const VERSION: u32 = 1;
