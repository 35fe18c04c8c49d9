//! A log being followed.

use std::sync::Arc;

use antiphon_protocol::{LogName, Position};
use antiphon_sdk_core::{Attached, Item};
use tokio::sync::mpsc;

use crate::client::Shared;

/// The events of one log, each exactly once and in order, across reconnects. Dropping it ends the subscription.
///
/// Its queue is bounded. When an application does not read it and it is full, the client stops reading events of
/// *every* log of its connection until there is room again; acknowledgements and answers still come. The broker then
/// stops pushing, and the client pulls what it has missed. Cursors and signals that find the queue full hold up nobody:
/// the newest of each user and kind wait for room, at most 64.
#[derive(Debug)]
pub struct Subscription {
    log: LogName,
    attached: Attached,
    position: Position,
    items: mpsc::Receiver<Item>,
    // Keeps the client alive, and is how a subscription tells that it has read or was dropped.
    shared: Arc<Shared>,
}

impl Subscription {
    pub(crate) fn new(log: LogName, attached: Attached, items: mpsc::Receiver<Item>, shared: Arc<Shared>) -> Self {
        Self { log, position: attached.after, attached, items, shared }
    }

    /// The next item; None once the subscription is over, after its [`Item::Detached`].
    ///
    /// Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Item> {
        let item = self.items.recv().await;
        self.took(item.as_ref());
        item
    }

    /// The next item, if there is one already.
    pub fn try_next(&mut self) -> Option<Item> {
        let item = self.items.try_recv().ok();
        self.took(item.as_ref());
        item
    }

    fn took(&mut self, item: Option<&Item>) {
        match item {
            Some(Item::Event(event)) => self.position = event.position(),
            Some(Item::Skipped { last, .. }) => self.position = *last,
            Some(Item::Reset { after, .. }) => self.position = *after,
            _ => {}
        }
        self.shared.attention.subscription_read();
    }

    /// The log.
    pub fn log(&self) -> &LogName {
        &self.log
    }

    /// State of the log when the subscription first took hold.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// The last position that [`next`](Self::next) gave out: where to resume in a later process.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.items.close();
        self.shared.attention.subscription_dropped();
    }
}
