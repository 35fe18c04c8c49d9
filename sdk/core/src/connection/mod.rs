//! How the client stands with the broker: token, handshake, GOAWAY, errors of the connection, reconnecting.
//!
//! ```text
//! AwaitingToken -> Connecting -> Greeting -> Ready -> Leaving (GOAWAY)
//!       ^              |  |  ^       |         |          |
//!       +- Waiting <---+--+--|-------+---------+----------+      any -> Closing (BYE) -> Stopped
//!                            +- Resuming <-----+----------+      RESUME: the transport stays
//! ```
//!
//! A step that concerns other parts of the client is returned as [`Step`].

mod token;

use std::time::Duration;

use antiphon_protocol::{Action, ErrorCode, control};
use bytes::Bytes;
use uuid::Uuid;

use crate::{
    client::Config,
    error::{Refusal, StopReason},
    handshake,
    input::Token,
    limits::{BACKOFF_DOUBLINGS_STANDBY_MAX, CLOSE_TIMEOUT, CONNECT_TIMEOUT, MOVE_TIMEOUT, STABLE_AFTER},
    link::{Link, Pending},
    output::{ConnectionState, Output, Session},
    time::Time,
    timers::Timer,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The token provider has been asked.
    AwaitingToken,
    /// The next attempt begins at the deadline.
    Waiting,
    Connecting,
    /// HELLO has been written.
    Greeting,
    Ready,
    /// The last answers are awaited; the next attempt does not begin before this.
    Leaving {
        reconnect_at: Time,
        /// For people.
        cause: &'static str,
    },
    /// After RESUME: HELLO is written again, on the same transport, at the deadline.
    Resuming,
    /// BYE has been written.
    Closing,
    Stopped,
}

/// What a change means for the rest of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub(crate) enum Step {
    Stay,
    /// A session stands.
    Ready,
    /// The connection is over; another one follows.
    Down,
    /// The same, and the next one follows on the same transport, whose streams go on.
    Resume,
    /// It is over for good.
    Stopped(StopReason),
}

#[derive(Debug)]
pub(crate) struct Connection {
    config: Config,
    sender_instance: Uuid,
    /// HELLOs sent so far.
    attempts: u64,
    resume_token: Bytes,
    phase: Phase,
    /// Whether the shell has a connection, or is making one.
    transport: bool,
    token: Option<Token>,
    /// Whether the provider has been asked and has not answered.
    token_asked: bool,
    refused: Option<(Token, Refusal)>,
    token_failures: u32,
    expires_at_ms: u64,
    /// Attempts since a connection was stable.
    attempt: u32,
    ready_since: Time,
    reconnect_jitter: Duration,
    user: String,
}

impl Connection {
    pub(crate) fn new(config: Config, sender_instance: Uuid) -> Self {
        Self {
            config,
            sender_instance,
            attempts: 0,
            resume_token: Bytes::new(),
            phase: Phase::AwaitingToken,
            transport: false,
            token: None,
            token_asked: false,
            refused: None,
            token_failures: 0,
            expires_at_ms: 0,
            attempt: 0,
            ready_since: Time::default(),
            reconnect_jitter: Duration::ZERO,
            user: String::new(),
        }
    }

    /// The user of the session; empty before the first one.
    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    /// Whether bytes of the broker are expected.
    pub(crate) fn is_up(&self) -> bool {
        match self.phase {
            Phase::Greeting | Phase::Ready | Phase::Leaving { .. } | Phase::Resuming | Phase::Closing => true,
            // After RESUME, when the token has ended meanwhile.
            Phase::AwaitingToken => self.transport,
            Phase::Waiting | Phase::Connecting | Phase::Stopped => false,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Begins the first or the next attempt.
    pub(crate) fn begin(&mut self, link: &mut Link) {
        link.emit(Output::State(ConnectionState::Connecting));
        let expired = self.expires_at_ms > 0 && self.expires_at_ms <= link.server_time_ms();
        if self.token.is_none() || expired {
            self.phase = Phase::AwaitingToken;
            link.timers.cancel(&Timer::Connection);
            return self.ask_token(link);
        }
        link.set_timer(Timer::Connection, CONNECT_TIMEOUT);
        if self.transport {
            return self.greet(link);
        }
        self.phase = Phase::Connecting;
        self.transport = true;
        link.emit(Output::Connect);
    }

    fn hang_up(&mut self, link: &mut Link) {
        if std::mem::take(&mut self.transport) {
            link.emit(Output::Close);
        }
    }

    // ---- handshake ----

    pub(crate) fn connected(&mut self, link: &mut Link) {
        if self.phase == Phase::Connecting {
            self.greet(link);
        }
    }

    fn greet(&mut self, link: &mut Link) {
        self.phase = Phase::Greeting;
        self.attempts += 1;
        let (token, resume) = (self.token.as_ref(), &self.resume_token);
        let hello = handshake::hello(&self.config, self.sender_instance, token, resume, self.attempts);
        link.request(Pending::Hello, |id| handshake::frame(id, &hello));
    }

    pub(crate) fn welcome(&mut self, link: &mut Link, welcome: control::Welcome) -> Step {
        if self.phase != Phase::Greeting {
            return self.broken(link, "WELCOME came twice".into());
        }
        self.phase = Phase::Ready;
        self.ready_since = link.now;
        self.refused = None;
        self.reconnect_jitter = Duration::from_millis(welcome.reconnect_jitter_ms.into());
        self.resume_token = welcome.resume_token.clone();
        self.user = welcome.user.clone();
        link.timers.cancel(&Timer::Connection);
        link.set_server_clock(welcome.server_time_ms);
        self.expires_at_ms = 0;
        self.schedule_refresh(link, welcome.expires_at_ms);
        link.ready = true;
        link.batches = welcome.capabilities.iter().any(|capability| capability == handshake::BATCH);
        link.emit(Output::State(ConnectionState::Ready(Session {
            session_id: welcome.session_id,
            resumed: welcome.resumed,
            user: welcome.user,
            device: welcome.device,
            body_bytes_max: welcome.max_body_bytes as usize,
            subscriptions_max: welcome.max_subscriptions as usize,
            expires_at_ms: welcome.expires_at_ms,
        })));
        Step::Ready
    }

    // ---- the end of a connection ----

    /// The transport is gone. A close code of the broker counts like its ERROR.
    pub(crate) fn disconnected(&mut self, link: &mut Link, cause: String, close_code: Option<u32>) -> Step {
        let had_transport = std::mem::take(&mut self.transport);
        let refusal = close_code.and_then(|number| Refusal::from_close_code(number, &cause));
        match (self.phase, refusal) {
            (Phase::AwaitingToken, Some(refusal)) if had_transport => self.judge(link, refusal),
            (Phase::Waiting | Phase::AwaitingToken | Phase::Stopped, _) => Step::Stay,
            (Phase::Closing, _) => self.stop(link, StopReason::Closed),
            (Phase::Leaving { reconnect_at, cause }, refusal)
                if refusal.as_ref().is_none_or(|refusal| refusal.action() == Action::Retry) =>
            {
                self.wait(link, cause.into(), reconnect_at)
            }
            (_, Some(refusal)) => self.judge(link, refusal),
            (_, None) => self.retry(link, cause, Duration::ZERO),
        }
    }

    /// ERROR with id 0.
    pub(crate) fn error(&mut self, link: &mut Link, refusal: Refusal) -> Step {
        if self.phase == Phase::Closing {
            return self.stop(link, StopReason::Closed);
        }
        self.hang_up(link);
        self.judge(link, refusal)
    }

    fn judge(&mut self, link: &mut Link, refusal: Refusal) -> Step {
        let wait = refusal.retry_after.unwrap_or_default();
        if refusal.is(ErrorCode::NotActive) {
            self.attempt = self.attempt.min(BACKOFF_DOUBLINGS_STANDBY_MAX);
        }
        match refusal.action() {
            Action::Retry => self.retry(link, refusal.to_string(), wait),
            Action::Authenticate => self.retry_with_new_token(link, refusal, wait),
            // A fault of the broker may be gone after its restart.
            Action::Stop if refusal.is(ErrorCode::Internal) => self.retry(link, refusal.to_string(), wait),
            _ => self.stop(link, StopReason::Refused(refusal)),
        }
    }

    fn retry_with_new_token(&mut self, link: &mut Link, refusal: Refusal, wait: Duration) -> Step {
        let cause = refusal.to_string();
        if !refusal.is(ErrorCode::AuthenticationTimeout) {
            self.refused = self.token.take().map(|token| (token, refusal));
        }
        self.retry(link, cause, wait)
    }

    /// The broker broke the protocol, or a fresh connection is needed: closes this one and tries again.
    pub(crate) fn broken(&mut self, link: &mut Link, cause: String) -> Step {
        if self.phase == Phase::Closing {
            return self.stop(link, StopReason::Closed);
        }
        self.hang_up(link);
        self.retry(link, cause, Duration::ZERO)
    }

    fn retry(&mut self, link: &mut Link, cause: String, at_least: Duration) -> Step {
        let delay = self.delay(link, self.reconnect_jitter).max(at_least);
        self.wait(link, cause, link.now.after(delay))
    }

    /// The first attempt after a stable connection is only spread over a jitter; further ones back off.
    fn delay(&mut self, link: &mut Link, jitter: Duration) -> Duration {
        let was_ready = matches!(self.phase, Phase::Ready | Phase::Leaving { .. });
        if was_ready && link.now.since(self.ready_since) >= STABLE_AFTER {
            self.attempt = 0;
        }
        let backoff = if was_ready && self.attempt == 0 { Duration::ZERO } else { link.backoff(self.attempt) };
        self.attempt += 1;
        backoff + link.jitter(jitter)
    }

    fn wait(&mut self, link: &mut Link, cause: String, until: Time) -> Step {
        self.phase = Phase::Waiting;
        link.timers.cancel(&Timer::Token);
        link.timers.set(Timer::Connection, until);
        link.emit(Output::State(ConnectionState::Waiting { cause }));
        Step::Down
    }

    /// RESUME: the session's way to the broker is lost behind the gateway; HELLO is due again on the same transport.
    pub(crate) fn resume(&mut self, link: &mut Link, resume: &control::Resume) -> Step {
        let earliest = match self.phase {
            Phase::Ready => link.now,
            Phase::Leaving { reconnect_at, .. } => reconnect_at,
            // Lost again before HELLO was written: it is still owed, once.
            Phase::Resuming | Phase::AwaitingToken => return Step::Stay,
            Phase::Closing => return self.stop(link, StopReason::Closed),
            // A HELLO may have crossed it, and nobody could tell which one the gateway has taken. A new transport can.
            _ => return self.broken(link, "RESUME came before the session stood".into()),
        };
        let delay = self.delay(link, Duration::from_millis(resume.jitter_ms.into()));
        let step = self.wait(link, "the gateway lost the broker".into(), link.now.after(delay).max(earliest));
        debug_assert_eq!(step, Step::Down);
        self.phase = Phase::Resuming;
        Step::Resume
    }

    // ---- GOAWAY, and a better way ----

    /// No new requests; the connection ends when the last answer is here or at the deadline.
    pub(crate) fn goaway(&mut self, link: &mut Link, goaway: &control::Goaway) {
        if self.phase == Phase::Ready {
            let jitter = link.jitter(Duration::from_millis(goaway.jitter_ms.into()));
            let deadline = Duration::from_millis(goaway.deadline_ms.into());
            self.begin_to_leave(link, jitter, deadline, "the broker asked to connect again");
        }
    }

    /// The shell has a better way to the broker.
    pub(crate) fn move_over(&mut self, link: &mut Link) {
        if self.phase == Phase::Ready {
            self.begin_to_leave(link, Duration::ZERO, MOVE_TIMEOUT, "there is a better way to the broker");
        }
    }

    fn begin_to_leave(&mut self, link: &mut Link, wait: Duration, deadline: Duration, cause: &'static str) {
        self.phase = Phase::Leaving { reconnect_at: link.now.after(wait), cause };
        link.ready = false;
        link.set_timer(Timer::Connection, deadline);
    }

    /// Called after every input: leaves once nothing is awaited any more.
    pub(crate) fn leave_when_settled(&mut self, link: &mut Link) -> Step {
        match self.phase {
            Phase::Leaving { reconnect_at, cause } if link.is_settled() => self.leave(link, reconnect_at, cause),
            _ => Step::Stay,
        }
    }

    fn leave(&mut self, link: &mut Link, reconnect_at: Time, cause: &str) -> Step {
        self.hang_up(link);
        self.wait(link, cause.into(), reconnect_at)
    }

    // ---- time and the application's wish ----

    /// The deadline of the phase.
    pub(crate) fn timeout(&mut self, link: &mut Link) -> Step {
        match self.phase {
            Phase::Waiting | Phase::Resuming => {
                self.begin(link);
                Step::Stay
            }
            Phase::Connecting | Phase::Greeting => self.broken(link, "the broker did not answer in time".into()),
            Phase::Leaving { reconnect_at, cause } => self.leave(link, reconnect_at, cause),
            Phase::Closing => self.stop(link, StopReason::Closed),
            Phase::AwaitingToken | Phase::Ready | Phase::Stopped => Step::Stay,
        }
    }

    pub(crate) fn close(&mut self, link: &mut Link) -> Step {
        match self.phase {
            Phase::Ready | Phase::Leaving { .. } => {
                self.phase = Phase::Closing;
                link.ready = false;
                link.request(Pending::Bye, handshake::bye);
                link.set_timer(Timer::Connection, CLOSE_TIMEOUT);
                Step::Stay
            }
            Phase::Closing | Phase::Stopped => Step::Stay,
            _ => self.stop(link, StopReason::Closed),
        }
    }

    /// BYE was answered.
    pub(crate) fn said_bye(&mut self, link: &mut Link) -> Step {
        self.stop(link, StopReason::Closed)
    }

    fn stop(&mut self, link: &mut Link, reason: StopReason) -> Step {
        self.phase = Phase::Stopped;
        self.token = None;
        self.hang_up(link);
        Step::Stopped(reason)
    }
}
