//! Waking a sleeping shard, at no cost while it is awake.
//!
//! The shard's side: drain its queues, [`arm`](Doorbell::arm), look at the queues once more, sleep with the doorbell
//! among the [sources](crate::poller), [`disarm`](Doorbell::disarm). The other side: put a message into a queue,
//! then [`ring`](Ringer::ring). A ring writes to the kernel only if the bell is armed, so a shard that is awake gets
//! any number of rings for no system call, and a sleeping one is woken by the first and not by those behind it.
//!
//! That no message is left behind by a sleeping shard is a property of [`Latch`] alone and is proven with loom in
//! `tests/loom_doorbell.rs`.

mod latch;
mod wake_fd;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

pub use latch::Latch;

use wake_fd::WakeFd;

/// The bell of one shard, owned by the thread that sleeps on it.
#[derive(Debug)]
pub struct Doorbell {
    shared: Arc<Shared>,
}

/// Rings the bell of a shard from any thread: another shard, a store's helper, a token verifier.
#[derive(Clone, Debug)]
pub struct Ringer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    latch: Latch,
    wake: WakeFd,
}

impl Doorbell {
    /// A bell that is not armed. Fails only where the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { shared: Arc::new(Shared { latch: Latch::default(), wake: WakeFd::new()? }) })
    }

    /// A handle that rings this bell.
    pub fn ringer(&self) -> Ringer {
        Ringer { shared: self.shared.clone() }
    }

    /// From here on a ring wakes the sleeper. Look at every queue once more before sleeping.
    pub fn arm(&self) {
        self.shared.latch.arm();
    }

    /// Rings cost nothing again. `rung` says that the descriptor was readable; then it is emptied.
    pub fn disarm(&self, rung: bool) {
        self.shared.latch.disarm();
        if rung {
            self.shared.wake.clear();
        }
    }
}

impl AsFd for Doorbell {
    /// Readable from the first ring after [`Doorbell::arm`]; a late one may still show after the next.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.wake.as_fd()
    }
}

impl Ringer {
    /// Wakes the shard if it sleeps or is about to. Call it after the message is in its queue.
    pub fn ring(&self) {
        if self.shared.latch.take() {
            self.shared.wake.signal();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Source, wait};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    fn rung(bell: &Doorbell) -> bool {
        wait([Source::readable(bell)], Some(Duration::ZERO)).unwrap()[0].readable
    }

    /// Helper threads of any kind hold ringers.
    const _: fn() = || {
        fn shareable<T: Send + Sync + Clone>() {}
        shareable::<Ringer>();
    };

    #[test]
    fn a_bell_that_is_not_armed_stays_silent() {
        let bell = Doorbell::new().unwrap();
        bell.ringer().ring();
        assert!(!rung(&bell));
    }

    #[test]
    fn an_armed_bell_rings_once_for_many_rings() {
        let bell = Doorbell::new().unwrap();
        let ringer = bell.ringer();
        bell.arm();
        for _ in 0..100 {
            ringer.ring();
        }
        assert!(rung(&bell));
        bell.disarm(true);
        ringer.ring();
        assert!(!rung(&bell));
    }

    #[test]
    fn a_ring_between_two_sleeps_shows_and_is_emptied_later() {
        let bell = Doorbell::new().unwrap();
        bell.arm();
        bell.ringer().ring();
        bell.disarm(false);
        assert!(rung(&bell));
        bell.disarm(true);
        assert!(!rung(&bell));
    }

    #[test]
    fn a_sleeper_gets_every_message_of_other_threads() {
        const THREADS: u64 = 3;
        const MESSAGES: u64 = 20_000;
        let bell = Doorbell::new().unwrap();
        let (sender, receiver) = mpsc::channel::<u64>();
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (sender, ringer) = (sender.clone(), bell.ringer());
                thread::spawn(move || {
                    for message in 0..MESSAGES {
                        sender.send(message).unwrap();
                        ringer.ring();
                    }
                })
            })
            .collect();
        let (mut count, mut sum) = (0, 0);
        while count < THREADS * MESSAGES {
            bell.arm();
            let first = receiver.try_recv().ok();
            let rung = first.is_none() && wait([Source::readable(&bell)], None).unwrap()[0].readable;
            bell.disarm(rung);
            for message in first.into_iter().chain(receiver.try_iter()) {
                count += 1;
                sum += message;
            }
        }
        assert_eq!(sum, THREADS * MESSAGES * (MESSAGES - 1) / 2);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
