//! What was done to the broker and its clients in a run, kind by kind, so that no kind goes unused unseen.

use std::{collections::BTreeMap, fmt};

use crate::phase::Phase;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)+) => {
        /// Something bad, or at least untidy, that happens.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $variant,)+
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in reports.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}

faults! {
    /// A datagram is lost.
    Loss = "loss",
    /// A datagram arrives twice.
    Repeat = "repeat",
    /// A datagram arrives before one that was sent earlier.
    Reorder = "reorder",
    /// A bit of a datagram flips.
    Damage = "damage",
    /// A link carries nothing for a while.
    Cut = "cut",
    /// A client loses its connection at once and without a word.
    Kill = "kill",
    /// A client's address changes under its connection.
    Rebind = "rebind",
    /// A client does not read what the broker's streams bring.
    SlowReader = "slow reader",
    /// A client's process starts anew; its memory is gone.
    ClientRestart = "client restart",
    /// A client sends again what an earlier life of it left without an answer.
    LateRetry = "late retry",
    /// The token provider fails.
    TokenFailure = "token failure",
    /// The broker refuses an expired token.
    TokenExpired = "token expired",
    /// The broker loses its memory and what its disk had not synced.
    Crash = "broker crash",
    /// The broker stops in an orderly manner.
    Drain = "broker drain",
    /// The broker comes back with another number of shards.
    Reshard = "other shards",
    /// A shard does nothing for a while.
    Pause = "shard pause",
    /// A datagram finds a shard's socket full.
    SocketFull = "socket full",
    /// Mail waits because the other shard has no room.
    MailFull = "mail full",
    /// A disk request takes long.
    DiskStall = "disk stall",
    /// Disk requests finish in another order than they began.
    DiskReorder = "disk reorder",
    /// Writes under way at a crash: lost, torn or kept.
    UnsyncedAtCrash = "unsynced at crash",
    /// The disk has no space for a while.
    DiskFull = "disk full",
    /// A sync fails, and the process ends.
    SyncError = "sync error",
    /// A subscription falls behind.
    Behind = "fell behind",
}

/// Counts of a run, or of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations of clients: sends, pages, subscriptions, cursors, signals, changes of membership.
    pub operations: u64,
    faults: BTreeMap<Fault, u64>,
    cuts: BTreeMap<Phase, u64>,
    /// Rows that applications lacked when a subscription took hold again.
    pub missed: u64,
    /// Rows that the broker sent to make up for them.
    pub fetched: u64,
    /// Times a subscription took hold again.
    pub resumed: u64,
    /// Datagrams carried or lost.
    pub datagrams: u64,
    /// Rows that reached applications by subscriptions.
    pub delivered: u64,
    /// Sends that were acknowledged.
    pub acked: u64,
    /// Acknowledgements that told of an earlier attempt.
    pub duplicates: u64,
    /// Rows of the final histories.
    pub rows: u64,
    /// Explicit resets that applications got.
    pub resets: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

impl Tally {
    /// Counts one fault.
    pub fn count(&mut self, fault: Fault) {
        self.add(fault, 1);
    }

    /// Counts several faults of one kind.
    pub fn add(&mut self, fault: Fault, times: u64) {
        *self.faults.entry(fault).or_default() += times;
    }

    /// How often a fault happened.
    pub fn of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    /// Counts a client's connection that was cut in this phase.
    pub fn count_cut(&mut self, phase: Phase) {
        *self.cuts.entry(phase).or_default() += 1;
    }

    /// How often a connection was cut in this phase.
    pub fn cuts(&self, phase: Phase) -> u64 {
        self.cuts.get(&phase).copied().unwrap_or_default()
    }

    /// Adds the counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (fault, times) in &other.faults {
            self.add(*fault, *times);
        }
        for (phase, times) in &other.cuts {
            *self.cuts.entry(*phase).or_default() += times;
        }
        let sums = [
            (&mut self.operations, other.operations),
            (&mut self.missed, other.missed),
            (&mut self.fetched, other.fetched),
            (&mut self.resumed, other.resumed),
            (&mut self.datagrams, other.datagrams),
            (&mut self.delivered, other.delivered),
            (&mut self.acked, other.acked),
            (&mut self.duplicates, other.duplicates),
            (&mut self.rows, other.rows),
            (&mut self.resets, other.resets),
            (&mut self.virtual_ms, other.virtual_ms),
        ];
        for (sum, part) in sums {
            *sum += part;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "operations {}  acknowledged {}  rows {}", self.operations, self.acked, self.rows)?;
        writeln!(f, "delivered {}  datagrams {}  virtual ms {}", self.delivered, self.datagrams, self.virtual_ms)?;
        let faults = Fault::ALL.iter().map(|fault| format!("{} {}", fault.word(), self.of(*fault)));
        writeln!(f, "faults: {}", faults.collect::<Vec<_>>().join(", "))?;
        let cuts = Phase::ALL.iter().map(|phase| format!("{} {}", phase.word(), self.cuts(*phase)));
        writeln!(f, "cuts: {}", cuts.collect::<Vec<_>>().join(", "))?;
        write!(
            f,
            "resumed {}  missed {}  fetched again {}  repeated answers {}  resets {}",
            self.resumed, self.missed, self.fetched, self.duplicates, self.resets
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_counts_add_up() {
        let mut one = Tally { operations: 3, ..Tally::default() };
        one.count(Fault::Loss);
        one.count_cut(Phase::Ack);
        let mut sum = one.clone();
        sum.merge(&one);
        assert_eq!((sum.operations, sum.of(Fault::Loss), sum.cuts(Phase::Ack)), (6, 2, 2));
        assert_eq!((sum.of(Fault::Damage), sum.cuts(Phase::Live)), (0, 0));
    }
}
