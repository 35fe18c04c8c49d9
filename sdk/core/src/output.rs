//! Everything a client may ask of its shell or tell the application.

use std::fmt;

use antiphon_protocol::{EventRef, FrameType, LogName, Position, control};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    error::{Refusal, RequestError, SendError, StopReason},
    event::Event,
    inbox::LastMessage,
    input::{CommandId, SubscriptionId},
    message::Messages,
    presence::Presence,
};

/// What the shell does next, in order, once each.
#[derive(Clone, PartialEq)]
pub enum Output {
    /// Connect now; answer with `Connected` or `Disconnected`. A connection that still stands is over.
    Connect,
    /// Write to the control stream: one whole frame.
    Write(Bytes),
    /// Write a signal to the control stream, as soon as everything else is written. Signals are ephemeral: of those that
    /// wait the shell keeps a few, and drops the oldest for the newest.
    WriteSignal(Bytes),
    /// Close the connection, or give up making it, once what was written has been handed to the transport. No
    /// `Disconnected` is expected for it.
    Close,
    /// Ask the token provider; answer with `Token` or `TokenFailed`.
    NeedToken,
    /// The connection's state changed.
    State(ConnectionState),
    /// What became of a message.
    Send {
        /// From the command.
        id: CommandId,
        /// Its new state.
        state: SendState,
    },
    /// Something for a subscription.
    Subscription {
        /// From the command.
        id: SubscriptionId,
        /// What it is.
        item: Item,
    },
    /// Answer to `Fetch`.
    Page {
        /// From the command.
        id: CommandId,
        /// The page.
        result: Result<Page, RequestError>,
    },
    /// Answer to `FetchMessages`.
    Messages {
        /// From the command.
        id: CommandId,
        /// The page.
        result: Result<Messages, RequestError>,
    },
    /// Answer to `Request`.
    Answer {
        /// From the command.
        id: CommandId,
        /// The answer.
        result: Result<Answer, RequestError>,
    },
    /// Answer to `Signal` (it was written) and `WatchPresence` (the broker knows), or why not.
    Done {
        /// From the command.
        id: CommandId,
        /// Whether it was done.
        result: Result<(), RequestError>,
    },
    /// News of a log that is followed but not subscribed.
    Digest(Digest),
    /// How a watched user is now; takes the place of what was said of them before.
    Presence(Presence),
}

impl fmt::Debug for Output {
    /// What is written may hold a token, so only its length is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("Connect"),
            Self::Write(bytes) => write!(f, "Write({} bytes)", bytes.len()),
            Self::WriteSignal(bytes) => write!(f, "WriteSignal({} bytes)", bytes.len()),
            Self::Close => f.write_str("Close"),
            Self::NeedToken => f.write_str("NeedToken"),
            Self::State(state) => f.debug_tuple("State").field(state).finish(),
            Self::Send { id, state } => f.debug_tuple("Send").field(id).field(state).finish(),
            Self::Subscription { id, item } => f.debug_tuple("Subscription").field(id).field(item).finish(),
            Self::Page { id, result } => f.debug_tuple("Page").field(id).field(result).finish(),
            Self::Messages { id, result } => f.debug_tuple("Messages").field(id).field(result).finish(),
            Self::Answer { id, result } => f.debug_tuple("Answer").field(id).field(result).finish(),
            Self::Done { id, result } => f.debug_tuple("Done").field(id).field(result).finish(),
            Self::Digest(digest) => f.debug_tuple("Digest").field(digest).finish(),
            Self::Presence(presence) => f.debug_tuple("Presence").field(presence).finish(),
        }
    }
}

/// How the client stands with the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// On the way: token, transport, handshake.
    Connecting,
    /// The session stands.
    Ready(Session),
    /// The connection is lost; the next attempt follows by itself.
    Waiting {
        /// Why, for people.
        cause: String,
    },
    /// It is over.
    Stopped(StopReason),
}

/// What the broker said about the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Names the session; the same after it was resumed.
    pub session_id: Bytes,
    /// Whether it is the session of the connection before.
    pub resumed: bool,
    /// The user of the token.
    pub user: String,
    /// The device.
    pub device: String,
    /// Longest message body, in bytes.
    pub body_bytes_max: usize,
    /// Most logs that may be subscribed at once.
    pub subscriptions_max: usize,
    /// When the token ends, Unix milliseconds; 0 = never.
    pub expires_at_ms: u64,
}

/// The life of a message: `Queued`, `Sending`, `Sent`, `Delivered`, `Read`, or `Failed` at any time before `Sent`. Each
/// state is told once, and `Read` may come without `Delivered`.
///
/// `Delivered` and `Read` come while the log is subscribed, in conversations of up to 100 members, for the newest 256
/// messages of each log. Whoever answers with a message has read up to it, without moving a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendState {
    /// It is in the outbox.
    Queued,
    /// It was written for the first time, with this id.
    Sending {
        /// What its echo will carry.
        client_message_id: Uuid,
    },
    /// It is durable.
    Sent(Receipt),
    /// It reached somebody else's device.
    Delivered,
    /// Somebody else read it.
    Read,
    /// It will not be sent.
    Failed(SendError),
}

/// Where a message ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The id it was sent with.
    pub client_message_id: Uuid,
    /// Identity of the event.
    pub event_id: Uuid,
    /// Its place in the log.
    pub position: Position,
    /// Countable messages up to and including it.
    pub msgno: u64,
    /// The broker's clock at that moment, Unix milliseconds.
    pub time_ms: u64,
    /// An earlier attempt had been stored already.
    pub duplicate: bool,
}

impl Receipt {
    /// What names the message to the requests and messages that are about it.
    pub fn reference(&self) -> EventRef {
        EventRef { event_id: self.event_id, seq: self.position.seq }
    }
}

/// What a subscription brings, in order. Every event comes exactly once, until a `Reset` says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The log is being followed, for the first time or again.
    Attached(Attached),
    /// The next event.
    Event(Event),
    /// Positions that this reader does not get.
    Skipped {
        /// First one.
        first: Position,
        /// Last one.
        last: Position,
    },
    /// The position was not usable: forget what there is, events begin anew after `after`.
    Reset {
        /// Why.
        reason: ResetReason,
        /// The next event has the position after this one.
        after: Position,
    },
    /// Somebody's cursor moved. Whoever sends a message moves it too: see [`Event::cursor`].
    Cursor(Cursor),
    /// Typing and the like. It ends by itself after its time to live.
    Signal(Signal),
    /// The subscription is over.
    Detached(DetachReason),
}

/// State of a log at the moment a subscription took hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// Events follow from the position after this one.
    pub after: Position,
    /// Newest event.
    pub head: Position,
    /// Oldest event that still exists.
    pub floor: u64,
    /// Countable messages up to the head.
    pub head_msgno: u64,
    /// Where the members stand, unless the conversation is large.
    pub cursors: Vec<Cursor>,
}

/// Why positions start anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// The log was restored or made again.
    EpochChanged,
    /// Events after the position no longer exist, or cannot be read by this user.
    HistoryGone,
}

/// Why a subscription is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetachReason {
    /// The application wished it.
    Unsubscribed,
    /// The user was removed; nothing after this position comes.
    Removed {
        /// Last position that this reader may see.
        last: u64,
    },
    /// The conversation was deleted.
    Deleted {
        /// Last position that this reader may see.
        last: u64,
    },
    /// The broker refused the subscription.
    Refused(Refusal),
    /// The log is subscribed already by this client.
    AlreadySubscribed,
    /// The client has stopped.
    Stopped(StopReason),
}

/// How far a member has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The member.
    pub user: String,
    /// Everything up to here has arrived.
    pub delivered: u64,
    /// Everything up to here has been read.
    pub read: u64,
    /// Countable messages up to `read`.
    pub read_msgno: u64,
}

impl Cursor {
    pub(crate) fn from_wire(cursor: &control::MemberCursor) -> Self {
        let control::MemberCursor { user, delivered, read, read_msgno } = cursor.clone();
        Self { user, delivered, read, read_msgno }
    }
}

/// An ephemeral signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Who sent it.
    pub user: String,
    /// What it is, as "typing".
    pub kind: String,
    /// Its content.
    pub data: Bytes,
    /// How long it holds, in milliseconds.
    pub ttl_ms: u32,
}

/// A part of a log's history.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The events, in the direction of the read.
    pub events: Vec<Event>,
    /// Where to go on: the next `from` when reading forward, the next `to` when reading backward.
    pub next: Option<u64>,
    /// Newest event when the page was read.
    pub head: Position,
    /// Oldest event that still existed.
    pub floor: u64,
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Type of its frame.
    pub frame_type: FrameType,
    /// Its encoded body.
    pub body: Bytes,
}

/// Newest state of a log that is followed but not subscribed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The log.
    pub log: LogName,
    /// Its newest event.
    pub head: Position,
    /// Countable messages up to the head.
    pub head_msgno: u64,
    /// The newest message as it stands; None if there is none.
    pub last: Option<LastMessage>,
}
