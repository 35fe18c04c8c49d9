//! The contract, sentence by sentence.

use antiphon_protocol::control::PresenceStatus;
use antiphon_storage_contract::presence::{
    Answer, Look, Payer, PresenceError, PresenceEvent, PresenceOp, Question, Seat, Seen, Take, UserKey,
};
use bytes::Bytes;

use super::{Test, World, device, log, look, online, seat, tenant, user, user_of};

pub(super) const TESTS: &[(&str, Test)] = &[
    ("a watcher gets the state of now", a_watcher_gets_the_state_of_now),
    ("the first and the last seat are transitions", the_first_and_the_last_seat_are_transitions),
    ("a seat that is restated is no transition", a_seat_that_is_restated_is_no_transition),
    ("a seat comes with one that goes and was not known", a_seat_comes_with_one_that_goes_and_was_not_known),
    ("a device moves between processes unseen", a_device_moves_between_processes_unseen),
    ("the newest look counts", the_newest_look_counts),
    ("a look is forgotten with the presence", a_look_is_forgotten_with_the_presence),
    ("whoever looks offline goes unseen", whoever_looks_offline_goes_unseen),
    ("the seats of a dead process run out once", the_seats_of_a_dead_process_run_out_once),
    ("a watch that ended is not told", a_watch_that_ended_is_not_told),
    ("a watch that is restated is answered again", a_watch_that_is_restated_is_answered_again),
    ("tenants do not mix", tenants_do_not_mix),
    ("signals reach subscribers", signals_reach_subscribers),
    ("a bucket is shared by all processes", a_bucket_is_shared_by_all_processes),
    ("a bucket that nobody could fill is a misuse", a_bucket_that_nobody_could_fill_is_a_misuse),
    ("revocations only rise and every process is told", revocations_only_rise_and_every_process_is_told),
];

fn a_watcher_gets_the_state_of_now(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    assert_eq!(world.watch(a, user(1)), Seen::offline());
    world.here(a, seat(1, 1));
    assert_eq!(world.next_seen(a, &user(1)), online());
    assert_eq!(world.watch(b, user(1)), online());
}

fn the_first_and_the_last_seat_are_transitions(world: &mut World) {
    let (a, b, c) = (world.start(), world.start(), world.start());
    world.watch(a, user(1));
    world.watch(c, user(1));
    world.here(a, seat(1, 1));
    world.until_devices(c, &user(1), &[device(1)]);
    world.here(b, seat(1, 2));
    world.until_devices(c, &user(1), &[device(1), device(2)]);
    world.here(a, seat(1, 3));
    world.until_devices(c, &user(1), &[device(1), device(2), device(3)]);
    world.left(a, seat(1, 1));
    world.left(a, seat(1, 3));
    world.until_devices(c, &user(1), &[device(2)]);
    world.left(b, seat(1, 2));
    world.until_devices(c, &user(1), &[]);
    world.left(b, seat(1, 2));
    world.here(b, seat(1, 2));
    for watcher in [a, c] {
        let told = [(); 3].map(|()| world.next_seen(watcher, &user(1)));
        assert_eq!(told, [online(), Seen::offline(), online()]);
    }
}

fn a_seat_that_is_restated_is_no_transition(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    for _ in 0..3 {
        world.here(a, seat(1, 1));
        world.until_devices(b, &user(1), &[device(1)]);
    }
    world.left(a, seat(1, 1));
    assert_eq!([(); 2].map(|()| world.next_seen(b, &user(1))), [online(), Seen::offline()]);
}

fn a_seat_comes_with_one_that_goes_and_was_not_known(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    for n in 1..=9 {
        world.watch(a, user(n));
        world.watch(b, user(n));
        world.left(a, seat(n, 1));
        world.here(a, seat(n, 2));
        assert_eq!([a, b].map(|watcher| world.next_seen(watcher, &user(n))), [online(), online()]);
    }
}

fn a_device_moves_between_processes_unseen(world: &mut World) {
    let (a, b, c) = (world.start(), world.start(), world.start());
    world.watch(c, user(1));
    world.here(a, seat(1, 1));
    assert_eq!(world.next_seen(c, &user(1)), online());
    // The same numbers at another process are another seat.
    world.here(b, seat(1, 1));
    world.here(b, Seat { incarnation: 2, ..seat(1, 1) });
    world.here(b, seat(1, 2));
    world.until_devices(c, &user(1), &[device(1), device(2)]);
    world.left(b, seat(1, 2));
    world.left(a, seat(1, 1));
    world.until_devices(c, &user(1), &[device(1)]);
    world.left(b, Seat { incarnation: 2, ..seat(1, 1) });
    world.left(b, seat(1, 1));
    assert_eq!(world.next_seen(c, &user(1)), Seen::offline());
}

fn known(status: PresenceStatus, text: &str) -> Seen {
    Seen::Known { status, text: text.into() }
}

fn shown(world: &mut World, process: usize, seat: Seat, look: Look) {
    world.submit(process, PresenceOp::Here { seat, look });
}

fn the_newest_look_counts(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    world.here(a, seat(1, 1));
    assert_eq!(world.next_seen(b, &user(1)), online());
    shown(world, a, seat(1, 1), look(PresenceStatus::Busy, "writing", 20));
    assert_eq!(world.next_seen(b, &user(1)), known(PresenceStatus::Busy, "writing"));
    for no_newer in [10, 20] {
        shown(world, b, seat(1, no_newer), look(PresenceStatus::Away, "", no_newer));
    }
    world.until_devices(b, &user(1), &[device(1), device(10), device(20)]);
    // What a process said counts after its seats are gone.
    world.left(a, seat(1, 1));
    world.until_devices(b, &user(1), &[device(10), device(20)]);
    shown(world, b, seat(1, 10), look(PresenceStatus::Away, "soon \u{1f375} back", 21));
    assert_eq!(world.next_seen(b, &user(1)), known(PresenceStatus::Away, "soon \u{1f375} back"));
}

fn a_look_is_forgotten_with_the_presence(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    shown(world, a, seat(1, 1), look(PresenceStatus::Away, "tea", 100));
    assert_eq!(world.next_seen(b, &user(1)), known(PresenceStatus::Away, "tea"));
    world.left(a, seat(1, 1));
    assert_eq!(world.next_seen(b, &user(1)), Seen::offline());
    world.here(b, seat(1, 2));
    assert_eq!(world.next_seen(b, &user(1)), online());
    world.here(a, seat(1, 1));
    world.until_devices(b, &user(1), &[device(1), device(2)]);
    world.left(b, seat(1, 2));
    world.left(a, seat(1, 1));
    assert_eq!(world.next_seen(b, &user(1)), Seen::offline());
}

fn whoever_looks_offline_goes_unseen(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    shown(world, a, seat(1, 1), look(PresenceStatus::Offline, "", 1));
    world.until_devices(b, &user(1), &[device(1)]);
    world.left(a, seat(1, 1));
    world.until_devices(b, &user(1), &[]);
    world.here(a, seat(1, 1));
    assert_eq!(world.next_seen(b, &user(1)), online());
}

fn the_seats_of_a_dead_process_run_out_once(world: &mut World) {
    let (a, b, c) = (world.start(), world.start(), world.start());
    for n in 1..=3 {
        for watcher in [a, b] {
            world.watch(watcher, user(n));
        }
        world.here(c, seat(n, 1));
    }
    world.here(b, seat(2, 2));
    world.until_devices(a, &user(2), &[device(1), device(2)]);
    for watcher in [a, b] {
        for n in 1..=3 {
            assert_eq!(world.next_seen(watcher, &user(n)), online());
        }
    }
    world.kill(c);
    for watcher in [a, b] {
        for n in [1, 3] {
            assert_eq!(world.next_seen(watcher, &user(n)), Seen::offline());
        }
    }
    world.until_devices(a, &user(2), &[device(2)]);
    for n in 1..=3 {
        world.here(a, seat(n, 7));
        let others: &[u64] = if n == 2 { &[2, 7] } else { &[7] };
        world.until_devices(a, &user(n), &others.iter().map(|n| device(*n)).collect::<Vec<_>>());
        world.left(a, seat(n, 7));
    }
    world.left(b, seat(2, 2));
    for watcher in [a, b] {
        assert_eq!(world.next_seen(watcher, &user(2)), Seen::offline());
        assert_eq!([(); 2].map(|()| world.next_seen(watcher, &user(1))), [online(), Seen::offline()]);
    }
}

fn a_watch_that_ended_is_not_told(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    world.watch(b, user(2));
    world.submit(b, PresenceOp::Unwatch(user(1)));
    world.here(a, seat(1, 1));
    world.until_devices(b, &user(1), &[device(1)]);
    world.here(a, seat(2, 1));
    assert_eq!(world.next_seen(b, &user(2)), online());
    assert_eq!(world.watch(b, user(1)), online(), "of the time in between nothing is told");
}

fn a_watch_that_is_restated_is_answered_again(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    world.watch(b, user(1));
    world.here(a, seat(1, 1));
    assert_eq!(world.next_seen(b, &user(1)), online());
    assert_eq!(world.watch(b, user(1)), online());
    assert_eq!(world.watch(b, user(1)), online());
}

fn tenants_do_not_mix(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    let (ours, theirs) = (user_of("ours", 1), user_of("theirs", 1));
    world.watch(b, ours.clone());
    world.watch(b, theirs.clone());
    let of = |owner: &UserKey| Seat { owner: owner.clone(), device: device(1), incarnation: 1 };
    world.here(a, of(&theirs));
    assert_eq!(world.next_seen(b, &theirs), online());
    world.until_devices(b, &ours, &[]);
    world.here(a, of(&ours));
    world.left(a, of(&theirs));
    assert_eq!(world.next_seen(b, &theirs), Seen::offline());
    assert_eq!(world.next_seen(b, &ours), online());
    let revoke = Question::Revoke { user: ours.clone(), not_before_ms: 5 };
    assert_eq!(world.ask(a, revoke), Ok(Answer::NotBefore(5)));
    assert_eq!(world.ask(a, Question::NotBefore(theirs)), Ok(Answer::NotBefore(0)));
}

/// Publishes until a subscription has begun, which nobody is told.
fn until_subscribed(world: &mut World, publisher: usize, subscriber: usize, to: u64) {
    let payload = Bytes::from_static(b"anybody?");
    loop {
        world.submit(publisher, PresenceOp::Publish { log: log(to), payload: payload.clone() });
        world.until_devices(publisher, &user(9), &[]);
        world.poll(subscriber);
        let heard = |event: &PresenceEvent| matches!(event, PresenceEvent::Signal { log: of, .. } if *of == log(to));
        if world.process(subscriber).events.iter().any(heard) {
            return;
        }
        world.store.wait();
    }
}

fn next_signal(world: &mut World, process: usize) -> (u64, Bytes) {
    world.next(process, "a signal", |event| match event {
        PresenceEvent::Signal { payload, .. } if payload == "anybody?" => None,
        PresenceEvent::Signal { log: of, payload } => (0..9).find(|n| log(*n) == *of).map(|n| (n, payload.clone())),
        _ => None,
    })
}

fn signals_reach_subscribers(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    for n in [1, 2] {
        world.submit(b, PresenceOp::Subscribe(log(n)));
        until_subscribed(world, a, b, n);
    }
    world.submit(a, PresenceOp::Subscribe(log(1)));
    until_subscribed(world, b, a, 1);
    let bytes = Bytes::from_static(b"\0\xff binary \r\n");
    world.submit(a, PresenceOp::Publish { log: log(1), payload: bytes.clone() });
    assert_eq!(next_signal(world, a), (1, bytes.clone()), "the publisher hears itself");
    assert_eq!(next_signal(world, b), (1, bytes.clone()));
    world.submit(b, PresenceOp::Publish { log: log(3), payload: bytes });
    world.submit(b, PresenceOp::Publish { log: log(2), payload: Bytes::new() });
    assert_eq!(next_signal(world, b), (2, Bytes::new()), "nothing comes of a log without a subscription");
    world.submit(b, PresenceOp::Unsubscribe(log(2)));
    world.submit(b, PresenceOp::Publish { log: log(1), payload: Bytes::from_static(b"end") });
    assert_eq!(next_signal(world, b), (1, Bytes::from_static(b"end")));
}

fn take(payer: Payer, cost: u32) -> Question {
    // So slow that the time of the test gives nothing back.
    Question::Take(Take { payer, kind: "send", cost, per_second: 1, burst: 100_000 })
}

fn a_bucket_is_shared_by_all_processes(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    for process in [a, b] {
        // Before a process has reached the store it decides alone.
        world.until_devices(process, &user(9), &[]);
    }
    let allowed = Ok(Answer::Verdict { retry_after_ms: None, is_local: false });
    let payers = [Payer::Tenant(tenant("t")), Payer::Tenant(tenant("s")), Payer::User(user_of("t", 1))];
    for payer in payers {
        assert_eq!(world.ask(a, take(payer.clone(), 60_000)), allowed);
        assert_eq!(world.ask(b, take(payer.clone(), 30_000)), allowed);
        let refused = world.ask(a, take(payer.clone(), 50_000));
        let Ok(Answer::Verdict { retry_after_ms: Some(retry), is_local: false }) = refused else {
            panic!("expected to be told to wait, got {refused:?}")
        };
        assert!((30_000_000..=40_000_000).contains(&retry), "40,000 s, less the time of the test, not {retry} ms");
        assert_eq!(world.ask(b, take(payer, 10_000)), allowed);
    }
}

fn a_bucket_that_nobody_could_fill_is_a_misuse(world: &mut World) {
    let a = world.start();
    let payer = Payer::Tenant(tenant("t"));
    let good = Take { payer, kind: "send", cost: 1, per_second: 1, burst: 1 };
    for bad in [
        Take { cost: 2, ..good.clone() },
        Take { per_second: 0, ..good.clone() },
        Take { kind: "", ..good.clone() },
        Take { kind: "{send}", ..good },
    ] {
        let answer = world.ask(a, Question::Take(bad));
        assert!(matches!(answer, Err(PresenceError::Misuse(_))), "{answer:?}");
    }
}

fn revocations_only_rise_and_every_process_is_told(world: &mut World) {
    let (a, b) = (world.start(), world.start());
    let revoke = |not_before_ms| Question::Revoke { user: user(1), not_before_ms };
    let not_before = || Question::NotBefore(user(1));
    assert_eq!(world.ask(b, not_before()), Ok(Answer::NotBefore(0)));
    assert_eq!(world.ask(a, revoke(1_700_000_000_123)), Ok(Answer::NotBefore(1_700_000_000_123)));
    assert_eq!(world.ask(b, revoke(1_600_000_000_000)), Ok(Answer::NotBefore(1_700_000_000_123)));
    assert_eq!(world.ask(b, not_before()), Ok(Answer::NotBefore(1_700_000_000_123)));
    assert_eq!(world.ask(b, revoke(1_700_000_000_124)), Ok(Answer::NotBefore(1_700_000_000_124)));
    for process in [a, b] {
        let told = [(); 2].map(|()| {
            world.next(process, "a revocation", |event| match event {
                PresenceEvent::Revoked { user: of, not_before_ms } if *of == user(1) => Some(*not_before_ms),
                _ => None,
            })
        });
        assert_eq!(told, [1_700_000_000_123, 1_700_000_000_124]);
    }
}
