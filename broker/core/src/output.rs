//! Everything a shard may ask of its shell.

use antiphon_protocol::ErrorCode;
use antiphon_storage_contract::{Op, Token, presence::PresenceOp};

use crate::{connection_id::ConnectionId, explain::Explanation, input::VerifyTicket};

/// An effect. The shell performs each once, in order. Bytes for clients and messages for other shards are not effects:
/// they wait in bounded queues until the shell has room for them.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Submit to the store; answer with [`crate::Input::Stored`] carrying the same token.
    Store {
        /// What to do.
        op: Op,
        /// Names the operation.
        token: Token,
    },
    /// State to the presence store; what it says is [`crate::Input::Presence`]. Only where presence is shared.
    Presence(PresenceOp),
    /// Verify an access token; answer with [`crate::Input::TokenVerified`].
    Verify {
        /// Names the question.
        ticket: VerifyTicket,
        /// The compact JWT. Never logged.
        token: Secret,
    },
    /// Answer to [`crate::Input::Explain`].
    Explained(Box<Explanation>),
    /// Write what the connection's outbox holds, then close it with this code.
    Close {
        /// Which.
        connection: ConnectionId,
        /// QUIC application close code.
        code: ErrorCode,
    },
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
