//! A message on its way, as applications follow it.

use antiphon_sdk_core::{Receipt, SendError, SendState};
use tokio::sync::watch;

use crate::{Client, Result};

/// What has become of a message. Newer states take the place of older ones, but where it was stored stays known.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    pub(crate) state: SendState,
    pub(crate) sent: Option<Receipt>,
}

impl Default for Fate {
    fn default() -> Self {
        Self { state: SendState::Queued, sent: None }
    }
}

impl Fate {
    /// Goes on to the next state.
    pub(crate) fn enter(&mut self, state: SendState) {
        if let SendState::Sent(receipt) = &state {
            self.sent = Some(*receipt);
        }
        self.state = state;
    }
}

/// A message in the outbox. Dropping this does not take the message back.
///
/// It is followed until it has failed or somebody has read it, or until 256 later messages are durable.
#[derive(Debug, Clone)]
pub struct Queued {
    fate: watch::Receiver<Fate>,
    client: Client,
}

impl Queued {
    pub(crate) fn new(fate: watch::Receiver<Fate>, client: Client) -> Self {
        Self { fate, client }
    }

    /// Where the message stands.
    pub fn state(&self) -> SendState {
        self.fate.borrow().state.clone()
    }

    /// Waits for the next state; None when there will be no other. States that follow one another quickly are skipped
    /// but for the newest.
    pub async fn changed(&mut self) -> Option<SendState> {
        self.fate.changed().await.ok()?;
        Some(self.fate.borrow_and_update().state.clone())
    }

    /// Waits until the message is durable, whatever else has become of it since.
    pub async fn sent(&mut self) -> Result<Receipt> {
        let decided = |fate: &Fate| fate.sent.is_some() || matches!(fate.state, SendState::Failed(_));
        match self.fate.wait_for(decided).await.as_deref() {
            Ok(Fate { sent: Some(receipt), .. }) => Ok(*receipt),
            Ok(Fate { state: SendState::Failed(error), .. }) => Err(error.clone().into()),
            _ => Err(SendError::Stopped(self.client.stop_reason()).into()),
        }
    }
}
