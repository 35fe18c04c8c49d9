//! One message to many followers through a shard's logic, into their outboxes and out of them again: what a delivery
//! costs before QUIC. The figure of 1 is mostly that of the send itself.

use crate::{case::Case, world::World};

pub(crate) fn cases() -> Vec<Case> {
    let case = |members: u32, rounds: u32| {
        Case::new("fan-out", format!("1 to {members}"), move || send(members)).elements(members).rounds(rounds)
    };
    vec![case(1, 200), case(10, 200), case(500, 20), case(5_000, 4)]
}

fn send(members: u32) -> impl FnMut() {
    let mut world = World::new(members, 200);
    move || {
        world.send(1);
    }
}
