//! A refused request, and its ERROR frame.

use antiphon_protocol::{DecodeError, ErrorCode, FrameType, control, frames};
use antiphon_storage_contract::StoreError;
use bytes::Bytes;

use crate::authority::Denied;

/// Why a request is not carried out: whose fault it is follows from the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: ErrorCode,
    /// The field at fault, or empty.
    pub(crate) field: &'static str,
    /// One sentence for a developer.
    pub(crate) message: String,
    /// Whether the request may have taken effect all the same.
    pub(crate) is_outcome_unknown: bool,
    /// With `removed`: position of the removal.
    pub(crate) removed_at: u64,
}

/// How long a client waits before it repeats a request that was refused for now.
const RETRY_AFTER_MS: u32 = 200;

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: "", message: message.into(), is_outcome_unknown: false, removed_at: 0 }
    }

    pub(crate) fn field(code: ErrorCode, field: &'static str, message: impl Into<String>) -> Self {
        Self { field, ..Self::new(code, message) }
    }

    /// Whether the client may send the same again.
    pub(crate) fn is_transient(&self) -> bool {
        self.code.action() == antiphon_protocol::Action::Retry
    }

    pub(crate) fn to_frame(&self, request_id: u32) -> Bytes {
        frames::control(FrameType::Error, request_id, &self.to_control())
    }

    pub(crate) fn to_control(&self) -> control::Error {
        use control::error::Outcome;
        let outcome = if self.is_outcome_unknown { Outcome::Unknown } else { Outcome::NotApplied };
        control::Error {
            number: self.code as u32,
            code: self.code.code().into(),
            outcome: outcome.into(),
            retry_after_ms: if self.is_transient() { RETRY_AFTER_MS } else { 0 },
            field: self.field.into(),
            message: self.message.clone(),
            removed_at: self.removed_at,
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::field(error.code(), error.field().unwrap_or_default(), error.to_string())
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::NotFound => Self::new(ErrorCode::NotFound, "there is no such log for this user"),
            Denied::Forbidden => Self::new(ErrorCode::Forbidden, "this user may not do that here"),
            Denied::Removed { seq } => {
                Self { removed_at: seq, ..Self::new(ErrorCode::Removed, "this user was removed") }
            }
        }
    }
}

impl From<&StoreError> for Refusal {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::new(ErrorCode::StoreFull, "the broker's store is full"),
            StoreError::Degraded(_) => {
                Self::new(ErrorCode::StoreDegraded, "this part of the broker's store is damaged and read-only")
            }
            StoreError::Unavailable(_) => Self {
                is_outcome_unknown: true,
                ..Self::new(ErrorCode::StoreUnavailable, "the broker's store does not answer")
            },
            StoreError::Misuse(_) => Self::new(ErrorCode::Internal, "the broker misused its store"),
        }
    }
}
