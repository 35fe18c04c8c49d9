//! From HELLO to WELCOME: version, token, registration. Also AUTH, which renews the token, and GOAWAY.

use antiphon_protocol::{
    Class, DeviceId, ErrorCode, FrameType, LogName, RawFrame, VERSION,
    control::{self, Welcome},
    frames,
    limits::{BODY_BYTES_MAX, FRAME_BYTES_MAX, SUBSCRIPTIONS_MAX, TOKEN_BYTES_MAX},
};
use std::collections::BTreeMap;
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
    shard_message::{Registration, ShardMessage},
    time::Time,
};

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
        if self.is_draining {
            return Err(Refusal::new(ErrorCode::Draining, "the broker is about to stop"));
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
        Ok((Greeting { request_id: frame.id, device, resume_token: hello.resume_token }, hello.token))
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
                self.connections.push(id, Class::Control, frame);
                self.answered(fx, fx.shard, id, Class::Control);
            }
        }
    }

    /// The token of HELLO is good: makes the session known to its user's owner.
    fn begin(&mut self, fx: &mut Effects, id: ConnectionId, claims: Claims) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get_mut(id) else { return Ok(()) };
        let Phase::AwaitVerdict(greeting) = &connection.phase else { return Ok(()) };
        let fresh = fx.new_random_id();
        let device = match (&claims.device, &greeting.device) {
            (Some(token), Some(hello)) if token != hello => {
                return Err(Refusal::field(ErrorCode::TokenMismatch, "device", "the token is for another device"));
            }
            (Some(device), _) | (None, Some(device)) => device.clone(),
            // A device that nobody named is named after its session, so that it is the same when it resumes.
            (None, None) => nameless_device(ResumeKey::claimed_session(&greeting.resume_token).unwrap_or(fresh))?,
        };
        let hello_id = greeting.request_id;
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
        let registration = Registration { actor: actor.clone(), key: user_key, connection: id, session_id };
        connection.phase = Phase::AwaitRegistered(Box::new(Session {
            hello_id,
            session_id,
            is_resumed: resumed.is_some(),
            actor,
            user_key,
            subscriptions: BTreeMap::new(),
            subscribing: 0,
            in_flight: 0,
            pages: 0,
            stalled: None,
        }));
        fx.counters.sessions += 1;
        fx.post(fx.routing.owner(user_key), ShardMessage::Register(Box::new(registration)));
        Ok(())
    }

    /// The user's owner knows the session: welcomes it and looks at what it has sent meanwhile.
    pub(super) fn registered(&mut self, fx: &mut Effects, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let session = match std::mem::replace(&mut connection.phase, Phase::Closing) {
            Phase::AwaitRegistered(session) => session,
            other => {
                connection.phase = other;
                return;
            }
        };
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
            capabilities: Vec::new(),
            expires_at_ms: session.actor.expires_at_ms(),
        };
        let frame = frames::control(FrameType::Welcome, session.hello_id, &welcome);
        connection.decoder.set_frame_bytes_max(FRAME_BYTES_MAX);
        connection.phase = Phase::Established(session);
        fx.counters.sessions_established += 1;
        self.connections.push(id, Class::Control, frame);
        self.process_frames(fx, id);
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
        debug_assert!(actor.expires_at_ms() >= fx.now.unix_ms());
        let expires_at_ms = actor.expires_at_ms();
        self.timers.remove(&(Time::from_unix_ms(session.actor.expires_at_ms()), Timer::Expiry(id)));
        session.actor = actor;
        self.timers.insert((Time::from_unix_ms(expires_at_ms), Timer::Expiry(id)));
        Ok(expires_at_ms)
    }

    /// The broker is about to stop: tells every session, and refuses new ones.
    pub(crate) fn drain(&mut self, deadline_ms: u32) {
        self.is_draining = true;
        let goaway = control::Goaway {
            code: ErrorCode::Draining as u32,
            deadline_ms,
            jitter_ms: deadline_ms.min(RECONNECT_JITTER_MS),
        };
        let frame = frames::control(FrameType::Goaway, 0, &goaway);
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

fn check_token(token: &str) -> Result<(), Refusal> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        let message = format!("a token has 1 to {TOKEN_BYTES_MAX} bytes");
        return Err(Refusal::field(ErrorCode::TokenInvalid, "token", message));
    }
    Ok(())
}
