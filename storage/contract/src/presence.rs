//! What a presence store promises the broker: who is there, signals, rate limits and revocations, on one machine or
//! on many. Nothing in it is the truth of anything durable, and all of it can be rebuilt.
//!
//! A handle *states* what is so on its side ([`PresenceOp::Here`], [`PresenceOp::Watch`], ...), *asks*
//! ([`PresenceOp::Ask`]) and *sends* ([`PresenceOp::Publish`]); what comes of it are [`PresenceEvent`]s.
//!
//! # Contract
//!
//! 1. **Statements hold.** What was stated holds until it is taken back, the handle is dropped or the process ends. It
//!    is restated to the store as often as needed, after the store has lost everything too.
//! 2. **A user is there** while at least one seat is. A seat whose process is gone counts for at most [`SEAT_TTL`].
//! 3. **Transitions only.** A watcher gets the state of now, then one event for each change of it: the first seat, the
//!    last one, another look. A seat more or less and a refresh are no change. No state is told twice in a row.
//! 4. **The newest look counts**: the one with the greatest `set_at_ms` of those that were stated since the user came;
//!    among equals the one that came first. It is forgotten when the user goes.
//! 5. **Signals** reach those who subscribe at that moment, at most once, the publisher included.
//! 6. **Revocations** only rise. A handle gets an event when one rises; events may be lost while the store is away, but
//!    for users with seats at this handle they come afterwards.
//! 7. **An absent store says so**: [`PresenceEvent::Stale`] comes at most [`STALE_WITHIN`] after the last right answer,
//!    [`PresenceEvent::Fresh`] once everything is restated and read again, at most [`FRESH_WITHIN`] after the store can
//!    be reached. In between, what was told last may be wrong and a new watch is answered with [`Seen::Unknown`]. What
//!    changed meanwhile is told before `Fresh`; what was told last before `Fresh` counts again after it.
//!
//! # Bounds
//!
//! | what | bound | when full |
//! |---|---|---|
//! | seats, watches, subscriptions of a handle | [`SEATS_MAX`], [`WATCHES_MAX`], [`SUBSCRIPTIONS_MAX`] | a further one is [`PresenceEvent::Refused`] |
//! | questions under way | [`QUESTIONS_MAX`] | [`Question::Take`] is allowed unseen, another one is [`PresenceError::Busy`] |
//! | signals to send | [`SIGNALS_MAX`] | the oldest is dropped: newest wins |
//! | events that were not polled | [`EVENTS_MAX`] | signals are dropped; states and revocations merge, newest wins |

use std::time::Duration;

use antiphon_protocol::{DeviceId, LogKey, TenantId, UserId, control::PresenceStatus};
use bytes::Bytes;
use thiserror::Error;

use crate::Token;

/// How long a seat counts that is not restated.
pub const SEAT_TTL: Duration = Duration::from_secs(45);
/// How often a seat is restated.
pub const SEAT_REFRESH: Duration = Duration::from_secs(15);
/// How long a revocation is kept. Tokens live for a day at most.
pub const REVOCATION_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// From the last right answer of a store to [`PresenceEvent::Stale`], at most.
pub const STALE_WITHIN: Duration = Duration::from_secs(5);
/// From the moment at which the store can be reached to [`PresenceEvent::Fresh`], at most.
pub const FRESH_WITHIN: Duration = Duration::from_secs(30);

/// Seats of one handle.
pub const SEATS_MAX: usize = 1 << 20;
/// Users that one handle watches.
pub const WATCHES_MAX: usize = 1 << 20;
/// Logs whose signals one handle gets.
pub const SUBSCRIPTIONS_MAX: usize = 1 << 18;
/// Questions of one handle without an answer.
pub const QUESTIONS_MAX: usize = 4_096;
/// Signals of one handle that are not sent yet.
pub const SIGNALS_MAX: usize = 4_096;
/// Events of one handle that are not polled yet.
pub const EVENTS_MAX: usize = 1 << 16;

const _: () = assert!(SEAT_REFRESH.as_millis() * 3 <= SEAT_TTL.as_millis(), "two refreshes may fail");
const _: () = assert!(QUESTIONS_MAX + SIGNALS_MAX < EVENTS_MAX, "answers always fit");

/// A user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserKey {
    /// Whose user.
    pub tenant: TenantId,
    /// Which.
    pub user: UserId,
}

/// One connection of a device. Two connections of the same device are two seats, so that one may take over from the
/// other, in another process too, without the user being away in between.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// Whose device.
    pub owner: UserKey,
    /// Which device.
    pub device: DeviceId,
    /// Tells the connection from others of the device at the same handle.
    pub incarnation: u64,
}

/// How a user wants to be shown while there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Any status.
    pub status: PresenceStatus,
    /// A few words.
    pub text: String,
    /// When the user said so, by the clock of the broker; 0 for what nobody said.
    pub set_at_ms: u64,
}

impl Default for Look {
    fn default() -> Self {
        Self { status: PresenceStatus::Online, text: String::new(), set_at_ms: 0 }
    }
}

/// What a watcher sees of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// The store cannot say.
    Unknown,
    /// So the user is now; without seats `Offline` and no text.
    Known { status: PresenceStatus, text: String },
}

impl Seen {
    /// A user without seats.
    pub fn offline() -> Self {
        Self::Known { status: PresenceStatus::Offline, text: String::new() }
    }
}

impl From<&Look> for Seen {
    fn from(look: &Look) -> Self {
        Self::Known { status: look.status, text: look.text.clone() }
    }
}

/// Whose budget is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Payer {
    /// All users of a tenant together.
    Tenant(TenantId),
    /// One user.
    User(UserKey),
}

/// Takes from a token bucket, which all processes share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// Whose bucket.
    pub payer: Payer,
    /// Which of the payer's buckets, such as `send`: 1-32 bytes of `[a-z-]`.
    pub kind: &'static str,
    /// How many tokens.
    pub cost: u32,
    /// Tokens that come back in a second; not 0.
    pub per_second: u32,
    /// What the full bucket holds; at least `cost`.
    pub burst: u32,
}

impl Take {
    /// Whether any store could answer.
    pub fn check(&self) -> Result<(), PresenceError> {
        let is_kind = |b: u8| b.is_ascii_lowercase() || b == b'-';
        let kind_fits = (1..=32).contains(&self.kind.len()) && self.kind.bytes().all(is_kind);
        if !kind_fits || self.per_second == 0 || self.cost > self.burst {
            return Err(PresenceError::Misuse(format!("no bucket can answer {self:?}")));
        }
        Ok(())
    }
}

/// What a handle may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// May this be done now? Answer: [`Answer::Verdict`], always: by a bucket of this process while the store is away.
    Take(Take),
    /// Raise a user's revocation: tokens issued before that moment are void. Answer: [`Answer::NotBefore`].
    Revoke { user: UserKey, not_before_ms: u64 },
    /// Answer: [`Answer::NotBefore`].
    NotBefore(UserKey),
    /// Answer: [`Answer::Devices`].
    Devices(UserKey),
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Whether something may be done now.
    Verdict {
        /// If not, when it is worth another try.
        retry_after_ms: Option<u64>,
        /// Decided for this process alone, since the store was away.
        is_local: bool,
    },
    /// The user's revocation as it is now; 0 for none.
    NotBefore(u64),
    /// The devices with seats, each once, in order.
    Devices(Vec<DeviceId>),
}

/// What a handle may say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceOp {
    /// A seat is there, and how its user wants to be shown. Said again, it is how a look changes.
    Here { seat: Seat, look: Look },
    /// A seat is gone. One that is not known is gone already.
    Left(Seat),
    /// Tell how the user is now and whenever it changes. Said again, the state is told again.
    Watch(UserKey),
    /// Tell no more.
    Unwatch(UserKey),
    /// Send to those who subscribe to the log: at most once.
    Publish { log: LogKey, payload: Bytes },
    /// Get the log's signals.
    Subscribe(LogKey),
    /// Get them no more.
    Unsubscribe(LogKey),
    /// Answered with [`PresenceEvent::Answered`].
    Ask { question: Question, token: Token },
}

/// What a handle is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PresenceEvent {
    /// A watched user is so, from now on.
    Seen { user: UserKey, seen: Seen },
    /// Something was published to a log with a subscription.
    Signal { log: LogKey, payload: Bytes },
    /// A user's revocation has risen.
    Revoked { user: UserKey, not_before_ms: u64 },
    /// Comes once for each question.
    Answered { token: Token, result: Result<Answer, PresenceError> },
    /// A statement that is not carried out.
    Refused { op: PresenceOp, error: PresenceError },
    /// The store is away: what was told may be wrong.
    Stale,
    /// What was told is right again.
    Fresh,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PresenceError {
    /// The store cannot answer now; whether a revocation took effect is unknown, and saying it again is harmless.
    #[error("the presence store is unavailable: {0}")]
    Unavailable(String),
    /// A bound of the table above.
    #[error("the presence store takes no more than {0}")]
    Full(usize),
    /// Too many questions are under way.
    #[error("{QUESTIONS_MAX} questions wait for the presence store")]
    Busy,
    /// The caller broke the contract; our bug, never a client's fault.
    #[error("the presence store's contract was broken: {0}")]
    Misuse(String),
}

/// One shard's way to a presence store. Not shared: each shard thread owns its own; what was stated ends with it.
///
/// An implementation never blocks in either method beyond copying memory.
pub trait Presence {
    /// States, asks or sends.
    fn submit(&mut self, op: PresenceOp);

    /// Moves the events that are ready into `events`, oldest first.
    fn poll_events(&mut self, events: &mut Vec<PresenceEvent>);
}
