//! When connections have something due: a hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing
//! Wheels", 1987, scheme 7).
//!
//! Each packet that a connection sends or gets moves its deadline. A wheel does that with a few writes whatever the number
//! of connections, at the price of a resolution: a deadline is kept rounded up to a millisecond, which is that of the timers
//! that QUIC stacks run on elsewhere.

use std::time::{Duration, Instant};

/// Bits of a deadline that one level tells apart.
const LEVEL_BITS: u32 = 6;
const LISTS_PER_LEVEL: usize = 1 << LEVEL_BITS;
/// Six levels tell 2^36 milliseconds apart, two years.
const LEVELS: usize = 6;
/// So far ahead that the last level's lists have not gone round: what is due later is looked at then.
const TICKS_AHEAD_MAX: u64 = (LISTS_PER_LEVEL as u64 - 1) << (LEVEL_BITS * (LEVELS as u32 - 1));
/// The list of what is due, behind those of the levels.
const DUE: u32 = (LEVELS * LISTS_PER_LEVEL) as u32;
/// No entry, or no list.
const NONE: u32 = u32::MAX;

/// Milliseconds since the wheel's beginning.
type Tick = u64;

/// Deadlines of connections by slot, one each.
#[derive(Debug)]
pub struct Timers {
    beginning: Instant,
    /// Everything before this tick, and at it, has been handed out or is in the list of what is due.
    elapsed: Tick,
    /// By the connections' slots.
    entries: Vec<Entry>,
    /// The first entry of each list.
    heads: Box<[u32; DUE as usize + 1]>,
    /// A bit for each list of a level that is not empty.
    occupied: [u64; LEVELS],
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    tick: Tick,
    /// The list that it is in.
    list: u32,
    previous: u32,
    next: u32,
}

impl Entry {
    const UNSET: Self = Self { tick: 0, list: NONE, previous: NONE, next: NONE };
}

impl Timers {
    /// No deadlines. None may be earlier than `beginning`, or is due at once.
    pub fn new(beginning: Instant) -> Self {
        Self {
            beginning,
            elapsed: 0,
            entries: Vec::new(),
            heads: Box::new([NONE; DUE as usize + 1]),
            occupied: [0; LEVELS],
            len: 0,
        }
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces the deadline of `slot`; `None` for none.
    pub fn set(&mut self, slot: usize, at: Option<Instant>) {
        let tick = at.map(|at| millis_up(at.saturating_duration_since(self.beginning)));
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, Entry::UNSET);
        }
        let Entry { tick: before, list, .. } = self.entries[slot];
        if list != NONE {
            if tick == Some(before) {
                return;
            }
            self.unlink(slot as u32);
        }
        if let Some(tick) = tick {
            self.link(slot as u32, tick);
        }
    }

    /// Takes out the slot of a deadline that is not after `now`, if there is one.
    pub fn pop(&mut self, now: Instant) -> Option<usize> {
        let now = millis_down(now.saturating_duration_since(self.beginning));
        loop {
            let slot = self.heads[DUE as usize];
            if slot != NONE {
                self.unlink(slot);
                return Some(slot as usize);
            }
            match self.first_list() {
                Some((list, begins)) if begins <= now => self.reach(list, begins),
                _ => {
                    self.elapsed = self.elapsed.max(now);
                    return None;
                }
            }
        }
    }

    /// When to call [`pop`](Self::pop) next: no deadline is earlier, though the first may be later.
    pub fn next(&self) -> Option<Instant> {
        let tick = if self.heads[DUE as usize] != NONE { self.elapsed } else { self.first_list()?.1 };
        Some(self.beginning + Duration::from_millis(tick))
    }

    /// Moves time to where a list begins: what is due then is, the others get their place among nearer ones.
    fn reach(&mut self, list: u32, begins: Tick) {
        self.elapsed = begins;
        while self.heads[list as usize] != NONE {
            let slot = self.heads[list as usize];
            let tick = self.entries[slot as usize].tick;
            self.unlink(slot);
            self.link(slot, tick);
        }
    }

    /// The list whose time comes first, and when that begins.
    fn first_list(&self) -> Option<(u32, Tick)> {
        // All lists of a level come before those of the next.
        let level = self.occupied.iter().position(|lists| *lists != 0)?;
        let shift = LEVEL_BITS * level as u32;
        let current = (self.elapsed >> shift) as u32 % LISTS_PER_LEVEL as u32;
        let ahead = self.occupied[level].rotate_right(current).trailing_zeros();
        let begins = ((self.elapsed >> shift) + Tick::from(ahead)) << shift;
        Some((level as u32 * LISTS_PER_LEVEL as u32 + (current + ahead) % LISTS_PER_LEVEL as u32, begins))
    }

    /// The list for what is due at `tick`: of the level of the highest bits in which it differs from now.
    fn list_of(&self, tick: Tick) -> u32 {
        if tick <= self.elapsed {
            return DUE;
        }
        let tick = tick.min(self.elapsed.saturating_add(TICKS_AHEAD_MAX));
        let level = ((tick ^ self.elapsed).ilog2() / LEVEL_BITS).min(LEVELS as u32 - 1);
        level * LISTS_PER_LEVEL as u32 + (tick >> (LEVEL_BITS * level)) as u32 % LISTS_PER_LEVEL as u32
    }

    fn link(&mut self, slot: u32, tick: Tick) {
        self.len += 1;
        let list = self.list_of(tick);
        let next = std::mem::replace(&mut self.heads[list as usize], slot);
        if next != NONE {
            self.entries[next as usize].previous = slot;
        }
        self.entries[slot as usize] = Entry { tick, list, previous: NONE, next };
        if let Some(lists) = self.occupied.get_mut(list as usize / LISTS_PER_LEVEL) {
            *lists |= 1 << (list as usize % LISTS_PER_LEVEL);
        }
    }

    fn unlink(&mut self, slot: u32) {
        self.len -= 1;
        let Entry { list, previous, next, .. } = std::mem::replace(&mut self.entries[slot as usize], Entry::UNSET);
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
            return;
        }
        self.heads[list as usize] = next;
        if next == NONE
            && let Some(lists) = self.occupied.get_mut(list as usize / LISTS_PER_LEVEL)
        {
            *lists &= !(1 << (list as usize % LISTS_PER_LEVEL));
        }
    }
}

fn millis_down(duration: Duration) -> Tick {
    duration.as_secs() * 1_000 + Tick::from(duration.subsec_millis())
}

fn millis_up(duration: Duration) -> Tick {
    duration.as_secs() * 1_000 + Tick::from(duration.subsec_nanos().div_ceil(1_000_000))
}

#[cfg(test)]
mod tests;
