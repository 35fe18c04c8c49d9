//! Keeps the sends of one connection to one log in their order, by `dseq`.
//!
//! It never decides that something is a duplicate. The first send of a connection is its base, because a client
//! repeats its unacknowledged sends, in order, after it has reconnected.

use std::collections::{BTreeMap, VecDeque};

use crate::{connection_id::ConnectionId, limits::SEND_ORDERS_PER_LOG_MAX, routing::ShardId, seldom::Empty};

/// One connection of the broker.
pub(super) type Sender = (ShardId, ConnectionId);

/// The next `dseq` of each connection.
#[derive(Debug, Default)]
pub(super) struct SendOrder {
    next: BTreeMap<Sender, u64>,
    by_age: VecDeque<Sender>,
}

impl Empty for SendOrder {
    fn empty() -> &'static Self {
        static EMPTY: SendOrder = SendOrder { next: BTreeMap::new(), by_age: VecDeque::new() };
        &EMPTY
    }
}

impl SendOrder {
    /// Whether a send with this `dseq` may go on: it leaves no hole. 0 is unordered.
    pub(super) fn admits(&self, sender: Sender, dseq: u64) -> bool {
        dseq == 0 || self.next.get(&sender).is_none_or(|next| dseq <= *next)
    }

    /// The send was carried out or refused for good.
    pub(super) fn consume(&mut self, sender: Sender, dseq: u64) {
        if dseq != 0 {
            let next = dseq.saturating_add(1);
            self.set(sender, |expected| expected.map_or(next, |expected| expected.max(next)));
        }
    }

    /// The send was refused, for now or for good.
    pub(super) fn refused(&mut self, sender: Sender, dseq: u64, is_transient: bool) {
        if is_transient { self.expect(sender, dseq) } else { self.consume(sender, dseq) }
    }

    /// The send was refused for now: later ones are refused until it is repeated.
    fn expect(&mut self, sender: Sender, dseq: u64) {
        if dseq != 0 {
            self.set(sender, |expected| expected.map_or(dseq, |expected| expected.min(dseq)));
        }
    }

    fn set(&mut self, sender: Sender, next: impl FnOnce(Option<u64>) -> u64) {
        if let Some(expected) = self.next.get_mut(&sender) {
            *expected = next(Some(*expected));
            return;
        }
        if self.by_age.len() >= SEND_ORDERS_PER_LOG_MAX
            && let Some(oldest) = self.by_age.pop_front()
        {
            self.next.remove(&oldest);
        }
        self.next.insert(sender, next(None));
        self.by_age.push_back(sender);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHONE: Sender = (ShardId(0), ConnectionId { slot: 1, generation: 0 });

    #[test]
    fn the_first_send_is_the_base_and_a_hole_is_refused() {
        let mut order = SendOrder::default();
        assert!(order.admits(PHONE, 7));
        order.consume(PHONE, 7);
        assert!(order.admits(PHONE, 8));
        assert!(!order.admits(PHONE, 9));
        assert!(order.admits(PHONE, 7), "a repetition is for the duplicate index to judge");
        assert!(order.admits(PHONE, 0), "unordered sends are never held up");
    }

    #[test]
    fn after_a_refusal_for_now_later_sends_wait_for_it() {
        let mut order = SendOrder::default();
        order.consume(PHONE, 1);
        order.consume(PHONE, 2);
        order.expect(PHONE, 2);
        assert!(!order.admits(PHONE, 3));
        assert!(order.admits(PHONE, 2));
    }

    #[test]
    fn memory_is_bounded_and_a_forgotten_connection_begins_anew() {
        let mut order = SendOrder::default();
        for slot in 0..=SEND_ORDERS_PER_LOG_MAX as u32 {
            order.consume((ShardId(0), ConnectionId { slot, generation: 0 }), 1);
        }
        assert_eq!(order.next.len(), SEND_ORDERS_PER_LOG_MAX);
        assert!(order.admits((ShardId(0), ConnectionId { slot: 0, generation: 0 }), 50));
    }
}
