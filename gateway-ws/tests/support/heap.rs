//! The system's allocator, counting for each thread.

#![allow(unsafe_code, reason = "counting allocations takes an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

pub(crate) struct Heap;

impl Heap {
    /// Most bytes that `work` has held at once, and how often it allocated.
    pub(crate) fn used_by<T>(work: impl FnOnce() -> T) -> (T, usize, u64) {
        let (before, count) = (LIVE.get(), COUNT.get());
        PEAK.set(before);
        let result = work();
        (result, PEAK.get().saturating_sub(before), COUNT.get() - count)
    }
}

fn grow(bytes: usize) {
    // A thread that is ending has no counter any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get().wrapping_add(bytes));
        PEAK.set(PEAK.get().max(live.get()));
        COUNT.set(COUNT.get() + 1);
    });
}

fn shrink(bytes: usize) {
    let _ = LIVE.try_with(|live| live.set(live.get().saturating_sub(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged; the counters neither allocate nor unwind.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
