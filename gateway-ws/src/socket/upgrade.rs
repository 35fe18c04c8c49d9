//! From an HTTP request to a socket: who may, and in which form.

use std::{net::SocketAddr, sync::Arc};

use antiphon_protocol::limits::FRAME_BYTES_MAX;
use axum::{
    extract::{ConnectInfo, State, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{Carrier, session};
use crate::worker::Worker;

const JSON: &str = "antiphon.json.v1";
const BINARY: &str = "antiphon.bin.v1";
/// What a socket reads at a time. The library's own 128 KiB would be most of a connection's memory.
const READ_BUFFER_BYTES: usize = 4 << 10;
/// What a socket gathers before it writes.
const WRITE_BUFFER_BYTES: usize = 4 << 10;
/// A client that does not take this much is slow; what comes then waits in the outbox, which has its own bounds.
const WRITE_BUFFER_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX;

/// `GET /api/v1/socket`
pub(crate) async fn upgrade(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    if !is_allowed_origin(&headers, &worker.origins) {
        return (StatusCode::FORBIDDEN, "pages of this origin may not use the gateway\n").into_response();
    }
    let upgrade = upgrade
        .protocols([JSON, BINARY])
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    let carrier = match upgrade.selected_protocol().and_then(|protocol| protocol.to_str().ok()) {
        Some(JSON) => Carrier::Json,
        Some(BINARY) => Carrier::Binary,
        _ => {
            let expected = format!("the sub-protocols are {JSON} and {BINARY}\n");
            return (StatusCode::BAD_REQUEST, expected).into_response();
        }
    };
    let token = bearer(&headers).map(str::to_owned);
    upgrade.on_upgrade(move |socket| session::run(socket, worker, remote, carrier, token))
}

/// Browsers name the page's origin; whoever does not is no browser and brings its own token.
fn is_allowed_origin(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    host.is_some() && host == own || allowed.iter().any(|allowed| allowed == origin)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn own_pages_and_listed_origins_may_and_others_may_not() {
        let allowed = ["https://chat.example".to_owned()];
        let from = |origin| headers(&[(header::ORIGIN, origin), (header::HOST, "127.0.0.1:7080")]);
        assert!(is_allowed_origin(&from("http://127.0.0.1:7080"), &allowed));
        assert!(is_allowed_origin(&from("https://chat.example"), &allowed));
        assert!(is_allowed_origin(&headers(&[]), &allowed));
        for origin in ["https://evil.example", "null", "https://chat.example.evil", "http://chat.example"] {
            assert!(!is_allowed_origin(&from(origin), &allowed), "{origin}");
        }
        assert!(!is_allowed_origin(&headers(&[(header::ORIGIN, "null")]), &[]));
    }

    #[test]
    fn a_token_comes_after_its_scheme() {
        assert_eq!(bearer(&headers(&[(header::AUTHORIZATION, "Bearer a.b.c")])), Some("a.b.c"));
        assert_eq!(bearer(&headers(&[(header::AUTHORIZATION, "Basic a")])), None);
    }
}
