//! Everything that can happen to a client.

use std::{collections::BTreeSet, fmt};

use antiphon_protocol::{FrameType, LogName, Position, UserId};
use bytes::Bytes;

use crate::new_message::NewMessage;

/// What a shell tells the client. After each one the shell takes every [`Output`](crate::Output).
#[derive(Debug, Clone)]
pub enum Input {
    /// The connection that [`Output::Connect`](crate::Output::Connect) asked for stands, and its control stream is open.
    Connected,
    /// The connection could not be made, or has ended. The shell must not pass in bytes of it any more.
    Disconnected {
        /// What the transport says, for people.
        cause: String,
        /// The application close code, if the broker closed it with one.
        close_code: Option<u32>,
    },
    /// There is a better way to the broker than the connection that stands: the client leaves this one once nothing is
    /// awaited any more, or soon anyhow, and asks to connect again. Without a session it has no effect.
    Move,
    /// Bytes of the control stream, in order.
    Control(Bytes),
    /// Bytes of a stream that the broker opened, in order within that stream.
    Stream(StreamId, Bytes),
    /// A stream that the broker opened has ended.
    StreamEnded(StreamId),
    /// Answer to [`Output::NeedToken`](crate::Output::NeedToken).
    Token(Token),
    /// The token provider failed; it is asked again later.
    TokenFailed {
        /// What it says, for people.
        cause: String,
    },
    /// The time of [`Client::poll_timeout`](crate::Client::poll_timeout) has come.
    Timeout,
    /// The application wants something.
    Command(Command),
}

/// One stream that the broker opened; unique within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Names a send or a request; chosen by the shell, unique within the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Names a subscription; chosen by the shell, unique within the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// An access token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps a JWT.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What an application wants. Each ends in at least one output that carries its id.
#[derive(Debug, Clone)]
pub enum Command {
    /// Append one event; its fate comes as [`Output::Send`](crate::Output::Send).
    Send {
        /// Names the message in outputs.
        id: CommandId,
        /// The message.
        message: NewMessage,
    },
    /// Append several events, in order, written together where the broker takes batches. Not atomic: each has a fate of
    /// its own, as with `Send`.
    SendBatch(Vec<(CommandId, NewMessage)>),
    /// Follow a log until told otherwise, across reconnects.
    Subscribe {
        /// Names the subscription in outputs.
        id: SubscriptionId,
        /// The log; one subscription each.
        log: LogName,
        /// Where to begin.
        from: From,
    },
    /// Stop following.
    Unsubscribe(SubscriptionId),
    /// Read history; repeated by itself after a lost connection.
    Fetch {
        /// Names the page in outputs.
        id: CommandId,
        /// What to read.
        range: Range,
    },
    /// Read messages as they stand; repeated by itself after a lost connection.
    FetchMessages {
        /// Names the page in outputs.
        id: CommandId,
        /// What to read; the limit counts messages.
        range: Range,
    },
    /// Move one's own cursors. Merged, sent at most once a second per log, restated after a reconnect.
    Cursor {
        /// The log.
        log: LogName,
        /// Everything up to here has arrived; 0 = unchanged.
        delivered: u64,
        /// Everything up to here has been read; 0 = unchanged.
        read: u64,
    },
    /// Send a signal now. It is written or fails at once: signals are not kept for later, and nobody answers them.
    Signal {
        /// Names the signal in outputs.
        id: CommandId,
        /// The signal.
        signal: NewSignal,
    },
    /// Watch the presence of these users, and no others, across reconnects; answered once the broker knows.
    WatchPresence {
        /// Names the wish in outputs.
        id: CommandId,
        /// At most [`PRESENCE_WATCHED_MAX`](crate::limits::PRESENCE_WATCHED_MAX); none = nobody.
        users: BTreeSet<UserId>,
    },
    /// Any other request. Refusals that ask for it are repeated a few times; a request whose answer was lost with the
    /// connection fails with `ConnectionLost`.
    Request {
        /// Names the answer in outputs.
        id: CommandId,
        /// Type of the request's frame.
        frame_type: FrameType,
        /// Its encoded body.
        body: Bytes,
    },
    /// Ask the token provider for a token now, and take it for the running session, as when its rights have changed.
    RenewToken,
    /// End the session; everything that waits fails.
    Close,
}

/// A signal to send. It is never stored, reaches those who follow the log now, and may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSignal {
    /// The log.
    pub log: LogName,
    /// What it is, as "typing".
    pub kind: String,
    /// Its content, at most 1 KiB.
    pub data: Bytes,
    /// How long it counts, in milliseconds; 0 = 6 seconds.
    pub ttl_ms: u32,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Only what comes.
    Tail,
    /// After the last event that the application has.
    Position(Position),
    /// With the newest n events.
    Last(u32),
    /// With the oldest event that still exists.
    Start,
}

/// A part of a log to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The log.
    pub log: LogName,
    /// First position; 0 = the oldest that still exists.
    pub from: u64,
    /// Position after the last; 0 = up to the head.
    pub to: u64,
    /// At most this many events; 0 = as many as fit one page.
    pub limit: u32,
    /// Which end to begin at.
    pub direction: Direction,
    /// A date, Unix milliseconds: only events from then on or, backward, only those before; 0 = of any time. The pages
    /// after the first are asked for by position, without a date.
    pub at_ms: u64,
}

impl Range {
    /// Everything, oldest first.
    pub fn all(log: LogName) -> Self {
        Self { log, from: 0, to: 0, limit: 0, direction: Direction::Forward, at_ms: 0 }
    }

    /// The newest `limit` events, newest first.
    pub fn newest(log: LogName, limit: u32) -> Self {
        Self { limit, direction: Direction::Backward, ..Self::all(log) }
    }

    /// Everything from a date on, Unix milliseconds, oldest first.
    pub fn since(log: LogName, at_ms: u64) -> Self {
        Self { at_ms, ..Self::all(log) }
    }

    /// What was before a date, Unix milliseconds, newest first; at most `limit` events.
    pub fn before(log: LogName, at_ms: u64, limit: u32) -> Self {
        Self { at_ms, ..Self::newest(log, limit) }
    }
}

/// The direction of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Forward,
    /// Newest first.
    Backward,
}
