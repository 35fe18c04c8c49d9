//! Answers of the broker as HTTP responses: SPEC section 16.

use antiphon_protocol::{Action, ErrorCode, FrameType, RawFrame, control, frames::Ack};
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};

use super::session::refusal;
use crate::json;

/// The answer to a request of this type.
pub(super) fn response(asked: FrameType, answer: &RawFrame) -> Response {
    // An answer may be empty because all it says is the default.
    if answer.body.is_empty() && asked != FrameType::Sync {
        return StatusCode::NO_CONTENT.into_response();
    }
    let mut line = BytesMut::new();
    if let Err(error) = json::encode(answer, Some(asked), &mut line) {
        return failed(&refusal(ErrorCode::Internal, "", &error.to_string()));
    }
    let body = members(&line, answer, asked);
    let status = match answer.frame_type {
        FrameType::Ack => match Ack::decode(&answer.body) {
            Ok(ack) if ack.duplicate => StatusCode::OK,
            _ => StatusCode::CREATED,
        },
        FrameType::Ok if asked == FrameType::ConversationCreate => {
            match antiphon_protocol::frames::decode_answer::<control::Conversation>(&answer.body) {
                Ok(conversation) if !conversation.created => StatusCode::OK,
                _ => StatusCode::CREATED,
            }
        }
        _ => StatusCode::OK,
    };
    json_response(status, body)
}

/// The line without what only a stream of frames needs.
fn members(line: &[u8], answer: &RawFrame, asked: FrameType) -> Bytes {
    let mut head = format!("{{\"op\":\"{}\",\"id\":{}", answer.frame_type.name(), answer.id);
    if answer.frame_type == FrameType::Ok {
        head = format!("{head},\"to\":\"{}\"", asked.name());
    }
    let rest = line.strip_prefix(head.as_bytes()).unwrap_or(line);
    match rest {
        [b',', rest @ ..] => Bytes::from([b"{", rest].concat()),
        _ => Bytes::from_static(b"{}"),
    }
}

/// The members of an ERROR, as an object.
pub(super) fn error_object(error: &control::Error) -> Bytes {
    let mut line = BytesMut::new();
    let frame = antiphon_protocol::frames::control(FrameType::Error, 0, error);
    let raw =
        RawFrame { frame_type: FrameType::Error, id: 0, body: frame.slice(antiphon_protocol::header::HEADER_BYTES..) };
    // Invariant: an ERROR holds texts and numbers, which JSON can say.
    let _ = json::encode(&raw, None, &mut line);
    let rest = line.strip_prefix(b"{\"op\":\"ERROR\",").unwrap_or(b"}");
    Bytes::from([b"{", rest].concat())
}

/// A refusal, of the broker or of the gateway.
pub(super) fn failed(error: &control::Error) -> Response {
    let mut response = json_response(status(error.number), error_object(error));
    if error.retry_after_ms > 0
        && let Ok(seconds) = HeaderValue::from_str(&error.retry_after_ms.div_ceil(1_000).to_string())
    {
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// What is refused before it is read as a request: a body that is too long or cut off, a path that is no text.
pub(super) fn rejected(status: StatusCode, field: &str, message: &str) -> Response {
    let code = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ErrorCode::FrameTooLarge,
        _ => ErrorCode::Malformed,
    };
    failed(&refusal(code, field, message))
}

pub(super) fn json_response(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The HTTP status of an error.
pub(super) fn status(number: u32) -> StatusCode {
    match ErrorCode::from_number(number) {
        Some(ErrorCode::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        Some(ErrorCode::StoreFull) => StatusCode::INSUFFICIENT_STORAGE,
        Some(ErrorCode::IdReused | ErrorCode::AlreadyExists | ErrorCode::OutOfOrder) => StatusCode::CONFLICT,
        Some(ErrorCode::FrameTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
        Some(ErrorCode::NotFound) => StatusCode::NOT_FOUND,
        Some(ErrorCode::Removed) => StatusCode::GONE,
        Some(code) => match code.action() {
            Action::Retry => StatusCode::SERVICE_UNAVAILABLE,
            Action::Authenticate => StatusCode::UNAUTHORIZED,
            Action::Fix => StatusCode::BAD_REQUEST,
            Action::Forbidden => StatusCode::FORBIDDEN,
            Action::Stop => StatusCode::INTERNAL_SERVER_ERROR,
        },
        None => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
