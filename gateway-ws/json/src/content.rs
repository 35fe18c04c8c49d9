//! Content: the same members for body, content type and envelope wherever they occur.

use std::borrow::Cow;

use antiphon_protocol::{ContentType, EventKind};
use bytes::{BufMut, Bytes};

use super::{
    envelope,
    error::{EncodeError, JsonError},
    message,
    schema::{self, HasEnvelope},
    valid,
    value::{Members, Value},
    write::Object,
};

const TEXT: u32 = ContentType::Text as u32;
const JSON: u32 = ContentType::Json as u32;
const OCTETS: u32 = ContentType::Octets as u32;
const PROTOBUF: u32 = ContentType::Control as u32;

const NAMES: [(u32, &str); 4] =
    [(TEXT, "text/plain"), (JSON, "application/json"), (OCTETS, "application/octet-stream"), (PROTOBUF, "protobuf")];

/// Content that is to be written.
#[derive(Debug)]
pub(super) struct Content<'a> {
    /// Of the event whose content it is; says what a Protobuf body is.
    pub(super) kind: EventKind,
    pub(super) content_type: u32,
    pub(super) envelope: &'a [u8],
    pub(super) body: &'a Bytes,
}

/// Writes the members of `content`. A body that is not what its type says keeps its bytes, as base64.
pub(super) fn write(object: &mut Object<'_>, content: &Content<'_>) -> Result<(), EncodeError> {
    let said = write_body(object, content);
    if content.content_type != said {
        write_content_type(object, content.content_type);
    }
    envelope::write(object, content.envelope)
}

/// Writes the body; the content type that it says by its member.
fn write_body(object: &mut Object<'_>, content: &Content<'_>) -> u32 {
    let body = &content.body[..];
    match content.content_type {
        PROTOBUF => {
            if let Some(schema) = schema::event_of(content.kind)
                && object.attempt("body", |out| message::write_object(out, schema, content.body))
            {
                return PROTOBUF;
            }
        }
        TEXT if !body.is_empty() => {
            if let Ok(text) = std::str::from_utf8(body) {
                object.text("text", text);
                return TEXT;
            }
        }
        JSON if is_data(body) => {
            object.key("data").put_slice(body);
            return JSON;
        }
        _ => {}
    }
    if body.is_empty() {
        return TEXT;
    }
    object.base64("body_b64", body);
    OCTETS
}

/// Whether a body can stand in a line as it is, and be found there again.
fn is_data(body: &[u8]) -> bool {
    let is_white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let has_line_break = || body.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    !is_white(body.first())
        && !is_white(body.last())
        && !has_line_break()
        && std::str::from_utf8(body).is_ok_and(|text| valid::check(text, valid::DATA_DEPTH_MAX).is_ok())
}

fn write_content_type(object: &mut Object<'_>, content_type: u32) {
    match NAMES.iter().find(|(number, _)| *number == content_type) {
        Some((_, name)) => object.text("content_type", name),
        None => object.number("content_type", content_type.into()),
    }
}

/// Content that was read.
#[derive(Debug)]
pub(super) struct ReadContent<'a> {
    pub(super) content_type: u32,
    pub(super) envelope: Vec<u8>,
    pub(super) body: Cow<'a, [u8]>,
}

/// Takes the members of content out of `members`; those of the envelope only where there can be one.
pub(super) fn read<'a>(
    members: &mut Members<'a>,
    kind: EventKind,
    has_envelope: HasEnvelope,
) -> Result<ReadContent<'a>, JsonError> {
    let (said, body) = read_body(members, kind)?;
    let content_type = members.optional("content_type", read_content_type)?;
    // base64 has the bytes of any type; the other members say theirs.
    let is_open = said.is_none_or(|said| said == OCTETS);
    if !is_open && content_type.is_some_and(|content_type| Some(content_type) != said) {
        return Err(JsonError::invalid("is not that of the body's member").within("content_type"));
    }
    let content_type = content_type.or(said).unwrap_or(TEXT);
    let envelope = if has_envelope.0 { envelope::read(members, kind)? } else { Vec::new() };
    Ok(ReadContent { content_type, envelope, body })
}

/// The body, and the content type that its member says; none if there is no member.
fn read_body<'a>(members: &mut Members<'a>, kind: EventKind) -> Result<(Option<u32>, Cow<'a, [u8]>), JsonError> {
    let mut found = None;
    for (name, said) in [("text", TEXT), ("data", JSON), ("body_b64", OCTETS), ("body", PROTOBUF)] {
        let read = |value| match said {
            TEXT => Value::text(value).map(into_bytes),
            JSON => read_data(value).map(Cow::Borrowed),
            OCTETS => Value::base64(value).map(Cow::Owned),
            _ => read_message(value, kind).map(Cow::Owned),
        };
        let Some(body) = members.optional(name, read)? else { continue };
        if found.is_some() {
            return Err(JsonError::malformed("is a second body").within(name));
        }
        found = Some((Some(said), body));
    }
    Ok(found.unwrap_or_default())
}

fn into_bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The line was checked as a whole; what is left is the depth of this value by itself.
fn read_data(value: Value<'_>) -> Result<&[u8], JsonError> {
    match valid::check(value.raw(), valid::DATA_DEPTH_MAX) {
        Ok(()) => Ok(value.raw().as_bytes()),
        Err(fault) => Err(JsonError::malformed(fault.what)),
    }
}

fn read_message(value: Value<'_>, kind: EventKind) -> Result<Vec<u8>, JsonError> {
    let schema = schema::event_of(kind).ok_or(JsonError::invalid("is not what an event of this kind has"))?;
    message::read_object(value, schema)
}

fn read_content_type(value: Value<'_>) -> Result<u32, JsonError> {
    if !value.raw().starts_with('"') {
        return value.u32();
    }
    let text = value.text()?;
    let found = NAMES.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
    found.ok_or(JsonError::invalid("is not a content type"))
}
