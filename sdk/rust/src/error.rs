//! What the SDK's calls can answer instead of what was asked for.

use antiphon_sdk_core::{DetachReason, RequestError, SendError, StopReason};
use thiserror::Error;

use crate::InvalidUrl;

/// An error of a call; the client itself keeps working unless the variant says otherwise.
#[derive(Debug, Error)]
pub enum Error {
    /// The UDP socket cannot be made or moved.
    #[error("the local endpoint failed: {0}")]
    Endpoint(#[from] std::io::Error),
    /// The carrier is to be a WebSocket, and there is no URL of one.
    #[error("a WebSocket needs the URL of a gateway, in `fallback`")]
    NoFallback,
    /// The URL of the gateway cannot be used.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The trust settings cannot be used.
    #[error("the trust settings cannot be used: {0}")]
    Trust(String),
    /// No session within the time allowed. The client has been closed.
    #[error("no session within the time allowed: {cause}")]
    Unreachable {
        /// What happened last.
        cause: String,
    },
    /// The client has stopped for good.
    #[error("the client has stopped: {0}")]
    Stopped(StopReason),
    /// The message was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The request was not carried out.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The log cannot be followed.
    #[error("the log cannot be followed: {0:?}")]
    Subscribe(DetachReason),
}

/// What the SDK's calls answer.
pub type Result<T> = std::result::Result<T, Error>;
