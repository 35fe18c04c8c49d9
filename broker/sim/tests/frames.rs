//! Generated frames through the endpoint: stream, decoder, session, outbox, stream. See `antiphon_sim::hostile`.
//!
//! `ANTIPHON_FUZZ_FRAMES` says how many frames; `ANTIPHON_FUZZ_SEED` repeats or varies a run.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use antiphon_sim::hostile::{self, Outcome, Settings};
use antiphon_sys::heap::CountingHeap;

#[global_allocator]
static HEAP: CountingHeap = CountingHeap;

/// Frames of one world at most.
const WORLD_FRAMES: u64 = 500_000;

#[test]
fn hostile_frames_harm_nobody_but_their_session_and_leave_nothing_behind() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse::<u64>().expect(name));
    let frames = number("ANTIPHON_FUZZ_FRAMES").unwrap_or(400_000);
    let seed = number("ANTIPHON_FUZZ_SEED").unwrap_or(1);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let world_frames = WORLD_FRAMES.min(frames.div_ceil(threads)).max(1);
    let worlds = frames.div_ceil(world_frames);
    let (next, sum) = (AtomicU64::new(0), Mutex::new(Outcome::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(worlds) {
            scope.spawn(|| {
                loop {
                    let world = next.fetch_add(1, Ordering::Relaxed);
                    if world >= worlds {
                        return;
                    }
                    let settings =
                        Settings { seed: seed + world, frames: world_frames, heap: CountingHeap::live_bytes };
                    let outcome = hostile::run(settings);
                    sum.lock().unwrap().merge(outcome);
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    println!("{sum}");
    assert!(sum.violations.is_empty(), "{:#?}", sum.violations);
    assert!(sum.frames >= frames, "{} of {frames} frames were read", sum.frames);
    // Good frames are among them, and do something.
    assert!(sum.refused > frames / 10 && sum.appended > frames / 100, "{sum}");
    assert!(sum.pings > sum.rounds, "{} pings in {} rounds", sum.pings, sum.rounds);
}
