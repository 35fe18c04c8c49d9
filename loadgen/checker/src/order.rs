//! Does an order agree with time? One sweep over intervals, O(n log n).

use crate::event::At;

/// Something that took effect at one instant between `start` and `end` (both may be infinite), and its place in the
/// order to be checked. Items with the same `rank` need no order among themselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub(crate) start: At,
    pub(crate) end: At,
    pub(crate) rank: u64,
}

/// For each item that started after an item of higher rank had ended, calls `found(earlier, later)` with that item of
/// the highest rank and itself.
///
/// This is enough: an order can be laid into the intervals exactly if no pair contradicts it.
pub(crate) fn contradictions(items: &[Item], mut found: impl FnMut(Item, Item)) {
    let mut by_start: Vec<&Item> = items.iter().collect();
    by_start.sort_by_key(|item| item.start);
    let mut by_end = by_start.clone();
    by_end.sort_by_key(|item| item.end);

    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<Item> = None;
    for &later in by_start {
        while let Some(&item) = ended.next_if(|item| item.end < later.start) {
            if highest.is_none_or(|highest| highest.rank < item.rank) {
                highest = Some(item);
            }
        }
        if let Some(earlier) = highest.filter(|earlier| earlier.rank > later.rank) {
            found(earlier, later);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(items: &[(u64, u64, u64)]) -> Vec<(u64, u64)> {
        let items: Vec<Item> =
            items.iter().map(|&(start, end, rank)| Item { start: At(start), end: At(end), rank }).collect();
        let mut found = Vec::new();
        contradictions(&items, |earlier, later| found.push((earlier.rank, later.rank)));
        found
    }

    #[test]
    fn overlapping_items_may_have_any_order() {
        assert_eq!(ranks(&[(1, 5, 2), (3, 8, 1)]), []);
        assert_eq!(ranks(&[(1, 5, 2), (5, 8, 1)]), []);
    }

    #[test]
    fn an_item_that_started_after_another_ended_must_rank_higher() {
        assert_eq!(ranks(&[(1, 2, 1), (3, 4, 2)]), []);
        assert_eq!(ranks(&[(1, 2, 2), (3, 4, 1)]), [(2, 1)]);
        assert_eq!(ranks(&[(1, 2, 7), (3, 4, 7)]), []);
    }

    #[test]
    fn the_highest_of_all_ended_items_counts() {
        assert_eq!(ranks(&[(1, 2, 9), (3, 4, 3), (5, u64::MAX, 4)]), [(9, 3), (9, 4)]);
    }
}
