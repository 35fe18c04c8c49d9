//! From an HTTP request to a socket (RFC 6455, section 4.2): who may, and in which form.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use base64::Engine as _;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Carrier, session};
use crate::worker::Worker;

const JSON: &str = "antiphon.json.v1";
const BINARY: &str = "antiphon.bin.v1";
const VERSION: &str = "13";
const KEY_BYTES: usize = 16;

/// `GET /api/v1/socket`
pub(crate) async fn upgrade(
    State(worker): State<Arc<Worker>>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let headers = request.headers();
    if !is_allowed_origin(headers, &worker.origins) {
        return (StatusCode::FORBIDDEN, "pages of this origin may not use the gateway\n").into_response();
    }
    let accept = match accept_key(request.version(), headers) {
        Ok(accept) => accept,
        Err(refusal) => return refusal.into_response(),
    };
    let Some((name, carrier)) = carrier(headers) else {
        let expected = format!("the sub-protocols are {JSON} and {BINARY}\n");
        return (StatusCode::BAD_REQUEST, expected).into_response();
    };
    let token = bearer(headers).map(str::to_owned);
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(serve(upgrade, worker, remote, carrier, token));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend([
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name)),
    ]);
    response
}

/// Runs the session once the client has the response.
async fn serve(upgrade: OnUpgrade, worker: Arc<Worker>, remote: SocketAddr, carrier: Carrier, token: Option<String>) {
    let Ok(upgraded) = upgrade.await else { return };
    if let Some((stream, read_ahead)) = into_stream(upgraded) {
        session::run(stream, read_ahead, worker, remote, carrier, token).await;
    }
}

/// The connection as the worker accepted it, and what was read of it already.
fn into_stream(upgraded: Upgraded) -> Option<(TcpStream, bytes::Bytes)> {
    // Invariant: the worker serves connections of this one type.
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Why a request is none for a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
enum NotAWebSocket {
    #[error("a WebSocket begins with HTTP/1.1")]
    Http,
    #[error("expected a request to upgrade to a WebSocket")]
    Upgrade,
    #[error("the version of WebSocket is 13")]
    Version,
    #[error("Sec-WebSocket-Key has 16 bytes, as base64")]
    Key,
}

impl IntoResponse for NotAWebSocket {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Version => {
                (StatusCode::UPGRADE_REQUIRED, [(header::SEC_WEBSOCKET_VERSION, VERSION)], text).into_response()
            }
            _ => (StatusCode::BAD_REQUEST, text).into_response(),
        }
    }
}

/// What proves to the client that its request for a WebSocket was understood.
fn accept_key(version: Version, headers: &HeaderMap) -> Result<HeaderValue, NotAWebSocket> {
    if version != Version::HTTP_11 {
        return Err(NotAWebSocket::Http);
    }
    if !has_word(headers, &header::CONNECTION, "upgrade") || !has_word(headers, &header::UPGRADE, "websocket") {
        return Err(NotAWebSocket::Upgrade);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return Err(NotAWebSocket::Version);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD.decode(key);
    decoded.ok().filter(|key| key.len() == KEY_BYTES).ok_or(NotAWebSocket::Key)?;
    HeaderValue::try_from(derive_accept_key(key)).map_err(|_| NotAWebSocket::Key)
}

/// Whether a header that lists words has this one.
fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    words(headers, name).any(|found| found.eq_ignore_ascii_case(word))
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// The first sub-protocol of the client's that is known here.
fn carrier(headers: &HeaderMap) -> Option<(&'static str, Carrier)> {
    words(headers, &header::SEC_WEBSOCKET_PROTOCOL).find_map(|name| match name {
        JSON => Some((JSON, Carrier::Json)),
        BINARY => Some((BINARY, Carrier::Binary)),
        _ => None,
    })
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
    fn a_request_for_a_websocket_is_told_from_others() {
        // The example of RFC 6455, section 1.3.
        let good = [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        assert_eq!(accept_key(Version::HTTP_11, &headers(&good)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let refused = |version, pairs: &[_]| accept_key(version, &headers(pairs)).unwrap_err();
        assert_eq!(refused(Version::HTTP_10, &good), NotAWebSocket::Http);
        let expected = [NotAWebSocket::Upgrade, NotAWebSocket::Upgrade, NotAWebSocket::Version, NotAWebSocket::Key];
        for (missing, expected) in expected.into_iter().enumerate() {
            let kept = good.iter().enumerate().filter(|(at, _)| *at != missing);
            let others: Vec<_> = kept.map(|(_, pair)| pair.clone()).collect();
            assert_eq!(refused(Version::HTTP_11, &others), expected, "without {}", good[missing].0);
        }
        let short = [&good[..3], &[(header::SEC_WEBSOCKET_KEY, "AAAA")]].concat();
        assert_eq!(refused(Version::HTTP_11, &short), NotAWebSocket::Key);
        assert_eq!(NotAWebSocket::Version.into_response().status(), StatusCode::UPGRADE_REQUIRED);
    }

    #[test]
    fn the_clients_order_decides_between_sub_protocols() {
        let of = |value| carrier(&headers(&[(header::SEC_WEBSOCKET_PROTOCOL, value)])).map(|(_, carrier)| carrier);
        assert_eq!(of("chat, antiphon.bin.v1,antiphon.json.v1"), Some(Carrier::Binary));
        assert_eq!((of("antiphon.json.v1"), of("antiphon.json.v2")), (Some(Carrier::Json), None));
    }

    #[test]
    fn a_token_comes_after_its_scheme() {
        assert_eq!(bearer(&headers(&[(header::AUTHORIZATION, "Bearer a.b.c")])), Some("a.b.c"));
        assert_eq!(bearer(&headers(&[(header::AUTHORIZATION, "Basic a")])), None);
    }
}
