//! Rows as objects.

use antiphon_protocol::{
    ContentType, EventKind, NewRow, Row, UserId,
    limits::{BODY_BYTES_MAX, COUNTER_MAX},
    row::{FLAG_IMPORTED, FLAG_REDACTED, FLAG_UNCHANGED},
};
use bytes::{BufMut, BytesMut};

use super::{
    content::{self, Content},
    error::{EncodeError, JsonError},
    schema::HasEnvelope,
    value::{Members, Value},
    write::{self, Object},
};

/// Bytes that names of members and numbers as text take beyond the row's own.
const MARGIN_BYTES: usize = 384;

/// Writes the row as an object of its own.
pub(super) fn write_object(out: &mut BytesMut, row: &Row) -> Result<(), EncodeError> {
    let mut object = Object::begin(out);
    write_members(&mut object, row)?;
    object.end();
    Ok(())
}

/// Writes the members of a row.
pub(super) fn write_members(object: &mut Object<'_>, row: &Row) -> Result<(), EncodeError> {
    object.out.reserve(row.bytes().len() + MARGIN_BYTES);
    for (name, number) in [("seq", row.seq()), ("msgno", row.msgno()), ("time_ms", row.time_ms())] {
        write_counter(object, name, number)?;
    }
    object.uuid("event_id", row.event_id());
    if !row.client_message_id().is_nil() {
        object.uuid("client_message_id", row.client_message_id());
    }
    write::hex64(object.key("content_hash"), row.content_hash());
    write_kind(object, row.kind());
    object.flag("redacted", row.is_redacted());
    object.flag("unchanged", row.is_unchanged());
    object.flag("imported", row.is_imported());
    // Ids need no escapes.
    write_plain(object, "sender", row.sender());
    if let Some(via) = row.via() {
        write_plain(object, "via", via);
    }
    let (content_type, envelope, body) = (row.content_type() as u32, &row.envelope()[..], &row.body());
    content::write(object, &Content { kind: row.kind(), content_type, envelope, body })
}

fn write_plain(object: &mut Object<'_>, name: &str, value: &str) {
    let out = object.key(name);
    out.put_u8(b'"');
    out.put_slice(value.as_bytes());
    out.put_u8(b'"');
}

/// Writes a number that readers can hold.
pub(super) fn write_counter(object: &mut Object<'_>, name: &'static str, number: u64) -> Result<(), EncodeError> {
    if number > COUNTER_MAX {
        return Err(EncodeError::field(name));
    }
    object.number(name, number);
    Ok(())
}

pub(super) fn write_kind(object: &mut Object<'_>, kind: EventKind) {
    match EventKind::ALL.contains(&kind) {
        true => write_plain(object, "kind", kind.name()),
        false => object.number("kind", kind.0.into()),
    }
}

/// The row that an object says.
pub(super) fn read_object(value: Value<'_>) -> Result<Row, JsonError> {
    let mut members = value.members()?;
    let row = read_members(&mut members)?;
    members.finish()?;
    Ok(row)
}

/// Takes the members of a row out of `members`.
pub(super) fn read_members(members: &mut Members<'_>) -> Result<Row, JsonError> {
    let kind = members.required("kind", read_kind)?;
    let content = content::read(members, kind, HasEnvelope(true))?;
    let content_type = content_type(content.content_type)?;
    if content.body.len() > BODY_BYTES_MAX {
        return Err(JsonError::over_limit("is too long").within("body"));
    }
    let mut flags = 0;
    for (name, flag) in [("redacted", FLAG_REDACTED), ("unchanged", FLAG_UNCHANGED), ("imported", FLAG_IMPORTED)] {
        flags |= if members.flag(name)? { flag } else { 0 };
    }
    let content_hash = members.required("content_hash", Value::hex64)?;
    let sender: UserId = members.required("sender", Value::id)?;
    let via: Option<UserId> = members.optional("via", Value::id)?;
    let row = NewRow {
        seq: members.required("seq", Value::counter)?,
        msgno: members.required("msgno", Value::counter)?,
        time_ms: members.required("time_ms", Value::counter)?,
        event_id: members.required("event_id", Value::uuid)?,
        client_message_id: members.optional("client_message_id", Value::uuid)?.unwrap_or_default(),
        kind,
        content_type,
        sender: &sender,
        via: via.as_ref(),
        envelope: &content.envelope,
        body: &content.body,
    };
    Ok(row.to_row_as(flags, content_hash))
}

/// The content type of a row or SEND, whose field holds no others.
pub(super) fn content_type(number: u32) -> Result<ContentType, JsonError> {
    let content_type = u8::try_from(number).ok().and_then(ContentType::from_number);
    content_type.ok_or_else(|| JsonError::invalid("is not a content type").within("content_type"))
}

pub(super) fn read_kind(value: Value<'_>) -> Result<EventKind, JsonError> {
    if !value.raw().starts_with('"') {
        return Ok(EventKind(value.number(u8::MAX.into())? as u8));
    }
    EventKind::from_name(&value.text()?).ok_or(JsonError::invalid("is not a kind of event"))
}
