//! Answers, and the one shape of an error: `{code, number, action, outcome, message, reason?, field?, request_id}`.

use antiphon_protocol::{Action, ErrorCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE},
};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::identity::hex;

/// What every route returns.
pub(super) type Answer = Response<Full<Bytes>>;

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    /// One line for people; never holds anything secret.
    pub(super) message: String,
    /// A finer word than the code, such as why a token is not valid.
    pub(super) reason: Option<&'static str>,
    /// The field at fault.
    pub(super) field: Option<&'static str>,
    /// The methods that the route knows, if it was another.
    pub(super) allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), reason: None, field: None, allow: None }
    }

    pub(super) fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), ..Self::new(ErrorCode::InvalidField, message) }
    }

    fn status(&self) -> StatusCode {
        if self.allow.is_some() {
            return StatusCode::METHOD_NOT_ALLOWED;
        }
        match (self.code, self.code.action()) {
            (ErrorCode::NotFound, _) => StatusCode::NOT_FOUND,
            (ErrorCode::LimitExceeded, _) => StatusCode::PAYLOAD_TOO_LARGE,
            (ErrorCode::AlreadyExists, _) => StatusCode::CONFLICT,
            (_, Action::Retry) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Action::Authenticate) => StatusCode::UNAUTHORIZED,
            (_, Action::Fix) => StatusCode::BAD_REQUEST,
            (_, Action::Forbidden) => StatusCode::FORBIDDEN,
            (_, Action::Stop) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) fn into_answer(self) -> Answer {
        let status = self.status();
        let request_id = request_id();
        let mut error = json!({
            "code": self.code.code(),
            "number": self.code as u16,
            "action": action_word(self.code.action()),
            "outcome": outcome(self.code),
            "message": self.message,
            "request_id": request_id,
        });
        if let Some(reason) = self.reason {
            error["reason"] = reason.into();
        }
        if let Some(field) = self.field {
            error["field"] = field.into();
        }
        tracing::info!(code = self.code.code(), reason = self.reason, request_id, "an admin request was refused");
        let mut answer = json_answer(status, &error);
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(methods) = self.allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        }
        answer
    }
}

/// A JSON answer that no cache keeps.
pub(super) fn json_answer(status: StatusCode, body: &Value) -> Answer {
    text_answer(status, "application/json", body.to_string())
}

/// An answer of this type that no cache keeps.
pub(super) fn text_answer(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn action_word(action: Action) -> &'static str {
    match action {
        Action::Retry => "retry",
        Action::Authenticate => "authenticate",
        Action::Fix => "fix",
        Action::Forbidden => "forbidden",
        Action::Stop => "stop",
    }
}

/// A fault in the middle of the work leaves open how much of it was done.
fn outcome(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Internal | ErrorCode::StoreUnavailable => "unknown",
        _ => "not_applied",
    }
}

/// Names the request in the answer and in the log. Without random bytes it is all zeros: only finding it gets harder.
fn request_id() -> String {
    let mut id = [0; 8];
    let _ = SystemRandom::new().fill(&mut id);
    hex(&id)
}
