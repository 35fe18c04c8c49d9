//! A named piece of work.

use std::fmt;

/// Work that was set up; each call is one round of it.
pub type Work = Box<dyn FnMut()>;

/// A piece of work, not yet set up.
pub struct Case {
    group: &'static str,
    name: String,
    elements: u64,
    rounds: u32,
    set_up: Box<dyn Fn() -> Work>,
}

impl Case {
    /// A case called `name` in `group`, one element to a round. `set_up` makes what a round needs, and its result does one.
    pub fn new<W: FnMut() + 'static>(
        group: &'static str,
        name: impl Into<String>,
        set_up: impl Fn() -> W + 'static,
    ) -> Self {
        Self { group, name: name.into(), elements: 1, rounds: 100, set_up: Box::new(move || Box::new(set_up())) }
    }

    /// How many of what its name says a round handles.
    #[must_use]
    pub fn elements(self, elements: impl Into<u64>) -> Self {
        Self { elements: elements.into(), ..self }
    }

    /// Rounds to count, fewer for those that take long: counting makes them 50 times slower.
    #[must_use]
    pub(crate) fn rounds(self, rounds: u32) -> Self {
        Self { rounds, ..self }
    }

    /// The cases that belong together.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Its name within the group.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name among all cases.
    pub fn id(&self) -> String {
        format!("{}: {}", self.group, self.name)
    }

    /// How many of what its name says a round handles.
    pub fn elements_per_round(&self) -> u64 {
        self.elements
    }

    /// Rounds that [`Self::count`] counts.
    pub fn rounds_counted(&self) -> u32 {
        self.rounds
    }

    /// Makes what a round needs.
    pub fn set_up(&self) -> Work {
        (self.set_up)()
    }

    /// Does all rounds inside [`COUNTED`], after some outside of it: the first ones make room that the others use.
    pub fn count(&self) {
        let mut work = self.set_up();
        for _ in 0..self.rounds.div_ceil(4) {
            work();
        }
        rounds_that_are_counted(&mut work, self.rounds);
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Case").field(&self.id()).finish()
    }
}

/// Part of the symbol's name inside which instructions count.
pub const COUNTED: &str = "rounds_that_are_counted";

#[inline(never)]
fn rounds_that_are_counted(work: &mut Work, rounds: u32) {
    for _ in 0..rounds {
        work();
    }
}
