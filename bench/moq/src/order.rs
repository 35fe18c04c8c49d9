//! A follower's messages in their order: each comes in a stream of its own, so that one may overtake another.

use std::collections::BTreeMap;

use thiserror::Error;

/// The first bytes of a message are its number in its room, from 1.
pub(crate) const NUMBER_BYTES: usize = size_of::<u64>();
/// Messages that may wait for an earlier one.
const HELD_MAX: usize = 10_000;

/// What must not come.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum OutOfOrder {
    /// A message has no number.
    #[error("a message of {0} bytes has no number")]
    NoNumber(usize),
    /// The group that a message came in belongs to another number.
    #[error("message {number} came in group {group}")]
    Misplaced {
        /// Of the message.
        number: u64,
        /// Counted from 0.
        group: u64,
    },
    /// A message came that had come before.
    #[error("message {0} came twice")]
    Twice(u64),
    /// One is missing, or so late that the others cannot wait for it.
    #[error("message {0} is missing, and {HELD_MAX} later ones wait for it")]
    Missing(u64),
}

/// What came early, and which number is next.
#[derive(Debug)]
pub(crate) struct Order<T> {
    next: u64,
    held: BTreeMap<u64, T>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { next: 1, held: BTreeMap::new() }
    }
}

impl<T> Order<T> {
    /// Takes in message `number`; what is then in its order is given out by [`Order::pop`].
    pub(crate) fn push(&mut self, number: u64, message: T) -> Result<(), OutOfOrder> {
        if number < self.next || self.held.contains_key(&number) {
            return Err(OutOfOrder::Twice(number));
        }
        if self.held.len() == HELD_MAX {
            return Err(OutOfOrder::Missing(self.next));
        }
        self.held.insert(number, message);
        Ok(())
    }

    /// The next message, if it is here.
    pub(crate) fn pop(&mut self) -> Option<(u64, T)> {
        let message = self.held.remove(&self.next)?;
        self.next += 1;
        Some((self.next - 1, message))
    }
}

/// The number of a message that came in group `group`, the first of which is 0.
pub(crate) fn number(message: &[u8], group: u64) -> Result<u64, OutOfOrder> {
    let number = message.first_chunk::<NUMBER_BYTES>().copied().map(u64::from_be_bytes);
    let number = number.ok_or(OutOfOrder::NoNumber(message.len()))?;
    if number.checked_sub(1) == Some(group) { Ok(number) } else { Err(OutOfOrder::Misplaced { number, group }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(order: &mut Order<char>) -> Vec<(u64, char)> {
        std::iter::from_fn(|| order.pop()).collect()
    }

    #[test]
    fn what_comes_early_waits() {
        let mut order = Order::default();
        order.push(2, 'b').unwrap();
        assert!(popped(&mut order).is_empty());
        order.push(1, 'a').unwrap();
        assert_eq!(popped(&mut order), [(1, 'a'), (2, 'b')]);
        order.push(3, 'c').unwrap();
        assert_eq!(popped(&mut order), [(3, 'c')]);
    }

    #[test]
    fn nothing_comes_twice() {
        let mut order = Order::default();
        order.push(2, 'b').unwrap();
        assert_eq!(order.push(2, 'b'), Err(OutOfOrder::Twice(2)));
        order.push(1, 'a').unwrap();
        popped(&mut order);
        assert_eq!(order.push(1, 'a'), Err(OutOfOrder::Twice(1)));
        assert_eq!(order.push(0, '0'), Err(OutOfOrder::Twice(0)));
    }

    #[test]
    fn a_missing_message_is_not_waited_for_without_end() {
        let mut order = Order::default();
        for number in 2..2 + HELD_MAX as u64 {
            order.push(number, 'x').unwrap();
        }
        assert_eq!(order.push(u64::MAX, 'x'), Err(OutOfOrder::Missing(1)));
    }

    #[test]
    fn a_message_has_the_number_of_its_group() {
        let message = [&7_u64.to_be_bytes()[..], b"xx"].concat();
        assert_eq!(number(&message, 6), Ok(7));
        assert_eq!(number(&message, 7), Err(OutOfOrder::Misplaced { number: 7, group: 7 }));
        assert_eq!(number(&[0; 8], 0), Err(OutOfOrder::Misplaced { number: 0, group: 0 }));
        assert_eq!(number(b"short", 0), Err(OutOfOrder::NoNumber(5)));
    }
}
