//! What happened, in the checker's own small words. Callers number their logs, users and readers from zero.

use std::fmt;

/// A point on the caller's one monotonic clock, in any unit, the same for all clients of a check.
///
/// Two things at the same point are concurrent: neither is required to come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct At(pub u64);

/// A log under check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log(pub u32);

/// A user; the scope, within a log, in which a client message id is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(pub u32);

/// A sender instance: one start of a client, whose sends to a log keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub u32);

/// A reader. It has at most one stream per log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subscriber(pub u32);

/// Fingerprint of a body; equal bodies have equal hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyHash(pub u64);

/// FNV-1a of `body`. Finds accidents, not forgers.
pub fn body_hash(body: &[u8]) -> BodyHash {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    BodyHash(body.iter().fold(OFFSET, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME)))
}

/// Who wrote a row, and under which id of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author {
    /// The sender.
    pub user: User,
    /// The sender's `client_message_id`.
    pub message: u128,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {:032x} of user {}", self.message, self.user.0)
    }
}

/// One row of a log as a reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Position in the log, from 1.
    pub seq: u64,
    /// `None` for rows that the broker itself made, such as changes of membership.
    pub author: Option<Author>,
    /// Of the body.
    pub hash: BodyHash,
}

/// A send as it is made. A retry under the same id is a further attempt at the same message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Where to.
    pub log: Log,
    /// By whom, under which id.
    pub author: Author,
    /// From which start of a client.
    pub instance: Instance,
    /// Of the body.
    pub hash: BodyHash,
}

/// Names an attempt until it ends; made by [`Checker::invoke`](crate::Checker::invoke).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub(crate) u32);

/// How an attempt ended. One that never ends counts as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged at this position.
    Ok {
        /// Position in the log.
        seq: u64,
    },
    /// Refused, and promised to have no effect.
    Refused,
    /// It may or may not have taken effect.
    Unknown,
}
