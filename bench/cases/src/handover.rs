//! Coming back: a follower that resumes after a position and gets what it missed, and a page of history.

use antiphon_protocol::control::subscribe::From;

use crate::{case::Case, world::World};

pub(crate) fn cases() -> Vec<Case> {
    let resumes = [0_u32, 5, 50].map(|missed| Case::new("resume", format!("{missed} missed"), move || resume(missed)));
    let pages = [20_u32, 100]
        .map(|rows| Case::new("history", format!("newest {rows}"), move || history(rows)).elements(rows).rounds(50));
    resumes.into_iter().chain(pages).collect()
}

fn resume(missed: u32) -> impl FnMut() {
    let mut world = World::new(10, 200);
    let position = world.head();
    world.send(missed);
    // The position stays the same, so that every round hands over the same rows.
    move || {
        world.subscribe(1, From::After(position));
    }
}

fn history(rows: u32) -> impl FnMut() {
    let mut world = World::new(1, 200);
    world.send(200);
    move || {
        world.fetch(1, rows);
    }
}
