//! What one shard may say to another. Messages between two shards arrive in order; that order is the proof of several
//! guarantees (an ATTACH precedes the log's live events, a removal is the last event a removed member gets).

use std::{collections::BTreeSet, sync::Arc};

use antiphon_protocol::{
    Class, ConversationId, ErrorCode, FrameType, LogKey, LogName, Row, TenantId, UserId, control,
    frames::{Import, Send, SendBatch},
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{actor::Actor, connection_id::ConnectionId, effect::Effect, explain::Explaining, routing::ShardId};

/// Which bound of its session a request counts towards until it is answered, whatever the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Requests in flight only.
    Request,
    /// Pages too.
    Page,
    /// Subscriptions too.
    Subscription,
    /// Nothing further of the session is looked at meanwhile: the answer is as long as a conversation has members.
    Alone,
}

/// Where a request came from and where its answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The connection shard.
    pub shard: ShardId,
    /// The connection there.
    pub connection: ConnectionId,
    /// The client's number for the request.
    pub request_id: u32,
    /// What its answer gives back.
    pub slot: Slot,
}

impl Origin {
    /// Of what the broker asks itself: no connection of the shard has this number.
    pub(crate) fn nobody(shard: ShardId) -> Self {
        let connection = ConnectionId { slot: u32::MAX, generation: u32::MAX };
        Self { shard, connection, request_id: 0, slot: Slot::Request }
    }
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
    /// Append some events, one by one.
    SendBatch(SendBatch),
    /// Append some events of another system, one by one.
    Import(Import),
    /// One record of a batch; the owner makes these out of the batch or import.
    Record(Send, Record),
    /// A send that cannot be read. It takes its place among the sends of its connection all the same.
    Unreadable {
        /// Its place.
        dseq: u64,
        /// What is wrong with it.
        code: ErrorCode,
        /// The ERROR that answers it.
        error: Bytes,
    },
    /// Follow the log.
    Subscribe {
        /// From where.
        start: Start,
        /// Bytes of rows that the session's outbox could take at once.
        inline_bytes_max: usize,
    },
    /// Read history.
    Fetch(control::Fetch),
    /// Read messages as they stand.
    FetchMessages {
        /// Which.
        fetch: control::Fetch,
        /// Positions that the actor has hidden, in ascending order; they are left out.
        hidden: Vec<u64>,
    },
    /// Say which events of the log of this page the user has hidden; asked of the inbox, for [`Self::FetchMessages`].
    FindHidden(control::Fetch),
    /// Move the actor's cursor.
    Cursor(control::Cursor),
    /// Send an ephemeral signal.
    Signal(control::Signal),
    /// Read the conversation.
    Get,
    /// Change the conversation or its members.
    Change(Change),
    /// Change something of the user's own, in the inbox.
    Own(OwnChange),
    /// Name the user's conversations, for SYNC.
    List(control::Sync),
    /// Say what a list of conversations shows, for SYNC.
    Summarize {
        /// Which entry of the answer.
        index: usize,
    },
    /// Show the user like this while a session lasts.
    SetPresence(control::PresenceSet),
    /// Ask the inboxes of these users whether the session may watch them.
    Watch {
        /// Whom.
        users: Vec<UserId>,
        /// Number of the session's list.
        list: u32,
    },
    /// Let a session watch the inbox's user, if it may. Asked by the broker.
    Watched(Box<Watch>),
    /// Admit a session of the inbox's user. Asked by the broker.
    Register(Box<Registration>),
    /// Carry out what an event of another log comes to. Asked by the broker.
    Effect(Box<Effect>),
    /// Say what the log knows about an event and a user. Asked by the broker.
    Explain(Box<Explaining>),
    /// Say what the user's inbox knows about them. Asked by the broker.
    ExplainUser(Box<Explaining>),
    /// Take the log up, so that it sends what it owes. Asked by the broker.
    TakeUp,
}

impl Operation {
    /// Place among the sends of its connection to this log; 0 = none.
    pub(crate) fn dseq(&self) -> u64 {
        match self {
            Self::Send(send) | Self::Record(send, _) => send.dseq,
            Self::SendBatch(batch) => batch.records.first().map_or(0, |first| first.dseq),
            Self::Import(import) => import.records.first().map_or(0, |first| first.send.dseq),
            Self::Unreadable { dseq, .. } => *dseq,
            _ => 0,
        }
    }
}

impl Operation {
    /// Takes the events out of a batch or an import, each with its original time if it has one.
    pub(crate) fn take_records(&mut self) -> Vec<(Send, Option<u64>)> {
        match self {
            Self::SendBatch(batch) => batch.records.drain(..).map(|send| (send, None)).collect(),
            Self::Import(import) => {
                import.records.drain(..).map(|record| (record.send, Some(record.time_ms))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The event that is to be appended, and the record of a batch that it is.
    pub(crate) fn send(&self) -> Option<(&Send, Option<Record>)> {
        match self {
            Self::Send(send) => Some((send, None)),
            Self::Record(send, record) => Some((send, Some(*record))),
            _ => None,
        }
    }
}

impl Operation {
    /// The frame that the event to be appended came in, as far as authority goes.
    pub(crate) fn send_type(&self) -> FrameType {
        if self.original_time_ms().is_some() { FrameType::Import } else { FrameType::Send }
    }

    /// When the event that is to be appended happened in another system.
    pub(crate) fn original_time_ms(&self) -> Option<u64> {
        self.send()?.1?.original_time_ms
    }
}

/// Which record of which batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The owner's number for the batch.
    pub batch: u64,
    /// Its place in the batch.
    pub index: usize,
    /// When it happened in the system that it was imported from, Unix milliseconds; `None` if it was not.
    pub original_time_ms: Option<u64>,
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

/// A change of an inbox by its user.
#[derive(Debug)]
pub enum OwnChange {
    /// Pin or mute a conversation.
    Preferences(control::Preferences),
    /// Block or unblock another user.
    Block(control::Block),
    /// Hide an event from oneself.
    Hide(control::Hide),
    /// Make the tokens that were issued before now void.
    Revoke,
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
        /// Of which request.
        origin: Origin,
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
    /// To the connection shard: the conversations that SYNC answers with.
    Listed(Box<Listing>),
    /// To the connection shard: what the user has hidden from a page of messages.
    HiddenFound {
        /// Who asked.
        origin: Origin,
        /// For which page.
        fetch: Box<control::Fetch>,
        /// Positions in ascending order.
        hidden: Vec<u64>,
    },
    /// To the connection shard: what one of these conversations says.
    Summary {
        /// Of which SYNC.
        origin: Origin,
        /// Which entry of the answer.
        index: usize,
        /// What its owner knows.
        entry: Box<control::SyncedLog>,
    },
    /// To the user's owner, from the inbox: the session may begin.
    Admitted(Box<Admission>),
    /// To the user's owner, from the inbox: something that concerns the user's sessions became durable.
    InboxEvent {
        /// Which inbox.
        key: LogKey,
        /// The event.
        row: Row,
    },
    /// To the connection shard: the session is known; it may be welcomed.
    Registered {
        /// Whose session.
        registration: Box<Registration>,
        /// Tokens issued before this are void, Unix milliseconds.
        not_before_ms: u64,
    },
    /// To the connection shard: the session may not begin.
    Rejected {
        /// Which connection.
        connection: ConnectionId,
        /// Why.
        code: ErrorCode,
        /// One sentence for a developer.
        message: String,
    },
    /// To the owner of a conversation: a user follows it, or does not any more.
    Follow {
        /// Which conversation.
        log: LogKey,
        /// Who.
        user: UserId,
        /// Key of the user's inbox.
        inbox: LogKey,
        /// Whether from now on or no more.
        on: bool,
    },
    /// To the owner of users: a conversation that they follow has changed. May be lost.
    Digest {
        /// Which conversation.
        log: LogKey,
        /// HEAD.
        frame: Bytes,
        /// Keys of the users' inboxes.
        inboxes: Vec<LogKey>,
    },
    /// To the connection shard: the same for one session. May be lost.
    Digested {
        /// Which connection.
        connection: ConnectionId,
        /// Which conversation; sessions that subscribe to it know already.
        log: LogKey,
        /// HEAD.
        frame: Bytes,
    },
    /// To the user's owner, from the inbox: how the user wants to be shown.
    SetPresence {
        /// Whose inbox.
        key: LogKey,
        /// What is shown.
        status: control::PresenceStatus,
        /// Some words with it.
        text: String,
    },
    /// To the user's owner, from the inbox: a session watches the user.
    Watched {
        /// The wish.
        watch: Box<Watch>,
        /// Whether it may; otherwise the user looks offline.
        is_allowed: bool,
    },
    /// To the user's owner: a session does not watch the user any more, as of this list.
    Unwatch {
        /// Key of the user's inbox.
        user: LogKey,
        /// The connection of the sending shard.
        connection: ConnectionId,
        /// Number of its list.
        list: u32,
    },
    /// To the connection shard: how a user is now.
    PresenceTold {
        /// Which connection.
        connection: ConnectionId,
        /// Key of the user's inbox.
        user: LogKey,
        /// PRESENCE.
        frame: Bytes,
    },
    /// To the connection shard: tokens issued before this are void, and sessions of such a token end.
    Revoked {
        /// Which connection.
        connection: ConnectionId,
        /// Unix milliseconds.
        not_before_ms: u64,
    },
    /// To the owner of an effect's source: the target has made it durable, or could not.
    EffectDone {
        /// The source.
        source: LogKey,
        /// The target.
        target: LogName,
        /// Position of the row that it comes from.
        seq: u64,
        /// Whether it need not be sent again.
        is_durable: bool,
    },
    /// To the user's owner, then to each of the user's sessions, then back: an operator's question.
    Explain(Box<Explaining>),
    /// To the connection shard: a newer connection of the same device took over.
    Evict {
        /// Which.
        connection: ConnectionId,
    },
}

/// A session's wish to watch a user.
#[derive(Debug)]
pub struct Watch {
    /// The session's shard and connection.
    pub seat: (ShardId, ConnectionId),
    /// Its user.
    pub watcher: UserId,
    /// Number of its list.
    pub list: u32,
    /// Whose users both are.
    pub tenant: TenantId,
    /// Who is to be watched.
    pub target: UserId,
    /// Key of the target's inbox.
    pub key: LogKey,
    /// Conversations of the watcher.
    pub conversations: Arc<BTreeSet<ConversationId>>,
}

/// The answer to SYNC, as far as the inbox knows it.
#[derive(Debug)]
pub struct Listing {
    /// Who asked.
    pub origin: Origin,
    /// Entries with what is the user's own.
    pub synced: control::Synced,
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
    /// It gets HEAD for every conversation of the user.
    pub follows: bool,
    /// It does not count as the user's presence.
    pub is_background: bool,
    /// Tells it from other connections of the same client.
    pub incarnation: Incarnation,
}

/// Which connection of which start of a client: a delayed HELLO of an older one must not push a newer one out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Incarnation {
    /// The sender instance, if HELLO gave one.
    pub instance: Option<Uuid>,
    /// Its number among the instance's connections; 0 = not counted.
    pub attempt: u64,
}

impl Incarnation {
    /// Whether `self` is known to be an earlier connection of the same start of the same client.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        let is_of_the_same = self.instance.is_some() && self.instance == other.instance;
        is_of_the_same && self.attempt != 0 && self.attempt < other.attempt
    }
}

impl Registration {
    /// What is asked of the user's inbox.
    pub(crate) fn to_request(self: Box<Self>, from: ShardId) -> Box<Request> {
        let origin = Origin { connection: self.connection, ..Origin::nobody(from) };
        let (actor, log, key) = (self.actor.clone(), LogName::Inbox(self.actor.user.clone()), self.key);
        Box::new(Request { origin, actor, log, key, operation: Operation::Register(self) })
    }
}

/// A session that the user's inbox has admitted.
#[derive(Debug)]
pub struct Admission {
    /// The session.
    pub registration: Box<Registration>,
    /// Its connection shard.
    pub from: ShardId,
    /// Tokens issued before this are void, Unix milliseconds.
    pub not_before_ms: u64,
    /// The user's conversations, for a session that follows them.
    pub memberships: Vec<ConversationId>,
}
