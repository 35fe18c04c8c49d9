//! Connection side of a shard: frames in, requests to owners, answers and live events into outboxes.
//!
//! Invariants: a session has at most one connection; a subscriber gets an event only at or after its `live_from`;
//! every granted subscription is released exactly once. Deliberately absent: logs (see `log`), QUIC, time.

mod connection;
mod connections;
mod explain;
mod fanout;
mod followed;
mod handshake;
mod hidden;
mod presence;
mod requests;
mod sync;
mod trunk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use antiphon_protocol::{Class, Decoder, ErrorCode, limits::PRE_AUTH_BYTES_MAX};
use bytes::Bytes;

use connection::{Connection, Phase};
use connections::Connections;
use followed::{Followed, Subscriber};
use sync::Gathering;

use crate::{
    connection_id::ConnectionId,
    effects::Effects,
    held::Held,
    input::VerifyTicket,
    limits::AUTHENTICATION_TIMEOUT,
    mailbox::Mailbox,
    outbox::Outbox,
    refusal::Refusal,
    resume::ResumeKey,
    routing::ShardId,
    shard_message::{Attached, Incarnation, Origin, Registration, ShardMessage, Slot},
    time::Time,
};

/// What a moment in the future is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Authentication(ConnectionId),
    Expiry(ConnectionId),
}

/// What a token is verified for.
#[derive(Debug, Clone, Copy)]
enum Verification {
    Hello,
    Refresh { request_id: u32 },
}

/// The sessions of a shard.
#[derive(Debug)]
pub(crate) struct Home {
    connections: Connections,
    followed: BTreeMap<u32, Followed>,
    /// Live copies for this shard's sessions, in order.
    fanout: Mailbox,
    /// The copy that is being handed out, and the connection that got it last.
    delivering: Option<(ShardMessage, Option<ConnectionId>)>,
    verifications: BTreeMap<VerifyTicket, (ConnectionId, Verification)>,
    timers: BTreeSet<(Time, Timer)>,
    /// Requests at each other shard that have no answer yet.
    outstanding: Vec<usize>,
    /// Connections with a request that waits for a slot at a shard.
    stalled: Vec<VecDeque<ConnectionId>>,
    /// Answers to SYNC that are being put together, at most one of a connection.
    gatherings: BTreeMap<ConnectionId, Gathering>,
    resume_key: ResumeKey,
    /// The GOAWAY that every session gets once the broker is about to stop.
    goaway: Option<Bytes>,
    /// The address of the broker that owns the logs, while another one does; empty if it is not known.
    standing_by: Option<String>,
}

impl Home {
    pub(crate) fn new(shards: u16, resume_key: ResumeKey) -> Self {
        Self {
            connections: Connections::default(),
            followed: BTreeMap::new(),
            fanout: Mailbox::default(),
            delivering: None,
            verifications: BTreeMap::new(),
            timers: BTreeSet::new(),
            outstanding: vec![0; shards.into()],
            stalled: (0..shards).map(|_| VecDeque::new()).collect(),
            gatherings: BTreeMap::new(),
            resume_key,
            goaway: None,
            standing_by: None,
        }
    }

    pub(crate) fn opened(&mut self, fx: &mut Effects, id: ConnectionId) {
        self.connections.insert(id);
        self.opened_as(fx, id);
    }

    /// A connection or channel exists: it has five seconds to authenticate.
    fn opened_as(&mut self, fx: &mut Effects, id: ConnectionId) {
        self.timers.insert((fx.now + AUTHENTICATION_TIMEOUT, Timer::Authentication(id)));
        fx.counters.connections += 1;
    }

    pub(crate) fn received(&mut self, fx: &mut Effects, id: ConnectionId, bytes: Bytes) {
        if self.connections.trunk(id).is_some() {
            return self.trunk_received(fx, id, bytes);
        }
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.is_closing()) else {
            return;
        };
        if !matches!(connection.phase, Phase::Established(_)) {
            connection.received += bytes.len();
            if connection.received > PRE_AUTH_BYTES_MAX {
                let message = format!("at most {PRE_AUTH_BYTES_MAX} bytes before authentication");
                self.close_with(fx, id, &Refusal::new(ErrorCode::LimitExceeded, message));
                return;
            }
        }
        connection.decoder.push(bytes);
        self.process_frames(fx, id);
    }

    /// Looks at buffered frames as long as the connection's bounds allow.
    pub(crate) fn process_frames(&mut self, fx: &mut Effects, id: ConnectionId) {
        while self.connections.is_ready_for_frame(id) {
            let Some(connection) = self.connections.get_mut(id) else { return };
            match connection.decoder.next_frame() {
                Ok(Some(frame)) => {
                    fx.counters.frames_received += 1;
                    match connection.phase {
                        Phase::AwaitHello => self.hello(fx, id, &frame),
                        _ => self.request(fx, id, &frame),
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    self.close_with(fx, id, &error.into());
                    return;
                }
            }
        }
    }

    /// The transport says that the connection is gone.
    pub(crate) fn closed(&mut self, fx: &mut Effects, id: ConnectionId) {
        if self.connections.trunk(id).is_some() {
            return self.trunk_closed(fx, id);
        }
        self.end_session(fx, id);
        if self.connections.remove(id).is_some() {
            fx.counters.connections -= 1;
        }
    }

    /// Gives back what a session holds elsewhere.
    fn end_session(&mut self, fx: &mut Effects, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let phase = std::mem::replace(&mut connection.phase, Phase::Closing);
        let session = match phase {
            Phase::Established(session) | Phase::AwaitRegistered(session) => session,
            Phase::AwaitHello | Phase::AwaitVerdict(_) => {
                fx.counters.sessions_refused += 1;
                return;
            }
            Phase::Closing => return,
        };
        fx.counters.sessions -= 1;
        self.gatherings.remove(&id);
        for user in &session.watching {
            fx.post(fx.routing.owner(*user), ShardMessage::Unwatch { user: *user, connection: id, list: u32::MAX });
        }
        self.timers.remove(&(Time::from_unix_ms(session.actor.expires_at_ms()), Timer::Expiry(id)));
        for handle in session.subscriptions.keys() {
            self.unfollow(fx, *handle, id);
        }
        let registration = Registration {
            actor: session.actor.clone(),
            key: session.user_key,
            connection: id,
            session_id: session.session_id,
            follows: session.follows,
            is_background: session.is_background,
            incarnation: Incarnation::default(),
        };
        fx.post(fx.routing.owner(session.user_key), ShardMessage::Unregister(Box::new(registration)));
    }

    /// Says why, and asks the transport to close the connection. Once: the first reason stands.
    fn close_with(&mut self, fx: &mut Effects, id: ConnectionId, refusal: &Refusal) {
        if self.connections.get(id).is_none_or(Connection::is_closing) {
            return;
        }
        self.end_session(fx, id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.decoder = Decoder::new(0);
        self.connections.push(id, Class::Control, refusal.to_frame(0));
        fx.refused(refusal.code);
        self.close(fx, id, refusal.code);
    }

    /// A message for a session of this shard.
    pub(crate) fn message(&mut self, fx: &mut Effects, from: ShardId, message: ShardMessage) {
        match message {
            ShardMessage::Answer { origin, class, frame } => {
                // Nothing follows the farewell of a connection that is being closed.
                if self.connections.get(origin.connection).is_some_and(|connection| !connection.is_closing()) {
                    self.connections.push(origin.connection, class, frame);
                }
                self.answered(fx, from, origin);
            }
            ShardMessage::Attached(attached) => {
                let origin = attached.origin;
                self.attached(fx, *attached);
                self.answered(fx, from, origin);
            }
            ShardMessage::Listed(listing) => self.listed(fx, from, *listing),
            ShardMessage::HiddenFound { origin, fetch, hidden } => self.hidden_found(fx, from, origin, *fetch, hidden),
            ShardMessage::Summary { origin, index, entry } => self.summarized(fx, from, origin, index, *entry),
            ShardMessage::Registered { registration, not_before_ms } => {
                self.registered(fx, registration, not_before_ms);
            }
            ShardMessage::Rejected { connection, code, message } => {
                let is_waiting = self.connections.get(connection).is_some_and(Connection::is_registering);
                if is_waiting {
                    self.close_with(fx, connection, &Refusal::new(code, message));
                }
            }
            ShardMessage::Digested { connection, log, frame } => self.digested(fx, connection, log, frame),
            ShardMessage::PresenceTold { connection, user, frame } => {
                self.presence_told(fx, from, connection, user, frame);
            }
            ShardMessage::Revoked { connection, not_before_ms } => self.revoked(fx, connection, not_before_ms),
            ShardMessage::Evict { connection } => {
                let refusal = Refusal::new(ErrorCode::Replaced, "a newer connection of this device took over");
                self.close_with(fx, connection, &refusal);
            }
            ShardMessage::Deliver { .. }
            | ShardMessage::Lagged { .. }
            | ShardMessage::Detach { .. }
            | ShardMessage::State { .. } => {
                self.fanout.push(message);
            }
            ShardMessage::Request(_)
            | ShardMessage::Release { .. }
            | ShardMessage::Register(_)
            | ShardMessage::Admitted(_)
            | ShardMessage::SetPresence { .. }
            | ShardMessage::Watched { .. }
            | ShardMessage::Unwatch { .. }
            | ShardMessage::Follow { .. }
            | ShardMessage::Digest { .. }
            | ShardMessage::InboxEvent { .. }
            | ShardMessage::EffectDone { .. }
            | ShardMessage::Explain(_)
            | ShardMessage::Unregister(_) => debug_assert!(false, "the shard routes these to its owner side"),
        }
    }

    /// A request has its answer: frees its slots and looks at what waited for them.
    fn answered(&mut self, fx: &mut Effects, from: ShardId, origin: Origin) {
        let id = origin.connection;
        if let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) {
            session.in_flight = session.in_flight.saturating_sub(1);
            match origin.slot {
                Slot::Page => session.pages = session.pages.saturating_sub(1),
                Slot::Subscription => session.subscribing = session.subscribing.saturating_sub(1),
                Slot::Alone => session.is_alone = false,
                Slot::Request => {}
            }
        }
        if from != fx.shard {
            self.outstanding[usize::from(from.0)] -= 1;
            self.unstall(fx, from);
        }
        self.process_frames(fx, id);
    }

    /// A subscription was granted: from here on the session is in the log's fan-out.
    fn attached(&mut self, fx: &mut Effects, attached: Attached) {
        let Attached { origin, handle, key, live_from, frames } = attached;
        let id = origin.connection;
        let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) else {
            fx.post(fx.routing.owner(key), ShardMessage::Release { key, count: 1 });
            return;
        };
        session.subscriptions.insert(handle, key);
        let subscriber = Subscriber { actor: session.actor.clone(), live_from };
        let channel = self.connections.channel_of(id);
        let followed = self.followed.entry(handle).or_insert_with(|| Followed::new(key));
        if followed.insert(id, channel, subscriber) {
            // The session followed the log already; the new subscription takes the place of the old one.
            fx.post(fx.routing.owner(key), ShardMessage::Release { key, count: 1 });
        }
        for frame in frames {
            self.connections.push(id, Class::Events, frame);
        }
    }

    /// Takes a session out of a log's fan-out.
    fn unfollow(&mut self, fx: &mut Effects, handle: u32, id: ConnectionId) -> bool {
        if let Some(session) = self.connections.get_mut(id).and_then(Connection::session_mut) {
            session.subscriptions.remove(&handle);
        }
        let channel = self.connections.channel_of(id);
        let Some(followed) = self.followed.get_mut(&handle) else { return false };
        if !followed.remove(id, channel) {
            return false;
        }
        let key = followed.key;
        if followed.is_empty() {
            self.followed.remove(&handle);
        }
        fx.post(fx.routing.owner(key), ShardMessage::Release { key, count: 1 });
        true
    }

    /// The next moment at which something is due.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.first().map(|(time, _)| *time)
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, fx: &mut Effects) {
        while let Some((time, timer)) = self.timers.first().copied() {
            if time > fx.now {
                return;
            }
            self.timers.pop_first();
            let refusal = match timer {
                Timer::Authentication(id) => {
                    let is_late = self.connections.get(id).is_some_and(|connection| {
                        matches!(connection.phase, Phase::AwaitHello | Phase::AwaitVerdict(_))
                    });
                    is_late
                        .then(|| (id, Refusal::new(ErrorCode::AuthenticationTimeout, "no valid token in five seconds")))
                }
                Timer::Expiry(id) => {
                    let expires = self.connections.get(id).and_then(|c| c.session()).map(|s| s.actor.expires_at_ms());
                    let is_expired = expires.is_some_and(|ms| Time::from_unix_ms(ms) <= fx.now);
                    is_expired.then(|| (id, Refusal::new(ErrorCode::TokenExpired, "the session's token has expired")))
                }
            };
            if let Some((id, refusal)) = refusal {
                self.close_with(fx, id, &refusal);
            }
        }
    }

    pub(crate) fn pop_writable(&mut self) -> Option<ConnectionId> {
        self.connections.pop_writable()
    }

    pub(crate) fn outbox_mut(&mut self, id: ConnectionId) -> Option<&mut Outbox> {
        self.connections.outbox_mut(id)
    }

    pub(crate) fn is_established(&self, id: ConnectionId) -> bool {
        self.connections.trunk(id).is_some()
            || self.connections.get(id).is_some_and(|connection| matches!(connection.phase, Phase::Established(_)))
    }

    /// Bytes in the outboxes of all connections.
    pub(crate) fn outbox_bytes(&self) -> usize {
        let trunks = self.connections.trunks().map(|trunk| trunk.outbox.bytes());
        self.connections.iter().map(|connection| connection.outbox.bytes()).chain(trunks).sum()
    }

    /// Adds what is kept of connections and sessions.
    pub(crate) fn add_held(&self, held: &mut Held) {
        for connection in self.connections.iter() {
            held.connections += 1;
            held.unread_bytes += connection.decoder.buffered();
        }
        held.unread_bytes += self.connections.trunks().map(trunk::Trunk::unread_bytes).sum::<usize>();
        held.outbox_bytes += self.outbox_bytes();
        held.subscriptions += self.followed.values().map(Followed::len).sum::<usize>();
        let stalled = self.stalled.iter().map(VecDeque::len).sum::<usize>();
        held.requests += self.outstanding.iter().sum::<usize>() + stalled + self.gatherings.len();
        held.verifications += self.verifications.len();
        held.timers += self.timers.len();
        held.mail += self.fanout.len() + usize::from(self.delivering.is_some());
    }

    pub(crate) fn wants_input(&self, id: ConnectionId) -> bool {
        // A trunk is always read: its sessions push back one by one, by what the edge may send ahead.
        self.connections.trunk(id).is_some() || self.connections.get(id).is_some_and(Connection::wants_input)
    }
}
