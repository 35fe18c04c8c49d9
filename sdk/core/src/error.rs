//! What can go wrong, by who is to blame and what the application can do about it.

use std::time::Duration;

use antiphon_protocol::{Action, ErrorCode, control};
use thiserror::Error;

/// The broker said no.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the broker refused with {code} ({number}){}{message}", if message.is_empty() { "" } else { ": " })]
pub struct Refusal {
    /// Stable number; its thousands say what to do.
    pub number: u32,
    /// Stable word for it.
    pub code: String,
    /// Whether the request may have taken effect.
    pub outcome: Outcome,
    /// How long to wait before trying again, if the broker said so.
    pub retry_after: Option<Duration>,
    /// The field at fault, if one can be named.
    pub field: Option<String>,
    /// For people.
    pub message: String,
    /// With `removed`: the position of the removal.
    pub removed_at: Option<u64>,
}

/// Whether a refused request may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    NotApplied,
    /// It may have.
    Unknown,
}

impl Refusal {
    /// The code, if this version knows it.
    pub fn known(&self) -> Option<ErrorCode> {
        ErrorCode::from_number(self.number)
    }

    /// What to do about it.
    pub fn action(&self) -> Action {
        match self.number / 1_000 {
            1 => Action::Retry,
            2 => Action::Authenticate,
            3 => Action::Fix,
            4 => Action::Forbidden,
            _ => Action::Stop,
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self.action(), Action::Retry | Action::Authenticate)
    }

    /// The refusal that a connection's close code stands for, if it is one of ours.
    pub(crate) fn from_close_code(number: u32, cause: &str) -> Option<Self> {
        (1_000..6_000).contains(&number).then(|| Self {
            number,
            code: ErrorCode::from_number(number).map_or("unknown", ErrorCode::code).to_owned(),
            outcome: Outcome::Unknown,
            retry_after: None,
            field: None,
            message: cause.to_owned(),
            removed_at: None,
        })
    }

    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        self.number == code as u32
    }
}

impl From<control::Error> for Refusal {
    fn from(error: control::Error) -> Self {
        let unknown = error.outcome() == control::error::Outcome::Unknown;
        Self {
            number: error.number,
            code: error.code,
            outcome: if unknown { Outcome::Unknown } else { Outcome::NotApplied },
            retry_after: (error.retry_after_ms > 0).then(|| Duration::from_millis(error.retry_after_ms.into())),
            field: (!error.field.is_empty()).then_some(error.field),
            message: error.message,
            removed_at: (error.removed_at > 0).then_some(error.removed_at),
        }
    }
}

/// Why the client has stopped for good. A new client is needed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StopReason {
    /// The application closed it.
    #[error("the application closed the client")]
    Closed,
    /// The broker refused the session.
    #[error("the session was refused: {0}")]
    Refused(Refusal),
    /// The token provider gave the very token that had been refused.
    #[error("the token provider gave a token that the broker had just refused: {0}")]
    SameToken(Refusal),
    /// A token is at most 8 KiB long.
    #[error("the token has {0} bytes, more than the protocol allows")]
    TokenTooLong(usize),
}

/// Why a message was not sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The outbox is full; try again when some of it has been acknowledged.
    #[error("the outbox is full: {messages} messages, {bytes} bytes")]
    QueueFull {
        /// Messages in it.
        messages: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// The body or the envelope exceeds the protocol's limit.
    #[error("{field} has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Which part.
        field: &'static str,
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// Clients may not send events of this kind.
    #[error("clients may not send events of this kind")]
    Kind,
    /// The broker refused it for good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The client stopped before an acknowledgement came; whether the message was stored is unknown unless it was
    /// still queued.
    #[error("the client stopped before the message was acknowledged: {0}")]
    Stopped(StopReason),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RequestError {
    /// Too many requests wait already.
    #[error("{0} requests wait already")]
    QueueFull(usize),
    /// Signals are not kept for later, and there is no connection now.
    #[error("there is no connection, and signals are not kept for later")]
    NotConnected,
    /// The connection ended before the answer came; whether the request was carried out is unknown.
    #[error("the connection ended before the broker answered")]
    ConnectionLost,
    /// The frame is not a request, has a command of its own, or is too long.
    #[error("{0} cannot be sent as a request")]
    NotARequest(&'static str),
    /// More things are named than the protocol allows.
    #[error("{count} {what}, at most {max} are allowed")]
    TooMany {
        /// Which things.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A part of it exceeds the protocol's limit.
    #[error("{field} has {bytes} bytes, at most {max} are allowed")]
    TooLarge {
        /// Which part.
        field: &'static str,
        /// Bytes it has.
        bytes: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// The broker refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The broker's answer cannot be read.
    #[error("the broker's answer cannot be read")]
    Answer,
    /// The client has stopped.
    #[error("the client has stopped: {0}")]
    Stopped(StopReason),
}
