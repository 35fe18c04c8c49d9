//! What one shard may say to another. Messages between two shards arrive in order; that order is the proof of several
//! guarantees (an ATTACH precedes the log's live events, a removal is the last event a removed member gets).

use std::sync::Arc;

use antiphon_protocol::{Class, LogKey, LogName, UserId, control, frames::Send};
use bytes::Bytes;
use uuid::Uuid;

use crate::{actor::Actor, connection_id::ConnectionId, routing::ShardId};

/// Where a request came from and where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The connection shard.
    pub shard: ShardId,
    /// The connection there.
    pub connection: ConnectionId,
    /// The client's number for the request.
    pub request_id: u32,
}

/// A request to the owner of a log. It has exactly one answer.
#[derive(Debug)]
pub struct Request {
    /// Who waits.
    pub origin: Origin,
    /// Who asks.
    pub actor: Arc<Actor>,
    /// Which log, by name.
    pub log: LogName,
    /// Which log, by key.
    pub key: LogKey,
    /// What is asked.
    pub operation: Operation,
}

/// Where a subscription begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// After the last event that the client has.
    After {
        /// History generation that the position belongs to.
        epoch: u32,
        /// Its `seq`.
        seq: u64,
    },
    /// With the newest `n` events.
    Last(u32),
    /// With what comes.
    Tail,
}

/// What a request asks of the log's owner.
#[derive(Debug)]
pub enum Operation {
    /// Append one event.
    Send(Send),
    /// Follow the log.
    Subscribe {
        /// From where.
        start: Start,
        /// Bytes of rows that the session's outbox could take at once.
        inline_bytes_max: usize,
    },
    /// Read history.
    Fetch(control::Fetch),
    /// Move the actor's cursor.
    Cursor(control::Cursor),
    /// Send an ephemeral signal.
    Signal(control::Signal),
    /// Read the conversation.
    Get,
    /// Change the conversation or its members.
    Change(Change),
}

/// A change of a conversation, to be decided and ordered by its owner.
#[derive(Debug)]
pub enum Change {
    /// Create it, or find it if it is direct.
    Create(control::ConversationCreate),
    /// Change its properties.
    Update(control::ConversationUpdate),
    /// Delete it.
    Delete,
    /// Add members.
    Add(control::MemberAdd),
    /// Remove one member.
    Remove(UserId),
    /// Change one member's role.
    SetRole(UserId, control::Role),
    /// The actor joins.
    Join,
    /// The actor leaves.
    Leave,
}

impl Change {
    /// The user for whom a service asks, or empty.
    pub(crate) fn act_as(&self) -> &str {
        match self {
            Self::Create(create) => &create.act_as,
            Self::Add(add) => &add.act_as,
            _ => "",
        }
    }
}

/// A subscription was granted.
#[derive(Debug)]
pub struct Attached {
    /// Who asked.
    pub origin: Origin,
    /// The log's handle.
    pub handle: u32,
    /// The log.
    pub key: LogKey,
    /// First live position.
    pub live_from: u64,
    /// ATTACH, and the rows that it inlines.
    pub frames: Vec<Bytes>,
}

/// Whose subscriptions end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Everybody's.
    All,
    /// One user's.
    User(UserId),
}

/// A message between two shards, or from a shard to itself.
#[derive(Debug)]
pub enum ShardMessage {
    /// To the log's owner. Holds a slot for its answer.
    Request(Box<Request>),
    /// To the connection shard: the answer, encoded.
    Answer {
        /// Whose.
        connection: ConnectionId,
        /// Control or backfill.
        class: Class,
        /// The frame.
        frame: Bytes,
    },
    /// To the connection shard: the answer to a subscribe request that was granted.
    Attached(Box<Attached>),
    /// To a shard with subscribers: a durable event, encoded once for all of them.
    Deliver {
        /// Which log.
        handle: u32,
        /// Its position.
        seq: u64,
        /// The EVENT frame.
        frame: Bytes,
    },
    /// To a shard with subscribers: live copies did not fit its mailbox; its subscriptions of the log end with BEHIND.
    Lagged {
        /// Which log.
        handle: u32,
    },
    /// To a shard with subscribers: subscriptions end after this position.
    Detach {
        /// Which log.
        handle: u32,
        /// Whose.
        audience: Audience,
        /// Why.
        reason: control::detach::Reason,
        /// Last position that they get.
        seq: u64,
    },
    /// To a shard with subscribers: state of the log (a cursor, a signal), for everybody but its author.
    State {
        /// Which log.
        handle: u32,
        /// The connection that caused it, on which shard.
        except: (ShardId, ConnectionId),
        /// The frame.
        frame: Bytes,
    },
    /// To the log's owner: this many granted subscriptions of the sending shard have ended.
    Release {
        /// Which log.
        key: LogKey,
        /// How many.
        count: u32,
    },
    /// To the user's owner: a session begins on this connection.
    Register(Box<Registration>),
    /// To the user's owner: the session's connection is gone.
    Unregister(Box<Registration>),
    /// To the connection shard: the session is known; it may be welcomed.
    Registered {
        /// Which.
        connection: ConnectionId,
    },
    /// To the connection shard: a newer connection of the same device took over.
    Evict {
        /// Which.
        connection: ConnectionId,
    },
}

/// A session's entry at its user's owner.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Who.
    pub actor: Arc<Actor>,
    /// Key of the user's inbox, which names the owner.
    pub key: LogKey,
    /// The connection there.
    pub connection: ConnectionId,
    /// The session's id.
    pub session_id: Uuid,
}
