//! Runs `vectors/*.json`: bytes that were written by hand, so that our encoder and decoder are held to the
//! specification and not to each other.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

mod every_body;

use std::{fs, path::Path};

use antiphon_protocol::{
    Class, ContentType, Decoder, EventKind, FrameType, LogName, NewRow, Position, Row, TenantId, UserId, control, fold,
    frames,
    header::{HEADER_BYTES, Header},
    limits::FRAME_BYTES_MAX,
    row::content_hash,
    trunk::{Prefix, TrunkDecoder},
};
use bytes::{Bytes, BytesMut};
use prost::Message;
use protox::prost_reflect::{DynamicMessage, Value as Reflected};
use serde_json::Value;

use uuid::Uuid;

use crate::every_body::decode_message;

/// The vectors of one file.
fn vectors(file: &str) -> Vec<Vector> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file);
    let json: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let vectors: Vec<Vector> = json["vectors"].as_array().unwrap().iter().cloned().map(Vector).collect();
    assert!(!vectors.is_empty());
    vectors
}

struct Vector(Value);

impl Vector {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field} of {}", self.0))
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn number(&self, field: &str) -> u64 {
        self.0[field].as_u64().unwrap_or_else(|| panic!("{field} of {}", self.0))
    }

    fn small(&self, field: &str) -> u32 {
        self.number(field).try_into().unwrap()
    }

    fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap()
    }

    fn uuid(&self, field: &str) -> Uuid {
        self.text(field).parse().unwrap()
    }

    fn hex(&self, field: &str) -> Bytes {
        hex(self.text(field))
    }

    fn user(&self, field: &str) -> Option<UserId> {
        Some(self.text(field)).filter(|user| !user.is_empty()).map(|user| user.parse().unwrap())
    }
}

fn hex(text: &str) -> Bytes {
    assert!(text.is_ascii() && text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn only_frame(bytes: &Bytes) -> antiphon_protocol::RawFrame {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    decoder.push(bytes.clone());
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!((decoder.next_frame(), decoder.buffered()), (Ok(None), 0));
    frame
}

#[test]
fn headers() {
    for vector in vectors("header.json") {
        let header = Header {
            length: vector.small("length"),
            type_number: vector.small("type").try_into().unwrap(),
            flags: vector.small("flags").try_into().unwrap(),
            id: vector.small("id"),
        };
        let bytes: [u8; HEADER_BYTES] = vector.hex("hex")[..].try_into().unwrap();
        assert_eq!(header.encode(), bytes, "{}", vector.name());
        assert_eq!(Header::decode(bytes, FRAME_BYTES_MAX), Ok(header), "{}", vector.name());
    }
}

#[test]
fn log_keys() {
    for vector in vectors("log_keys.json") {
        let (tenant, log): (TenantId, LogName) =
            (vector.text("tenant").parse().unwrap(), vector.text("log").parse().unwrap());
        let key = log.key(&tenant);
        assert_eq!(format!("{key:?}"), vector.text("key"), "{log} of {tenant}");
        assert_eq!(u64::from(key.virtual_shard()), vector.number("virtual_shard"), "{log} of {tenant}");
        assert_eq!(u64::from(key.partition()), vector.number("partition"), "{log} of {tenant}");
    }
}

#[test]
fn rows() {
    for vector in vectors("rows.json") {
        let bytes = vector.hex("hex");
        let row = Row::new(bytes.clone()).unwrap();
        assert_eq!(row.seq(), vector.number("seq"), "{}", vector.name());
        assert_eq!(row.msgno(), vector.number("msgno"));
        assert_eq!(row.time_ms(), vector.number("time_ms"));
        assert_eq!(row.event_id(), vector.uuid("event_id"));
        assert_eq!(row.client_message_id(), vector.uuid("client_message_id"));
        assert_eq!(row.content_hash().to_string(), vector.text("content_hash"));
        assert_eq!(u64::from(row.kind().0), vector.number("kind"));
        assert_eq!(row.is_redacted(), vector.flag("redacted"));
        assert_eq!(row.content_type() as u64, vector.number("content_type"));
        assert_eq!(row.sender(), vector.text("sender"));
        assert_eq!(row.via().unwrap_or_default(), vector.text("via"));
        assert_eq!((row.envelope(), row.body()), (vector.hex("envelope"), vector.hex("body")));
        if !row.is_redacted() {
            assert_eq!(made_again(&vector), bytes, "{}", vector.name());
        }
    }
}

fn made_again(vector: &Vector) -> Bytes {
    let (kind, content_type) = kind_and_type(vector);
    let (sender, via) = (vector.user("sender").unwrap(), vector.user("via"));
    let (envelope, body) = (vector.hex("envelope"), vector.hex("body"));
    assert_eq!(content_hash(kind, content_type, &envelope, &body).to_string(), vector.text("content_hash"));
    let new = NewRow {
        seq: vector.number("seq"),
        msgno: vector.number("msgno"),
        time_ms: vector.number("time_ms"),
        event_id: vector.uuid("event_id"),
        client_message_id: vector.uuid("client_message_id"),
        kind,
        content_type,
        sender: &sender,
        via: via.as_ref(),
        envelope: &envelope,
        body: &body,
    };
    new.to_row().bytes().clone()
}

fn kind_and_type(vector: &Vector) -> (EventKind, ContentType) {
    let content_type = ContentType::from_number(vector.number("content_type").try_into().unwrap());
    (EventKind(vector.number("kind").try_into().unwrap()), content_type.unwrap())
}

#[test]
fn a_redaction_makes_the_redacted_row_of_the_vectors() {
    let rows = vectors("rows.json");
    let plain = rows.iter().find(|vector| vector.name() == "a text message").unwrap();
    let redacted = rows.iter().find(|vector| vector.flag("redacted")).unwrap();
    assert_eq!(*Row::new(plain.hex("hex")).unwrap().redacted().bytes(), redacted.hex("hex"));
}

#[test]
fn hot_frames() {
    for vector in vectors("hot_frames.json") {
        let bytes = vector.hex("hex");
        let frame = only_frame(&bytes);
        assert_eq!(frame.frame_type.name(), vector.text("frame"), "{}", vector.name());
        let again = match frame.frame_type {
            FrameType::Send => {
                assert_send(&frames::Send::decode(&frame.body).unwrap(), &vector);
                send_frame(&vector)
            }
            FrameType::SendBatch => batch_again(&frame.body, &vector),
            FrameType::Import => import_again(&frame.body, &vector),
            FrameType::Ack => {
                assert_eq!(frames::Ack::decode(&frame.body), Ok(ack(&vector)), "{}", vector.name());
                ack(&vector).to_frame(vector.small("id"))
            }
            FrameType::Page => {
                assert_eq!(frames::Page::decode(&frame.body), Ok(page(&vector)), "{}", vector.name());
                page(&vector).to_frame(vector.small("id"))
            }
            FrameType::Event => frames::event(vector.small("handle"), &Row::new(vector.hex("row")).unwrap()),
            FrameType::Skip => {
                let (from, to) = (vector.number("from"), vector.number("to"));
                assert_eq!(frames::decode_skip(&frame.body), Ok((from, to)));
                frames::skip(vector.small("handle"), from, to)
            }
            FrameType::Open => frames::open(Class::from_number(vector.small("class")).unwrap()),
            FrameType::Behind => frames::raw(FrameType::Behind, vector.small("handle"), b""),
            other => panic!("{} is no hot frame", other.name()),
        };
        assert_eq!(again, bytes, "{}", vector.name());
    }
}

fn assert_send(send: &frames::Send, vector: &Vector) {
    assert_eq!(send.client_message_id, vector.uuid("client_message_id"));
    assert_eq!(send.dseq, vector.number("dseq"));
    assert_eq!((send.kind, send.content_type), kind_and_type(vector));
    assert_eq!(send.log.to_string(), vector.text("log"));
    assert_eq!(send.act_as, vector.user("act_as"));
    assert_eq!((&send.envelope, &send.body), (&vector.hex("envelope"), &vector.hex("body")));
}

fn send_frame(vector: &Vector) -> Bytes {
    let act_as = vector.user("act_as");
    let (kind, content_type) = kind_and_type(vector);
    let new = frames::NewSend {
        client_message_id: vector.uuid("client_message_id"),
        dseq: vector.number("dseq"),
        kind,
        content_type,
        log: &vector.text("log").parse().unwrap(),
        act_as: act_as.as_ref(),
        envelope: &vector.hex("envelope"),
        body: &vector.hex("body"),
    };
    new.to_frame(vector.small("id"))
}

/// Checks each record against its own, and puts the batch together from frames of single sends.
fn batch_again(body: &Bytes, vector: &Vector) -> Bytes {
    let records = frames::SendBatch::decode(body).unwrap().records;
    let out = records_again(records.into_iter().map(|send| (Vec::new(), send)), vector);
    frames::raw(FrameType::SendBatch, vector.small("id"), &out)
}

/// As [`batch_again`], with the times.
fn import_again(body: &Bytes, vector: &Vector) -> Bytes {
    let records = frames::Import::decode(body).unwrap().records;
    for (found, record) in records.iter().zip(vector.0["records"].as_array().unwrap()) {
        assert_eq!(found.time_ms, record["time_ms"].as_u64().unwrap());
    }
    let with_times = records.into_iter().map(|record| (record.time_ms.to_le_bytes().to_vec(), record.send));
    let out = records_again(with_times, vector);
    frames::raw(FrameType::Import, vector.small("id"), &out)
}

/// Records from what stands before each SEND, and the SEND.
fn records_again(found: impl ExactSizeIterator<Item = (Vec<u8>, frames::Send)>, vector: &Vector) -> BytesMut {
    let records = vector.0["records"].as_array().unwrap();
    assert_eq!(found.len(), records.len());
    let mut out = BytesMut::new();
    for ((before, send), record) in found.zip(records) {
        let mut record = record.clone();
        record["id"] = 0.into();
        let record = Vector(record);
        assert_send(&send, &record);
        let send = send_frame(&record).slice(HEADER_BYTES..);
        out.extend_from_slice(&((before.len() + send.len()) as u32).to_le_bytes());
        out.extend_from_slice(&before);
        out.extend_from_slice(&send);
    }
    out
}

fn ack(vector: &Vector) -> frames::Ack {
    frames::Ack {
        position: Position { epoch: vector.small("epoch"), seq: vector.number("seq") },
        msgno: vector.number("msgno"),
        time_ms: vector.number("time_ms"),
        event_id: vector.uuid("event_id"),
        duplicate: vector.flag("duplicate"),
    }
}

fn page(vector: &Vector) -> frames::Page {
    let rows = vector.0["rows"].as_array().unwrap();
    frames::Page {
        next: vector.number("next"),
        head: vector.number("head"),
        floor: vector.number("floor"),
        epoch: vector.small("epoch"),
        rows: rows.iter().map(|row| Row::new(hex(row.as_str().unwrap())).unwrap()).collect(),
    }
}

#[test]
fn control_frames() {
    let mut compiler = protox::Compiler::new([Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")]).unwrap();
    let schema = compiler.open_file("antiphon.proto").unwrap().descriptor_pool();
    for vector in vectors("control_frames.json") {
        let (message, body) = (vector.text("message"), vector.hex("body"));
        assert_eq!(decode_message(message, &body), Ok(()), "{}", vector.name());
        let descriptor = schema.get_message_by_name(&format!("antiphon.v1.{message}")).unwrap();
        let read = DynamicMessage::decode(descriptor, body.clone()).unwrap();
        assert_eq!(described(&read), vector.0["fields"], "{}", vector.name());
        if !vector.text("frame").is_empty() {
            let frame_type = FrameType::from_number(vector.number("type").try_into().unwrap()).unwrap();
            assert_eq!(frame_type.name(), vector.text("frame"), "{}", vector.name());
        }
    }
}

#[test]
fn folds() {
    let mut compiler = protox::Compiler::new([Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")]).unwrap();
    let schema = compiler.open_file("antiphon.proto").unwrap().descriptor_pool();
    let descriptor = schema.get_message_by_name("antiphon.v1.MessageView").unwrap();
    for vector in vectors("fold.json") {
        let start = vector.0["page"].as_str().map_or_else(Bytes::new, hex);
        let mut messages = frames::decode_answer::<control::MessagesPage>(&start).unwrap().messages;
        for event in vector.0["events"].as_array().unwrap() {
            let event = Row::new(hex(event.as_str().unwrap())).unwrap();
            fold::page(&mut messages, &event, vector.text("reader"));
        }
        let read = |view: &control::MessageView| {
            described(&DynamicMessage::decode(descriptor.clone(), Bytes::from(view.encode_to_vec())).unwrap())
        };
        let found: Value = messages.iter().map(read).collect();
        assert_eq!(found, vector.0["messages"], "{}", vector.name());
    }
}

/// What a body says according to the schema, without our generated code: field names to values, defaults left out.
fn described(message: &DynamicMessage) -> Value {
    message.fields().map(|(field, value)| (field.name().to_owned(), described_value(value))).collect()
}

fn described_value(value: &Reflected) -> Value {
    match value {
        Reflected::Bool(truth) => (*truth).into(),
        Reflected::U32(number) => (*number).into(),
        Reflected::U64(number) => (*number).into(),
        Reflected::EnumNumber(number) => (*number).into(),
        Reflected::String(text) => text.as_str().into(),
        Reflected::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        Reflected::Message(message) => described(message),
        Reflected::List(values) => values.iter().map(described_value).collect(),
        other => panic!("the schema has no {other:?}"),
    }
}

#[test]
fn trunk_frames() {
    for vector in vectors("trunk.json") {
        let bytes = hex(vector.text("hex"));
        let mut decoder = TrunkDecoder::new(FRAME_BYTES_MAX);
        decoder.push(bytes.clone());
        let carried = decoder.next_frame().unwrap().unwrap();
        let prefix = Prefix { channel: vector.small("channel"), is_group: vector.flag("group") };
        assert_eq!(carried.prefix, prefix, "{}", vector.name());
        let frame = carried.to_raw().unwrap().unwrap();
        assert_eq!(
            (frame.frame_type.name(), frame.id),
            (vector.text("frame"), vector.small("id")),
            "{}",
            vector.name()
        );
        assert_eq!(frame.body, hex(vector.text("body")), "{}", vector.name());
        assert_eq!([&prefix.encode()[..], &frames::raw(frame.frame_type, frame.id, &frame.body)].concat(), bytes);
    }
}

#[test]
fn refused_bytes() {
    for vector in vectors("refused.json") {
        let mut bytes = vector.hex("hex").to_vec();
        bytes.resize(bytes.len() + vector.0["zeros"].as_u64().unwrap_or(0) as usize, 0);
        let bytes = Bytes::from(bytes);
        let refused = match vector.text("what") {
            "stream" => {
                let limit = vector.0["frame_bytes_max"].as_u64().unwrap_or(FRAME_BYTES_MAX as u64);
                let mut decoder = Decoder::new(limit as usize);
                decoder.push(bytes);
                decoder.next_frame().map(|_| ())
            }
            "SEND" => frames::Send::decode(&bytes).map(|_| ()),
            "SEND_BATCH" => frames::SendBatch::decode(&bytes).map(|_| ()),
            "IMPORT" => frames::Import::decode(&bytes).map(|_| ()),
            message => decode_message(message, &bytes),
        };
        let error = refused.expect_err(vector.name());
        assert_eq!(error.code().code(), vector.text("error"), "{}: {error}", vector.name());
        assert_eq!(error.field().unwrap_or_default(), vector.text("field"), "{}: {error}", vector.name());
    }
}
