//! Why bytes are not the envelope of an event. Whoever made them is at fault.

use thiserror::Error;

use crate::{error::ErrorCode, ids::InvalidId, row::EventKind};

/// What is wrong with an envelope, and in which field; `envelope` stands for all of it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The bytes are not a FlatBuffers `Envelope`, or the field lacks a part that it must have.
    #[error("{field} cannot be read")]
    Malformed {
        /// The field.
        field: &'static str,
    },
    /// The field holds something that this version does not know.
    #[error("{field} holds a field that this version does not know")]
    UnknownField {
        /// The table that holds it.
        field: &'static str,
    },
    /// An event of this kind needs the field.
    #[error("{field} is missing, which a {} must have", .kind.name())]
    Missing {
        /// The field.
        field: &'static str,
        /// The kind of the event.
        kind: EventKind,
    },
    /// An event of this kind cannot have the field, or not with this value.
    #[error("{field} is not what a {} may have", .kind.name())]
    NotAllowed {
        /// The field.
        field: &'static str,
        /// The kind of the event.
        kind: EventKind,
    },
    /// The list is too long.
    #[error("{field} has {count} entries, at most {max} are allowed")]
    TooMany {
        /// The field.
        field: &'static str,
        /// Entries found.
        count: usize,
        /// Entries allowed.
        max: usize,
    },
    /// The text or the envelope is too long, or is empty where it must not be.
    #[error("{field} has {bytes} bytes, {min} to {max} are allowed")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes found.
        bytes: usize,
        /// Fewest bytes allowed.
        min: usize,
        /// Most bytes allowed.
        max: usize,
    },
    /// The number is outside its range.
    #[error("{field} is out of range")]
    OutOfRange {
        /// The field.
        field: &'static str,
    },
    /// The entry is not a user id.
    #[error("{field}: {source}")]
    InvalidId {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// The list names the same user, or uses the same key, twice.
    #[error("{field} holds the same entry twice")]
    Repeated {
        /// The field.
        field: &'static str,
    },
}

impl EnvelopeError {
    /// The field at fault, such as `relates_to.key`; `envelope` where none can be named.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Malformed { field }
            | Self::UnknownField { field }
            | Self::Missing { field, .. }
            | Self::NotAllowed { field, .. }
            | Self::TooMany { field, .. }
            | Self::Length { field, .. }
            | Self::OutOfRange { field }
            | Self::InvalidId { field, .. }
            | Self::Repeated { field } => field,
        }
    }

    /// The code that tells the sender.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed { .. } => ErrorCode::Malformed,
            Self::UnknownField { .. } => ErrorCode::UnknownFields,
            Self::TooMany { .. } => ErrorCode::LimitExceeded,
            Self::Length { bytes, max, .. } if bytes > max => ErrorCode::LimitExceeded,
            _ => ErrorCode::InvalidField,
        }
    }
}
