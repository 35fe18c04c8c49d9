//! Where a gateway's socket is.

use std::{fmt, net::IpAddr, str::FromStr};

use thiserror::Error;
use tokio_tungstenite::tungstenite::http::Uri;

const PATH: &str = "/api/v1/socket";

/// URL of a gateway's WebSocket: `wss://HOST[:PORT][/PATH]`, or `ws://` on this machine. Without a path it is
/// `/api/v1/socket`. `https` and `http` mean the same, so that what a broker prints can be used as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketUrl {
    pub(crate) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    path: String,
}

/// Why a text is not the URL of a gateway's socket.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidUrl {
    /// It cannot be read, or has parts that it must not have.
    #[error("the URL of a gateway is wss://HOST[:PORT][/PATH], or ws:// on this machine")]
    Malformed,
    /// Anybody on the way could read tokens and messages.
    #[error("without TLS a gateway may only be on this machine, not on {host}: use wss://")]
    NotLoopback {
        /// Where it was to be.
        host: String,
    },
}

impl FromStr for WebSocketUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: Uri = text.parse().map_err(|_| InvalidUrl::Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("wss" | "https") => true,
            Some("ws" | "http") => false,
            _ => return Err(InvalidUrl::Malformed),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let host = authority.ok_or(InvalidUrl::Malformed)?.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(InvalidUrl::Malformed);
        }
        if !is_tls && !is_loopback(&host) {
            return Err(InvalidUrl::NotLoopback { host });
        }
        let path = match uri.path_and_query().map_or("", |path| path.as_str()) {
            "" | "/" => PATH,
            path => path,
        };
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host, port, path: path.to_owned() })
    }
}

/// What a name leads to is looked at once more when it is known.
fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or(host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

impl fmt::Display for WebSocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_tls, host, port, path } = self;
        let scheme = if *is_tls { "wss" } else { "ws" };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}{path}")
        } else {
            write!(f, "{scheme}://{host}:{port}{path}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_completed() {
        for (text, whole) in [
            ("http://127.0.0.1:7080", "ws://127.0.0.1:7080/api/v1/socket"),
            ("ws://[::1]:7080/", "ws://[::1]:7080/api/v1/socket"),
            ("ws://localhost/other?x=1", "ws://localhost:80/other?x=1"),
            ("wss://chat.example", "wss://chat.example:443/api/v1/socket"),
            ("https://10.0.0.1:8443/s", "wss://10.0.0.1:8443/s"),
        ] {
            assert_eq!(text.parse::<WebSocketUrl>().map(|url| url.to_string()), Ok(whole.to_owned()), "{text}");
        }
    }

    #[test]
    fn plain_sockets_stay_on_this_machine() {
        for host in ["chat.example", "10.0.0.1", "[2001:db8::1]", "localhost.example", "0.0.0.0"] {
            let refused = format!("ws://{host}:7080").parse::<WebSocketUrl>();
            assert_eq!(refused, Err(InvalidUrl::NotLoopback { host: host.trim_matches(['[', ']']).into() }));
        }
    }

    #[test]
    fn what_is_no_url_of_a_gateway_is_refused() {
        for text in ["", "127.0.0.1:7080", "ftp://localhost", "ws:///path", "wss://user:secret@chat.example", "/x"] {
            assert_eq!(text.parse::<WebSocketUrl>(), Err(InvalidUrl::Malformed), "{text}");
        }
    }
}
