//! Who waits for what: the calls that the client's outputs answer, and the queues of subscriptions.

use std::collections::{BTreeMap, VecDeque};

use antiphon_sdk_core::{
    Answer, Attached, CommandId, DetachReason, Item, Messages, Page, Receipt, RequestError, SendError, SendState,
    SubscriptionId,
};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};

use crate::queued::Fate;

/// Sent messages whose receipts are still told; the oldest is forgotten.
const RECEIPTS_MAX: usize = 256;

pub(crate) type SendReply = oneshot::Sender<Result<Receipt, SendError>>;
pub(crate) type PageReply = oneshot::Sender<Result<Page, RequestError>>;
pub(crate) type MessagesReply = oneshot::Sender<Result<Messages, RequestError>>;
pub(crate) type AnswerReply = oneshot::Sender<Result<Answer, RequestError>>;
pub(crate) type DoneReply = oneshot::Sender<Result<(), RequestError>>;
pub(crate) type AttachReply = oneshot::Sender<Result<Attached, DetachReason>>;

/// One map per kind of call. A caller that has gone away is noticed when its answer comes.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) sends: BTreeMap<CommandId, SendReply>,
    pub(crate) followers: BTreeMap<CommandId, watch::Sender<Fate>>,
    sent: VecDeque<CommandId>,
    pub(crate) pages: BTreeMap<CommandId, PageReply>,
    pub(crate) messages: BTreeMap<CommandId, MessagesReply>,
    pub(crate) answers: BTreeMap<CommandId, AnswerReply>,
    pub(crate) done: BTreeMap<CommandId, DoneReply>,
}

impl Waiters {
    pub(crate) fn send_state(&mut self, id: CommandId, state: SendState) {
        if self.followers.contains_key(&id) {
            return self.followed_state(id, state);
        }
        let result = match state {
            SendState::Sent(receipt) => Ok(receipt),
            SendState::Failed(error) => Err(error),
            _ => return,
        };
        if let Some(reply) = self.sends.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    fn followed_state(&mut self, id: CommandId, state: SendState) {
        let ended = matches!(state, SendState::Failed(_) | SendState::Read);
        if matches!(state, SendState::Sent(_)) {
            self.sent.push_back(id);
            if self.sent.len() > RECEIPTS_MAX
                && let Some(oldest) = self.sent.pop_front()
            {
                self.followers.remove(&oldest);
            }
        }
        if let Some(follower) = self.followers.get(&id) {
            follower.send_modify(|fate| fate.enter(state));
        }
        if ended {
            self.followers.remove(&id);
            self.sent.retain(|sent| *sent != id);
        }
    }

    pub(crate) fn page(&mut self, id: CommandId, result: Result<Page, RequestError>) {
        if let Some(reply) = self.pages.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn messages(&mut self, id: CommandId, result: Result<Messages, RequestError>) {
        if let Some(reply) = self.messages.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn answer(&mut self, id: CommandId, result: Result<Answer, RequestError>) {
        if let Some(reply) = self.answers.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn done(&mut self, id: CommandId, result: Result<(), RequestError>) {
        if let Some(reply) = self.done.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }
}

/// The bounded queue of one subscription, and what did not fit.
#[derive(Debug)]
struct Queue {
    items: mpsc::Sender<Item>,
    reply: Option<AttachReply>,
    spill: VecDeque<Item>,
}

/// The queues of all subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<SubscriptionId, Queue>,
    spilled: usize,
}

impl Queues {
    pub(crate) fn add(&mut self, id: SubscriptionId, items: mpsc::Sender<Item>, reply: AttachReply) {
        self.queues.insert(id, Queue { items, reply: Some(reply), spill: VecDeque::new() });
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
                queue.offer(item, &mut self.spilled)
            }
        };
        if (over && queue.spill.is_empty()) || !alive {
            self.remove(id);
        }
        alive
    }

    /// Moves what was kept aside into the queues that have room again.
    pub(crate) fn flush(&mut self) {
        if self.spilled == 0 {
            return;
        }
        let mut over = Vec::new();
        for (id, queue) in &mut self.queues {
            let before = queue.spill.len();
            let ended = queue.flush();
            self.spilled -= before - queue.spill.len();
            if ended && queue.spill.is_empty() {
                over.push(*id);
            }
        }
        over.into_iter().for_each(|id| self.remove(id));
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
        }
    }
}

impl Queue {
    fn offer(&mut self, item: Item, spilled: &mut usize) -> bool {
        let item = if self.spill.is_empty() {
            match self.items.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Closed(_)) => return false,
                Err(TrySendError::Full(item)) => item,
            }
        } else {
            item
        };
        // Newest wins for these: one that finds the queue full is not worth stopping for.
        if !matches!(item, Item::Cursor(_) | Item::Signal(_)) {
            self.spill.push_back(item);
            *spilled += 1;
        }
        true
    }

    /// True if the last item of the subscription has been handed over.
    fn flush(&mut self) -> bool {
        while let Some(item) = self.spill.pop_front() {
            let over = matches!(item, Item::Detached(_));
            match self.items.try_send(item) {
                Ok(()) if over => return true,
                Ok(()) => {}
                Err(TrySendError::Full(item)) => {
                    self.spill.push_front(item);
                    return false;
                }
                Err(TrySendError::Closed(_)) => {
                    self.spill.clear();
                    return false;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::Position;
    use antiphon_sdk_core::{ResetReason, Signal};

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

    #[test]
    fn a_signal_that_does_not_fit_is_dropped() {
        let (mut queues, mut items) = queues();
        queues.push(ID, reset(1));
        let signal = Signal { user: "bob".into(), kind: "typing".into(), data: bytes::Bytes::new(), ttl_ms: 1 };
        assert!(queues.push(ID, Item::Signal(signal)));
        assert!(!queues.is_stalled());
        assert_eq!(items.try_recv(), Ok(reset(1)));
        assert!(items.try_recv().is_err());
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
