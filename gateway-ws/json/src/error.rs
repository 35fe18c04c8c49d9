//! What can be wrong with a line, and with the body of a frame.

use std::fmt;

use antiphon_protocol::{DecodeError, ErrorCode, FrameType};
use thiserror::Error;

/// Longest text of a line that is repeated in an error, in bytes.
const FIELD_BYTES_MAX: usize = 128;

/// Why a line is not a frame. Whoever wrote it is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    /// The code that tells them.
    pub code: ErrorCode,
    /// The member at fault, from the outside in and without places in lists, as `members.role`; empty for the whole line.
    pub field: String,
    /// What is wrong, for developers.
    pub message: &'static str,
    /// The frame that the line was to be and its id, where these could be read: that request is refused, and nothing
    /// else. `None`: the line cannot be told to be any frame that may come, which ends the connection.
    pub frame: Option<(FrameType, u32)>,
}

impl JsonError {
    pub(super) fn new(code: ErrorCode, message: &'static str) -> Self {
        Self { code, field: String::new(), message, frame: None }
    }

    pub(super) fn malformed(message: &'static str) -> Self {
        Self::new(ErrorCode::Malformed, message)
    }

    pub(super) fn invalid(message: &'static str) -> Self {
        Self::new(ErrorCode::InvalidField, message)
    }

    pub(super) fn over_limit(message: &'static str) -> Self {
        Self::new(ErrorCode::LimitExceeded, message)
    }

    /// The same error, seen from the object that has the member `name`.
    pub(super) fn within(mut self, name: &str) -> Self {
        if self.field.is_empty() {
            name.clone_into(&mut self.field);
        } else {
            self.field.insert(0, '.');
            self.field.insert_str(0, name);
        }
        self.field.truncate(self.field.floor_char_boundary(FIELD_BYTES_MAX));
        self
    }

    pub(super) fn of(mut self, frame: Option<(FrameType, u32)>) -> Self {
        self.frame = frame;
        self
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "{}: {}", self.code.code(), self.message),
            field => write!(f, "{}: {field} {}", self.code.code(), self.message),
        }
    }
}

impl std::error::Error for JsonError {}

/// Why a frame has no JSON form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// A field of the body cannot be read, or holds what JSON cannot say, such as a counter from 2^53 on.
    #[error("{field} cannot be written as JSON")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// The body is cut off or laid wrong.
    #[error(transparent)]
    Body(#[from] DecodeError),
    /// The frame belongs to trunks.
    #[error("{} has no JSON form", .0.name())]
    NoForm(FrameType),
    /// An OK with a body, and no request is named whose OK has one.
    #[error("an OK has a body, and the request does not say which")]
    UnknownAnswer,
}

impl EncodeError {
    pub(super) fn field(field: &'static str) -> Self {
        Self::Field { field }
    }
}
