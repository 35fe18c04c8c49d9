//! The access token: asked for, refused, renewed while the session goes on.

use std::time::Duration;

use antiphon_protocol::{Action, ErrorCode, control, limits::TOKEN_BYTES_MAX};

use super::{Connection, Phase, Step};
use crate::{
    error::{Refusal, StopReason},
    handshake,
    input::Token,
    limits::TOKEN_REFRESH_LEAD,
    link::{Link, Pending},
    output::{ConnectionState, Output},
    timers::Timer,
};

impl Connection {
    pub(super) fn ask_token(&mut self, link: &mut Link) {
        link.timers.cancel(&Timer::Token);
        if !self.token_asked {
            self.token_asked = true;
            link.emit(Output::NeedToken);
        }
    }

    pub(crate) fn token(&mut self, link: &mut Link, token: Token) -> Step {
        self.token_asked = false;
        if self.phase == Phase::Stopped {
            return Step::Stay;
        }
        if token.reveal().len() > TOKEN_BYTES_MAX {
            return self.stop(link, StopReason::TokenTooLong(token.reveal().len()));
        }
        if let Some((refused, refusal)) = &self.refused
            && *refused == token
            && !refusal.is(ErrorCode::AuthenticationTimeout)
        {
            let refusal = refusal.clone();
            return self.stop(link, StopReason::SameToken(refusal));
        }
        self.token_failures = 0;
        self.token = Some(token);
        match self.phase {
            Phase::AwaitingToken => {
                self.expires_at_ms = 0;
                self.begin(link);
            }
            Phase::Ready => self.authenticate(link),
            // It is used for the next attempt.
            _ => {}
        }
        Step::Stay
    }

    pub(crate) fn token_failed(&mut self, link: &mut Link, cause: String) {
        self.token_asked = false;
        if self.phase == Phase::Stopped {
            return;
        }
        let delay = link.backoff(self.token_failures);
        self.token_failures += 1;
        link.set_timer(Timer::Token, delay);
        if self.phase == Phase::AwaitingToken {
            link.emit(Output::State(ConnectionState::Waiting { cause: format!("no token: {cause}") }));
        }
    }

    /// A fresh token is due, or wanted.
    pub(crate) fn token_due(&mut self, link: &mut Link) {
        self.ask_token(link);
    }

    fn authenticate(&mut self, link: &mut Link) {
        let auth = control::Auth { token: self.token.as_ref().map_or("", |token| token.reveal()).to_owned() };
        link.request(Pending::Authenticate, |id| handshake::auth(id, &auth));
    }

    pub(crate) fn authenticated(&mut self, link: &mut Link, answer: control::Authenticated) {
        self.refused = None;
        self.schedule_refresh(link, answer.expires_at_ms);
    }

    /// AUTH was refused, which changes nothing yet.
    pub(crate) fn authentication_refused(&mut self, link: &mut Link, refusal: Refusal) {
        if refusal.action() == Action::Retry {
            let delay = link.backoff(0).max(refusal.retry_after.unwrap_or_default());
            return link.set_timer(Timer::Token, delay);
        }
        self.token_refused(link, refusal);
    }

    /// A request was refused for the token's sake; the session goes on meanwhile.
    pub(crate) fn token_refused(&mut self, link: &mut Link, refusal: Refusal) {
        if let Some(token) = self.token.clone() {
            self.refused = Some((token, refusal));
        }
        self.ask_token(link);
    }

    /// Asks for a fresh token in good time, unless the last one brought no later end.
    pub(super) fn schedule_refresh(&mut self, link: &mut Link, expires_at_ms: u64) {
        let later = expires_at_ms > self.expires_at_ms;
        self.expires_at_ms = expires_at_ms;
        let left = Duration::from_millis(expires_at_ms.saturating_sub(link.server_time_ms()));
        if later && !left.is_zero() {
            link.set_timer(Timer::Token, left.saturating_sub(TOKEN_REFRESH_LEAD).max(left / 2));
        }
    }
}
