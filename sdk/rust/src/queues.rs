//! The queues of subscriptions: bounded, and what to do with what does not fit.

use std::collections::{BTreeMap, VecDeque};

use antiphon_sdk_core::{Item, SubscriptionId};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::waiters::AttachReply;

/// Cursors and signals of one subscription that wait for room; a newer one of the same user and kind takes the place of
/// the older, and of more than this the oldest is dropped.
const EPHEMERAL_MAX: usize = 64;

/// The bounded queue of one subscription, and what did not fit.
#[derive(Debug)]
struct Queue {
    items: mpsc::Sender<Item>,
    reply: Option<AttachReply>,
    spill: VecDeque<Item>,
    /// Cursors and signals for which there was no room, the newest of each kind and user.
    newest: VecDeque<Item>,
}

/// The queues of all subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<SubscriptionId, Queue>,
    /// Items kept aside that forbid reading more.
    spilled: usize,
    /// Cursors and signals kept aside, which do not.
    ephemeral: usize,
}

impl Queues {
    pub(crate) fn add(&mut self, id: SubscriptionId, items: mpsc::Sender<Item>, reply: AttachReply) {
        self.queues.insert(id, Queue::new(items, reply));
    }

    /// Hands an item over. What does not fit is kept aside; the driver reads no more events until it is gone, so that
    /// is bounded by what one chunk holds. False if the application has dropped the subscription.
    pub(crate) fn push(&mut self, id: SubscriptionId, item: Item) -> bool {
        let Some(queue) = self.queues.get_mut(&id) else { return true };
        let over = matches!(item, Item::Detached(_));
        let alive = match (queue.reply.take(), item) {
            (Some(reply), Item::Attached(attached)) => reply.send(Ok(attached)).is_ok(),
            (Some(reply), Item::Detached(reason)) => reply.send(Err(reason)).is_ok(),
            (reply, item) => {
                queue.reply = reply;
                queue.offer(item, &mut self.spilled, &mut self.ephemeral)
            }
        };
        if (over && queue.spill.is_empty()) || !alive {
            self.remove(id);
        }
        alive
    }

    /// Moves what was kept aside into the queues that have room again.
    pub(crate) fn flush(&mut self) {
        if !self.has_kept() {
            return;
        }
        let mut over = Vec::new();
        for (id, queue) in &mut self.queues {
            let (spilled, ephemeral) = (queue.spill.len(), queue.newest.len());
            let ended = queue.flush();
            self.spilled -= spilled - queue.spill.len();
            self.ephemeral -= ephemeral - queue.newest.len();
            if ended && queue.spill.is_empty() {
                over.push(*id);
            }
        }
        over.into_iter().for_each(|id| self.remove(id));
    }

    /// Whether something waits for room in a queue.
    pub(crate) fn has_kept(&self) -> bool {
        self.spilled > 0 || self.ephemeral > 0
    }

    /// Whether a full queue forbids reading more events.
    pub(crate) fn is_stalled(&self) -> bool {
        self.spilled > 0
    }

    /// Takes out the subscriptions that the application has dropped.
    pub(crate) fn take_dropped(&mut self) -> Vec<SubscriptionId> {
        let gone = |queue: &Queue| match &queue.reply {
            Some(reply) => reply.is_closed(),
            None => queue.items.is_closed(),
        };
        let dropped: Vec<_> = self.queues.iter().filter(|(_, queue)| gone(queue)).map(|(id, _)| *id).collect();
        dropped.iter().for_each(|id| self.remove(*id));
        dropped
    }

    fn remove(&mut self, id: SubscriptionId) {
        if let Some(queue) = self.queues.remove(&id) {
            self.spilled -= queue.spill.len();
            self.ephemeral -= queue.newest.len();
        }
    }
}

impl Queue {
    fn new(items: mpsc::Sender<Item>, reply: AttachReply) -> Self {
        Self { items, reply: Some(reply), spill: VecDeque::new(), newest: VecDeque::new() }
    }

    /// Hands an item over, or keeps it aside and counts it. False if nobody takes it any more.
    fn offer(&mut self, item: Item, spilled: &mut usize, ephemeral: &mut usize) -> bool {
        let is_ephemeral = matches!(item, Item::Cursor(_) | Item::Signal(_));
        let item = if self.spill.is_empty() && (!is_ephemeral || self.newest.is_empty()) {
            match self.items.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(item)) => item,
            }
        } else {
            item
        };
        if is_ephemeral {
            let before = self.newest.len();
            self.keep_newest(item);
            *ephemeral = *ephemeral + self.newest.len() - before;
        } else {
            self.spill.push_back(item);
            *spilled += 1;
        }
        true
    }

    /// Takes the place of what is of the same kind and user; of more than fits the oldest is dropped.
    fn keep_newest(&mut self, item: Item) {
        self.newest.retain(|kept| !replaces(&item, kept));
        if self.newest.len() >= EPHEMERAL_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(item);
    }

    /// True if the last item of the subscription has been handed over.
    fn flush(&mut self) -> bool {
        let mut ended = false;
        // Events first: what cursors and signals are about has been seen by then.
        while let Some(item) = self.spill.pop_front().or_else(|| self.newest.pop_front()) {
            let over = matches!(item, Item::Detached(_));
            match self.items.try_send(item) {
                Ok(()) => ended |= over,
                Err(TrySendError::Full(item)) => {
                    let back = if matches!(item, Item::Cursor(_) | Item::Signal(_)) {
                        &mut self.newest
                    } else {
                        &mut self.spill
                    };
                    back.push_front(item);
                    return ended;
                }
                Err(TrySendError::Closed(_)) => {
                    self.spill.clear();
                    self.newest.clear();
                }
            }
            if ended {
                self.newest.clear();
            }
        }
        ended
    }
}

/// Whether the newer item makes the older one void.
fn replaces(newer: &Item, older: &Item) -> bool {
    match (newer, older) {
        (Item::Cursor(newer), Item::Cursor(older)) => newer.user == older.user,
        (Item::Signal(newer), Item::Signal(older)) => newer.user == older.user && newer.kind == older.kind,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::Position;
    use antiphon_sdk_core::{Cursor, DetachReason, ResetReason, Signal};
    use tokio::sync::oneshot;

    use super::*;

    const ID: SubscriptionId = SubscriptionId(1);

    fn reset(seq: u64) -> Item {
        Item::Reset { reason: ResetReason::HistoryGone, after: Position { epoch: 1, seq } }
    }

    /// A queue for one item, of a subscription that has taken hold.
    fn queues() -> (Queues, mpsc::Receiver<Item>) {
        let mut queues = Queues::default();
        let (items, items_rx) = mpsc::channel(1);
        let (reply, _answer) = oneshot::channel();
        queues.add(ID, items, reply);
        if let Some(queue) = queues.queues.get_mut(&ID) {
            queue.reply = None;
        }
        (queues, items_rx)
    }

    #[test]
    fn what_does_not_fit_is_kept_in_order_and_stalls_the_reading() {
        let (mut queues, mut items) = queues();
        for seq in 1..=3 {
            assert!(queues.push(ID, reset(seq)));
        }
        assert!(queues.is_stalled());
        for seq in 1..=3 {
            assert_eq!(items.try_recv(), Ok(reset(seq)));
            queues.flush();
        }
        assert!(!queues.is_stalled());
    }

    fn signal(kind: &str, ttl_ms: u32) -> Item {
        Item::Signal(Signal { user: "bob".into(), kind: kind.into(), data: bytes::Bytes::new(), ttl_ms })
    }

    fn cursor(read: u64) -> Item {
        Item::Cursor(Cursor { user: "bob".into(), delivered: read, read, read_msgno: read })
    }

    #[test]
    fn of_cursors_and_signals_that_do_not_fit_the_newest_wait_and_hold_up_nobody() {
        let (mut queues, mut items) = queues();
        queues.push(ID, reset(1));
        for item in [cursor(1), signal("typing", 1), cursor(2), signal("typing", 2), cursor(3), signal("recording", 1)]
        {
            assert!(queues.push(ID, item));
        }
        assert!(queues.has_kept() && !queues.is_stalled());
        // What comes later does not overtake them, but what is not ephemeral goes first.
        queues.push(ID, reset(2));
        for expected in [reset(1), reset(2), signal("typing", 2), cursor(3), signal("recording", 1)] {
            assert_eq!(items.try_recv(), Ok(expected));
            queues.flush();
        }
        assert!(!queues.has_kept() && items.try_recv().is_err());
    }

    #[test]
    fn of_many_signals_that_do_not_fit_the_oldest_are_dropped() {
        let (mut queues, mut items) = queues();
        queues.push(ID, reset(1));
        for n in 0..EPHEMERAL_MAX + 2 {
            queues.push(ID, signal(&n.to_string(), 1));
        }
        assert_eq!(items.try_recv(), Ok(reset(1)));
        queues.flush();
        assert_eq!(items.try_recv(), Ok(signal("2", 1)));
        assert_eq!(queues.ephemeral, EPHEMERAL_MAX - 1);
    }

    #[test]
    fn nothing_comes_after_the_end_of_a_subscription() {
        let (mut queues, mut items) = queues();
        queues.push(ID, reset(1));
        queues.push(ID, cursor(1));
        queues.push(ID, Item::Detached(DetachReason::Unsubscribed));
        assert_eq!(items.try_recv(), Ok(reset(1)));
        queues.flush();
        assert_eq!(items.try_recv(), Ok(Item::Detached(DetachReason::Unsubscribed)));
        assert!(queues.queues.is_empty() && !queues.has_kept());
    }

    #[test]
    fn the_end_of_a_full_subscription_comes_last_and_frees_it() {
        let (mut queues, mut items) = queues();
        queues.push(ID, reset(1));
        queues.push(ID, Item::Detached(DetachReason::Unsubscribed));
        assert_eq!(items.try_recv(), Ok(reset(1)));
        queues.flush();
        assert_eq!(items.try_recv(), Ok(Item::Detached(DetachReason::Unsubscribed)));
        assert!(queues.queues.is_empty() && !queues.is_stalled());
    }

    #[test]
    fn a_dropped_subscription_no_longer_stalls() {
        let (mut queues, items) = queues();
        queues.push(ID, reset(1));
        queues.push(ID, reset(2));
        drop(items);
        assert_eq!(queues.take_dropped(), [ID]);
        assert!(!queues.is_stalled());
    }
}
