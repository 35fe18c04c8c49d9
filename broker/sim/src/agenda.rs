//! What happens when: a queue in the order of virtual time, and of insertion at the same moment.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::clock::Moment;

/// Things that are going to happen. Bounded by what the parts of the world have under way.
#[derive(Debug)]
pub(crate) struct Agenda<T> {
    queue: BinaryHeap<Entry<T>>,
    inserted: u64,
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { queue: BinaryHeap::new(), inserted: 0 }
    }
}

impl<T> Agenda<T> {
    /// Lets `what` happen at `when`.
    pub(crate) fn add(&mut self, when: Moment, what: T) {
        self.inserted += 1;
        self.queue.push(Entry { when, order: self.inserted, what });
    }

    /// When the next thing happens.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.queue.peek().map(|entry| entry.when)
    }

    /// Takes out the next thing if it happens at `now` or earlier.
    pub(crate) fn take(&mut self, now: Moment) -> Option<T> {
        self.queue.peek().filter(|entry| entry.when <= now)?;
        self.queue.pop().map(|entry| entry.what)
    }
}

#[derive(Debug)]
struct Entry<T> {
    when: Moment,
    order: u64,
    what: T,
}

impl<T> Entry<T> {
    fn key(&self) -> (Moment, u64) {
        (self.when, self.order)
    }
}

impl<T> Ord for Entry<T> {
    // Reversed: the heap gives the greatest first, the agenda the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_order_of_time_then_of_insertion() {
        let mut agenda = Agenda::default();
        for (when, what) in [(5, "c"), (1, "a"), (5, "d"), (2, "b"), (9, "late")] {
            agenda.add(Moment(when), what);
        }
        assert_eq!(agenda.next(), Some(Moment(1)));
        let happened: Vec<_> = std::iter::from_fn(|| agenda.take(Moment(5))).collect();
        assert_eq!(happened, ["a", "b", "c", "d"]);
        assert_eq!(agenda.next(), Some(Moment(9)));
    }
}
