//! The lease: which broker owns the logs, decided by the cluster and by nobody's wall clock.
//!
//! One row says who holds the term and how often it was renewed. The holder renews it; whoever waits takes it over, with
//! the next term, once it has watched the row stand still for longer than the holder may rely on it. Both go by their own
//! clock, which must run while the machine sleeps and whose rate may be off by one part in a hundred.
//!
//! ```text
//! holder:   t0 --renew--> answered           relies on it until t0 + 9 s - 1 % - 0.5 s
//! watcher:         sees the renewal at t1 > t0      may take over from t1 + 9 s + 1 %
//! ```
//!
//! A change whose outcome is unknown counts as not made until the row has been read again. The row is only ever written
//! under a condition on what it said before. Compare the epoch-based leases of CockroachDB.

use std::time::Duration;

use uuid::Uuid;

/// How long a renewal lasts.
pub const LEASE: Duration = Duration::from_secs(9);
/// How often the holder renews.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);
/// By how much a clock's rate may be off, parts in a hundred.
const DRIFT_PERCENT: u32 = 1;
/// What the holder gives up besides, for the moment between its look at the clock and what it does then.
const MARGIN: Duration = Duration::from_millis(500);
/// By how much the timestamps of a term may run ahead of the holder's wall clock at a renewal.
const STAMPS_AHEAD_US: i64 = 60_000_000;

/// What the row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The term; each owner has its own.
    pub term: u64,
    /// The process that holds it.
    pub holder: Uuid,
    /// The machine and data directory of that process; empty once it has let go.
    pub seat: String,
    /// How often it was renewed.
    pub renewals: u64,
    /// No timestamp of this term is greater. Microseconds.
    pub stamps_until: i64,
    /// Where its clients connect.
    pub address: String,
}

/// Who asks for the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// This process, new at each start.
    pub holder: Uuid,
    /// This machine since its boot, and a data directory that this process has locked. Another process with the same seat
    /// is dead.
    pub seat: String,
    /// Where clients connect.
    pub address: String,
}

/// A time on a clock that also runs while the machine sleeps, since some moment.
pub type Uptime = Duration;

/// Watches a lease that somebody else may hold.
#[derive(Debug)]
pub struct Watch {
    candidate: Candidate,
    seen: Option<(LeaseRow, Uptime)>,
}

impl Watch {
    /// Begins to watch.
    pub fn new(candidate: Candidate) -> Self {
        Self { candidate, seen: None }
    }

    /// Takes in what the row says at `now`, a moment after it was read. Answers with the row to write in its place, if it
    /// may be taken over; the cluster must refuse that if it says something else by then. `wall_us` is the wall clock.
    pub fn observe(&mut self, row: Option<LeaseRow>, now: Uptime, wall_us: i64) -> Option<LeaseRow> {
        let Some(row) = row else { return Some(self.successor(0, i64::MIN, wall_us)) };
        let is_dead = row.seat.is_empty() || row.seat == self.candidate.seat;
        let since = match &self.seen {
            Some((seen, since)) if *seen == row => *since,
            _ => now,
        };
        let has_stood_still = now.saturating_sub(since) >= LEASE + LEASE * DRIFT_PERCENT / 100;
        let next = self.successor(row.term, row.stamps_until, wall_us);
        self.seen = Some((row, since));
        (is_dead || has_stood_still).then_some(next)
    }

    fn successor(&self, term: u64, stamps_until: i64, wall_us: i64) -> LeaseRow {
        let Candidate { holder, seat, address } = self.candidate.clone();
        let stamps_until = stamps_until.max(wall_us).saturating_add(STAMPS_AHEAD_US);
        LeaseRow { term: term + 1, holder, seat, renewals: 0, stamps_until, address }
    }
}

/// A term that is held.
#[derive(Debug, Clone)]
pub struct Hold {
    row: LeaseRow,
    until: Uptime,
}

impl Hold {
    /// The row was taken over by a change that was begun at `began`.
    pub fn new(row: LeaseRow, began: Uptime) -> Self {
        Self { row, until: relies_until(began) }
    }

    /// What the row says.
    pub fn row(&self) -> &LeaseRow {
        &self.row
    }

    /// Until when the term is surely held.
    pub fn until(&self) -> Uptime {
        self.until
    }

    /// The row that renews it.
    pub fn renewal(&self, wall_us: i64) -> LeaseRow {
        let stamps_until = self.row.stamps_until.max(wall_us.saturating_add(STAMPS_AHEAD_US));
        LeaseRow { renewals: self.row.renewals + 1, stamps_until, ..self.row.clone() }
    }

    /// The row that lets it go, so that nobody has to wait.
    pub fn release(&self) -> LeaseRow {
        LeaseRow { renewals: self.row.renewals + 1, seat: String::new(), ..self.row.clone() }
    }

    /// A renewal that was begun at `began` was made.
    pub fn renewed(&mut self, row: LeaseRow, began: Uptime) {
        self.row = row;
        self.until = self.until.max(relies_until(began));
    }

    /// Takes in what the row says after a renewal of unknown outcome. False if the term is lost for good.
    pub fn recall(&mut self, row: Option<LeaseRow>) -> bool {
        match row {
            Some(row) if (row.term, row.holder) == (self.row.term, self.row.holder) => {
                self.row = row;
                true
            }
            _ => false,
        }
    }
}

fn relies_until(began: Uptime) -> Uptime {
    began + LEASE - LEASE * DRIFT_PERCENT / 100 - MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn candidate(n: u128) -> Candidate {
        Candidate { holder: Uuid::from_u128(n), seat: format!("seat-{n}"), address: format!("host-{n}:1") }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_at_once() {
        let row = Watch::new(candidate(1)).observe(None, S, 5).expect("free");
        assert_eq!((row.term, row.renewals, row.address.as_str()), (1, 0, "host-1:1"));
        assert!(row.stamps_until > 5);
    }

    #[test]
    fn a_lease_that_stands_still_is_taken_after_the_holder_has_ceased_to_rely_on_it() {
        let first = Watch::new(candidate(1)).observe(None, S, 0).expect("free");
        let mut hold = Hold::new(first.clone(), 10 * S);
        let mut watch = Watch::new(candidate(2));
        // It sees the row for the first time right after it was written.
        assert_eq!(watch.observe(Some(first.clone()), 10 * S, 0), None);
        assert_eq!(watch.observe(Some(first.clone()), 19 * S, 0), None);
        let renewal = hold.renewal(0);
        hold.renewed(renewal.clone(), 18 * S);
        assert_eq!(watch.observe(Some(renewal.clone()), 20 * S, 0), None);
        let taken = watch.observe(Some(renewal), 30 * S, 0).expect("it stood still");
        assert_eq!(taken.term, 2);
        assert!(taken.stamps_until > hold.row().stamps_until);
        assert!(hold.until() < 30 * S);
    }

    #[test]
    fn whoever_waits_begins_to_wait_after_the_renewal_began() {
        // Both clocks off by a hundredth, in opposite ways: the holder's 9 s last 9.09, the watcher's 9.09 last 9.
        let holder_ends = (LEASE - LEASE / 100 - MARGIN).as_secs_f64() / 0.99;
        let watcher_begins = (LEASE + LEASE / 100).as_secs_f64() / 1.01;
        assert!(holder_ends < watcher_begins);
    }

    #[test]
    fn who_let_go_or_died_on_the_same_seat_is_not_waited_for() {
        let row = Watch::new(candidate(1)).observe(None, S, 0).expect("free");
        let restarted = Candidate { holder: Uuid::from_u128(9), ..candidate(1) };
        assert_eq!(Watch::new(restarted).observe(Some(row.clone()), S, 0).map(|row| row.term), Some(2));
        let released = Hold::new(row, S).release();
        assert_eq!(Watch::new(candidate(2)).observe(Some(released), S, 0).map(|row| row.term), Some(2));
    }

    #[test]
    fn a_renewal_of_unknown_outcome_counts_once_the_row_was_read_and_adds_no_time() {
        let row = Watch::new(candidate(1)).observe(None, S, 0).expect("free");
        let mut hold = Hold::new(row, S);
        let until = hold.until();
        let unknown = hold.renewal(0);
        assert!(hold.recall(Some(unknown.clone())));
        assert_eq!((hold.row(), hold.until()), (&unknown, until));
        assert!(!hold.recall(Some(LeaseRow { term: 2, ..unknown })));
        assert!(!hold.recall(None));
    }
}
