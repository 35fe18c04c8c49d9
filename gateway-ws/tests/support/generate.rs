//! Frames of every type with arbitrary content, as a broker or a client of this version writes them.

use antiphon_protocol::{
    Attachment, ContentType, DESCRIPTORS, EventKind, EventRef, FrameType, LogName, NewEnvelope, NewRow, Position,
    Property, Rel, Relation, Row, UserId,
    frames::{self, Ack, Import, NewSend, Page, SendBatch},
    limits::COUNTER_MAX,
};
use bytes::Bytes;
use prost::Message;
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use uuid::Uuid;

use super::{Random, spec};

/// Bodies that say they are JSON. Some are, and some of these cannot stand in a line.
const JSON: &[&str] = &[
    "{}",
    "[]",
    "0",
    "null",
    "\"\"",
    "{\"a\": 1.5e-3}",
    "[1,[2,{\"b\":[]}]]",
    "{\"\\u0061\":\"\\ud83d\\ude00\"}",
    "1e400",
    "-0",
    "{\"a\":\t[ ]}",
    "\"\u{2028}\u{7f}\"",
    "",
    " {}",
    "{}\t",
    "{\n}",
    "[\r]",
    "{",
    "{\"a\":1,\"a\":2}",
    "\"\\ud83d\"",
    "nul",
    "[1,]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
];

const TEXT: &[&str] = &[
    "a",
    "tea",
    " ",
    "\"",
    "\\",
    "/",
    "\n",
    "\r",
    "\t",
    "\0",
    "\u{8}",
    "\u{c}",
    "\u{1f}",
    "\u{7f}",
    "é",
    "\u{2028}",
    "好",
    "\u{1f600}",
    "\u{ffff}",
];

/// A frame, and the request that it answers if it is an OK.
pub(crate) type Generated = (Bytes, Option<FrameType>);

pub(crate) struct Generator {
    pub(crate) random: Random,
    frames: Vec<spec::Frame>,
    events: Vec<(EventKind, String)>,
    file: FileDescriptorProto,
}

impl Generator {
    pub(crate) fn new(random: Random) -> Self {
        let file = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file.remove(0);
        Self { random, frames: spec::frames(), events: spec::broker_events(), file }
    }

    /// The Protobuf message that is the body of this frame, by the specification.
    pub(crate) fn message_of(&self, frame_type: FrameType) -> Option<&str> {
        self.frames.iter().find(|frame| frame.frame_type == frame_type)?.message.as_deref()
    }

    pub(crate) fn frame(&mut self) -> Generated {
        let place = self.random.below(self.frames.len());
        let frame_type = self.frames[place].frame_type;
        let id = self.u32();
        let body = match frame_type {
            FrameType::Open => frames::raw(frame_type, id % 5, &[]),
            FrameType::Behind => frames::raw(frame_type, id, &[]),
            FrameType::Skip => frames::skip(id, self.counter(), self.counter()),
            FrameType::Ack => self.ack().to_frame(id),
            FrameType::Event => frames::event(id, &self.row()),
            FrameType::Page => self.page().to_frame(id),
            FrameType::Send => self.sends(frame_type, id, 1),
            FrameType::SendBatch | FrameType::Import => self.sends(frame_type, id, 4),
            FrameType::Ok => return self.ok(id),
            _ => {
                let name = self.frames[place].message.clone().unwrap();
                frames::raw(frame_type, id, &self.message(&name, id))
            }
        };
        (body, None)
    }

    fn ok(&mut self, id: u32) -> Generated {
        let place = self.random.below(self.frames.len());
        let (request, answer) = (self.frames[place].frame_type, self.frames[place].answer.clone());
        let body = answer.map(|name| self.message(&name, id)).unwrap_or_default();
        (frames::raw(FrameType::Ok, id, &body), Some(request))
    }

    fn counter(&mut self) -> u64 {
        let any = self.random.next() & COUNTER_MAX;
        match self.random.below(6) {
            0 => 0,
            1 => COUNTER_MAX,
            2 => any,
            _ => any % 300,
        }
    }

    fn u32(&mut self) -> u32 {
        let any = self.random.next() as u32;
        self.random.pick(&[0, 1, u32::MAX, any, any % 300])
    }

    fn uuid(&mut self) -> Uuid {
        if self.random.one_in(16) {
            return Uuid::nil();
        }
        Uuid::from_u64_pair(self.random.next(), self.random.next())
    }

    fn text(&mut self, max: usize) -> String {
        (0..self.random.below(max + 1)).map(|_| self.random.pick(TEXT)).collect()
    }

    fn bytes(&mut self, max: usize) -> Vec<u8> {
        (0..self.random.below(max + 1)).map(|_| self.random.next() as u8).collect()
    }

    fn user(&mut self) -> UserId {
        let id: String = (0..=self.random.below(12))
            .map(|_| self.random.pick(&['a', 'Z', '0', '.', '_', ':', '@', '|', '~', '-']))
            .collect();
        id.parse().unwrap()
    }

    fn ack(&mut self) -> Ack {
        let position = Position { epoch: self.u32(), seq: self.counter() };
        let (msgno, time_ms, event_id) = (self.counter(), self.counter(), self.uuid());
        Ack { position, msgno, time_ms, event_id, duplicate: self.random.one_in(2) }
    }

    fn page(&mut self) -> Page {
        let (next, head, floor, epoch) = (self.counter(), self.counter(), self.counter(), self.u32());
        let rows = (0..self.random.below(5)).map(|_| self.row()).collect();
        Page { next, head, floor, epoch, rows }
    }

    fn row(&mut self) -> Row {
        let (kind, content_type, body) = self.event_body();
        let (envelope, sender) = (self.envelope(kind), self.user());
        let via = self.random.one_in(4).then(|| self.user());
        let flags = self.random.below(4) as u8;
        let hash = self.random.next();
        let row = NewRow {
            seq: self.counter(),
            msgno: self.counter(),
            time_ms: self.counter(),
            event_id: self.uuid(),
            client_message_id: self.uuid(),
            kind,
            content_type,
            sender: &sender,
            via: via.as_ref(),
            envelope: &envelope,
            body: &body,
        };
        row.to_row_as(flags, hash)
    }

    fn event_body(&mut self) -> (EventKind, ContentType, Vec<u8>) {
        if self.random.one_in(4) {
            let place = self.random.below(self.events.len());
            let (kind, name) = self.events[place].clone();
            return (kind, ContentType::Control, self.message(&name, 0));
        }
        let number = self.random.next() as u8;
        let kind = EventKind(self.random.pick(&[1, 1, 1, 2, 3, 4, 5, number]));
        let is_brokers = self.events.iter().any(|(brokers, _)| *brokers == kind);
        let content_type = self.random.below(if is_brokers { 3 } else { 4 }) as u8;
        (kind, ContentType::from_number(content_type).unwrap(), self.body(content_type.into()))
    }

    fn body(&mut self, content_type: u32) -> Vec<u8> {
        match (content_type, self.random.below(8)) {
            (_, 0) => Vec::new(),
            (_, 1) => self.bytes(40),
            (0, _) => self.text(60).into_bytes(),
            (1, _) => self.random.pick(JSON).into(),
            _ => self.bytes(100),
        }
    }

    fn event_ref(&mut self) -> EventRef {
        EventRef { event_id: self.uuid(), seq: self.counter() }
    }

    fn envelope(&mut self, kind: EventKind) -> Vec<u8> {
        if self.random.one_in(2) {
            return Vec::new();
        }
        let texts: Vec<String> = (0..12).map(|_| self.text(6)).collect();
        let some = |random: &mut Random| random.one_in(3);
        let key = some(&mut self.random).then_some(&*texts[0]);
        let relates_to =
            Rel::of(kind).map(|rel| Relation { rel, target: self.event_ref(), key, remove: key.is_some() });
        let mentions: Vec<UserId> = (0..self.random.below(3)).map(|_| self.user()).collect();
        let attachments: Vec<Attachment<'_>> = (0..self.random.below(3))
            .map(|at| Attachment {
                url: &texts[at],
                name: some(&mut self.random).then_some(&*texts[at + 3]),
                mime: some(&mut self.random).then_some("image/png"),
                size: self.counter(),
                width: self.u32(),
                height: self.u32(),
                duration_ms: self.counter(),
                thumbnail_url: some(&mut self.random).then_some(&*texts[at + 5]),
            })
            .collect();
        // Keys are different by their first character. Some mean something to objects of JavaScript.
        let first = self.random.pick(&["a", "7", "__proto__"]);
        let keys = [first.to_owned() + &texts[8], "\"".to_owned() + &texts[9]];
        let properties: Vec<Property<'_>> =
            (0..self.random.below(3)).map(|at| Property { key: &keys[at], value: &texts[10 + at] }).collect();
        NewEnvelope {
            relates_to: relates_to.filter(|_| !self.random.one_in(4)),
            reply_to: some(&mut self.random).then(|| self.event_ref()),
            thread: some(&mut self.random).then(|| self.event_ref()),
            mentions: &mentions,
            attachments: &attachments,
            properties: &properties,
            silent: some(&mut self.random),
            expires_at_ms: Some(self.counter()).filter(|at| *at > 0),
        }
        .to_bytes()
    }

    fn sends(&mut self, frame_type: FrameType, id: u32, most: usize) -> Bytes {
        let log: LogName = format!("{}:{}", self.random.pick(&['c', 'u']), self.user()).parse().unwrap();
        let dseq = self.counter();
        let parts: Vec<_> = (0..=self.random.below(most))
            .map(|_| {
                let number = self.random.next() as u8;
                let kind = EventKind(self.random.pick(&[1, 2, 3, 4, 5, number]));
                let content_type = self.random.below(3) as u32;
                (kind, content_type, self.envelope(kind), self.body(content_type), self.user(), self.uuid())
            })
            .collect();
        let sends: Vec<NewSend<'_>> = parts
            .iter()
            .enumerate()
            .map(|(place, (kind, content_type, envelope, body, user, client_message_id))| NewSend {
                client_message_id: *client_message_id,
                dseq: if place == 0 { dseq } else { 0 },
                kind: *kind,
                content_type: ContentType::from_number(*content_type as u8).unwrap(),
                log: &log,
                act_as: Some(user).filter(|user| user.as_str().len() > 6),
                envelope,
                body,
            })
            .collect();
        match frame_type {
            FrameType::Import => {
                let records: Vec<_> = sends.into_iter().map(|send| (self.counter().max(1), send)).collect();
                Import::to_frame(id, &records)
            }
            FrameType::SendBatch => SendBatch::to_frame(id, &sends),
            _ => sends[0].to_frame(id),
        }
    }

    /// A message of this name in canonical form, with its fields set or not.
    pub(crate) fn message(&mut self, name: &str, handle: u32) -> Vec<u8> {
        let mut descriptor = self.file.message_type.iter().find(|message| message.name() == name).unwrap().clone();
        descriptor.field.sort_by_key(|field| field.number());
        let chosen = self.random.below(8) as i32;
        let content_type = self.random.pick(&[0, 0, 1, 2, 3, 77]);
        let mut out = Vec::new();
        for field in &descriptor.field {
            let is_group = field.oneof_index.is_some() && !field.proto3_optional();
            // Of a group the field with the chosen number is set, if it is there.
            if is_group && field.number() != 2 + chosen % 4 {
                continue;
            }
            if !is_group && self.random.one_in(3) && field.name() != "handle" {
                continue;
            }
            match (name, field.name()) {
                ("Signaled", "handle") => put_number(&mut out, field, handle.into()),
                (_, "content_type") => put_number(&mut out, field, content_type),
                (_, "envelope") => put_bytes(&mut out, field, &self.envelope(EventKind::EDIT)),
                (_, "body") => put_bytes(&mut out, field, &self.body(content_type as u32)),
                ("MessageView", "row") => put_bytes(&mut out, field, self.row().bytes()),
                (_, "event_id" | "session_id" | "sender_instance") => {
                    put_bytes(&mut out, field, self.uuid().as_bytes())
                }
                _ if field.label() == Label::Repeated => self.repeated(&mut out, field, &descriptor),
                _ => self.value(&mut out, field, &descriptor),
            }
        }
        out
    }

    fn repeated(&mut self, out: &mut Vec<u8>, field: &FieldDescriptorProto, of: &DescriptorProto) {
        let count = self.random.below(4);
        if [Type::Message, Type::String].contains(&field.r#type()) {
            (0..count).for_each(|_| self.entry(out, field, of));
        } else {
            let mut packed = Vec::new();
            (0..count).for_each(|_| varint(&mut packed, self.number(field, of)));
            put_bytes(out, field, &packed);
        }
    }

    fn entry(&mut self, out: &mut Vec<u8>, field: &FieldDescriptorProto, of: &DescriptorProto) {
        let before = out.len();
        self.value(out, field, of);
        if out.len() == before {
            // An empty entry is written.
            varint(out, tag(field, 2));
            out.push(0);
        }
    }

    fn value(&mut self, out: &mut Vec<u8>, field: &FieldDescriptorProto, of: &DescriptorProto) {
        let type_name = field.type_name().rsplit('.').next().unwrap().to_owned();
        match field.r#type() {
            Type::String => put_bytes(out, field, self.text(8).as_bytes()),
            Type::Bytes => put_bytes(out, field, &self.bytes(20)),
            Type::Message => put_bytes(out, field, &self.message(&type_name, 0)),
            _ => put_number(out, field, self.number(field, of)),
        }
    }

    fn number(&mut self, field: &FieldDescriptorProto, of: &DescriptorProto) -> u64 {
        match field.r#type() {
            Type::Uint32 => self.u32().into(),
            Type::Uint64 => self.counter(),
            Type::Bool => self.random.below(2) as u64,
            Type::Enum => {
                let name = field.type_name().rsplit('.').next().unwrap();
                let values = of.enum_type.iter().chain(&self.file.enum_type).find(|found| found.name() == name);
                let known = values.unwrap().value.len() as i32;
                let any = self.random.next() as i32;
                let number = self.random.below(known as usize) as i32;
                i64::from(self.random.pick(&[number, number, number, any])) as u64
            }
            other => panic!("the schema has no {other:?}"),
        }
    }
}

fn has_presence(field: &FieldDescriptorProto) -> bool {
    let is_message = field.r#type() == Type::Message && field.label() != Label::Repeated;
    field.oneof_index.is_some() || is_message
}

fn tag(field: &FieldDescriptorProto, wire_type: u64) -> u64 {
    (field.number() as u64) << 3 | wire_type
}

fn put_number(out: &mut Vec<u8>, field: &FieldDescriptorProto, number: u64) {
    if number != 0 || has_presence(field) {
        varint(out, tag(field, 0));
        varint(out, number);
    }
}

fn put_bytes(out: &mut Vec<u8>, field: &FieldDescriptorProto, bytes: &[u8]) {
    if !bytes.is_empty() || has_presence(field) {
        varint(out, tag(field, 2));
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn varint(out: &mut Vec<u8>, number: u64) {
    prost::encoding::encode_varint(number, out);
}
