//! A request of the API: members from path, query and body into a frame, its answer into a response.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_protocol::{Direction, ErrorCode, FrameType, control};
use axum::{
    extract::{
        ConnectInfo, Path, RawPathParams, RawQuery, State,
        rejection::{BytesRejection, PathRejection, RawPathParamsRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use uuid::Uuid;

use super::{
    answer,
    routes::{Kind, Route},
    session::refusal,
};
use crate::{json, worker::Worker};

/// Longest `Idempotency-Key`, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Everything of an HTTP request that a call reads.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) remote: SocketAddr,
    pub(super) path: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Carries out one request of the table.
pub(super) async fn call(
    route: &'static Route,
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let (path, body) = match (path, body) {
        (Ok(path), Ok(body)) => (path, body),
        (Err(rejection), _) => return answer::rejected(rejection.status(), "path", &rejection.body_text()),
        (_, Err(rejection)) => return answer::rejected(rejection.status(), "body", &rejection.body_text()),
    };
    let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let asked = Asked { remote, path, query: parse_query(query.as_deref().unwrap_or_default()), headers, body };
    match carry_out(route, &worker, &asked).await {
        Ok(response) => response,
        Err(error) => answer::failed(&error),
    }
}

async fn carry_out(route: &Route, worker: &Worker, asked: &Asked) -> Result<Response, control::Error> {
    let token = bearer(&asked.headers)?;
    let session = worker.pool.session(&worker.trunks, asked.remote, token).await?;
    let (id, waiting) = session.reserve()?;
    let line = line(route, id, asked)?;
    let decoded = json::decode(line.as_bytes(), Direction::ToBroker)
        .map_err(|error| refusal(error.code, &error.field, error.message))?;
    session.send(&decoded.frame).await?;
    if route.frame == FrameType::Signal {
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    Ok(answer::response(route.frame, &session.answer(waiting).await?))
}

/// `GET /api/v1/users/{user}/presence`
pub(super) async fn presence(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Response {
    let user = match path {
        Ok(Path(user)) => user,
        Err(rejection) => return answer::rejected(rejection.status(), "path", &rejection.body_text()),
    };
    let found = async {
        let session = worker.pool.session(&worker.trunks, remote, bearer(&headers)?).await?;
        session.presence(&user).await
    };
    match found.await {
        Ok(presence) => {
            let status = format!("{:?}", presence.status()).to_lowercase();
            let body = serde_json::json!({ "user": presence.user, "status": status, "text": presence.text });
            answer::json_response(StatusCode::OK, Bytes::from(body.to_string()))
        }
        Err(error) => answer::failed(&error),
    }
}

/// The token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, control::Error> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let missing = || refusal(ErrorCode::TokenInvalid, "authorization", "expected `Bearer` and a token");
    value.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(missing)
}

/// The request as a line of the JSON form. What is named twice, or belongs elsewhere, is refused by whoever reads it.
fn line(route: &Route, id: u32, asked: &Asked) -> Result<String, control::Error> {
    let mut line = format!("{{\"op\":\"{}\"", route.frame.name());
    if route.frame != FrameType::Signal {
        line.push_str(&format!(",\"id\":{id}"));
    }
    let mut add = |member: &str, value: &str| line.push_str(&format!(",{}:{value}", quoted(member)));
    for (name, value) in &asked.path {
        add(name, &quoted(value));
    }
    for (name, value) in &asked.query {
        let kind = route.query.iter().find(|(known, _)| known == name).map(|(_, kind)| *kind);
        match kind {
            Some(Kind::Text) => add(name, &quoted(value)),
            Some(Kind::Literal) if is_literal(value) => add(name, value),
            Some(Kind::Literal) => {
                return Err(refusal(ErrorCode::Malformed, name, "expected a whole number, true or false"));
            }
            None => return Err(refusal(ErrorCode::UnknownFields, name, "is not a parameter of this request")),
        }
    }
    if !route.fixed.is_empty() {
        line.push(',');
        line.push_str(route.fixed);
    }
    let members = body_members(route, &asked.body)?;
    if !members.is_empty() {
        line.push(',');
        line.push_str(&members);
    }
    if route.frame == FrameType::Send && !has_member(&members, "client_message_id") {
        line.push_str(&format!(",\"client_message_id\":\"{}\"", message_id(&asked.headers)?));
    }
    line.push('}');
    Ok(line)
}

/// What stands between the braces of the body.
fn body_members(route: &Route, body: &Bytes) -> Result<String, control::Error> {
    let text = std::str::from_utf8(body).map_err(|_| refusal(ErrorCode::Malformed, "body", "is not UTF-8"))?;
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(String::new());
    }
    if !route.has_body {
        return Err(refusal(ErrorCode::UnknownFields, "body", "this request has no body"));
    }
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let inner = inner.ok_or_else(|| refusal(ErrorCode::Malformed, "body", "expected a JSON object"))?;
    Ok(inner.trim_ascii().to_owned())
}

/// The id that makes a repeated send the same one: of the `Idempotency-Key`, or a new one.
fn message_id(headers: &HeaderMap) -> Result<Uuid, control::Error> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(fresh_id()) };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let message = "an Idempotency-Key has 1 to 255 bytes";
        return Err(refusal(ErrorCode::InvalidField, "idempotency-key", message));
    }
    let hash = digest(&SHA256, &[b"idempotency-key\0", key.as_bytes()].concat());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Ok(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

fn fresh_id() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = [0; 10];
    // Without randomness the time alone still tells sends apart by the millisecond.
    let _ = SystemRandom::new().fill(&mut random);
    uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or_default(), &random).into_uuid()
}

/// Whether the body names a member. A body that cannot be read names none; the frame's reader says what is wrong.
fn has_member(members: &str, name: &str) -> bool {
    members.contains(name)
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&format!("{{{members}}}"))
            .is_ok_and(|members| members.contains_key(name))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn is_literal(value: &str) -> bool {
    matches!(value, "true" | "false") || (!value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()))
}

/// `a=1&b=x%20y` as pairs.
pub(super) fn parse_query(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}
