//! Proof that nobody sleeps through news, over every interleaving and every value the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=/tmp/target-loom cargo test -p antiphon-sys --test loom_doorbell`
//!
//! The queue is an atomic written with release and read with acquire, as a ring's ends are; the kernel's part, a
//! wake-up that stays until it is consumed, is a mutex with a condition variable. A lost wake-up leaves the sleeper
//! waiting for ever, which loom reports as a deadlock.
#![allow(clippy::unwrap_used, reason = "a failed call fails the test")]
#![allow(unexpected_cfgs, reason = "`loom` is a flag set by hand, for the proof only")]
#![cfg(loom)]

use antiphon_sys::doorbell::Latch;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// What an event descriptor does: it stays readable from a signal until it is cleared.
#[derive(Default)]
struct Wake {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Wake {
    fn signal(&self) {
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait_and_clear(&self) {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
        *signalled = false;
    }
}

#[derive(Default)]
struct Bell {
    latch: Latch,
    wake: Wake,
}

impl Bell {
    fn ring(&self) {
        if self.latch.take() {
            self.wake.signal();
        }
    }
}

/// The consumer's protocol: look, arm, look again, sleep, disarm.
fn wait_until(bell: &Bell, news: impl Fn() -> bool) {
    while !news() {
        bell.latch.arm();
        if news() {
            bell.latch.disarm();
            return;
        }
        bell.wake.wait_and_clear();
        bell.latch.disarm();
    }
}

fn check(threads: usize, messages: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let bell = Arc::new(Bell::default());
        let queues: Vec<_> = (0..threads).map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let producers: Vec<_> = queues
            .iter()
            .cloned()
            .map(|queue| {
                let bell = bell.clone();
                thread::spawn(move || {
                    for tail in 1..=messages {
                        queue.store(tail, Ordering::Release);
                        bell.ring();
                    }
                })
            })
            .collect();
        wait_until(&bell, || queues.iter().all(|queue| queue.load(Ordering::Acquire) == messages));
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

#[test]
fn one_producer_is_never_slept_through() {
    check(1, 3);
}

#[test]
fn two_producers_are_never_slept_through() {
    check(2, 1);
}

/// A ring of one slot: the producer waits for room under the ring's latch and for its bell, the consumer frees the slot,
/// takes the latch and rings. The producer must not sleep while the slot is free.
#[test]
fn room_in_a_full_ring_is_never_slept_through() {
    loom::model(|| {
        let bell = Arc::new(Bell::default());
        let room = Arc::new(Latch::default());
        let full = Arc::new(AtomicUsize::new(1));
        let consumer = {
            let (bell, room, full) = (bell.clone(), room.clone(), full.clone());
            thread::spawn(move || {
                full.store(0, Ordering::Release);
                if room.take() {
                    bell.ring();
                }
            })
        };
        let has_room = || full.load(Ordering::Acquire) == 0;
        if !has_room() {
            room.arm();
            if !has_room() {
                wait_until(&bell, has_room);
            }
        }
        consumer.join().unwrap();
    });
}
