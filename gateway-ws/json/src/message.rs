//! Protobuf bodies <-> objects, straight between the two forms and by the schema.
//!
//! Writing JSON passes over fields that the schema does not have, as readers of answers do. Reading JSON gives the one
//! canonical form that brokers take in requests.

use antiphon_protocol::{EventKind, Position, Row, limits::COUNTER_MAX};
use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

use super::{
    content::{self, Content},
    error::{EncodeError, JsonError},
    row,
    schema::{self, FIELDS_MAX, Field, HasEnvelope, Kind, Message},
    value::{Members, Value},
    wire::{self, Payload},
    write::{self, Object},
};

/// Content inside Protobuf bodies is that of messages.
const CONTENT_KIND: EventKind = EventKind::EDIT;

/// Writes `body` as an object.
pub(super) fn write_object(out: &mut BytesMut, schema: &'static Message, body: &Bytes) -> Result<(), EncodeError> {
    let mut object = Object::begin(out);
    write_members(&mut object, schema, body, None)?;
    object.end();
    Ok(())
}

/// Writes the members of `body`. `handle` is the header's, which some bodies repeat.
pub(super) fn write_members(
    object: &mut Object<'_>,
    schema: &'static Message,
    body: &Bytes,
    handle: Option<u32>,
) -> Result<(), EncodeError> {
    let found = singular_fields(schema, body)?;
    for (place, field) in schema.fields.iter().enumerate() {
        let payload = found.get(place).copied().flatten();
        match (&field.kind, payload) {
            (Kind::ContentType, _) => write_content(object, schema, &found, body)?,
            (Kind::Envelope | Kind::Body, _) => {}
            (Kind::Handle, _) => check_handle(field, payload, handle)?,
            (_, _) if field.is_repeated => write_repeated(object, field, body)?,
            (_, Some(payload)) if field.has_presence || !is_default(payload) => {
                write_payload(object.key(&field.name), field, payload, body)?;
            }
            _ => {}
        }
    }
    Ok(())
}

type Found<'a> = [Option<Payload<'a>>; FIELDS_MAX];

/// The fields that can be there once, at their places in the schema. One that is there twice is not merged but refused,
/// and so are two of a group of which one is to be set: no broker writes that.
fn singular_fields<'a>(schema: &'static Message, body: &'a Bytes) -> Result<Found<'a>, EncodeError> {
    let mut found = [None; FIELDS_MAX];
    let mut group = None;
    for field in wire::fields(body) {
        let (number, payload) = field.map_err(|_| EncodeError::field("body"))?;
        let Some(place) = schema.fields.iter().position(|field| u64::from(field.number) == number) else { continue };
        let field = &schema.fields[place];
        if field.is_repeated {
            continue;
        }
        let is_second = field.oneof.is_some() && group.replace(field.oneof) == Some(field.oneof);
        let slot = found.get_mut(place).filter(|slot| slot.is_none() && !is_second);
        *slot.ok_or(EncodeError::Field { field: &field.name })? = Some(payload);
    }
    Ok(found)
}

fn is_default(payload: Payload<'_>) -> bool {
    matches!(payload, Payload::Varint(0) | Payload::Bytes(&[]))
}

fn check_handle(field: &'static Field, payload: Option<Payload<'_>>, handle: Option<u32>) -> Result<(), EncodeError> {
    match (payload, handle) {
        (Some(Payload::Varint(own)), Some(handle)) if own == u64::from(handle) => Ok(()),
        (None, Some(0)) => Ok(()),
        _ => Err(EncodeError::Field { field: &field.name }),
    }
}

fn write_content(
    object: &mut Object<'_>,
    schema: &'static Message,
    found: &Found<'_>,
    source: &Bytes,
) -> Result<(), EncodeError> {
    let (mut content_type, mut envelope, mut body) = (0, &[][..], Bytes::new());
    for (field, payload) in schema.fields.iter().zip(found) {
        match (&field.kind, payload) {
            (Kind::ContentType, Some(Payload::Varint(number))) if u32::try_from(*number).is_ok() => {
                content_type = *number as u32;
            }
            (Kind::Envelope, Some(Payload::Bytes(bytes))) => envelope = bytes,
            (Kind::Body, Some(Payload::Bytes(bytes))) => body = source.slice_ref(bytes),
            (Kind::ContentType | Kind::Envelope | Kind::Body, Some(_)) => {
                return Err(EncodeError::Field { field: &field.name });
            }
            _ => {}
        }
    }
    content::write(object, &Content { kind: CONTENT_KIND, content_type, envelope, body: &body })
}

fn write_repeated(object: &mut Object<'_>, field: &'static Field, body: &Bytes) -> Result<(), EncodeError> {
    let mut entries = wire::fields(body)
        .filter_map(Result::ok)
        .filter(|(number, _)| *number == u64::from(field.number))
        .map(|(_, payload)| payload)
        .filter(|payload| !is_empty_pack(field, *payload))
        .peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    let mut is_first = true;
    let out = object.key(&field.name);
    out.put_u8(b'[');
    for payload in entries {
        for_each_entry(field, payload, |entry| {
            if !std::mem::take(&mut is_first) {
                out.put_u8(b',');
            }
            write_payload(out, field, entry, body)
        })?;
    }
    out.put_u8(b']');
    Ok(())
}

fn is_number(field: &Field) -> bool {
    matches!(field.kind, Kind::U32 | Kind::U64 | Kind::Bool | Kind::Enum(_))
}

fn is_empty_pack(field: &Field, payload: Payload<'_>) -> bool {
    is_number(field) && matches!(payload, Payload::Bytes(&[]))
}

/// The entries in one occurrence of a repeated field: several where numbers are packed.
fn for_each_entry(
    field: &'static Field,
    payload: Payload<'_>,
    mut write: impl FnMut(Payload<'_>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let Payload::Bytes(mut packed) = payload else { return write(payload) };
    if !is_number(field) {
        return write(payload);
    }
    while !packed.is_empty() {
        let number = wire::varint(&mut packed).ok_or(EncodeError::Field { field: &field.name })?;
        write(Payload::Varint(number))?;
    }
    Ok(())
}

fn write_payload(
    out: &mut BytesMut,
    field: &'static Field,
    payload: Payload<'_>,
    source: &Bytes,
) -> Result<(), EncodeError> {
    let wrong = EncodeError::Field { field: &field.name };
    match (&field.kind, payload) {
        (Kind::U32, Payload::Varint(number)) if number <= u32::MAX.into() => write::number(out, number),
        (Kind::U64, Payload::Varint(number)) if number <= COUNTER_MAX => write::number(out, number),
        (Kind::Bool, Payload::Varint(number)) => out.put_slice(if number == 0 { b"false" } else { b"true" }),
        (Kind::Enum(values), Payload::Varint(number)) => write_enum(out, values, number as i32),
        (Kind::Text, Payload::Bytes(bytes)) => write::text(out, std::str::from_utf8(bytes).map_err(|_| wrong)?),
        (Kind::Bytes, Payload::Bytes(bytes)) => write::base64(out, bytes),
        (Kind::Uuid, Payload::Bytes(bytes)) => write::uuid(out, Uuid::from_slice(bytes).map_err(|_| wrong)?),
        (Kind::Position, Payload::Bytes(bytes)) => write_position(out, read_position(bytes).ok_or(wrong)?),
        (Kind::Row, Payload::Bytes(bytes)) => {
            row::write_object(out, &Row::new(source.slice_ref(bytes)).map_err(|_| wrong)?)?;
        }
        (Kind::Message(name), Payload::Bytes(bytes)) => {
            write_object(out, schema::message(name).ok_or(wrong)?, &source.slice_ref(bytes))?;
        }
        _ => return Err(wrong),
    }
    Ok(())
}

fn write_enum(out: &mut BytesMut, values: &[(String, i32)], number: i32) {
    match values.iter().find(|(_, value)| *value == number) {
        Some((name, _)) => write::text(out, name),
        None => {
            if number < 0 {
                out.put_u8(b'-');
            }
            write::number(out, number.unsigned_abs().into());
        }
    }
}

fn read_position(bytes: &[u8]) -> Option<Position> {
    let mut position = Position::default();
    for field in wire::fields(bytes) {
        match field.ok()? {
            (1, Payload::Varint(epoch)) => position.epoch = epoch.try_into().ok()?,
            (2, Payload::Varint(seq)) => position.seq = seq,
            (1 | 2, _) => return None,
            _ => {}
        }
    }
    (position.seq <= COUNTER_MAX).then_some(position)
}

pub(super) fn write_position(out: &mut BytesMut, position: Position) {
    out.put_u8(b'"');
    write::number(out, position.epoch.into());
    out.put_u8(b'-');
    write::number(out, position.seq);
    out.put_u8(b'"');
}

/// The body that an object says.
pub(super) fn read_object(value: Value<'_>, schema: &'static Message) -> Result<Vec<u8>, JsonError> {
    let mut members = value.members()?;
    let mut out = Vec::new();
    read_members(&mut members, schema, None, &mut out)?;
    members.finish()?;
    Ok(out)
}

/// Takes the members of a message out of `members` and appends its bytes: fields by number, defaults left out.
pub(super) fn read_members(
    members: &mut Members<'_>,
    schema: &'static Message,
    handle: Option<u32>,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let has_envelope = schema.content.unwrap_or(HasEnvelope(false));
    let content = schema.content.map(|_| content::read(members, CONTENT_KIND, has_envelope)).transpose()?;
    let mut group = None;
    for field in &schema.fields {
        match (&field.kind, &content) {
            (Kind::ContentType, Some(content)) => put_number(out, field, content.content_type.into()),
            (Kind::Envelope, Some(content)) => put_bytes(out, field, &content.envelope),
            (Kind::Body, Some(content)) => put_bytes(out, field, &content.body),
            (Kind::Handle, _) => put_number(out, field, handle.unwrap_or_default().into()),
            _ => {
                let Some(value) = members.take(&field.name) else { continue };
                if field.oneof.is_some() && group.replace(field.oneof) == Some(field.oneof) {
                    return Err(JsonError::malformed("excludes another member").within(&field.name));
                }
                read_field(value, field, out).map_err(|error| error.within(&field.name))?;
            }
        }
    }
    Ok(())
}

fn read_field(value: Value<'_>, field: &'static Field, out: &mut Vec<u8>) -> Result<(), JsonError> {
    if !field.is_repeated {
        return read_value(value, field, out);
    }
    if !is_number(field) {
        return value.items()?.try_for_each(|item| read_value(item, field, out));
    }
    let mut packed = Vec::new();
    for item in value.items()? {
        wire::put_varint(&mut packed, read_number(item, &field.kind)?);
    }
    put_bytes(out, field, &packed);
    Ok(())
}

fn read_value(value: Value<'_>, field: &'static Field, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match &field.kind {
        Kind::Text => put_bytes(out, field, value.text()?.as_bytes()),
        Kind::Bytes => put_bytes(out, field, &value.base64()?),
        Kind::Uuid if value.raw() == "\"\"" => put_bytes(out, field, b""),
        Kind::Uuid => put_bytes(out, field, value.uuid()?.as_bytes()),
        Kind::Row => put_bytes(out, field, row::read_object(value)?.bytes()),
        Kind::Position => {
            let position = read_position_text(value)?;
            let mut bytes = Vec::new();
            for (number, part) in [(1, position.epoch.into()), (2, position.seq)] {
                if part > 0 {
                    wire::put_number(&mut bytes, number, part);
                }
            }
            put_bytes(out, field, &bytes);
        }
        Kind::Message(name) => {
            // Invariant: the schema names only messages that it has, which its tests prove.
            let schema = schema::message(name).ok_or(JsonError::malformed("is not known"))?;
            put_bytes(out, field, &read_object(value, schema)?);
        }
        kind => put_number(out, field, read_number(value, kind)?),
    }
    Ok(())
}

fn read_number(value: Value<'_>, kind: &Kind) -> Result<u64, JsonError> {
    match kind {
        Kind::U32 => value.u32().map(u64::from),
        Kind::Bool => value.flag().map(u64::from),
        Kind::Enum(values) if value.raw().starts_with('"') => {
            let name = value.text()?;
            let found = values.iter().find(|(known, _)| *known == name);
            found.map(|(_, number)| *number as u64).ok_or(JsonError::invalid("is not a value of its enumeration"))
        }
        Kind::Enum(_) => match value.raw().strip_prefix('-') {
            // Negative values take ten bytes, as if they had 64 bits.
            Some(_) => {
                let number: Option<i32> = value.raw().parse().ok().filter(|number| *number < 0);
                number.map(|number| i64::from(number).cast_unsigned()).ok_or(JsonError::malformed("is out of range"))
            }
            None => value.number(i32::MAX.cast_unsigned().into()),
        },
        _ => value.counter(),
    }
}

/// `<epoch>-<seq>`, each as a number is written.
pub(super) fn read_position_text(value: Value<'_>) -> Result<Position, JsonError> {
    let text = value.text()?;
    let position = text.parse().ok().filter(|position: &Position| position.seq <= COUNTER_MAX);
    position.filter(|position| position.to_string() == text).ok_or(JsonError::malformed("is not a position"))
}

fn put_number(out: &mut Vec<u8>, field: &Field, number: u64) {
    if number != 0 || field.has_presence {
        wire::put_number(out, field.number, number);
    }
}

/// Entries of a list are written also if they are empty.
fn put_bytes(out: &mut Vec<u8>, field: &Field, bytes: &[u8]) {
    if !bytes.is_empty() || field.has_presence || (field.is_repeated && !is_number(field)) {
        wire::put_bytes(out, field.number, bytes);
    }
}
