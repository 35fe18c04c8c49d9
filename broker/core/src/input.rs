//! Everything that can happen to a shard.

use antiphon_storage_contract::{Completion, presence::PresenceEvent};
use bytes::Bytes;

use crate::{
    claims::Claims, connection_id::ConnectionId, explain::Question, routing::ShardId, shard_message::ShardMessage,
};

/// An input, complete in itself. The shell feeds inputs one by one, in the order in which they happened.
#[derive(Debug)]
pub enum Input {
    /// A QUIC handshake was accepted; the five seconds to authenticate start here.
    ConnectionOpened {
        /// The new connection; its slot is free.
        connection: ConnectionId,
    },
    /// A trunk's handshake, client certificate included, was accepted. What follows is as for a connection.
    TrunkOpened {
        /// The new connection; its slot is free.
        connection: ConnectionId,
    },
    /// Bytes of the connection's control stream, in order.
    Received {
        /// Where from.
        connection: ConnectionId,
        /// The next bytes of the stream.
        bytes: Bytes,
    },
    /// The connection is gone, whoever ended it. Nothing about it follows.
    ConnectionClosed {
        /// Which.
        connection: ConnectionId,
    },
    /// Answer to [`crate::Output::Verify`].
    TokenVerified {
        /// The ticket of the question.
        ticket: VerifyTicket,
        /// What the token proves, or why it proves nothing.
        result: Result<Claims, TokenRefusal>,
    },
    /// Answer to [`crate::Output::Store`].
    Stored(Completion),
    /// The presence store says something.
    Presence(PresenceEvent),
    /// A message of another shard.
    Mail {
        /// Its sender.
        from: ShardId,
        /// What it says.
        message: ShardMessage,
    },
    /// An operator asks; answered with [`crate::Output::Explained`], unless the broker stops before.
    Explain(Box<Question>),
    /// Another broker owns the logs, at this address; empty if that is not known. Only for a shard that stands by.
    StandBy {
        /// Where its clients connect.
        active: String,
    },
    /// This broker owns the logs now: whoever comes is let in.
    Activate,
    /// The broker is about to stop: say GOAWAY to every session and refuse new ones.
    Drain {
        /// Milliseconds until connections are closed.
        deadline_ms: u32,
    },
    /// Connections are closed and the process is about to end by its own will: bring the logs to rest. See
    /// [`crate::Shard::is_at_rest`].
    Rest,
}

/// Names a token verification in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VerifyTicket(pub u64);

/// Why a token was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRefusal {
    /// Whether it was valid once; a client then just needs a fresh one.
    pub expired: bool,
    /// Stable word for the reason, without any part of the token.
    pub reason: String,
}
