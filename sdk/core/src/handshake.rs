//! The frames that open, renew and end a session.

use antiphon_protocol::{FrameType, VERSION, control, frames};
use bytes::Bytes;
use uuid::Uuid;

use crate::{client::Config, input::Token};

/// The capability that `follow_mine` needs.
const FOLLOW: &str = "follow";
/// The capability that brings SEND_BATCH.
pub(crate) const BATCH: &str = "batch";

pub(crate) fn hello(
    config: &Config,
    sender_instance: Uuid,
    token: Option<&Token>,
    resume_token: &Bytes,
    attempt: u64,
) -> control::Hello {
    let mut capabilities = vec![BATCH.to_owned()];
    capabilities.extend(config.follow_mine.then(|| FOLLOW.to_owned()));
    control::Hello {
        versions: vec![VERSION],
        token: token.map_or("", |token| token.reveal()).to_owned(),
        device: config.device.as_ref().map_or("", |device| device.as_str()).to_owned(),
        sender_instance: Bytes::copy_from_slice(sender_instance.as_bytes()),
        resume_token: resume_token.clone(),
        follow_mine: config.follow_mine,
        capabilities,
        client: config.client_name.clone(),
        attempt,
        background: false,
    }
}

pub(crate) fn frame(id: u32, hello: &control::Hello) -> Bytes {
    frames::control(FrameType::Hello, id, hello)
}

pub(crate) fn auth(id: u32, auth: &control::Auth) -> Bytes {
    frames::control(FrameType::Auth, id, auth)
}

pub(crate) fn bye(id: u32) -> Bytes {
    frames::control(FrameType::Bye, id, &control::Bye {})
}
