//! Why a user got an event, or not: what the shards know of it, for an operator's question.
//!
//! The question travels, so nothing waits for it anywhere: to the log's owner (`log::explain`), to the owner of the user's
//! inbox, to the list of the user's connected devices (`users::explain`), from shard to shard to each of these sessions
//! (`home::explain`), and back to the shard that was asked. Each writes down what it knows. What no shard knows, such as
//! what an app shows, is not in it.
//!
//! ```text
//! travel.rs    where the question goes
//! verdict.rs   what was written down -> the answer in a word
//! ```

mod travel;
mod verdict;

use antiphon_protocol::{DeviceId, ErrorCode, EventKind, LogName, TenantId, UserId};
use uuid::Uuid;

use crate::{log::Membership, routing::ShardId};

pub use travel::Explaining;
pub(crate) use travel::{Next, ask};
pub use verdict::Verdict;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The shell's number for it; the answer carries it.
    pub ticket: u64,
    /// Whose data.
    pub tenant: TenantId,
    /// The log.
    pub log: LogName,
    /// The event's position.
    pub seq: u64,
    /// The history generation of the position, if the asker knows it.
    pub epoch: Option<u32>,
    /// The event's id, if the asker knows it: the position may hold another one.
    pub event_id: Option<Uuid>,
    /// Who got it, or not.
    pub user: UserId,
}

/// What the shards know, at the moments at which the question came by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked.
    pub question: Question,
    /// What the log's owner knows, or why it cannot say.
    pub log: Result<AtLog, ErrorCode>,
    /// What the user's inbox says, or why it cannot be read.
    pub inbox: Result<AtInbox, ErrorCode>,
    /// The user's connected sessions.
    pub sessions: Vec<AtSession>,
}

/// What the log's owner knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtLog {
    /// History generation of its positions.
    pub epoch: u32,
    /// Last durable position.
    pub head: u64,
    /// First position that retention has left.
    pub floor: u64,
    /// What is at the position.
    pub event: Found,
    /// First position that the user may read without any grant, or the code with which a read is refused.
    pub reads_from: Result<u64, ErrorCode>,
    /// Whether the conversation was deleted.
    pub is_deleted: bool,
    /// The user's standing, if a member.
    pub member: Option<Membership>,
    /// Position of the event that removed the user, who has not come back since.
    pub removed_at: Option<u64>,
    /// In a direct conversation: one of the two blocked the other, so that nothing new is accepted.
    pub is_blocked: bool,
    /// Last position that a device of the user says it has.
    pub delivered: u64,
    /// Last position that the user has read.
    pub read: u64,
}

/// What is at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the log has not got so far.
    NotYet,
    /// Nothing any more: retention has removed it.
    Gone,
    /// The store does not say.
    Unreadable(ErrorCode),
    /// This event.
    Event(StoredEvent),
}

/// A stored event without its contents, which are nobody's business here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id.
    pub event_id: Uuid,
    /// What it is.
    pub kind: EventKind,
    /// Who sent it.
    pub sender: String,
    /// When it got its position, Unix milliseconds.
    pub time_ms: u64,
    /// Whether its contents were redacted.
    pub is_redacted: bool,
}

/// What the user's inbox says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtInbox {
    /// The user hid the event from their own views.
    pub is_hidden: bool,
    /// The user blocked the event's sender.
    pub blocks_sender: bool,
    /// The user muted the conversation; that holds nothing back.
    pub is_muted: bool,
    /// Tokens issued before this are void, Unix milliseconds; 0 = none were revoked.
    pub tokens_not_before_ms: u64,
}

/// A connected session of the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtSession {
    /// The shard that has its connection.
    pub shard: ShardId,
    /// The device.
    pub device: DeviceId,
    /// The session.
    pub session_id: Uuid,
    /// Whether a gateway carries it.
    pub is_on_trunk: bool,
    /// Whether it hears of changes in every conversation of the user, without their events.
    pub follows: bool,
    /// Whether its token grants to read the log.
    pub is_granted: bool,
    /// If it subscribes to the log: the first position that it gets live.
    pub live_from: Option<u64>,
    /// Bytes of events that wait to be written, on a trunk those of all its sessions.
    pub waiting_bytes: usize,
    /// Whether live events wait on its shard to be handed to sessions.
    pub has_undelivered: bool,
}

impl Explanation {
    pub(crate) fn new(question: Question) -> Self {
        let unasked = ErrorCode::Internal;
        Self { question, log: Err(unasked), inbox: Err(unasked), sessions: Vec::new() }
    }
}
