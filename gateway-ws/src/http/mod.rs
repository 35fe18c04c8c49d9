//! HTTP: the API as a table of frames, server-sent events, tickets, pages, health, and what browsers need around them.

mod answer;
mod call;
mod openapi;
mod pages;
mod pool;
mod routes;
mod session;
mod sse;
mod ticket;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use antiphon_protocol::{ErrorCode, limits::FRAME_BYTES_MAX};
use axum::{
    Json, Router,
    extract::{
        ConnectInfo, DefaultBodyLimit, RawPathParams, RawQuery, Request, State,
        rejection::{BytesRejection, RawPathParamsRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, get, on, post},
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time;

pub use openapi::document as openapi_document;
pub(crate) use pool::Pool;
pub use routes::requests;
pub(crate) use ticket::Tickets;

use crate::{socket, worker::Worker};

/// Everything below `/api/v1`, the console, and health.
pub(crate) fn router(worker: Arc<Worker>) -> Router {
    let mut api = Router::new()
        .route("/socket", get(socket::upgrade))
        .route("/logs/{log}/stream", get(sse::stream))
        .route("/users/{user}/presence", get(call::presence))
        .route("/tickets", post(make_ticket))
        .route("/openapi.json", get(openapi::serve));
    for route in routes::ROUTES {
        let handler = move |state: State<Arc<Worker>>,
                            remote: ConnectInfo<SocketAddr>,
                            path: Result<RawPathParams, RawPathParamsRejection>,
                            query: RawQuery,
                            headers: HeaderMap,
                            body: Result<Bytes, BytesRejection>| {
            call::call(route, state, remote, path, query, headers, body)
        };
        let method: MethodRouter<Arc<Worker>> = on(filter(&route.method), handler);
        api = api.route(route.path, method);
    }
    Router::new()
        .nest("/api/v1", api)
        .merge(pages::routes())
        .route("/dev/token", post(development_token))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(async || answer::failed(&session::refusal(ErrorCode::NotFound, "path", "there is nothing here")))
        .layer(DefaultBodyLimit::max(FRAME_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&worker), around))
        .with_state(worker)
}

fn filter(method: &Method) -> MethodFilter {
    // Invariant: the table names only methods that a filter knows; a test makes the router.
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET)
}

/// Ready once a trunk is connected.
async fn ready(State(worker): State<Arc<Worker>>) -> Response {
    if worker.trunks.connected() > 0 {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no trunk to a broker is connected\n").into_response()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewTicket {
    log: String,
}

/// `POST /api/v1/tickets`
async fn make_ticket(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return answer::rejected(rejection.status(), "body", &rejection.body_text()),
    };
    let made = async {
        let token = call::bearer(&headers)?;
        let wanted: NewTicket = serde_json::from_slice(&body)
            .map_err(|error| session::refusal(ErrorCode::Malformed, "body", &error.to_string()))?;
        // A token that nobody accepts gets no ticket.
        worker.pool.session(&worker.trunks, remote, token).await?;
        worker.tickets.seal(&wanted.log, token)
    };
    match made.await {
        Ok(ticket) => (StatusCode::CREATED, Json(serde_json::json!({ "ticket": ticket }))).into_response(),
        Err(error) => answer::failed(&error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    user: String,
}

/// `POST /dev/token`, in development only: for a page on this machine, by this machine's own name.
async fn development_token(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let refused = |code, field: &str, message: &str| answer::failed(&session::refusal(code, field, message));
    let Some(mint) = worker.development.as_ref() else {
        return refused(ErrorCode::NotFound, "path", "there is nothing here");
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    if !remote.ip().to_canonical().is_loopback() || !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        return refused(ErrorCode::Forbidden, "host", "development tokens are for this machine only");
    }
    match serde_json::from_slice::<Wanted>(&body) {
        Ok(wanted) => match mint.mint(&wanted.user) {
            Ok(token) => Json(serde_json::json!({ "token": token })).into_response(),
            Err(message) => refused(ErrorCode::InvalidField, "user", &message),
        },
        Err(error) => refused(ErrorCode::Malformed, "body", &error.to_string()),
    }
}

/// How long a request may take to come and to be answered.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

const ALLOW_ORIGIN: HeaderName = header::ACCESS_CONTROL_ALLOW_ORIGIN;

/// Security headers on everything, and CORS for the origins that the configuration names.
async fn around(State(worker): State<Arc<Worker>>, request: Request, next: Next) -> Response {
    worker.counters.requests.one_more();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| worker.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()));
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method");
    let mut response = match (&allowed, is_preflight) {
        (Some(_), true) => preflight(),
        // A response begins at once or after an answer of the broker, so what takes longer is a body that does not come.
        _ => match time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request did not come in time\n").into_response(),
        },
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static("default-src 'none'"));
    if let Some(origin) = allowed {
        headers.insert(ALLOW_ORIGIN, origin);
    }
    response
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, idempotency-key, last-event-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}
