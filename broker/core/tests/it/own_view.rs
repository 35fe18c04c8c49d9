//! What a user sees of a conversation is the user's own: hidden messages are left out, own messages are read.

use antiphon_protocol::{
    ErrorCode, FrameType, Row,
    control::{self, Hide},
};

use super::{
    harness::*,
    messages_view::{fetch, group, messages, walk},
};

fn hide(c: &mut Cluster, who: Who, seq: u64) {
    let hide = Hide { log: "c:tea".into(), event_id: vec![1; 16].into(), seq };
    c.call(who, FrameType::Hide, &hide).ok::<()>();
}

fn texts(views: &[control::MessageView]) -> Vec<String> {
    views.iter().map(|view| text(&Row::new(view.row.clone()).unwrap())).collect()
}

fn read_msgno(c: &mut Cluster, who: Who) -> (u64, u64) {
    let synced: control::Synced = c.call(who, FrameType::Sync, &control::Sync::default()).ok();
    let [entry] = synced.entries.as_slice() else { panic!("one conversation: {synced:?}") };
    (entry.read_msgno, entry.head_msgno)
}

#[test]
fn a_page_of_messages_leaves_out_what_its_reader_hid_and_nobody_elses() {
    let (mut c, ann, bob) = group();
    let acks: Vec<_> = (1..=5).map(|n| c.say(ann, "c:tea", &format!("message {n}")).ack()).collect();
    for ack in [&acks[1], &acks[3]] {
        hide(&mut c, bob, ack.position.seq);
    }
    for is_restarted in [false, true] {
        let (ann, bob) = if is_restarted {
            c.restart(2, false);
            (c.connect(1, "ann"), c.connect(0, "bob"))
        } else {
            (ann, bob)
        };
        assert_eq!(texts(&messages(&mut c, bob)), ["message 1", "message 3", "message 5"]);
        assert_eq!(texts(&walk(&mut c, bob, fetch(2, true))), ["message 5", "message 3", "message 1"]);
        assert_eq!(messages(&mut c, ann).len(), 5, "others see all");
        assert_eq!(c.fetch(bob, "c:tea", 1, 0).page().rows.len(), 6, "rows are never left out: positions stay dense");
    }
}

#[test]
fn pages_of_messages_give_their_slots_back_whoever_refuses() {
    let (mut c, _ann, bob) = group();
    let foreign = control::Fetch { log: "c:coffee".into(), ..fetch(0, false) };
    let nameless = control::Fetch { log: "tea".into(), ..fetch(0, false) };
    for _ in 0..20 {
        assert_eq!(c.call(bob, FrameType::Fetch, &foreign).code(), ErrorCode::NotFound);
        assert_eq!(c.call(bob, FrameType::Fetch, &nameless).code(), ErrorCode::InvalidField);
    }
    assert_eq!(messages(&mut c, bob), []);
}

#[test]
fn who_sends_has_read_up_to_the_own_message() {
    let (mut c, ann, bob) = group();
    c.say(ann, "c:tea", "one").ack();
    c.say(ann, "c:tea", "two").ack();
    assert_eq!((read_msgno(&mut c, ann), read_msgno(&mut c, bob)), ((2, 2), (0, 2)));
    c.say(bob, "c:tea", "three").ack();
    assert_eq!((read_msgno(&mut c, ann), read_msgno(&mut c, bob)), ((2, 3), (3, 3)));
    c.advance_ms(1_001);
    c.restart(1, false);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    assert_eq!((read_msgno(&mut c, ann), read_msgno(&mut c, bob)), ((2, 3), (3, 3)), "cursors are saved");
}

#[test]
fn a_service_that_sends_for_a_user_reads_nothing_for_that_user() {
    let (mut c, ann, _bob) = group();
    let service = c.service("helper");
    let service = c.connect_with(0, service);
    let draft = Draft { act_as: Some("ann".into()), ..c.draft("c:tea", "a reminder") };
    c.send_now(service, &draft).ack();
    assert_eq!(read_msgno(&mut c, ann), (0, 1));
}
