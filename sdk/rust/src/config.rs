//! How to reach a broker, whom to trust, and who one is.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use antiphon_protocol::DeviceId;
use antiphon_sdk_core::{OutboxLimits, Token};

#[cfg(feature = "test-hooks")]
use crate::MessageCodec;
use crate::{Endpoint, Error, Result, WebSocketUrl};

/// What carries the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Carrier {
    /// QUIC where it gets through, else the WebSocket of [`Config::fallback`], if there is one.
    #[default]
    Auto,
    /// QUIC only.
    Quic,
    /// The WebSocket of [`Config::fallback`] only.
    WebSocket,
}

/// Everything a [`Client`](crate::Client) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the broker listens (UDP).
    pub address: SocketAddr,
    /// Where other brokers of the same cluster listen. One of them may be the active one when this one is not, or is gone:
    /// after an attempt that led to nothing the next address is tried.
    pub alternatives: Vec<SocketAddr>,
    /// The name its certificate is for; sent to the broker, and checked unless the certificate is pinned.
    pub server_name: String,
    /// Which certificate to accept.
    pub trust: Trust,
    /// Who one is.
    pub token: TokenProvider,
    /// The installation or tab; a new connection of the same user and device replaces the older one.
    pub device: Option<DeviceId>,
    /// Name and version of the application, for the broker's logs.
    pub client_name: String,
    /// Get digests of every conversation of which the user is a member.
    pub follow_mine: bool,
    /// How long [`Client::connect`](crate::Client::connect) waits for the first session.
    pub connect_timeout: Duration,
    /// Bounds of what waits for an acknowledgement. When it is full a send fails at once.
    pub outbox: OutboxLimits,
    /// Items that one subscription holds before the client stops reading (at least 1).
    pub subscription_queue: usize,
    /// What carries the session.
    pub carrier: Carrier,
    /// The socket of a gateway, where QUIC does not get through. Its certificate is trusted as the broker's is, for the
    /// name in the URL.
    pub fallback: Option<WebSocketUrl>,
    /// How long QUIC may take to connect before the fallback is tried.
    pub fallback_after: Duration,
    /// How often QUIC is tried again while the fallback is in use. The client moves back once nothing is awaited.
    pub retry_quic_every: Duration,
    /// Writes the messages of the WebSocket in another form.
    #[cfg(feature = "test-hooks")]
    pub codec: Option<Arc<dyn MessageCodec>>,
    /// What QUIC connections are made with, and where they keep the tickets of their TLS sessions; None = what follows from
    /// `trust`, with tickets of the client's own.
    #[cfg(feature = "test-hooks")]
    pub quic: Option<quinn::ClientConfig>,
    /// The UDP socket to use; None = one of its own. Thousands of clients can share one.
    pub endpoint: Option<Endpoint>,
}

impl Config {
    /// The usual settings.
    pub fn new(
        address: SocketAddr,
        server_name: impl Into<String>,
        trust: Trust,
        token: impl Into<TokenProvider>,
    ) -> Self {
        Self {
            address,
            alternatives: Vec::new(),
            server_name: server_name.into(),
            trust,
            token: token.into(),
            device: None,
            client_name: concat!("antiphon-rust/", env!("CARGO_PKG_VERSION")).into(),
            follow_mine: false,
            connect_timeout: Duration::from_secs(15),
            outbox: OutboxLimits::default(),
            subscription_queue: 256,
            carrier: Carrier::Auto,
            fallback: None,
            fallback_after: Duration::from_secs(2),
            retry_quic_every: Duration::from_secs(30),
            #[cfg(feature = "test-hooks")]
            codec: None,
            #[cfg(feature = "test-hooks")]
            quic: None,
            endpoint: None,
        }
    }
}

/// Which server certificates are accepted.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Exactly the certificate whose DER has this SHA-256, whatever its name and dates.
    Fingerprint([u8; 32]),
    /// Certificates for `server_name` that lead to one of these roots, each in DER.
    Roots(Vec<Vec<u8>>),
}

impl Trust {
    /// Pins the certificate with this fingerprint: 64 hexadecimal digits, with or without colons.
    pub fn fingerprint(hex: &str) -> Result<Self> {
        let digits: Vec<u32> = hex.chars().filter(|c| *c != ':').filter_map(|c| c.to_digit(16)).collect();
        let malformed = || Error::Trust("a fingerprint has 64 hexadecimal digits".into());
        if digits.len() != 64 || hex.chars().any(|c| c != ':' && !c.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let bytes: Vec<u8> = digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect();
        Ok(Self::Fingerprint(bytes.try_into().map_err(|_| malformed())?))
    }

    /// The roots in a PEM file's content.
    pub fn pem(pem: &[u8]) -> Result<Self> {
        use rustls::pki_types::{CertificateDer, pem::PemObject};
        let roots: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let roots = roots.map_err(|error| Error::Trust(format!("the PEM text cannot be read: {error}")))?;
        if roots.is_empty() {
            return Err(Error::Trust("the PEM text holds no certificate".into()));
        }
        Ok(Self::Roots(roots.into_iter().map(|root| root.to_vec()).collect()))
    }
}

type TokenFuture = Pin<Box<dyn Future<Output = std::result::Result<Token, String>> + Send>>;

/// Where access tokens come from. Asked at the start, before a token ends, and when one was refused.
#[derive(Clone)]
pub struct TokenProvider(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenProvider {
    /// Always the same token. When the broker refuses it the client stops.
    pub fn fixed(token: impl Into<String>) -> Self {
        let token = Token::new(token);
        Self(Arc::new(move || {
            let token = token.clone();
            Box::pin(async move { Ok(token) })
        }))
    }

    /// Asks the application; an error is taken as temporary, and it is asked again later.
    pub fn callback<F, Fut, E>(provide: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self(Arc::new(move || {
            let token = provide();
            Box::pin(async move { token.await.map(Token::new).map_err(|error| error.to_string()) })
        }))
    }

    pub(crate) fn provide(&self) -> TokenFuture {
        (self.0)()
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider(..)")
    }
}

impl From<&str> for TokenProvider {
    fn from(token: &str) -> Self {
        Self::fixed(token)
    }
}

impl From<String> for TokenProvider {
    fn from(token: String) -> Self {
        Self::fixed(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_with_and_without_colons() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        for text in [plain, colons] {
            assert!(matches!(Trust::fingerprint(&text), Ok(Trust::Fingerprint(bytes)) if bytes == [0xab; 32]));
        }
        for text in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(Trust::fingerprint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let address = "127.0.0.1:1".parse().unwrap();
        let config = Config::new(address, "localhost", Trust::Fingerprint([0; 32]), "very-secret");
        assert!(!format!("{config:?}").contains("very-secret"));
        assert!(!format!("{:?}", Token::new("very-secret")).contains("very-secret"));
    }
}
