use std::collections::BTreeMap;

use super::*;

#[allow(clippy::disallowed_methods, reason = "an instant can be made in no other way")]
fn beginning() -> Instant {
    Instant::now()
}

fn micros(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn popped(timers: &mut Timers, now: Instant) -> Vec<usize> {
    let mut slots: Vec<usize> = std::iter::from_fn(|| timers.pop(now)).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn a_deadline_is_rounded_up_to_the_next_millisecond() {
    let start = beginning();
    let mut timers = Timers::new(start);
    timers.set(3, Some(start + micros(1_200)));
    assert_eq!(timers.next(), Some(start + micros(2_000)));
    assert_eq!(popped(&mut timers, start + micros(1_999)), []);
    assert_eq!(popped(&mut timers, start + micros(2_000)), [3]);
    assert_eq!((timers.next(), timers.len()), (None, 0));
}

#[test]
fn a_slot_has_the_deadline_that_was_set_last() {
    let start = beginning();
    let mut timers = Timers::new(start);
    for slot in 0..3 {
        timers.set(slot, Some(start + micros(5_000)));
    }
    timers.set(0, Some(start + Duration::from_secs(60)));
    timers.set(1, None);
    timers.set(9, None);
    assert_eq!(timers.len(), 2);
    assert_eq!(popped(&mut timers, start + Duration::from_secs(59)), [2]);
    assert_eq!(popped(&mut timers, start + Duration::from_secs(60)), [0]);
    assert_eq!(timers.len(), 0);
}

#[test]
fn what_is_past_is_due_at_once() {
    let start = beginning();
    let mut timers = Timers::new(start);
    let now = start + Duration::from_secs(10);
    assert_eq!(timers.pop(now), None);
    timers.set(1, Some(start));
    assert!(timers.next().is_some_and(|next| next <= now));
    timers.set(2, Some(now));
    // Due and not yet taken, it may still be put off.
    timers.set(1, Some(now + micros(1)));
    assert_eq!(popped(&mut timers, now), [2]);
    assert_eq!(popped(&mut timers, now + micros(1_000)), [1]);
}

#[test]
fn deadlines_beyond_the_last_level_are_kept() {
    let start = beginning();
    let mut timers = Timers::new(start);
    let far = start + Duration::from_secs(20 * 365 * 24 * 3_600);
    timers.set(0, Some(far));
    timers.set(1, Some(far + Duration::from_secs(1)));
    assert_eq!(popped(&mut timers, far - Duration::from_secs(1)), []);
    assert_eq!(popped(&mut timers, far), [0]);
    assert_eq!(popped(&mut timers, far + Duration::from_secs(1)), [1]);
}

/// An ordered map says what has to come out, at whatever moments somebody looks.
#[test]
fn nothing_comes_early_late_or_twice() {
    let start = beginning();
    for seed in 1..=200_u64 {
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let mut timers = Timers::new(start);
        let mut model = BTreeMap::new();
        let mut now = start;
        for _ in 0..400 {
            let slot = random(40) as usize;
            let scale = [500, 50_000, 3_000_000, 70_000_000, 20_000_000_000][random(5) as usize];
            if random(8) == 0 {
                timers.set(slot, None);
                model.remove(&slot);
            } else {
                let at = now + micros(random(scale));
                timers.set(slot, Some(at));
                model.insert(slot, at);
            }
            assert_eq!(timers.len(), model.len());
            let first = model.values().min().copied();
            assert_eq!(timers.next().is_some(), first.is_some());
            if let (Some(next), Some(first)) = (timers.next(), first) {
                assert!(next < first + micros(1_000), "seed {seed}: looks {:?} late", next - first);
            }
            now += micros(random(scale) / 8);
            for slot in popped(&mut timers, now) {
                let at = model.remove(&slot).unwrap_or_else(|| panic!("seed {seed}: {slot} came twice"));
                assert!(at <= now, "seed {seed}: {slot} came early");
            }
            let late = model.values().filter(|at| **at + micros(1_000) <= now).count();
            assert_eq!(late, 0, "seed {seed}");
        }
    }
}
