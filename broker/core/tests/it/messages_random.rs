//! Pages of messages under random histories: whatever the store does meanwhile, they are the fold of every event.

use antiphon_protocol::{
    EventKind, FrameType, Row,
    control::{Fetch, MessagesPage},
    envelope::NewEnvelope,
    fold,
};
use antiphon_storage_contract::StoreError;

use super::{
    harness::*,
    messages_view::{assert_same, check, events, fetch, group, messages, related, target, walk},
};

/// Random events by three users, with lookups, restarts and failing writes in between; after each phase the pages are
/// the fold of every event, and an earlier page with the events since gives the same.
#[test]
fn any_history_folds_to_its_pages() {
    for seed in 0..12 {
        let mut dice = Dice(seed);
        let (mut c, mut ann, mut bob) = group();
        let mut acks = vec![c.say(ann, "c:tea", "first").ack()];
        let mut earlier: Option<MessagesPage> = None;
        for _ in 0..6 {
            for _ in 0..60 {
                let who = if dice.chance(50) { ann } else { bob };
                let ack = acks[dice.roll(acks.len() as u64) as usize];
                let kind =
                    [EventKind::REACTION, EventKind::REACTION, EventKind::PIN, EventKind::EDIT, EventKind::MESSAGE];
                let kind = if dice.chance(4) { EventKind::REDACT } else { kind[dice.roll(5) as usize] };
                let draft = match kind {
                    EventKind::MESSAGE if dice.chance(50) => {
                        let envelope = NewEnvelope { reply_to: Some(target(&ack)), ..Default::default() }.to_bytes();
                        Draft { envelope, ..c.draft("c:tea", "an answer") }
                    }
                    EventKind::MESSAGE => c.draft("c:tea", "a message"),
                    _ => {
                        let remove = kind >= EventKind::REACTION && dice.chance(40);
                        let key = ["+1", "heart"][dice.roll(2) as usize];
                        related(
                            &mut c,
                            kind,
                            target(&ack),
                            key,
                            remove,
                            if kind == EventKind::EDIT { "edited" } else { "" },
                        )
                    }
                };
                let id = c.send(who, &draft);
                if dice.chance(60) {
                    c.settle();
                    if let (Reply::Ack(ack), EventKind::MESSAGE) = (c.take(who, id), kind) {
                        acks.push(ack);
                    }
                }
            }
            c.settle();
            check(&mut c, ann, "ann");
            check(&mut c, bob, "bob");
            let rows = events(&mut c, bob);
            if let Some(earlier) = earlier.take() {
                let mut views = earlier.messages;
                let since = rows.iter().filter(|row| row.seq() > earlier.head);
                since.for_each(|row| fold::page(&mut views, row, "bob"));
                let mut now = messages(&mut c, bob);
                // What is new answers messages of other pages, which a client may not have.
                views.iter_mut().chain(&mut now).for_each(|view| {
                    let seq = Row::new(view.row.clone()).unwrap().seq();
                    if seq > earlier.head {
                        view.reply = None;
                    }
                });
                let held = views.iter().map(|view| Row::new(view.row.clone()).unwrap().seq()).collect::<Vec<_>>();
                now.retain(|view| held.contains(&Row::new(view.row.clone()).unwrap().seq()));
                // The rows themselves: the client empties what was redacted, as the store did.
                assert_same(&views, &now);
            }
            let mut page = c.call(bob, FrameType::Fetch, &fetch(20, true)).messages();
            page.messages.reverse();
            earlier = Some(page);
            match dice.roll(4) {
                0 => c.store.fail(Kind::PutRecords, StoreError::Full, 3),
                1 => {
                    let survive = dice.chance(50);
                    c.restart(2, survive);
                    c.store.faults.clear();
                    ann = c.connect(dice.roll(2) as usize, "ann");
                    bob = c.connect(dice.roll(2) as usize, "bob");
                }
                2 => c.store.faults.push(Fault {
                    kind: Kind::Append,
                    error: StoreError::Unavailable("test".into()),
                    applies: dice.chance(50),
                    times: 1,
                }),
                _ => c.advance_ms(1_500),
            }
        }
    }
}

const KINDS: [Kind; 9] = [
    Kind::Append,
    Kind::Rewrite,
    Kind::Checkpoint,
    Kind::PutRecords,
    Kind::Read,
    Kind::FindTime,
    Kind::FindDuplicate,
    Kind::ScanRecords,
    Kind::GetRecord,
];

/// Lets the store do one thing that it may do now, and the shards take it in. False if it has nothing to do.
fn one_completion(c: &mut Cluster, dice: &mut Dice) -> bool {
    c.store.hold(&[]);
    let eligible = c.store.eligible();
    if !eligible.is_empty() {
        c.complete(eligible[dice.roll(eligible.len() as u64) as usize]);
    }
    c.store.hold(&KINDS);
    while c.turn() {}
    !eligible.is_empty()
}

#[test]
fn pages_put_together_while_events_come_are_completed_by_the_events_behind_them() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (mut c, ann, bob) = group();
        let mut acks = Vec::new();
        for n in 0..8 {
            acks.push(c.say(ann, "c:tea", &format!("message {n}")).ack());
        }
        // Some of them are no longer in memory, and nobody knows whether they were touched.
        for n in 0..if seed % 2 == 0 { 300 } else { 0 } {
            c.say(ann, "c:tea", &format!("fill {n}")).ack();
        }
        let to = acks[7].position.seq + 1;
        let (mut ann, mut bob) = (ann, bob);
        if seed % 3 == 0 {
            c.restart(2, false);
            (ann, bob) = (c.connect(1, "ann"), c.connect(0, "bob"));
            c.get(ann, "tea").conversation();
        }
        c.store.hold(&KINDS);
        let mut asked = Vec::new();
        for _ in 0..80 {
            let who = if dice.chance(50) { ann } else { bob };
            let ack = acks[dice.roll(3) as usize];
            if dice.chance(15) && asked.len() < 4 {
                // A date before everything changes nothing, but has to be found.
                let at_ms = dice.roll(2);
                asked.push(c.ask(bob, FrameType::Fetch, &Fetch { to, at_ms, ..fetch(0, false) }));
            } else {
                let kind = if dice.chance(5) { EventKind::REDACT } else { EventKind::REACTION };
                let kind = if dice.chance(15) { EventKind::EDIT } else { kind };
                let remove = kind == EventKind::REACTION && dice.chance(50);
                let draft = related(&mut c, kind, target(&ack), "+1", remove, "");
                c.send(who, &draft);
            }
            while c.turn() {}
            for _ in 0..dice.roll(4) {
                one_completion(&mut c, &mut dice);
            }
        }
        while one_completion(&mut c, &mut dice) {}
        c.store.hold(&[]);
        c.settle();
        check(&mut c, bob, "bob");
        let (rows, now) = (events(&mut c, bob), walk(&mut c, bob, Fetch { to, ..fetch(0, false) }));
        for id in asked {
            let page = c.take(bob, id).messages();
            let mut views = page.messages;
            let since = rows.iter().filter(|row| row.seq() > page.head);
            since.for_each(|row| views.iter_mut().for_each(|view| fold::view(view, row, "bob")));
            assert_same(&views, &now);
        }
    }
}
