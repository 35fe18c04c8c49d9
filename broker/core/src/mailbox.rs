//! Messages on their way to one shard, in order, with a bound on live copies.
//!
//! Requests and answers always fit, because a request holds the slot of its answer and requests in flight are bounded.
//! Live copies do not: over the bound they become one LAGGED for their log, which its readers repair by subscribing
//! again. Nothing is dropped without that mark.

use std::collections::{BTreeSet, VecDeque};

use crate::{
    limits::DELIVERIES_PER_PEER_MAX,
    shard_message::{Operation, ShardMessage},
};

/// A bounded queue of messages.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    queue: VecDeque<ShardMessage>,
    deliveries: usize,
    /// Logs whose LAGGED is in the queue; their live copies are dropped until it has left.
    lagged: BTreeSet<u32>,
}

impl Mailbox {
    /// Adds a message at the end.
    pub(crate) fn push(&mut self, message: ShardMessage) {
        match &message {
            ShardMessage::Deliver { handle, .. } => {
                if self.lagged.contains(handle) {
                    return;
                }
                if self.deliveries >= DELIVERIES_PER_PEER_MAX {
                    self.lagged.insert(*handle);
                    self.queue.push_back(ShardMessage::Lagged { handle: *handle });
                    return;
                }
                self.deliveries += 1;
            }
            // State may be lost, and so may what becomes state; it has no place in a queue that is already long.
            message if is_state(message) && self.queue.len() >= DELIVERIES_PER_PEER_MAX => return,
            // Live copies behind a new subscription must not be lost to a mark in front of it.
            ShardMessage::Attached(attached) => {
                self.lagged.remove(&attached.handle);
            }
            _ => {}
        }
        self.queue.push_back(message);
    }

    /// Takes the oldest message.
    pub(crate) fn pop(&mut self) -> Option<ShardMessage> {
        let message = self.queue.pop_front()?;
        match &message {
            ShardMessage::Deliver { .. } => self.deliveries -= 1,
            ShardMessage::Lagged { handle } => {
                self.lagged.remove(handle);
            }
            _ => {}
        }
        Some(message)
    }

    /// Puts back the message that was taken last.
    pub(crate) fn unpop(&mut self, message: ShardMessage) {
        match &message {
            ShardMessage::Deliver { .. } => self.deliveries += 1,
            ShardMessage::Lagged { handle } => {
                self.lagged.insert(*handle);
            }
            _ => {}
        }
        self.queue.push_front(message);
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

fn is_state(message: &ShardMessage) -> bool {
    match message {
        ShardMessage::State { .. }
        | ShardMessage::Digest { .. }
        | ShardMessage::Digested { .. }
        | ShardMessage::PresenceTold { .. } => true,
        ShardMessage::Request(request) => matches!(request.operation, Operation::Signal(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        connection_id::ConnectionId,
        routing::ShardId,
        shard_message::{Attached, Origin, Slot},
    };

    fn deliver(handle: u32, seq: u64) -> ShardMessage {
        ShardMessage::Deliver { handle, seq, frame: Bytes::new() }
    }

    fn attached(handle: u32) -> ShardMessage {
        let connection = ConnectionId { slot: 0, generation: 0 };
        let origin = Origin { shard: ShardId(0), connection, request_id: 1, slot: Slot::Subscription };
        let key = antiphon_protocol::LogKey([0; 16]);
        ShardMessage::Attached(Box::new(Attached { origin, handle, key, live_from: 1, frames: vec![] }))
    }

    fn drain(mailbox: &mut Mailbox) -> Vec<String> {
        let name = |message| match message {
            ShardMessage::Deliver { handle, seq, .. } => format!("{handle}@{seq}"),
            ShardMessage::Lagged { handle } => format!("lagged {handle}"),
            ShardMessage::Attached(_) => "attached".into(),
            _ => "other".into(),
        };
        std::iter::from_fn(|| mailbox.pop()).map(name).collect()
    }

    #[test]
    fn live_copies_over_the_bound_become_one_mark_per_log() {
        let mut mailbox = Mailbox::default();
        for seq in 0..DELIVERIES_PER_PEER_MAX as u64 + 5 {
            mailbox.push(deliver(7, seq));
        }
        mailbox.push(deliver(8, 1));
        let names = drain(&mut mailbox);
        assert_eq!(names.len(), DELIVERIES_PER_PEER_MAX + 2);
        assert_eq!(names[DELIVERIES_PER_PEER_MAX..], ["lagged 7", "lagged 8"]);
        mailbox.push(deliver(7, 9_999));
        assert_eq!(drain(&mut mailbox), ["7@9999"], "after the mark has left, copies flow again");
    }

    #[test]
    fn copies_behind_a_new_subscription_are_not_lost_to_an_earlier_mark() {
        let mut mailbox = Mailbox::default();
        for seq in 0..=DELIVERIES_PER_PEER_MAX as u64 {
            mailbox.push(deliver(7, seq));
        }
        for _ in 0..2 {
            assert!(mailbox.pop().is_some());
        }
        mailbox.push(attached(7));
        mailbox.push(deliver(7, 10_000));
        let names = drain(&mut mailbox);
        assert_eq!(names[names.len() - 3..], ["lagged 7", "attached", "7@10000"]);
    }
}
