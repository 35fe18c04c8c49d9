//! From HELLO to WELCOME: version, token, registration. Also AUTH, which renews the token, and GOAWAY.

use antiphon_protocol::{
    Class, DeviceId, ErrorCode, FrameType, LogName, RawFrame, VERSION,
    control::{self, Welcome},
    frames,
    limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, SUBSCRIPTIONS_MAX, TOKEN_BYTES_MAX},
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

use super::{
    Home, Timer, Verification,
    connection::{Greeting, Phase, Session},
};
use crate::{
    actor::Actor,
    claims::Claims,
    connection_id::ConnectionId,
    effects::Effects,
    input::{TokenRefusal, VerifyTicket},
    limits::RECONNECT_JITTER_MS,
    output::{Output, Secret},
    refusal::Refusal,
    resume::ResumeKey,
    shard_message::{Incarnation, Origin, Registration, ShardMessage, Slot},
    time::Time,
};

/// The capability that brings SEND_BATCH.
const BATCH: &str = "batch";
/// The capability that brings HEAD.
const FOLLOW: &str = "follow";

impl Home {
    /// The first frame of a connection.
    pub(super) fn hello(&mut self, fx: &mut Effects, id: ConnectionId, frame: &RawFrame) {
        match self.read_hello(frame) {
            Ok((greeting, token)) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.phase = Phase::AwaitVerdict(Box::new(greeting));
                }
                self.verify(fx, id, Verification::Hello, token);
            }
            Err(refusal) => self.close_with(fx, id, &refusal),
        }
    }

    fn read_hello(&self, frame: &RawFrame) -> Result<(Greeting, String), Refusal> {
        if frame.frame_type != FrameType::Hello {
            return Err(Refusal::new(ErrorCode::UnexpectedFrame, "the first frame is HELLO"));
        }
        if frame.id == 0 {
            return Err(Refusal::field(ErrorCode::Malformed, "header.id", "a request has an id other than zero"));
        }
        if self.goaway.is_some() {
            return Err(Refusal::new(ErrorCode::Draining, "the broker is about to stop"));
        }
        if let Some(active) = &self.standing_by {
            let place = if active.is_empty() { String::new() } else { format!(", at {active}") };
            return Err(Refusal::new(ErrorCode::NotActive, format!("another broker is active{place}")));
        }
        let hello: control::Hello = frames::decode_request(&frame.body)?;
        if !hello.versions.contains(&VERSION) {
            let message = format!("version {VERSION} is spoken here");
            return Err(Refusal::field(ErrorCode::VersionUnsupported, "versions", message));
        }
        check_token(&hello.token)?;
        let device = match hello.device.as_str() {
            "" => None,
            device => {
                let parsed = device.parse::<DeviceId>();
                Some(parsed.map_err(|error| Refusal::field(ErrorCode::InvalidField, "device", error.to_string()))?)
            }
        };
        let offers = |name: &str| hello.capabilities.iter().any(|capability| capability == name);
        let (has_batch, has_follow) = (offers(BATCH), offers(FOLLOW));
        let greeting = Greeting {
            request_id: frame.id,
            device,
            resume_token: hello.resume_token,
            has_batch,
            has_follow,
            follows: has_follow && hello.follow_mine,
            is_background: hello.background,
            incarnation: Incarnation { instance: sender_instance(&hello.sender_instance)?, attempt: hello.attempt },
        };
        Ok((greeting, hello.token))
    }

    fn verify(&mut self, fx: &mut Effects, id: ConnectionId, verification: Verification, token: String) {
        let ticket = VerifyTicket(fx.next_number());
        self.verifications.insert(ticket, (id, verification));
        fx.outputs.push_back(Output::Verify { ticket, token: Secret(token) });
    }

    /// A token was verified.
    pub(crate) fn verified(&mut self, fx: &mut Effects, ticket: VerifyTicket, result: Result<Claims, TokenRefusal>) {
        let Some((id, verification)) = self.verifications.remove(&ticket) else { return };
        let result = result.map_err(|refusal| {
            let code = if refusal.expired { ErrorCode::TokenExpired } else { ErrorCode::TokenInvalid };
            Refusal::field(code, "token", refusal.reason)
        });
        match verification {
            Verification::Hello => match result.and_then(|claims| self.begin(fx, id, claims)) {
                Ok(()) => {}
                Err(refusal) => self.close_with(fx, id, &refusal),
            },
            Verification::Refresh { request_id } => {
                let frame = match result.and_then(|claims| self.renew(fx, id, claims)) {
                    Ok(expires_at_ms) => {
                        let body = control::Authenticated { expires_at_ms };
                        frames::control(FrameType::Ok, request_id, &body)
                    }
                    Err(refusal) => refusal.to_frame(request_id),
                };
                let is_open = self.connections.get(id).is_some_and(|connection| !connection.is_closing());
                if is_open {
                    self.connections.push(id, Class::Control, frame);
                }
                let (shard, slot) = (fx.shard, Slot::Request);
                self.answered(fx, shard, Origin { shard, connection: id, request_id, slot });
            }
        }
    }

    /// The token of HELLO is good: makes the session known to its user's owner.
    fn begin(&mut self, fx: &mut Effects, id: ConnectionId, claims: Claims) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Phase::AwaitVerdict(greeting) = &connection.phase else { return Ok(()) };
        let fresh = fx.new_random_id();
        let is_background = greeting.is_background;
        let device = match (&claims.device, &greeting.device) {
            // It is nobody's phone, so it takes nobody's place.
            _ if is_background => nameless_device(fresh)?,
            (Some(token), Some(hello)) if token != hello => {
                return Err(Refusal::field(ErrorCode::TokenMismatch, "device", "the token is for another device"));
            }
            (Some(device), _) | (None, Some(device)) => device.clone(),
            // A device that nobody named is named after its session, so that it is the same when it resumes.
            (None, None) => nameless_device(ResumeKey::claimed_session(&greeting.resume_token).unwrap_or(fresh))?,
        };
        let (hello_id, has_batch) = (greeting.request_id, greeting.has_batch);
        let (has_follow, follows) = (greeting.has_follow, greeting.follows);
        let resume_token = greeting.resume_token.clone();
        let is_nameless = claims.device.is_none() && greeting.device.is_none();
        let mut actor = Actor::new(claims.clone(), device);
        let resumed = self.resume_key.open(&resume_token, &actor);
        if is_nameless && resumed.is_none() {
            actor = Actor::new(claims, nameless_device(fresh)?);
        }
        let session_id = resumed.unwrap_or(fresh);
        let user_key = LogName::Inbox(actor.user.clone()).key(&actor.tenant);
        self.timers.insert((Time::from_unix_ms(actor.expires_at_ms()), Timer::Expiry(id)));
        let incarnation = greeting.incarnation;
        let registration = Registration {
            actor: actor.clone(),
            key: user_key,
            connection: id,
            session_id,
            follows,
            is_background,
            incarnation,
        };
        connection.phase = Phase::AwaitRegistered(Box::new(Session {
            hello_id,
            session_id,
            is_resumed: resumed.is_some(),
            has_batch,
            has_follow,
            follows,
            is_background,
            actor,
            user_key,
            not_before_ms: 0,
            watching: BTreeSet::new(),
            watch_list: 0,
            subscriptions: BTreeMap::new(),
            subscribing: 0,
            in_flight: 0,
            pages: 0,
            is_alone: false,
            stalled: None,
        }));
        fx.counters.sessions += 1;
        fx.post(fx.routing.owner(user_key), ShardMessage::Register(Box::new(registration)));
        Ok(())
    }

    /// The user's owner knows the session: welcomes it and looks at what it has sent meanwhile.
    pub(super) fn registered(&mut self, fx: &mut Effects, registration: Box<Registration>, not_before_ms: u64) {
        let id = registration.connection;
        let waiting = self.connections.get_mut(id).filter(|connection| connection.is_registering());
        let Some(connection) = waiting else {
            // The connection ended before its user's owner knew of it; so did the news of its end.
            fx.post(fx.routing.owner(registration.key), ShardMessage::Unregister(registration));
            return;
        };
        let Phase::AwaitRegistered(mut session) = std::mem::replace(&mut connection.phase, Phase::Closing) else {
            return;
        };
        session.not_before_ms = not_before_ms;
        let welcome = Welcome {
            version: VERSION,
            session_id: bytes::Bytes::copy_from_slice(session.session_id.as_bytes()),
            resume_token: self.resume_key.seal(session.session_id, &session.actor),
            resumed: session.is_resumed,
            server_time_ms: fx.now.unix_ms(),
            user: session.actor.user.to_string(),
            device: session.actor.device.to_string(),
            reconnect_jitter_ms: RECONNECT_JITTER_MS,
            max_frame_bytes: FRAME_BYTES_MAX as u32,
            max_body_bytes: BODY_BYTES_MAX as u32,
            max_subscriptions: SUBSCRIPTIONS_MAX as u32,
            capabilities: [(BATCH, session.has_batch), (FOLLOW, session.has_follow)]
                .into_iter()
                .filter(|(_, in_force)| *in_force)
                .map(|(name, _)| name.to_owned())
                .collect(),
            expires_at_ms: session.actor.expires_at_ms(),
        };
        let frame = frames::control(FrameType::Welcome, session.hello_id, &welcome);
        connection.decoder.set_frame_bytes_max(FRAME_BYTES_MAX);
        connection.phase = Phase::Established(session);
        fx.counters.sessions_established += 1;
        self.connections.push(id, Class::Control, frame);
        if let Some(goaway) = &self.goaway {
            self.connections.push(id, Class::Control, goaway.clone());
        }
        self.process_frames(fx, id);
    }

    /// The user's tokens that were issued before this are void: so is a session of such a token.
    pub(super) fn revoked(&mut self, fx: &mut Effects, id: ConnectionId, not_before_ms: u64) {
        let Some(session) = self.connections.get_mut(id).and_then(super::Connection::session_mut) else { return };
        session.not_before_ms = session.not_before_ms.max(not_before_ms);
        if session.actor.issued_at_ms() < not_before_ms {
            self.close_with(fx, id, &Refusal::new(ErrorCode::TokenRevoked, "the user's sessions were revoked"));
        }
    }

    /// AUTH: a fresh token for the running session.
    pub(super) fn authenticate(&mut self, fx: &mut Effects, id: ConnectionId, frame: &RawFrame) -> Result<(), Refusal> {
        let auth: control::Auth = frames::decode_request(&frame.body)?;
        check_token(&auth.token)?;
        if let Some(session) = self.connections.get_mut(id).and_then(super::Connection::session_mut) {
            session.in_flight += 1;
        }
        self.verify(fx, id, Verification::Refresh { request_id: frame.id }, auth.token);
        Ok(())
    }

    fn renew(&mut self, fx: &Effects, id: ConnectionId, claims: Claims) -> Result<u64, Refusal> {
        let gone = || Refusal::new(ErrorCode::Closed, "the session has ended");
        let session = self.connections.get_mut(id).and_then(super::Connection::session_mut).ok_or_else(gone)?;
        let device = claims.device.clone().unwrap_or_else(|| session.actor.device.clone());
        let actor = Actor::new(claims, device);
        if !actor.is_same_device(&session.actor) {
            return Err(Refusal::field(ErrorCode::TokenMismatch, "token", "the token is of another user or device"));
        }
        if actor.issued_at_ms() < session.not_before_ms {
            return Err(Refusal::field(
                ErrorCode::TokenRevoked,
                "token",
                "the user's tokens of that time were revoked",
            ));
        }
        let expires_at_ms = actor.expires_at_ms();
        // A verifier allows for clocks that differ; a session is not moved to an end in the past.
        if expires_at_ms <= fx.now.unix_ms() {
            return Err(Refusal::field(ErrorCode::TokenExpired, "token", "the token has expired"));
        }
        self.timers.remove(&(Time::from_unix_ms(session.actor.expires_at_ms()), Timer::Expiry(id)));
        session.actor = actor;
        self.timers.insert((Time::from_unix_ms(expires_at_ms), Timer::Expiry(id)));
        Ok(expires_at_ms)
    }

    /// Another broker owns the logs: nobody is let in.
    pub(crate) fn stand_by(&mut self, active: String) {
        self.standing_by = Some(active);
    }

    /// This broker owns the logs now. False if it did before.
    pub(crate) fn activate(&mut self) -> bool {
        self.standing_by.take().is_some()
    }

    /// The broker is about to stop: tells every session, and refuses new ones.
    pub(crate) fn drain(&mut self, deadline_ms: u32) {
        let goaway = control::Goaway {
            code: ErrorCode::Draining as u32,
            deadline_ms,
            jitter_ms: deadline_ms.min(RECONNECT_JITTER_MS),
        };
        let frame = frames::control(FrameType::Goaway, 0, &goaway);
        self.goaway = Some(frame.clone());
        for id in self.connections.ids() {
            if self.connections.get(id).is_some_and(|connection| matches!(connection.phase, Phase::Established(_))) {
                self.connections.push(id, Class::Control, frame.clone());
            }
        }
    }
}

fn nameless_device(session_id: Uuid) -> Result<DeviceId, Refusal> {
    let device = format!("~{}", session_id.simple()).parse::<DeviceId>();
    device.map_err(|error| Refusal::field(ErrorCode::Internal, "device", error.to_string()))
}

/// A copy, because HELLO's own bytes would keep the datagrams that came with them for as long as the session lives.
fn sender_instance(bytes: &[u8]) -> Result<Option<Uuid>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let wrong = |_| Refusal::field(ErrorCode::InvalidField, "sender_instance", "a UUID has 16 bytes");
    Uuid::from_slice(bytes).map(Some).map_err(wrong)
}

fn check_token(token: &str) -> Result<(), Refusal> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        let message = format!("a token has 1 to {TOKEN_BYTES_MAX} bytes");
        return Err(Refusal::field(ErrorCode::TokenInvalid, "token", message));
    }
    Ok(())
}
