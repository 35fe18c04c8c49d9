//! The flag by which a waiting thread says "tell me", and by which another takes on to tell it, exactly once.

use std::sync::atomic::Ordering;

use crate::sync::AtomicBool;

/// A flag set by the one who waits and taken by the one who has news.
///
/// Waiter: [`arm`](Self::arm), then look for news once more, and only then sleep. Teller: make the news visible, then
/// [`take`](Self::take), and wake the waiter if that returned true.
///
/// All calls are read-modify-writes of one flag, so any two of them have an order. If the waiter's `arm` comes before
/// the teller's `take`, that teller, or one before it, sees the flag set and wakes the waiter. If it comes after, it
/// reads what the teller wrote, hence the waiter sees the news when it looks again. Either way nothing is slept
/// through. A plain store in `disarm` would break the second half: the news of a teller just before it could stay
/// unseen.
#[derive(Debug)]
pub struct Latch {
    armed: AtomicBool,
}

impl Default for Latch {
    fn default() -> Self {
        Self { armed: AtomicBool::new(false) }
    }
}

impl Latch {
    /// Asks to be told.
    pub fn arm(&self) {
        self.armed.swap(true, Ordering::AcqRel);
    }

    /// Withdraws the request. A teller may have taken it just before.
    pub fn disarm(&self) {
        self.armed.swap(false, Ordering::AcqRel);
    }

    /// Whether the caller has to tell the waiter; true for only one caller per [`arm`](Self::arm).
    pub fn take(&self) -> bool {
        self.armed.swap(false, Ordering::AcqRel)
    }
}
