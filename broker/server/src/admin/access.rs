//! Who may use the routes that change something or tell more than numbers.

use std::net::{IpAddr, SocketAddr};

use antiphon_core::claims::Scope;
use antiphon_protocol::{ErrorCode, TenantId};
use hyper::{
    HeaderMap, Request,
    header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN},
    http::uri::{Authority, Uri},
};

use super::{Admin, response::Refusal};

/// Only this machine, and no web page that made its own name point here (DNS rebinding): the peer, the Host and the
/// Origin, if there is one, must all be loopback.
pub(super) fn require_loopback<B>(peer: SocketAddr, request: &Request<B>) -> Result<(), Refusal> {
    let refuse = |what| Err(Refusal::new(ErrorCode::Forbidden, what));
    if !peer.ip().to_canonical().is_loopback() {
        return refuse("this route answers only this machine");
    }
    let host = only(request.headers(), HOST.as_str()).and_then(|host| host.to_str().ok());
    let hosts = [host.and_then(|host| host.parse().ok()), request.uri().authority().cloned()];
    if hosts[0].is_none() || !hosts.iter().flatten().all(is_loopback) {
        return refuse("this route answers only to localhost, 127.0.0.1 or [::1] as its Host");
    }
    let origin_is_foreign = |origin: &HeaderValue| {
        let authority = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok()?.into_parts().authority);
        !authority.is_some_and(|authority| is_loopback(&authority))
    };
    if request.headers().get_all(ORIGIN).iter().any(origin_is_foreign) {
        return refuse("this route answers no page from elsewhere");
    }
    Ok(())
}

/// Who shows a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bearer {
    /// Whoever can read the data directory.
    Operator,
    /// Whom an issuer trusts with one tenant.
    Issued(TenantId),
}

/// The bearer must hold one of these scopes: with the data directory's own token, which has all, or an issuer's.
pub(super) fn require(
    admin: &Admin,
    headers: &HeaderMap,
    now_unix_ms: u64,
    one_of: &[Scope],
) -> Result<Bearer, Refusal> {
    let bearer = only(headers, AUTHORIZATION.as_str()).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then_some(token.trim_matches(' '))
    });
    let missing = || Refusal::new(ErrorCode::TokenInvalid, "expected the header Authorization: Bearer <token>");
    let token = bearer.ok_or_else(missing)?;
    if admin.token.is(token) {
        return Ok(Bearer::Operator);
    }
    let verifier = admin.verifier.borrow().clone();
    let claims = verifier.verify(token, now_unix_ms).map_err(|error| Refusal {
        reason: Some(error.code()),
        ..Refusal::new(error.error_code(), error.to_string())
    })?;
    if one_of.iter().any(|scope| claims.scopes.contains(*scope)) {
        return Ok(Bearer::Issued(claims.tenant));
    }
    let lacking = one_of.first().map_or("", |scope| scope.word());
    Err(Refusal::new(ErrorCode::Forbidden, format!("the token lacks the scope {lacking}")))
}

/// A header's value if it is there exactly once: two would let two readers see two values.
fn only<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn is_loopback(authority: &Authority) -> bool {
    // `user@localhost` names a host for some readers and not for others.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(peer: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri("/dev/token");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        require_loopback(peer.parse().unwrap(), &request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn loopback_peers_and_hosts_pass() {
        for host in ["localhost", "localhost:7001", "LOCALHOST:1", "127.0.0.1:7001", "127.9.9.9", "[::1]:7001", "[::1]"]
        {
            assert!(allowed("127.0.0.1:9", &[("host", host)]), "{host}");
            assert!(allowed("[::1]:9", &[("host", host)]), "{host}");
            assert!(allowed("[::ffff:127.0.0.1]:9", &[("host", host)]), "{host}");
        }
        assert!(allowed("127.0.0.1:9", &[("host", "localhost"), ("origin", "http://localhost:5173")]));
    }

    #[test]
    fn other_peers_hosts_and_origins_do_not() {
        assert!(!allowed("10.0.0.1:9", &[("host", "localhost")]));
        assert!(!allowed("[::ffff:10.0.0.1]:9", &[("host", "localhost")]));
        assert!(!allowed("127.0.0.1:9", &[]));
        assert!(!allowed("127.0.0.1:9", &[("host", "localhost"), ("host", "evil.example")]));
        for host in [
            "evil.example",
            "evil.example:7001",
            "localhost.evil.example",
            "evil@localhost",
            "localhost@evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0:7001",
            "[::]:7001",
            "10.0.0.1",
            "",
            "localhost.",
            "localhost:7001/x",
        ] {
            assert!(!allowed("127.0.0.1:9", &[("host", host)]), "{host:?}");
        }
        for origin in ["https://evil.example", "null", "", "localhost.evil.example", "http://localhost@evil.example"] {
            assert!(!allowed("127.0.0.1:9", &[("host", "localhost"), ("origin", origin)]), "{origin:?}");
        }
    }

    #[test]
    fn an_absolute_target_cannot_hide_another_host() {
        let request = |uri: &str| Request::builder().uri(uri).header("host", "localhost").body(()).unwrap();
        let peer = "127.0.0.1:9".parse().unwrap();
        assert!(require_loopback(peer, &request("http://localhost:7001/dev/token")).is_ok());
        assert!(require_loopback(peer, &request("http://evil.example/dev/token")).is_err());
    }
}
