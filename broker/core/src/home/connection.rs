//! One connection and the session on it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use antiphon_protocol::{
    Decoder, DeviceId, LogKey,
    limits::{PRE_AUTH_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX},
};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    actor::Actor,
    connection_id::ConnectionId,
    outbox::Outbox,
    shard_message::{Incarnation, Request},
};

/// What a connection waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// HELLO.
    AwaitHello,
    /// The token of HELLO to be verified.
    AwaitVerdict(Box<Greeting>),
    /// The user's owner to know the session.
    AwaitRegistered(Box<Session>),
    /// Requests.
    Established(Box<Session>),
    /// The transport to close it. Nothing is read or delivered any more.
    Closing,
}

/// What HELLO said, kept until its token is verified.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) request_id: u32,
    pub(super) device: Option<DeviceId>,
    pub(super) resume_token: Bytes,
    /// SEND_BATCH was offered.
    pub(super) has_batch: bool,
    /// `follow` is in force.
    pub(super) has_follow: bool,
    /// HELLO asked for HEAD of every conversation.
    pub(super) follows: bool,
    /// HELLO asked not to count as the user's presence.
    pub(super) is_background: bool,
    pub(super) incarnation: Incarnation,
}

/// An authenticated session on its connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) hello_id: u32,
    pub(super) session_id: Uuid,
    pub(super) is_resumed: bool,
    /// SEND_BATCH was agreed on.
    pub(super) has_batch: bool,
    /// `follow` is in force.
    pub(super) has_follow: bool,
    /// HELLO asked for HEAD of every conversation.
    pub(super) follows: bool,
    /// HELLO asked not to count as the user's presence.
    pub(super) is_background: bool,
    pub(super) actor: Arc<Actor>,
    /// Key of the user's inbox.
    pub(super) user_key: LogKey,
    /// Tokens issued before this are void, Unix milliseconds.
    pub(super) not_before_ms: u64,
    /// Keys of the inboxes of the users whom it watches.
    pub(super) watching: BTreeSet<LogKey>,
    /// How many lists of them it has sent.
    pub(super) watch_list: u32,
    /// Live subscriptions: handle to log.
    pub(super) subscriptions: BTreeMap<u32, LogKey>,
    /// Subscribe requests without an answer yet.
    pub(super) subscribing: usize,
    /// Requests without an answer yet.
    pub(super) in_flight: usize,
    /// Page requests without an answer yet.
    pub(super) pages: usize,
    /// A request whose answer may be long has none yet. No further frame is read meanwhile.
    pub(super) is_alone: bool,
    /// A request that waits for a slot at its owner. No further frame is read meanwhile.
    pub(super) stalled: Option<Box<Request>>,
}

/// What carries a session's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A connection of its own.
    Own,
    /// A trunk, as one of its channels.
    Trunk { trunk: ConnectionId, channel: u32 },
}

/// A connection of this shard, or a session on a trunk.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) carrier: Carrier,
    pub(super) phase: Phase,
    pub(super) decoder: Decoder,
    /// Bytes received before authentication.
    pub(super) received: usize,
    /// On a trunk without its events, which are in one order with those of the groups.
    pub(super) outbox: Outbox,
    /// Whether it is in the list of those with something to write: the shard's, or the trunk's.
    pub(super) is_listed: bool,
    /// Whether its trunk looks at its frames again when that has room.
    pub(super) awaits_trunk: bool,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, carrier: Carrier) -> Self {
        Self {
            id,
            carrier,
            phase: Phase::AwaitHello,
            decoder: Decoder::new(PRE_AUTH_BYTES_MAX),
            received: 0,
            outbox: Outbox::default(),
            is_listed: false,
            awaits_trunk: false,
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        match &self.phase {
            Phase::Established(session) | Phase::AwaitRegistered(session) => Some(session),
            _ => None,
        }
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.phase {
            Phase::Established(session) | Phase::AwaitRegistered(session) => Some(session),
            _ => None,
        }
    }

    /// Whether the user's owner has not answered yet.
    pub(super) fn is_registering(&self) -> bool {
        matches!(self.phase, Phase::AwaitRegistered(_))
    }

    /// Whether nothing is read or delivered any more.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing)
    }

    /// Whether the next frame may be looked at now.
    pub(super) fn is_ready_for_frame(&self) -> bool {
        match &self.phase {
            Phase::AwaitHello => true,
            Phase::Established(session) => {
                session.in_flight < REQUESTS_IN_FLIGHT_MAX
                    && session.stalled.is_none()
                    && !session.is_alone
                    && !self.outbox.is_control_full()
                    && !self.outbox.is_marks_full()
            }
            Phase::AwaitVerdict(_) | Phase::AwaitRegistered(_) | Phase::Closing => false,
        }
    }

    /// Whether the transport should hand over more bytes.
    pub(super) fn wants_input(&self) -> bool {
        match &self.phase {
            Phase::AwaitHello => true,
            Phase::AwaitVerdict(_) | Phase::AwaitRegistered(_) => self.decoder.buffered() < PRE_AUTH_BYTES_MAX,
            Phase::Established(_) => self.is_ready_for_frame(),
            Phase::Closing => false,
        }
    }
}
