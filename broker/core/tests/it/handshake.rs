//! From the first byte to WELCOME, renewal, expiry, eviction, farewell.

use antiphon_core::{Claims, Input, TokenRefusal};
use antiphon_protocol::{
    ErrorCode, FrameType, VERSION,
    control::{self, Hello, Welcome},
    frames,
    limits::{FRAME_BYTES_MAX, PRE_AUTH_BYTES_MAX, TOKEN_BYTES_MAX},
};
use bytes::Bytes;

use super::harness::*;

fn farewell(c: &Cluster, who: Who) -> (ErrorCode, String) {
    let error = c.client(who).farewell.clone().expect("the connection is closed with a reason");
    let code = ErrorCode::from_number(error.number).unwrap();
    assert_eq!(c.client(who).closed, Some(code), "the close code repeats the ERROR's number");
    (code, error.field)
}

fn ready(c: &mut Cluster, user: &str) -> (Who, Hello) {
    let who = c.open(0);
    let token = format!("token of {user}");
    let claims = c.claims(user);
    c.tokens.insert(token.clone(), Ok(claims));
    (who, hello(&token, "phone"))
}

fn welcome(c: &mut Cluster, who: Who, hello: &Hello) -> Welcome {
    match c.call(who, FrameType::Hello, hello) {
        Reply::Welcome(welcome) => *welcome,
        other => panic!("a WELCOME was expected, not {other:?}"),
    }
}

#[test]
fn welcome_says_who_one_is_and_what_is_allowed() {
    let mut c = Cluster::new(2);
    let (who, hello) = ready(&mut c, "ann");
    let welcome = welcome(&mut c, who, &hello);
    assert_eq!((welcome.version, welcome.user.as_str(), welcome.device.as_str()), (VERSION, "ann", "phone"));
    assert_eq!((welcome.server_time_ms, welcome.max_frame_bytes as usize), (START_MS, FRAME_BYTES_MAX));
    assert_eq!((welcome.session_id.len(), welcome.resumed), (16, false));
    assert_eq!(welcome.expires_at_ms, START_MS + 24 * 3_600_000);
}

#[test]
fn what_is_wrong_with_a_hello_closes_the_connection_with_its_field() {
    let mut c = Cluster::new(1);
    let (_, good) = ready(&mut c, "ann");
    let expired = TokenRefusal { expired: true, reason: "exp".into() };
    c.tokens.insert("expired".into(), Err(expired));
    let tablet = Claims { device: Some("tablet".parse().unwrap()), ..c.claims("ann") };
    c.tokens.insert("tablet".into(), Ok(tablet));
    let with = |token: &str| Hello { token: token.into(), ..good.clone() };
    let cases = [
        (with("forged"), ErrorCode::TokenInvalid, "token"),
        (with("expired"), ErrorCode::TokenExpired, "token"),
        (with(""), ErrorCode::TokenInvalid, "token"),
        (with(&"x".repeat(TOKEN_BYTES_MAX + 1)), ErrorCode::TokenInvalid, "token"),
        (with("tablet"), ErrorCode::TokenMismatch, "device"),
        (Hello { device: "a b".into(), ..good.clone() }, ErrorCode::InvalidField, "device"),
        (Hello { versions: vec![2, 3], ..good.clone() }, ErrorCode::VersionUnsupported, "versions"),
    ];
    for (hello, code, field) in cases {
        let who = c.open(0);
        c.ask(who, FrameType::Hello, &hello);
        c.settle();
        assert_eq!(farewell(&c, who), (code, field.into()));
    }
    let who = c.open(0);
    let from_token = Hello { device: String::new(), ..with("tablet") };
    assert_eq!(welcome(&mut c, who, &from_token).device, "tablet");
    assert_eq!(c.shards[0].counters().sessions, 1);
}

#[test]
fn a_first_frame_other_than_hello_is_refused() {
    let mut c = Cluster::new(1);
    for frame_type in [FrameType::Send, FrameType::Bye, FrameType::Welcome, FrameType::Signal] {
        let who = c.open(0);
        c.raw(who, frames::raw(frame_type, 1, &[]));
        c.settle();
        assert_eq!(farewell(&c, who).0, ErrorCode::UnexpectedFrame, "{}", frame_type.name());
    }
}

#[test]
fn unknown_fields_unknown_frames_and_torn_headers_end_the_handshake() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let unknown_frame = Bytes::from_static(&[0, 0, 0, 0, 0xee, 0, 0, 0, 1, 0, 0, 0]);
    let bad_zero = Bytes::from_static(&[0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0]);
    let long = Bytes::from_static(&[0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
    let cases = [
        (frames::raw(FrameType::Hello, 1, &[0xf8, 1, 1]), ErrorCode::UnknownFields),
        (frames::raw(FrameType::Hello, 1, &[0x12, 9, 1]), ErrorCode::Malformed),
        (frames::raw(FrameType::Hello, 0, &[]), ErrorCode::Malformed),
        (unknown_frame, ErrorCode::UnknownFrame),
        (bad_zero, ErrorCode::Malformed),
        (long, ErrorCode::FrameTooLarge),
    ];
    for (bytes, code) in cases {
        let who = c.open(0);
        c.raw(who, bytes);
        c.settle();
        assert_eq!(farewell(&c, who).0, code);
    }
}

#[test]
fn a_hello_may_come_byte_by_byte_behind_an_optional_frame() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let (who, hello) = ready(&mut c, "ann");
    c.raw(who, Bytes::from_static(&[3, 0, 0, 0, 0xee, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3]));
    let id = c.client_mut(who).next_request_id();
    c.client_mut(who).unanswered.insert(id, None);
    for byte in frames::control(FrameType::Hello, id, &hello) {
        c.raw(who, Bytes::copy_from_slice(&[byte]));
    }
    c.settle();
    assert!(matches!(c.take(who, id), Reply::Welcome(_)));
}

#[test]
fn requests_sent_before_welcome_wait_for_it() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    let (who, hello) = ready(&mut c, "ann");
    c.holds_verdicts = true;
    c.ask(who, FrameType::Hello, &hello);
    let draft = c.draft("c:tea", "early");
    let id = c.send(who, &draft);
    c.settle();
    assert!(!c.is_answered(who, id) && c.stored(ann, "c:tea").head() == 1);
    c.holds_verdicts = false;
    c.settle();
    c.take(who, id).ack();
}

#[test]
fn bytes_before_authentication_are_bounded() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(1);
    let (who, hello) = ready(&mut c, "ann");
    c.holds_verdicts = true;
    c.ask(who, FrameType::Hello, &hello);
    c.settle();
    let (shard, connection) = (0, c.client(who).connection);
    // A transport that does not look at `wants_input`.
    for _ in 0..3 {
        let bytes = Bytes::from(vec![0; PRE_AUTH_BYTES_MAX / 2]);
        c.input(shard, Input::Received { connection, bytes });
    }
    assert_eq!(farewell(&c, who).0, ErrorCode::LimitExceeded);
    let longest = "x".repeat(TOKEN_BYTES_MAX);
    let claims = c.claims("eve");
    c.tokens.insert(longest.clone(), Ok(claims));
    c.holds_verdicts = false;
    let eve = c.open(0);
    welcome(&mut c, eve, &Hello { token: longest, ..hello });
}

#[test]
fn whoever_does_not_authenticate_in_five_seconds_is_closed() {
    let mut c = Cluster::new(1);
    let silent = c.open(0);
    let (slow, hello) = ready(&mut c, "bob");
    c.holds_verdicts = true;
    c.ask(slow, FrameType::Hello, &hello);
    let timeout = c.shards[0].poll_timeout().unwrap();
    assert_eq!(timeout.unix_ms(), START_MS + 5_000);
    c.advance_ms(4_999);
    assert!(c.client(silent).farewell.is_none());
    c.advance_ms(1);
    for who in [silent, slow] {
        assert_eq!(farewell(&c, who).0, ErrorCode::AuthenticationTimeout);
    }
    // The verdict that comes too late opens nothing.
    c.holds_verdicts = false;
    c.settle();
    assert_eq!((c.shards[0].counters().sessions, c.shards[0].counters().connections), (0, 0));
    assert_eq!(c.shards[0].counters().sessions_refused, 2);
    let ann = c.connect(0, "ann");
    c.advance_ms(60_000);
    c.group(ann, "tea", &[]);
}

#[test]
fn a_resume_token_brings_the_session_id_back_to_its_own_user_and_device_only() {
    let mut c = Cluster::new(3);
    let (who, hello) = ready(&mut c, "ann");
    let first = welcome(&mut c, who, &hello);
    c.disconnect(who);
    c.restart(2, false);
    let resume = |token: &Bytes| Hello { resume_token: token.clone(), ..hello.clone() };
    let who = c.open(1);
    let second = welcome(&mut c, who, &resume(&first.resume_token));
    assert_eq!((second.resumed, &second.session_id), (true, &first.session_id));
    let (other, bobs) = ready(&mut c, "bob");
    let third = welcome(&mut c, other, &Hello { resume_token: first.resume_token.clone(), ..bobs });
    assert!(!third.resumed && third.session_id != first.session_id);
    let tablet = c.open(0);
    assert!(!welcome(&mut c, tablet, &Hello { device: "tablet".into(), ..resume(&first.resume_token) }).resumed);
    let mut forged = first.resume_token.to_vec();
    forged[20] ^= 1;
    for token in [Bytes::from(forged), Bytes::from_static(b"short")] {
        let who = c.open(0);
        assert!(!welcome(&mut c, who, &resume(&token)).resumed);
    }
}

#[test]
fn a_device_that_nobody_named_is_named_after_its_session() {
    let mut c = Cluster::new(2);
    let (first, hello) = ready(&mut c, "ann");
    let nameless = Hello { device: String::new(), ..hello };
    let one = welcome(&mut c, first, &nameless);
    assert!(one.device.starts_with('~'));
    let second = c.open(1);
    let two = welcome(&mut c, second, &nameless);
    assert_ne!(one.device, two.device);
    assert!(c.client(first).farewell.is_none(), "two of them are two devices");
    // A token that is not sealed takes nobody's place.
    let forged = Hello { resume_token: one.session_id.clone(), ..nameless.clone() };
    let third = c.open(1);
    let three = welcome(&mut c, third, &forged);
    assert!(!three.resumed && three.device != one.device && c.client(first).farewell.is_none());
    let resume = Hello { resume_token: one.resume_token.clone(), ..nameless };
    let fourth = c.open(1);
    let four = welcome(&mut c, fourth, &resume);
    assert_eq!((four.resumed, &four.device, &four.session_id), (true, &one.device, &one.session_id));
    assert_eq!(farewell(&c, first).0, ErrorCode::Replaced);
}

#[test]
fn a_newer_connection_of_the_same_device_closes_the_older_one() {
    let mut c = Cluster::new(4);
    let (first, hello) = ready(&mut c, "ann");
    welcome(&mut c, first, &hello);
    c.group(first, "tea", &[]);
    c.follow(first, "c:tea");
    for shard in [1, 3, 0, 0] {
        let older = Who(c.clients.len() - 1);
        let newer = c.open(shard);
        welcome(&mut c, newer, &hello);
        assert_eq!(farewell(&c, older).0, ErrorCode::Replaced);
        assert!(c.client(newer).farewell.is_none());
    }
    let tablet = c.open(2);
    welcome(&mut c, tablet, &Hello { device: "tablet".into(), ..hello.clone() });
    let newest = Who(tablet.0 - 1);
    assert!(c.client(newest).farewell.is_none(), "another device evicts nobody");
    c.say(newest, "c:tea", "hi").ack();
    assert!(c.heard(first, "c:tea").is_empty());
}

#[test]
fn the_late_hello_of_an_older_connection_pushes_nobody_out() {
    let mut c = Cluster::new(4);
    let (newer, hello) = ready(&mut c, "ann");
    let attempt =
        |attempt| Hello { sender_instance: Bytes::from_static(b"one start of one"), attempt, ..hello.clone() };
    welcome(&mut c, newer, &attempt(2));
    let older = c.open(1);
    c.raw(older, frames::control(FrameType::Hello, 1, &attempt(1)));
    c.settle();
    assert_eq!(farewell(&c, older).0, ErrorCode::Replaced);
    assert!(c.client(newer).farewell.is_none());
    let restarted = c.open(2);
    let another_start = Bytes::from_static(b"another start of");
    welcome(&mut c, restarted, &Hello { sender_instance: another_start, ..attempt(1) });
    assert_eq!(farewell(&c, newer).0, ErrorCode::Replaced, "another start of the program is newer whatever it counts");
    let short = c.open(2);
    c.raw(
        short,
        frames::control(FrameType::Hello, 1, &Hello { sender_instance: Bytes::from_static(b"short"), ..hello }),
    );
    c.settle();
    assert_eq!(farewell(&c, short).0, ErrorCode::InvalidField);
}

#[test]
fn a_token_is_renewed_and_a_session_ends_with_its_token() {
    let mut c = Cluster::new(2);
    let short = |c: &Cluster, ms| Claims { expires_at_ms: c.now.unix_ms() + ms, ..c.claims("ann") };
    let claims = short(&c, 60_000);
    let ann = c.connect_with(1, claims);
    c.advance_ms(50_000);
    let renewed = short(&c, 60_000);
    c.tokens.insert("renewed".into(), Ok(renewed));
    let auth = |token: &str| control::Auth { token: token.into() };
    let answer: control::Authenticated = c.call(ann, FrameType::Auth, &auth("renewed")).ok();
    assert_eq!(answer.expires_at_ms, START_MS + 110_000);
    c.advance_ms(50_000);
    c.group(ann, "tea", &[]);
    // What is refused changes nothing.
    let bobs = c.claims("bob");
    c.tokens.insert("bobs".into(), Ok(bobs));
    let other_device = Claims { device: Some("other".parse().unwrap()), ..c.claims("ann") };
    c.tokens.insert("other device".into(), Ok(other_device));
    let over = Claims { expires_at_ms: START_MS + 99_000, ..c.claims("ann") };
    c.tokens.insert("over".into(), Ok(over));
    let refused = [
        ("forged", ErrorCode::TokenInvalid),
        ("bobs", ErrorCode::TokenMismatch),
        ("other device", ErrorCode::TokenMismatch),
        ("over", ErrorCode::TokenExpired),
        ("", ErrorCode::TokenInvalid),
    ];
    for (token, code) in refused {
        assert_eq!(c.call(ann, FrameType::Auth, &auth(token)).code(), code, "{token:?}");
    }
    c.advance_ms(9_999);
    assert!(c.client(ann).farewell.is_none());
    c.advance_ms(1);
    assert_eq!(farewell(&c, ann).0, ErrorCode::TokenExpired);
    assert_eq!(c.shards[1].counters().sessions, 0);
}

#[test]
fn a_second_hello_and_the_brokers_own_frames_end_the_session() {
    let mut c = Cluster::new(1);
    let mine = FrameType::ALL.iter().filter(|t| t.direction() == antiphon_protocol::Direction::ToClient);
    for frame_type in mine.chain([&FrameType::Hello]) {
        let ann = c.connect(0, "ann");
        c.raw(ann, frames::raw(*frame_type, 5, &[]));
        c.settle();
        assert_eq!(farewell(&c, ann).0, ErrorCode::UnexpectedFrame, "{}", frame_type.name());
    }
}

#[test]
fn a_request_without_an_id_ends_the_session() {
    let mut c = Cluster::new(1);
    let ann = c.connect(0, "ann");
    c.raw(ann, frames::control(FrameType::ConversationGet, 0, &control::ConversationGet::default()));
    c.settle();
    assert_eq!(farewell(&c, ann), (ErrorCode::Malformed, "header.id".into()));
}

#[test]
fn bye_is_answered_and_closes_and_what_still_comes_is_not_written() {
    let mut c = Cluster::new(2);
    let ann = c.connect(0, "ann");
    c.group(ann, "tea", &[]);
    c.follow(ann, "c:tea");
    c.store.hold(&[Kind::Append]);
    let draft = c.draft("c:tea", "last words");
    let id = c.send(ann, &draft);
    let bye = c.ask(ann, FrameType::Bye, &control::Bye {});
    c.raw(ann, frames::control(FrameType::Bye, 99, &control::Bye {}));
    c.settle();
    assert_eq!(c.client(ann).closed, Some(ErrorCode::Closed));
    c.take(ann, bye).ok::<()>();
    assert!(!c.is_answered(ann, id) && c.client(ann).farewell.is_none());
    c.store.hold(&[]);
    c.settle();
    assert_eq!(c.stored(ann, "c:tea").head(), 2, "what was sent is stored all the same");
    assert_eq!(c.shards.iter().map(|shard| shard.counters().sessions).sum::<u64>(), 0);
}

#[test]
fn nothing_follows_a_farewell_and_it_is_said_once() {
    if super::ON_TRUNKS {
        return;
    }
    let mut c = Cluster::new(2);
    let id = c.id_on(1);
    let ann = c.connect(0, "ann");
    c.group(ann, &id, &[]);
    c.held_mail.insert((1, 0));
    let draft = c.draft(&format!("c:{id}"), "late");
    c.send(ann, &draft);
    c.settle();
    // The transport is slow to close: it still hands over bytes and mail after the farewell.
    let connection = c.client(ann).connection;
    c.keeps_closed = true;
    c.raw(ann, frames::raw(FrameType::Hello, 9, &[]));
    c.settle();
    for _ in 0..4 {
        let bytes = Bytes::from(vec![0; PRE_AUTH_BYTES_MAX]);
        c.input(0, Input::Received { connection, bytes });
    }
    c.held_mail.clear();
    c.settle();
    c.advance_ms(24 * 3_600_000);
    assert_eq!(farewell(&c, ann).0, ErrorCode::UnexpectedFrame);
    assert!(c.client(ann).replies.is_empty());
    c.disconnect(ann);
    assert_eq!(c.shards[0].counters().connections, 0);
}

#[test]
fn draining_says_goaway_to_every_session_and_refuses_new_ones() {
    let mut c = Cluster::new(2);
    let (ann, bob) = (c.connect(0, "ann"), c.connect(1, "bob"));
    c.group(ann, "tea", &["bob"]);
    let (late, hello) = ready(&mut c, "late");
    c.holds_verdicts = true;
    c.ask(late, FrameType::Hello, &hello);
    c.settle();
    for shard in 0..2 {
        c.input(shard, Input::Drain { deadline_ms: 5_000 });
    }
    c.holds_verdicts = false;
    c.settle();
    for who in [ann, bob, late] {
        let [goaway] = &c.client(who).goaways[..] else { panic!("one GOAWAY each") };
        assert_eq!((goaway.code, goaway.deadline_ms), (ErrorCode::Draining as u32, 5_000));
        assert!(goaway.jitter_ms <= goaway.deadline_ms);
    }
    let (new, hello) = ready(&mut c, "eve");
    c.ask(new, FrameType::Hello, &hello);
    c.settle();
    assert_eq!(farewell(&c, new).0, ErrorCode::Draining);
    c.say(bob, "c:tea", "answers still come").ack();
}
