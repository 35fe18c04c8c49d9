//! One reader's stream of one log: contiguous from its start, or explicit about what is missing.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// How a piece of a stream fits to what came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It continues the stream; positions before it may be missing, which only the end can tell.
    Ahead,
    /// It was missing and comes after later ones.
    Late,
    /// The reader had it already.
    Repeated,
}

/// What a reader has. Memory grows with gaps, not with deliveries.
#[derive(Debug)]
pub(crate) struct Stream {
    next: u64,
    /// First to last position of each gap.
    missed: BTreeMap<u64, u64>,
    settled: bool,
}

impl Stream {
    /// A stream whose first position is `next`.
    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next, missed: BTreeMap::new(), settled: false }
    }

    /// Takes the positions of `range`, which is not empty.
    pub(crate) fn arrive(&mut self, range: RangeInclusive<u64>) -> Arrival {
        let (from, to) = range.into_inner();
        if to >= self.next {
            if from > self.next {
                self.missed.insert(self.next, from - 1);
            }
            self.next = to + 1;
            return Arrival::Ahead;
        }
        if self.fill(from, to) { Arrival::Late } else { Arrival::Repeated }
    }

    /// The reader was told that it cannot have what lies before `next`.
    pub(crate) fn reset(&mut self, next: u64) {
        self.next = next;
    }

    /// The reader waited until nothing more came.
    pub(crate) fn settle(&mut self) {
        self.settled = true;
    }

    /// What the reader never got: its gaps, and once it is settled what lies between its end and `head`.
    pub(crate) fn missing(&self, head: u64) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        let tail = (self.settled && self.next <= head).then_some(self.next..=head);
        self.missed.iter().map(|(&from, &to)| from..=to).chain(tail)
    }

    /// Removes `from..=to` from the one gap that touches it; false if none does.
    fn fill(&mut self, from: u64, to: u64) -> bool {
        let Some((&start, &end)) = self.missed.range(..=to).next_back().filter(|&(_, &end)| end >= from) else {
            return false;
        };
        self.missed.remove(&start);
        if start < from {
            self.missed.insert(start, from - 1);
        }
        if to < end {
            self.missed.insert(to + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(stream: &Stream, head: u64) -> Vec<RangeInclusive<u64>> {
        stream.missing(head).collect()
    }

    #[test]
    fn contiguous_positions_leave_nothing_missing() {
        let mut stream = Stream::starting_at(4);
        for seq in 4..10 {
            assert_eq!(stream.arrive(seq..=seq), Arrival::Ahead);
        }
        stream.settle();
        assert_eq!(missing(&stream, 9), []);
        assert_eq!(missing(&stream, 11), [10..=11]);
    }

    #[test]
    fn a_late_position_fills_its_gap_once() {
        let mut stream = Stream::starting_at(1);
        assert_eq!(stream.arrive(6..=6), Arrival::Ahead);
        assert_eq!(missing(&stream, 6), [1..=5]);
        assert_eq!(stream.arrive(3..=3), Arrival::Late);
        assert_eq!(stream.arrive(3..=3), Arrival::Repeated);
        assert_eq!(missing(&stream, 6), [1..=2, 4..=5]);
    }

    #[test]
    fn an_unsettled_reader_owes_no_tail() {
        let stream = Stream::starting_at(1);
        assert_eq!(missing(&stream, 5), []);
    }

    #[test]
    fn a_reset_moves_the_start() {
        let mut stream = Stream::starting_at(1);
        stream.reset(8);
        assert_eq!(stream.arrive(8..=8), Arrival::Ahead);
        assert_eq!(missing(&stream, 8), []);
    }
}
