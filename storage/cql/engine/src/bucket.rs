//! Buckets: the partitions that a log's rows lie in, and which of them count.
//!
//! A bucket is opened by the owner of a term and named by that term and a number that the owner never uses twice. The
//! index of a log lists its buckets, each with the position of its first row. **A bucket ends where any later one
//! begins.** So opening a bucket is all that it takes to cut off what an earlier owner, or an earlier append of unknown
//! outcome, may still write: it lands in a bucket that has ended, or in one whose name is older, and no reader looks there.
//!
//! ```text
//! index:  (1,4) from 1    (1,7) from 301    (2,1) from 250
//! rows:   1..=249         none: has ended   250..
//! ```

/// Names a bucket of a log; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketId(i64);

impl BucketId {
    /// The `number`-th bucket that the owner of `term` opened. Terms are below 2^31.
    pub fn new(term: u64, number: u32) -> Self {
        debug_assert!(term < 1 << 31, "a term is a small number");
        Self((term as i64) << 32 | i64::from(number))
    }

    /// The name as the cluster stores it.
    pub fn stored(self) -> i64 {
        self.0
    }

    /// The name that was stored.
    pub fn from_stored(stored: i64) -> Self {
        Self(stored)
    }

    /// Who opened it.
    pub fn term(self) -> u64 {
        (self.0 >> 32) as u64
    }

    /// Which of its owner's buckets it is.
    pub fn number(self) -> u32 {
        self.0 as u32
    }
}

/// An entry of a log's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Its name.
    pub id: BucketId,
    /// Position of its first row.
    pub first_seq: u64,
    /// Time of its first row, Unix milliseconds.
    pub first_ms: u64,
}

/// A bucket without rows that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone {
    pub(crate) bucket: Bucket,
    /// Its rows before this position counted until retention let them go; none if another bucket has them now.
    pub(crate) expired_before: Option<u64>,
}

impl Gone {
    fn covered(bucket: Bucket) -> Self {
        Self { bucket, expired_before: None }
    }
}

/// The buckets of a log that hold rows, by position.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Buckets(Vec<Bucket>);

impl Buckets {
    /// Those of an index that count, and those that have ended before their first row.
    pub(crate) fn of(mut index: Vec<Bucket>) -> (Self, Vec<Gone>) {
        index.sort_by_key(|bucket| std::cmp::Reverse(bucket.id));
        let (mut counting, mut ended) = (Vec::new(), Vec::new());
        let mut end = u64::MAX;
        for bucket in index {
            if bucket.first_seq < end {
                end = bucket.first_seq;
                counting.push(bucket);
            } else {
                ended.push(Gone::covered(bucket));
            }
        }
        counting.reverse();
        (Self(counting), ended)
    }

    /// The bucket that takes new rows.
    pub(crate) fn newest(&self) -> Option<Bucket> {
        self.0.last().copied()
    }

    /// The bucket that holds a row, and the position after its last; the newest one has no end.
    pub(crate) fn holding(&self, seq: u64) -> Option<(Bucket, u64)> {
        let after = self.0.partition_point(|bucket| bucket.first_seq <= seq);
        let bucket = self.0.get(after.checked_sub(1)?)?;
        Some((*bucket, self.0.get(after).map_or(u64::MAX, |next| next.first_seq)))
    }

    /// The positions between which a time lies, as far as the buckets tell that: the rows before the first one are
    /// earlier than `at_ms`, or below `floor`; the row at the second one is not, or lies beyond `head`. What is between
    /// them is of one bucket.
    pub(crate) fn around(&self, at_ms: u64, floor: u64, head: u64) -> (u64, u64) {
        let from = self.0.partition_point(|bucket| bucket.first_seq < floor);
        let to = self.0.partition_point(|bucket| bucket.first_seq <= head).max(from);
        let telling = &self.0[from..to];
        let later = telling.partition_point(|bucket| bucket.first_ms < at_ms);
        let first = later.checked_sub(1).map_or(floor, |last| telling[last].first_seq + 1);
        (first, telling.get(later).map_or(head + 1, |bucket| bucket.first_seq))
    }

    /// Adds the newest bucket; answers with those that it ended before their first row.
    pub(crate) fn open(&mut self, bucket: Bucket) -> Vec<Gone> {
        let keep = self.0.partition_point(|earlier| earlier.first_seq < bucket.first_seq);
        let ended = self.0.split_off(keep);
        self.0.push(bucket);
        ended.into_iter().map(Gone::covered).collect()
    }

    /// Takes out the buckets that lie wholly below `floor`.
    pub(crate) fn drop_below(&mut self, floor: u64) -> Vec<Gone> {
        let gone = self.0.partition_point(|bucket| bucket.first_seq <= floor).saturating_sub(1);
        let ends: Vec<u64> = self.0.iter().skip(1).map(|next| next.first_seq).collect();
        let expired = |(bucket, end)| Gone { bucket, expired_before: Some(end) };
        self.0.drain(..gone).zip(ends).map(expired).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(term: u64, number: u32, first_seq: u64) -> Bucket {
        Bucket { id: BucketId::new(term, number), first_seq, first_ms: 0 }
    }

    fn covered(term: u64, number: u32, first_seq: u64) -> Gone {
        Gone::covered(bucket(term, number, first_seq))
    }

    #[test]
    fn a_name_is_read_back_and_orders_by_term_and_number() {
        let names = [(1, 1), (1, u32::MAX), (2, 0), (2, 1)].map(|(term, number)| BucketId::new(term, number));
        assert!(names.is_sorted());
        for name in names {
            let read = BucketId::from_stored(name.stored());
            assert_eq!((read, read.term(), read.number()), (name, name.term(), name.number()));
        }
    }

    #[test]
    fn a_bucket_ends_where_a_later_one_begins() {
        let index = vec![bucket(1, 7, 301), bucket(2, 1, 250), bucket(1, 4, 1)];
        let (buckets, ended) = Buckets::of(index);
        assert_eq!(ended, [covered(1, 7, 301)]);
        assert_eq!(buckets.holding(249), Some((bucket(1, 4, 1), 250)));
        assert_eq!(buckets.holding(250), Some((bucket(2, 1, 250), u64::MAX)));
        assert_eq!(buckets.holding(0), None);
        assert_eq!(buckets.newest(), Some(bucket(2, 1, 250)));
    }

    #[test]
    fn of_two_with_the_same_beginning_the_later_counts() {
        let (buckets, ended) = Buckets::of(vec![bucket(1, 1, 5), bucket(1, 2, 5)]);
        assert_eq!((buckets.newest(), ended), (Some(bucket(1, 2, 5)), vec![covered(1, 1, 5)]));
    }

    #[test]
    fn a_time_lies_in_one_bucket_or_at_the_edge_of_two() {
        let at = |number, first_seq, first_ms| Bucket { first_ms, ..bucket(1, number, first_seq) };
        let buckets = Buckets::of(vec![at(1, 1, 10), at(2, 100, 50), at(3, 200, 50), at(4, 300, 90)]).0;
        for (at_ms, expected) in [
            (0, (1, 1)),
            (10, (1, 1)),
            (11, (2, 100)),
            (50, (2, 100)),
            (51, (201, 300)),
            (90, (201, 300)),
            (91, (301, 400)),
        ] {
            assert_eq!(buckets.around(at_ms, 1, 399), expected, "{at_ms}");
        }
    }

    #[test]
    fn a_bucket_below_the_floor_or_beyond_the_head_does_not_tell_where_a_time_lies() {
        let at = |number, first_seq, first_ms| Bucket { first_ms, ..bucket(1, number, first_seq) };
        let buckets = Buckets::of(vec![at(1, 1, 10), at(2, 100, 50), at(3, 200, 70)]).0;
        assert_eq!(buckets.around(5, 40, 199), (40, 100));
        assert_eq!(buckets.around(60, 40, 199), (101, 200));
        assert_eq!(buckets.around(99, 40, 199), (101, 200));
        assert_eq!(buckets.around(60, 150, 199), (150, 200));
        assert_eq!(buckets.around(60, 200, 199), (200, 200));
        assert_eq!(Buckets::default().around(60, 1, 0), (1, 1));
    }

    #[test]
    fn opening_one_ends_what_it_covers() {
        let mut buckets = Buckets::of(vec![bucket(1, 1, 1), bucket(1, 2, 90)]).0;
        assert_eq!(buckets.open(bucket(2, 1, 90)), [covered(1, 2, 90)]);
        assert_eq!(buckets.holding(95), Some((bucket(2, 1, 90), u64::MAX)));
        assert_eq!(buckets.open(bucket(2, 2, 200)), []);
        assert_eq!(buckets.holding(95), Some((bucket(2, 1, 90), 200)));
    }

    #[test]
    fn what_lies_below_the_floor_is_dropped_and_a_bucket_across_it_stays() {
        let mut buckets = Buckets::of(vec![bucket(1, 1, 1), bucket(1, 2, 10), bucket(1, 3, 20)]).0;
        assert_eq!(buckets.drop_below(9), []);
        assert_eq!(buckets.drop_below(15), [Gone { bucket: bucket(1, 1, 1), expired_before: Some(10) }]);
        assert_eq!(buckets.drop_below(20), [Gone { bucket: bucket(1, 2, 10), expired_before: Some(20) }]);
        assert_eq!(buckets.drop_below(500), []);
    }
}
