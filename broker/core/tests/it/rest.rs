//! What a broker does before it ends by its own will: the next one finds everything, and reads no rows to take it up.

use antiphon_core::{Input, Shard, limits::LOGS_RESTED_PER_TURN};
use antiphon_protocol::{
    FrameType,
    control::{Cursor, subscribe::From},
};
use antiphon_storage_contract::StoreError;

use super::harness::*;

fn end(c: &mut Cluster, shards: usize) {
    for shard in 0..c.shards.len() {
        assert!(!c.shards[shard].is_at_rest(), "nobody has asked for it");
        c.input(shard, Input::Rest);
    }
    c.settle();
    assert!(c.shards.iter().all(Shard::is_at_rest));
    c.restart(shards, false);
}

fn has_rows_behind_its_checkpoint(log: &&StoredLog) -> bool {
    log.checkpoint.as_ref().map_or(0, |(through, _)| *through) < log.head()
}

#[test]
fn every_log_has_a_checkpoint_of_its_head_and_no_cursor_is_lost() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    for n in 0..5 {
        c.say(ann, "c:tea", &n.to_string()).ack();
    }
    c.call(bob, FrameType::Cursor, &Cursor { log: "c:tea".into(), delivered: 4, read: 3, act_as: String::new() })
        .ok::<()>();
    assert!(c.store.logs.values().any(|log| has_rows_behind_its_checkpoint(&log)));

    // Within the second after which cursors are saved.
    end(&mut c, 3);
    assert!(!c.store.logs.values().any(|log| has_rows_behind_its_checkpoint(&log)));
    let bob = c.connect(2, "bob");
    let attach = c.subscribe(bob, "c:tea", From::Tail(true)).attach();
    let read = attach.cursors.iter().find(|cursor| cursor.user == "bob").map(|cursor| cursor.read);
    assert_eq!((read, attach.head, attach.head_msgno), (Some(3), 6, 5));
    c.say(bob, "c:tea", "on we go").ack();
}

#[test]
fn more_logs_than_one_turn_takes_come_to_rest_and_one_that_cannot_be_written_is_waited_for_no_longer() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    for n in 0..LOGS_RESTED_PER_TURN * 3 {
        c.group(ann, &format!("tea{n}"), &[]);
    }
    c.store.fail(Kind::Checkpoint, StoreError::Full, 1);
    end(&mut c, 1);
    let behind = c.store.logs.values().filter(has_rows_behind_its_checkpoint).count();
    assert_eq!(behind, 1, "the one that did not fit");
    let ann = c.connect(0, "ann");
    for n in [0, LOGS_RESTED_PER_TURN * 3 - 1] {
        c.say(ann, &format!("c:tea{n}"), "still here").ack();
    }
}
