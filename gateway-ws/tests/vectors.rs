//! Runs `protocol/vectors`: every frame there goes through JSON and comes back, and `json.json` holds exact lines.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;

use antiphon_gateway_ws::json::{self, EncodeError};
use antiphon_protocol::{
    ContentType, Direction, Envelope, EventKind, FrameType, NewRow, Row, UserId, frames, limits::COUNTER_MAX,
};
use bytes::Bytes;
use prost::Message;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{decode, encode, frame, hex, spec, text, vectors};

fn request(vector: &Value) -> Option<FrameType> {
    vector["to"].as_str().map(|name| FrameType::from_name(name).unwrap())
}

/// A frame that comes back as it went.
fn assert_comes_back(name: &str, bytes: &Bytes, answers: Option<FrameType>) {
    let line = encode(bytes, answers).unwrap_or_else(|error| panic!("{name}: {error}"));
    let read = decode(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
    assert_eq!(&read.frame, bytes, "{name}: {line}");
}

#[test]
fn frames_have_exactly_these_lines() {
    let vectors = vectors("json.json", "vectors");
    let mut seen = BTreeSet::new();
    for vector in &vectors {
        let (name, line, bytes) = (text(vector, "name"), text(vector, "json"), hex(text(vector, "hex")));
        assert_eq!(frame(&bytes).frame_type.name(), text(vector, "frame"), "{name}");
        assert_eq!(encode(&bytes, request(vector)).as_deref(), Ok(line), "{name}");
        let read = decode(line).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.frame, bytes, "{name}");
        assert_eq!(read.answers, request(vector).filter(|_| line.contains("\"to\"")), "{name}");
        seen.insert(frame(&bytes).frame_type);
    }
    let all: BTreeSet<FrameType> = spec::frames().iter().map(|frame| frame.frame_type).collect();
    assert_eq!(seen, all, "every frame has a line");
}

#[test]
fn other_spellings_are_read() {
    for vector in vectors("json.json", "also_read") {
        let (name, line) = (text(&vector, "name"), text(&vector, "json"));
        let read = json::decode(line.as_bytes(), Direction::ToBroker).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(read.frame, hex(text(&vector, "hex")), "{name}");
        assert_ne!(encode(&read.frame, None).as_deref(), Ok(line), "{name}");
    }
}

#[test]
fn refused_lines_are_refused() {
    for vector in vectors("json.json", "refused") {
        let name = text(&vector, "name");
        let refused = json::decode(text(&vector, "line").as_bytes(), Direction::ToBroker);
        let error = refused.expect_err(name);
        assert_eq!(
            (error.code.code(), &*error.field),
            (text(&vector, "error"), text(&vector, "field")),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_spoils_its_own_request_only_names_it() {
    let refused = |line: &str| json::decode(line.as_bytes(), Direction::ToBroker).unwrap_err().frame;
    let auth = Some((FrameType::Auth, 7));
    assert_eq!(refused(r#"{"token":1,"id":7,"op":"AUTH"}"#), auth);
    assert_eq!(refused(r#"{"op":"AUTH","id":7,"colour":"red"}"#), auth);
    assert_eq!(refused(r#"{"op":"AUTH","id":7,"token":"\ud83d"}"#), auth);
    assert_eq!(refused(r#"{"op":"AUTH","id":7,"token":"a","token":"b"}"#), auth);
    assert_eq!(refused(&format!(r#"{{"op":"AUTH","id":7,"token":{}1{}}}"#, "[".repeat(90), "]".repeat(90))), auth);
    assert_eq!(refused(r#"{"op":"AUTH","token":1}"#), Some((FrameType::Auth, 0)));
    // These cannot be told to be any request.
    for line in [
        r#"{"op":"AUTH","id":7,"token":"#,
        r#"{"op":"AUTH","id":-7}"#,
        r#"{"op":"SING","id":7}"#,
        r#"{"op":"OK","id":7}"#,
    ] {
        assert_eq!(refused(line), None, "{line}");
    }
    assert!(json::decode(b"{\"op\":\"AUTH\",\"token\":\"\xff\"}", Direction::ToBroker).is_err());
}

/// Rows of other vectors hold bytes where an envelope should be. JSON has no form for these, and says so.
fn is_envelope(vector: &Value) -> bool {
    vector["envelope"].as_str().is_none_or(|envelope| Envelope::trusted(&hex(envelope)).is_ok())
}

#[test]
fn hot_frames_and_rows_come_back() {
    let mut skipped = Vec::new();
    let hot = vectors("hot_frames.json", "vectors").into_iter();
    let rows = vectors("rows.json", "vectors").into_iter().map(|mut vector| {
        let event = frames::event(7, &Row::new(hex(text(&vector, "hex"))).unwrap());
        vector["hex"] = event.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        vector
    });
    for vector in hot.chain(rows) {
        let (name, bytes) = (text(&vector, "name"), hex(text(&vector, "hex")));
        if is_envelope(&vector) {
            assert_comes_back(name, &bytes, None);
        } else {
            assert_eq!(encode(&bytes, None), Err(EncodeError::Field { field: "envelope" }), "{name}");
            skipped.push(name.to_owned());
        }
    }
    assert_eq!(
        skipped,
        ["json with an envelope, for a user, not ordered", "a json message with an envelope, sent by a service"]
    );
}

/// What the bytes of a message are part of, where they are no frame's body themselves.
fn event(message: &str, body: &[u8]) -> (Bytes, Option<FrameType>) {
    let entry = |field: u8| [&[field << 3 | 2, body.len() as u8], body].concat();
    match message {
        "SyncedLog" => return (frames::raw(FrameType::Ok, 9, &entry(1)), Some(FrameType::Sync)),
        "LastMessage" => return (frames::raw(FrameType::Head, 0, &entry(5)), None),
        _ => {}
    }
    let (kind, _) = spec::broker_events().into_iter().find(|(_, name)| name == message).unwrap();
    (frames::event(7, &row(kind, ContentType::Control, &[], body)), None)
}

fn row(kind: EventKind, content_type: ContentType, envelope: &[u8], body: &[u8]) -> Row {
    NewRow {
        seq: 7,
        msgno: 5,
        time_ms: 1_731_000_000_000,
        event_id: Uuid::from_u128(1),
        client_message_id: Uuid::from_u128(2),
        kind,
        content_type,
        sender: &UserId::new("ann").unwrap(),
        via: None,
        envelope,
        body,
    }
    .to_row()
}

#[test]
fn control_frames_come_back() {
    let answers = |message: &str| spec::frames().into_iter().find(|frame| frame.answer.as_deref() == Some(message));
    for vector in vectors("control_frames.json", "vectors") {
        let (name, message, body) = (text(&vector, "name"), text(&vector, "message"), hex(text(&vector, "body")));
        let (bytes, answers) = match FrameType::from_name(text(&vector, "frame")) {
            Some(frame_type) => {
                let id = u32::try_from(vector["id"].as_u64().unwrap()).unwrap();
                (frames::raw(frame_type, id, &body), answers(message).map(|request| request.frame_type))
            }
            None => event(message, &body),
        };
        if frame(&bytes).frame_type == FrameType::MessagesPage {
            // Its envelopes were laid out by another builder.
            assert_same_page(&bytes);
        } else {
            assert_comes_back(name, &bytes, answers);
        }
    }
}

/// Equal but for the layout of envelopes, whose fields are equal.
fn assert_same_page(bytes: &Bytes) {
    let line = encode(bytes, None).unwrap();
    let read = decode(&line).unwrap();
    assert_eq!(encode(&read.frame, None).as_deref(), Ok(&*line));
    let page = |bytes: &Bytes| {
        let mut page = antiphon_protocol::control::MessagesPage::decode(frame(bytes).body).unwrap();
        let views = page.messages.iter_mut();
        views.for_each(|view| {
            view.row = Bytes::new();
            if let Some(edit) = view.state.as_mut().and_then(|state| state.edit.as_mut()) {
                edit.envelope = Bytes::new();
            }
        });
        page
    };
    assert_eq!(page(&read.frame), page(bytes));
}

#[test]
fn frames_of_trunks_have_no_line() {
    for frame_type in [FrameType::ChannelOpen, FrameType::ChannelClose, FrameType::Lag, FrameType::ChannelClosed] {
        assert_eq!(encode(&frames::raw(frame_type, 1, &[]), None), Err(EncodeError::NoForm(frame_type)));
    }
}

#[test]
fn what_json_cannot_say_is_not_written() {
    let refused = |frame_type, body: &[u8], answers| encode(&frames::raw(frame_type, 1, body), answers).unwrap_err();
    let field = |field| EncodeError::Field { field };
    let position = frames::skip(1, COUNTER_MAX + 1, 0);
    assert_eq!(encode(&position, None), Err(field("from")));
    assert_eq!(refused(FrameType::Ok, &[8, 1], None), EncodeError::UnknownAnswer);
    assert_eq!(refused(FrameType::Ok, &[8, 1], Some(FrameType::Bye)), EncodeError::UnknownAnswer);
    assert_eq!(refused(FrameType::Signaled, &[8, 2], None), field("handle"), "another one than the header's");
    assert_eq!(refused(FrameType::Auth, &[0x0a, 1, 0xff], None), field("token"), "no UTF-8");
    assert_eq!(refused(FrameType::Auth, &[0x0a, 1, b'a', 0x0a, 1, b'b'], None), field("token"), "twice");
    assert_eq!(refused(FrameType::Hello, &[0x22, 1, 0], None), field("sender_instance"), "no UUID");
    assert_eq!(refused(FrameType::Subscribe, &[0x18, 1, 0x20, 1], None), field("tail"), "two of a oneof");
    assert_eq!(refused(FrameType::Auth, &[0x0a, 9], None), field("body"), "cut off");
    assert!(matches!(refused(FrameType::Ack, &[0; 40], None), EncodeError::Body(_)));
}

#[test]
fn fields_of_a_later_version_are_left_out() {
    let later =
        [0x08, 0x01, 0xf8, 0x07, 0x01, 0xfa, 0x07, 0x01, 0xff, 0xf9, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 7, 1, 2, 3, 4];
    let goaway = encode(&frames::raw(FrameType::Goaway, 0, &later), None);
    assert_eq!(goaway.as_deref(), Ok(r#"{"op":"GOAWAY","code":1}"#));
    let ack = frames::raw(FrameType::Skip, 1, &[[1_u64, 2, 3].map(u64::to_le_bytes).concat()].concat());
    assert_eq!(encode(&ack, None).as_deref(), Ok(r#"{"op":"SKIP","handle":1,"from":1,"to":2}"#));
    let event = frames::event(1, &row(EventKind::MEMBER, ContentType::Control, &[], &later));
    assert!(encode(&event, None).unwrap().ends_with(r#""body":{"change":"joined"}}"#));
}

#[test]
fn numbers_that_are_not_packed_are_read_alike() {
    let apart = frames::raw(FrameType::Hello, 1, &[0x08, 1, 0x08, 2, 0x0a, 1, 3]);
    assert_eq!(encode(&apart, None).as_deref(), Ok(r#"{"op":"HELLO","id":1,"versions":[1,2,3]}"#));
}
