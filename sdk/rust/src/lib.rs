//! The Rust SDK of Antiphon: `sdk/core` on QUIC, or on WebSocket where UDP does not get through, and Tokio.
//!
//! ```no_run
//! use antiphon_sdk::{Client, Config, From, Item, Trust};
//!
//! # async fn chat() -> Result<(), Box<dyn std::error::Error>> {
//! let trust = Trust::pem(&std::fs::read("ca.pem")?)?;
//! let config = Config::new("127.0.0.1:7400".parse()?, "localhost", trust, std::env::var("TOKEN")?);
//! let client = Client::connect(config).await?;
//!
//! let lobby = "c:lobby".parse()?;
//! let mut events = client.subscribe(&lobby, From::Last(20)).await?;
//! let sent = client.send(&lobby, "hello").await?;
//! println!("stored at {}", sent.position);
//!
//! while let Some(item) = events.next().await {
//!     if let Item::Event(event) = item {
//!         println!("{}: {}", event.sender(), event.text().unwrap_or_default());
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! One task (`driver`) owns the sans-IO client and performs what it asks for; a [`Client`] is a cheap handle to it.
//! The client reconnects by itself, resumes every subscription after the last event it handed out, and sends again
//! what was not acknowledged, so that each message is stored once and each event is seen once. With
//! [`Config::fallback`] it takes a WebSocket when QUIC does not answer, and goes back to QUIC when that does.

mod call;
mod client;
mod config;
mod driver;
mod endpoint;
mod error;
mod queued;
mod queues;
mod requests;
mod subscription;
mod tls;
mod transport;
mod url;
mod waiters;

pub use antiphon_protocol::{
    Action, Attachment, ContentType, ConversationId, DeviceId, Envelope, ErrorCode, EventKind, EventRef, FrameType,
    InvalidId, LogName, NewEnvelope, Position, Property, UserId,
};
pub use antiphon_sdk_core::{
    Answer, Attached, ConnectionState, Conversation, ConversationChange, ConversationChanges, ConversationKind, Cursor,
    DetachReason, Digest, Direction, Event, From, History, InboxEntry, InboxPage, Item, JoinPolicy, LastMessage, Mark,
    Member, MemberChange, Message, Messages, NewConversation, NewMessage, Notice, OutboxLimits, Outcome, Overview,
    Page, Preferences, Presence, PresenceStatus, Range, Receipt as Sent, Refusal, RemovalReason, RequestError,
    ResetReason, Role, SendError, SendState, Session, Signal, StopReason,
};

pub use client::Client;
pub use config::{Carrier, Config, TokenProvider, Trust};
pub use endpoint::Endpoint;
pub use error::{Error, Result};
pub use queued::Queued;
pub use requests::Presences;
pub use subscription::Subscription;
#[cfg(feature = "test-hooks")]
pub use transport::MessageCodec;
pub use url::{InvalidUrl, WebSocketUrl};

/// The QUIC settings of a client, for load generators that speak the protocol without one.
#[cfg(feature = "test-hooks")]
pub fn quic_config(trust: &Trust) -> Result<quinn::ClientConfig> {
    tls::quic_config(trust, |_| {})
}

/// The same with changes to its TLS.
#[cfg(feature = "test-hooks")]
pub fn quic_config_with(trust: &Trust, adjust: impl FnOnce(&mut rustls::ClientConfig)) -> Result<quinn::ClientConfig> {
    tls::quic_config(trust, adjust)
}

/// Accepts exactly the certificate with this SHA-256, for load generators that look at handshakes, too.
#[cfg(feature = "test-hooks")]
pub fn pinned_certificate(sha256: [u8; 32]) -> std::sync::Arc<dyn rustls::client::danger::ServerCertVerifier> {
    tls::pinned_certificate(sha256)
}
