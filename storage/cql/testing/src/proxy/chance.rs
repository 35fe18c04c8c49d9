//! A judge that throws dice.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{Fate, Judge};

/// What [`write_timeouts`] has done so far.
#[derive(Debug, Default)]
pub struct WriteTimeouts {
    writes: AtomicU64,
    done: AtomicU64,
    undone: AtomicU64,
}

impl WriteTimeouts {
    /// Requests that may change something.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Those of them that were answered with a timeout and carried out.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Those of them that were answered with a timeout and not carried out.
    pub fn undone(&self) -> u64 {
        self.undone.load(Ordering::Relaxed)
    }
}

/// Answers `percent` of a hundred writes with a timeout, conditional ones too; every other of them is carried out all the
/// same. Which ones follows from `seed` and the order in which they come.
pub fn write_timeouts(percent: u8, seed: u64) -> (Judge, Arc<WriteTimeouts>) {
    let counts = Arc::new(WriteTimeouts::default());
    let counted = Arc::clone(&counts);
    let state = AtomicU64::new(seed);
    let judge: Judge = Arc::new(move |request| {
        if !request.is_write() {
            return Fate::Pass;
        }
        counted.writes.fetch_add(1, Ordering::Relaxed);
        let roll = mix(state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed));
        if roll % 100 >= percent.into() {
            return Fate::Pass;
        }
        let is_done = roll & 1 << 32 != 0;
        let count = if is_done { &counted.done } else { &counted.undone };
        count.fetch_add(1, Ordering::Relaxed);
        Fate::TimeOut { is_done }
    });
    (judge, counts)
}

/// The output function of SplitMix64: equal steps of the state become numbers without a pattern.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{super::Request, *};

    #[test]
    fn a_share_of_the_writes_times_out_and_half_of_that_is_carried_out() {
        let (judge, counts) = write_timeouts(10, 7);
        let request = |statement| Request { node: 1, statement, is_batch: false, body: &[] };
        for _ in 0..10_000 {
            judge(request("INSERT INTO k.t"));
            assert_eq!(judge(request("SELECT a FROM k.t")), Fate::Pass);
        }
        assert_eq!(counts.writes(), 10_000);
        assert!((400..600).contains(&counts.done()) && (400..600).contains(&counts.undone()), "{counts:?}");
    }
}
