//! One message through a shard's logic, from the bytes of a SEND to its ACK: decode, check, order, duplicate index,
//! store (in memory), acknowledge. Nobody follows the conversation.

use crate::{case::Case, world::World};

pub(crate) fn cases() -> Vec<Case> {
    let case = |in_turn: u32, rounds: u32| {
        let name = format!("{in_turn} in a turn");
        Case::new("send to ack", name, move || send(in_turn)).elements(in_turn).rounds(rounds)
    };
    vec![case(1, 200), case(10, 100), case(100, 20)]
}

fn send(in_turn: u32) -> impl FnMut() {
    let mut world = World::new(0, 200);
    move || {
        world.send(in_turn);
    }
}
