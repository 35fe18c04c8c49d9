//! What each route does.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_core::claims::Scope;
use antiphon_protocol::{DeviceId, ErrorCode, UserId};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, StatusCode, body::Body, header::CONTENT_TYPE};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::timeout;

use super::{
    Admin, READ_TIMEOUT, Shared, access, explain,
    response::{Answer, Refusal, json_answer, text_answer},
    view,
};
use crate::{auth::TokenRequest, identity, presence::STALE};

/// Longest request body, in bytes.
const BODY_BYTES_MAX: usize = 16 << 10;

pub(super) async fn answer<B>(shared: &Shared, peer: SocketAddr, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let routed = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/healthz") => Ok(healthz(&shared.admin)),
        (&Method::GET | &Method::HEAD, "/readyz") => Ok(readyz(&shared.admin)),
        (&Method::GET | &Method::HEAD, "/metrics") => Ok(metrics(&shared.admin)),
        (&Method::GET | &Method::HEAD, "/view") => view::numbers(shared, &request, unix_ms()),
        (&Method::GET | &Method::HEAD, path) if let Some(file) = view::file(path) => Ok(file),
        (&Method::GET | &Method::HEAD, "/explain") => explain::answer(&shared.admin, &request, unix_ms()).await,
        (&Method::POST, "/dev/token") => development_token(&shared.admin, peer, request).await,
        (&Method::POST, "/admin/backup") => backup(shared, peer, request).await,
        (_, "/healthz" | "/readyz" | "/metrics" | "/view" | "/explain") => Err(wrong_method("GET, HEAD")),
        (_, "/admin/backup") => Err(wrong_method("POST")),
        (_, "/dev/token") if shared.admin.development.is_some() => Err(wrong_method("POST")),
        _ => Err(no_such_route()),
    };
    routed.unwrap_or_else(Refusal::into_answer)
}

fn no_such_route() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such route")
}

fn wrong_method(allow: &'static str) -> Refusal {
    Refusal { allow: Some(allow), ..Refusal::new(ErrorCode::NotFound, "the route has other methods") }
}

fn healthz(admin: &Admin) -> Answer {
    let now = Instant::now();
    admin.health.sample(now);
    let stuck = admin.health.stalled(now);
    let status = if stuck.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &json!({ "alive": stuck.is_empty(), "stuck_shards": stuck }))
}

fn readyz(admin: &Admin) -> Answer {
    let reasons = admin.health.reasons(Instant::now());
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = json!({ "ready": reasons.is_empty(), "reasons": reasons });
    if admin.presence.is_stale() {
        answer["notes"] = json!([STALE]);
    }
    json_answer(status, &answer)
}

fn metrics(admin: &Admin) -> Answer {
    text_answer(StatusCode::OK, "text/plain; version=0.0.4", admin.metrics.render())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DevelopmentTokenRequest {
    user: String,
    device: Option<String>,
    name: Option<String>,
}

async fn development_token<B>(admin: &Admin, peer: SocketAddr, request: Request<B>) -> Result<Answer, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // Outside development mode the route does not exist.
    let minter = admin.development.as_ref().ok_or_else(no_such_route)?;
    access::require_loopback(peer, &request)?;
    let wanted: DevelopmentTokenRequest = read_json(request).await?;
    let user = Some(&wanted.user).filter(|user| !user.starts_with('~')).and_then(|user| UserId::new(user).ok());
    let user = user.ok_or_else(|| Refusal::field("user", "1 to 64 of A-Z a-z 0-9 . _ : @ | ~ -, not ~ first"))?;
    let device =
        wanted.device.map(|id| Some(id).filter(|id| !id.starts_with('~')).and_then(|id| DeviceId::new(&id).ok()));
    if device == Some(None) {
        return Err(Refusal::field("device", "1 to 64 of A-Z a-z 0-9 . _ : @ | ~ -, not ~ first"));
    }
    let name_fits = |name: &String| (1..=256).contains(&name.len()) && !name.chars().any(char::is_control);
    if wanted.name.as_ref().is_some_and(|name| !name_fits(name)) {
        return Err(Refusal::field("name", "1 to 256 bytes without control characters"));
    }
    let token_request =
        TokenRequest { device: device.flatten(), name: wanted.name, ..identity::development_request(user) };
    let now_ms = unix_ms();
    let token =
        minter.mint(&token_request, now_ms).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    let expires_at_ms = (now_ms / 1_000 + token_request.lifetime_seconds) * 1_000;
    Ok(json_answer(
        StatusCode::OK,
        &json!({
            "token": token,
            "tenant": token_request.tenant.as_str(),
            "user": token_request.user.as_str(),
            "expires_at_ms": expires_at_ms,
        }),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    path: PathBuf,
}

async fn backup<B>(shared: &Shared, peer: SocketAddr, request: Request<B>) -> Result<Answer, Refusal>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    access::require_loopback(peer, &request)?;
    access::require(&shared.admin, request.headers(), unix_ms(), &[Scope::AdminWrite])?;
    let wanted: BackupRequest = read_json(request).await?;
    if !wanted.path.is_absolute() {
        return Err(Refusal::field("path", "an absolute path: the broker's own folder is not the caller's"));
    }
    let busy = |_| Refusal::new(ErrorCode::Overloaded, "another backup is running");
    let _one_at_a_time = shared.backup_running.try_lock().map_err(busy)?;
    tracing::info!(path = %wanted.path.display(), "a backup begins");
    let report = (shared.admin.backup)(wanted.path).await.map_err(|error| Refusal::new(error.code, error.message))?;
    tracing::info!(report.files, report.bytes, "the backup is complete");
    Ok(json_answer(StatusCode::OK, &json!({ "files": report.files, "bytes": report.bytes })))
}

/// A JSON body, bounded in bytes and time. The content type is demanded because browsers ask before sending it across
/// origins.
async fn read_json<T, B>(request: Request<B>) -> Result<T, Refusal>
where
    T: DeserializeOwned,
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Refusal::field("content-type", "expected application/json"));
    }
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX);
    let collected = timeout(READ_TIMEOUT, Box::pin(body).collect()).await;
    let late = |_| Refusal::new(ErrorCode::Malformed, "the body did not arrive in time");
    let bytes = collected.map_err(late)?.map_err(|error| match error.is::<http_body_util::LengthLimitError>() {
        true => Refusal::new(ErrorCode::LimitExceeded, "the body is longer than 16384 bytes"),
        false => Refusal::new(ErrorCode::Malformed, "the body ended early"),
    })?;
    serde_json::from_slice(&bytes.to_bytes()).map_err(|error| Refusal::new(ErrorCode::Malformed, error.to_string()))
}

pub(super) fn unix_ms() -> u64 {
    // A clock before 1970 makes every token look unborn, which refuses them all.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
