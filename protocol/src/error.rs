//! What can be wrong: with bytes ([`DecodeError`]) and with requests ([`ErrorCode`]).

use thiserror::Error;

use crate::ids::InvalidId;

/// Why bytes are not a frame. The peer that sent them is at fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The header announces more bytes than this receiver takes.
    #[error("a frame of {bytes} bytes exceeds the limit of {max}")]
    FrameTooLarge {
        /// Bytes announced, header included.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The number stands for no frame, and the frame is not marked optional.
    #[error("frame type {0:#04x} is unknown")]
    UnknownType(u8),
    /// The body ends before a field that it must have.
    #[error("the frame is cut off before {field}")]
    Truncated {
        /// First field that is missing.
        field: &'static str,
    },
    /// A field cannot be read.
    #[error("{field} is malformed")]
    Malformed {
        /// The field.
        field: &'static str,
    },
    /// A field is longer than its limit.
    #[error("{field} has a length of {found}, the limit is {max}")]
    OverLimit {
        /// The field.
        field: &'static str,
        /// Bytes or entries found.
        found: usize,
        /// Bytes or entries allowed.
        max: usize,
    },
    /// A field that must be an id is not one.
    #[error("{field}: {source}")]
    InvalidId {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidId,
    },
    /// A Protobuf body holds fields that this version does not know, or is not in canonical form.
    #[error("the body holds unknown or non-canonical fields")]
    UnknownFields,
}

impl DecodeError {
    /// The field at fault, where one can be named.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::Truncated { field }
            | Self::Malformed { field }
            | Self::OverLimit { field, .. }
            | Self::InvalidId { field, .. } => Some(field),
            Self::FrameTooLarge { .. } => Some("header.length"),
            Self::UnknownType(_) => Some("header.type"),
            Self::UnknownFields => None,
        }
    }

    /// The code that tells the peer.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::FrameTooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::UnknownType(_) => ErrorCode::UnknownFrame,
            Self::Truncated { .. } | Self::Malformed { .. } => ErrorCode::Malformed,
            Self::OverLimit { .. } => ErrorCode::LimitExceeded,
            Self::InvalidId { .. } => ErrorCode::InvalidField,
            Self::UnknownFields => ErrorCode::UnknownFields,
        }
    }
}

/// What a client does about an error; the thousands of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// 1xxx: send the same request again, after `retry_after_ms`.
    Retry,
    /// 2xxx: get a new token first.
    Authenticate,
    /// 3xxx: the request is wrong; do not send it again as it is.
    Fix,
    /// 4xxx: the user may not do that, or the thing does not exist.
    Forbidden,
    /// 5xxx: stop and show the error.
    Stop,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $code:literal;)+) => {
        /// Why a request was refused or a connection closed. Numbers and codes are never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant = $number,)+
        }

        impl ErrorCode {
            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Reads a number.
            pub fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The stable word for it, as in JSON.
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)+
                }
            }
        }
    };
}

error_codes! {
    /// The broker has no room for the request now.
    Overloaded = 1001, "overloaded";
    /// Another broker is active.
    NotActive = 1002, "not_active";
    /// The store has no space.
    StoreFull = 1003, "store_full";
    /// The store cannot answer now; whether the event was stored is unknown.
    StoreUnavailable = 1004, "store_unavailable";
    /// The broker is about to stop.
    Draining = 1005, "draining";
    /// Over the sender's rate, or its pages in flight.
    RateLimited = 1006, "rate_limited";
    /// A send with an earlier `dseq` was refused; send them again in order.
    OutOfOrder = 1007, "out_of_order";
    /// An earlier record of the batch failed.
    NotApplied = 1008, "not_applied";

    /// The token is not valid; the message says why.
    TokenInvalid = 2001, "token_invalid";
    /// The token has expired.
    TokenExpired = 2002, "token_expired";
    /// The user's sessions were revoked after the token was issued.
    TokenRevoked = 2003, "token_revoked";
    /// A token names another user or device than the session's.
    TokenMismatch = 2004, "token_mismatch";
    /// Nothing was authenticated within five seconds.
    AuthenticationTimeout = 2005, "authentication_timeout";

    /// A frame or field cannot be read.
    Malformed = 3001, "malformed";
    /// The frame type is unknown.
    UnknownFrame = 3002, "unknown_frame";
    /// The frame is longer than allowed.
    FrameTooLarge = 3003, "frame_too_large";
    /// The frame is not allowed in this state of the session, or from this side.
    UnexpectedFrame = 3004, "unexpected_frame";
    /// A field is outside its range.
    InvalidField = 3005, "invalid_field";
    /// The body holds fields that this version does not know.
    UnknownFields = 3006, "unknown_fields";
    /// None of the offered versions is spoken here.
    VersionUnsupported = 3007, "version_unsupported";
    /// The `client_message_id` was used for other content.
    IdReused = 3008, "id_reused";
    /// The id's own time lies before the log's retention floor.
    DedupeExpired = 3009, "dedupe_expired";
    /// The id's own time lies more than a minute ahead of the broker.
    ClockSkew = 3010, "clock_skew";
    /// Over the limit of bytes, subscriptions, members or records.
    LimitExceeded = 3011, "limit_exceeded";
    /// The related event does not exist or cannot be related to like that.
    InvalidRelation = 3012, "invalid_relation";
    /// The conversation exists already with other properties.
    AlreadyExists = 3013, "already_exists";

    /// The session may not do that.
    Forbidden = 4001, "forbidden";
    /// The user was removed from the conversation.
    Removed = 4002, "removed";
    /// One of the two users blocked the other.
    Blocked = 4003, "blocked";
    /// There is no such thing for this user.
    NotFound = 4004, "not_found";

    /// A fault of the broker.
    Internal = 5001, "internal";
    /// This part of the store is damaged and read-only.
    StoreDegraded = 5002, "store_degraded";
    /// A newer connection of the same device took over.
    Replaced = 5003, "replaced";
    /// The client ended the session.
    Closed = 5004, "closed";
}

impl ErrorCode {
    /// What the client does about it.
    pub fn action(self) -> Action {
        match self as u16 / 1_000 {
            1 => Action::Retry,
            2 => Action::Authenticate,
            3 => Action::Fix,
            4 => Action::Forbidden,
            _ => Action::Stop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thousands_of_a_number_say_what_to_do() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(*code as u32), Some(*code));
            assert!((1_000..6_000).contains(&(*code as u16)), "{}", code.code());
        }
        assert_eq!(ErrorCode::StoreFull.action(), Action::Retry);
        assert_eq!(ErrorCode::TokenExpired.action(), Action::Authenticate);
        assert_eq!(ErrorCode::IdReused.action(), Action::Fix);
        assert_eq!(ErrorCode::Removed.action(), Action::Forbidden);
        assert_eq!(ErrorCode::Replaced.action(), Action::Stop);
    }
}
