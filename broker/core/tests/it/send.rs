//! Acknowledgement, echo, and what a send must be.

use antiphon_protocol::{
    ContentType, ErrorCode, EventKind, FrameType, Rel, Relation, control,
    envelope::{EventRef, NewEnvelope},
    frames,
    limits::BODY_BYTES_MAX,
};
use uuid::Uuid;

use super::harness::*;

#[test]
fn nothing_is_acknowledged_or_delivered_before_its_append_completed() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(ann, "c:tea");
    c.follow(bob, "c:tea");
    c.store.hold(&[Kind::Append]);
    let draft = c.draft("c:tea", "hello");
    let id = c.send(ann, &draft);
    c.settle();
    assert!(!c.is_answered(ann, id));
    assert!(c.heard(ann, "c:tea").is_empty() && c.heard(bob, "c:tea").is_empty());
    c.store.hold(&[]);
    c.settle();
    let ack = c.take(ann, id).ack();
    assert_eq!((ack.position.seq, ack.position.epoch, ack.msgno, ack.duplicate), (2, 1, 1, false));
    assert_eq!(c.heard(bob, "c:tea"), ["hello"]);
}

#[test]
fn the_sender_gets_its_own_event_with_its_own_id() {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    c.group(ann, "tea", &[]);
    c.follow(ann, "c:tea");
    let draft = c.draft("c:tea", "hello");
    let ack = c.send_now(ann, &draft).ack();
    let rows = c.client(ann).rows("c:tea");
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].client_message_id(), rows[0].event_id()), (draft.id, ack.event_id));
    assert_eq!((rows[0].sender(), rows[0].via(), rows[0].time_ms()), ("ann", None, START_MS));
}

#[test]
fn sends_of_one_turn_are_one_append_and_keep_their_order() {
    let mut c = Cluster::new(1);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(0, "bob"));
    c.group(ann, "tea", &["bob"]);
    c.follow(bob, "c:tea");
    let before = c.store.count(Kind::Append);
    let ids: Vec<u32> = (0..50)
        .map(|n| {
            let draft = c.draft("c:tea", &n.to_string()).dseq(n + 1);
            c.send(ann, &draft)
        })
        .collect();
    c.settle();
    assert_eq!(c.store.count(Kind::Append), before + 1);
    let seqs: Vec<u64> = ids.into_iter().map(|id| c.take(ann, id).ack().position.seq).collect();
    assert_eq!(seqs, (2..52).collect::<Vec<_>>());
    assert_eq!(c.heard(bob, "c:tea"), (0..50).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn only_messages_count_towards_msgno() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let first = c.say(ann, "c:tea", "one").ack();
    let add = control::MemberAdd {
        conversation: "tea".into(),
        members: vec![member("bob", control::Role::Member)],
        ..Default::default()
    };
    assert_eq!(c.call(ann, FrameType::MemberAdd, &add).conversation().head_msgno, 1);
    let second = c.say(ann, "c:tea", "two").ack();
    assert_eq!((first.msgno, second.msgno, second.position.seq), (1, 2, 4));
}

#[test]
fn a_send_outside_its_rules_is_refused_by_the_name_of_the_field() {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    c.group(ann, "tea", &[]);
    let good = c.draft("c:tea", "hello");
    let cases = [
        (Draft { kind: EventKind::MEMBER, ..good.clone() }, ErrorCode::InvalidField, "kind"),
        (Draft { kind: EventKind(99), ..good.clone() }, ErrorCode::InvalidField, "kind"),
        (Draft { body: vec![0xff], ..good.clone() }, ErrorCode::InvalidField, "body"),
        (
            Draft { id: Uuid::from_u128(4 << 76 | 2 << 62), ..good.clone() },
            ErrorCode::InvalidField,
            "client_message_id",
        ),
        (Draft { id: Uuid::nil(), ..good.clone() }, ErrorCode::InvalidField, "client_message_id"),
        (Draft { act_as: Some("bob".into()), ..good.clone() }, ErrorCode::Forbidden, "act_as"),
        (Draft { log: "c:other".into(), ..good.clone() }, ErrorCode::NotFound, ""),
        (Draft { log: "u:ann".into(), ..good.clone() }, ErrorCode::NotFound, ""),
    ];
    for (draft, code, field) in cases {
        let error = c.send_now(ann, &draft).error();
        assert_eq!((error.number, error.field.as_str()), (code as u32, field), "{draft:?}");
        assert_eq!(error.outcome(), control::error::Outcome::NotApplied);
    }
    let octets = Draft { body: vec![0xff], content_type: ContentType::Octets, ..good };
    c.send_now(ann, &octets).ack();
    assert_eq!(c.stored(ann, "c:tea").head(), 2);
}

#[test]
fn the_largest_body_passes() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.follow(ann, "c:tea");
    let body = "x".repeat(BODY_BYTES_MAX);
    c.say(ann, "c:tea", &body).ack();
    assert_eq!(c.heard(ann, "c:tea"), [body]);
}

#[test]
fn an_envelope_is_checked_and_delivered_as_it_came() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.follow(ann, "c:tea");
    let bob = "bob".parse().unwrap();
    let envelope = NewEnvelope { mentions: std::slice::from_ref(&bob), ..Default::default() }.to_bytes();
    let draft = Draft { envelope: envelope.clone(), ..c.draft("c:tea", "hello @bob") };
    c.send_now(ann, &draft).ack();
    assert_eq!(c.client(ann).rows("c:tea")[0].envelope(), envelope);
    let torn = Draft { envelope: envelope[..envelope.len() / 2].to_vec(), ..c.draft("c:tea", "torn") };
    assert_eq!(c.send_now(ann, &torn).error().field, "mentions");
    // A message relates to nothing.
    let target = EventRef { event_id: Uuid::from_u128(1), seq: 1 };
    let relation = Relation { rel: Rel::EDIT, target, key: None, remove: false };
    let envelope = NewEnvelope { relates_to: Some(relation), ..Default::default() }.to_bytes();
    let related = Draft { envelope, ..c.draft("c:tea", "x") };
    assert!(matches!(c.send_now(ann, &related), Reply::Error(_)));
}

#[test]
fn a_service_acts_for_a_user_and_the_row_says_so() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &["bob"]);
    c.follow(ann, "c:tea");
    let claims = c.service("crm");
    let crm = c.connect_with(1, claims);
    let draft = Draft { act_as: Some("bob".into()), ..c.draft("c:tea", "from bob") };
    c.send_now(crm, &draft).ack();
    let row = c.client(ann).rows("c:tea").pop().unwrap();
    assert_eq!((row.sender(), row.via()), ("bob", Some("crm")));
    let stranger = Draft { act_as: Some("eve".into()), ..c.draft("c:tea", "from eve") };
    assert_eq!(c.send_now(crm, &stranger).code(), ErrorCode::NotFound, "the user's rights decide");
    let own = c.draft("c:tea", "from crm");
    assert_eq!(c.send_now(crm, &own).code(), ErrorCode::NotFound);
    // The same id again, as the same user, is a repetition.
    assert!(c.send_now(crm, &draft).ack().duplicate);
}

#[test]
fn a_log_that_nobody_created_is_governed_by_grants() {
    use antiphon_core::claims::Ability::{Read, Send};
    let mut c = Cluster::new(2);
    let claims = c.granted("bot", "c:feed-*", &[Read, Send]);
    let bot = c.connect_with(0, claims);
    let ann = c.connect(1, "ann");
    assert_eq!(c.say(bot, "c:feed-1", "news").ack().position.seq, 1);
    assert_eq!(c.say(bot, "c:other", "news").code(), ErrorCode::NotFound);
    assert_eq!(c.say(ann, "c:feed-1", "news").code(), ErrorCode::NotFound);
    let claims = c.granted("reader", "c:feed-1", &[Read]);
    let reader = c.connect_with(1, claims);
    assert_eq!(c.say(reader, "c:feed-1", "news").code(), ErrorCode::Forbidden);
    assert_eq!(c.fetch(reader, "c:feed-1", 0, 0).page().rows.len(), 1);
}

#[test]
fn equal_names_of_two_tenants_are_two_logs() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    let claims = antiphon_core::Claims { tenant: "umbrella".parse().unwrap(), ..c.claims("ann") };
    let other = c.connect_with(1, claims);
    c.group(ann, "tea", &[]);
    c.say(ann, "c:tea", "secret").ack();
    assert_eq!(c.fetch(other, "c:tea", 0, 0).code(), ErrorCode::NotFound);
    assert_eq!(c.say(other, "c:tea", "x").code(), ErrorCode::NotFound);
    c.group(other, "tea", &[]);
    assert_eq!(c.fetch(other, "c:tea", 0, 0).page().rows.len(), 1);
}

#[test]
fn a_body_that_cannot_be_read_is_refused_with_its_field_and_the_session_goes_on() {
    let mut c = Cluster::new(2);
    let ann = c.connect(1, "ann");
    c.group(ann, "tea", &[]);
    let bodies: [(FrameType, &[u8], ErrorCode, &str); 6] = [
        (FrameType::Send, &[1; 20], ErrorCode::Malformed, "dseq"),
        (FrameType::Subscribe, &[0x0a, 5, b'a'], ErrorCode::Malformed, "body"),
        (FrameType::Fetch, &[0x78, 1], ErrorCode::UnknownFields, ""),
        (FrameType::Cursor, b"\x0a\x01x", ErrorCode::InvalidField, "log"),
        (FrameType::ConversationGet, b"\x0a\x02a ", ErrorCode::InvalidField, "conversation"),
        (FrameType::MemberRemove, b"\x0a\x03tea\x12\x01!", ErrorCode::InvalidField, "user"),
    ];
    for (frame_type, body, code, field) in bodies {
        let id = c.client_mut(ann).next_request_id();
        c.client_mut(ann).unanswered.insert(id, None);
        c.raw(ann, frames::raw(frame_type, id, body));
        c.settle();
        let error = c.take(ann, id).error();
        assert_eq!((error.number, error.field.as_str()), (code as u32, field), "{}", frame_type.name());
    }
    c.say(ann, "c:tea", "still here").ack();
}
