//! Envelopes: each field that is set is a member beside the body.

use std::{borrow::Cow, convert::Infallible};

use antiphon_protocol::{
    Attachment, Envelope, EventKind, EventRef, NewEnvelope, Property, Rel, Relation, UserId,
    limits::{ATTACHMENTS_MAX, ENVELOPE_BYTES_MAX, MENTIONS_MAX, PROPERTIES_MAX},
};
use bytes::BytesMut;

use super::{
    error::{EncodeError, JsonError},
    value::{Members, Value},
    write::{self, Object},
};

/// Writes the members of the envelope in `bytes`; none where there are no bytes.
pub(super) fn write(object: &mut Object<'_>, bytes: &[u8]) -> Result<(), EncodeError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let envelope = Envelope::trusted(bytes).map_err(|error| EncodeError::field(error.field()))?;
    if let Some(relation) = envelope.relates_to() {
        write_relation(object.key("relates_to"), relation);
    }
    if let Some(event) = envelope.reply_to() {
        write_event_ref(object.key("reply_to"), event);
    }
    if let Some(event) = envelope.thread() {
        write_event_ref(object.key("thread"), event);
    }
    write_list(object, "mentions", envelope.mentions(), write::text);
    write_list(object, "attachments", envelope.attachments(), write_attachment);
    if envelope.properties().len() > 0 {
        let mut properties = Object::begin(object.key("properties"));
        for property in envelope.properties() {
            write::text(properties.any_key(property.key), property.value);
        }
        properties.end();
    }
    object.flag("silent", envelope.is_silent());
    if let Some(expires_at_ms) = envelope.expires_at_ms() {
        object.number("expires_at_ms", expires_at_ms);
    }
    Ok(())
}

fn write_list<T>(
    object: &mut Object<'_>,
    name: &str,
    entries: impl ExactSizeIterator<Item = T>,
    mut write: impl FnMut(&mut BytesMut, T),
) {
    if entries.len() > 0 {
        let written: Result<(), Infallible> = write::list(object.key(name), entries, |out, entry| {
            write(out, entry);
            Ok(())
        });
        // Invariant: no entry fails.
        debug_assert!(written.is_ok());
    }
}

fn write_event_ref(out: &mut BytesMut, event: EventRef) {
    let mut object = Object::begin(out);
    object.number("seq", event.seq);
    object.uuid("event_id", event.event_id);
    object.end();
}

fn write_relation(out: &mut BytesMut, relation: Relation<'_>) {
    let mut object = Object::begin(out);
    object.number("seq", relation.target.seq);
    object.uuid("event_id", relation.target.event_id);
    if let Some(key) = relation.key {
        object.text("key", key);
    }
    object.flag("remove", relation.remove);
    object.end();
}

fn write_attachment(out: &mut BytesMut, file: Attachment<'_>) {
    let mut object = Object::begin(out);
    object.text("url", file.url);
    for (name, text) in [("name", file.name), ("mime", file.mime)] {
        if let Some(text) = text {
            object.text(name, text);
        }
    }
    let (width, height) = (file.width.into(), file.height.into());
    for (name, number) in [("size", file.size), ("width", width), ("height", height), ("duration_ms", file.duration_ms)]
    {
        if number > 0 {
            object.number(name, number);
        }
    }
    if let Some(url) = file.thumbnail_url {
        object.text("thumbnail_url", url);
    }
    object.end();
}

/// Takes the members of an envelope out of `members` and lays it out; no bytes where there are none.
pub(super) fn read(members: &mut Members<'_>, kind: EventKind) -> Result<Vec<u8>, JsonError> {
    let relation = members.optional("relates_to", read_relation)?;
    let reply_to = members.optional("reply_to", read_event_ref)?;
    let thread = members.optional("thread", read_event_ref)?;
    let mentions: Vec<UserId> =
        members.optional("mentions", |value| at_most(value, MENTIONS_MAX, Value::id))?.unwrap_or_default();
    let files =
        members.optional("attachments", |value| at_most(value, ATTACHMENTS_MAX, read_file))?.unwrap_or_default();
    let properties = members.optional("properties", read_properties)?.unwrap_or_default();
    let silent = members.flag("silent")?;
    let expires_at_ms = members.optional("expires_at_ms", Value::counter)?.filter(|at| *at > 0);

    let rel = Rel::of(kind).unwrap_or(Rel(0));
    let relates_to = relation.as_ref().map(|(target, key, remove)| Relation {
        rel,
        target: *target,
        key: key.as_deref(),
        remove: *remove,
    });
    let attachments: Vec<Attachment<'_>> = files.iter().map(File::attachment).collect();
    let properties: Vec<Property<'_>> = properties.iter().map(|(key, value)| Property { key, value }).collect();
    let (mentions, attachments, properties) = (&mentions[..], &attachments[..], &properties[..]);
    let bytes = NewEnvelope { relates_to, reply_to, thread, mentions, attachments, properties, silent, expires_at_ms }
        .to_bytes();
    if bytes.len() > ENVELOPE_BYTES_MAX {
        return Err(JsonError::over_limit("is too long").within("envelope"));
    }
    Ok(bytes)
}

/// The entries of a list, which is refused before more of them are read than may be there.
fn at_most<'a, T>(
    value: Value<'a>,
    max: usize,
    read: impl FnMut(Value<'a>) -> Result<T, JsonError>,
) -> Result<Vec<T>, JsonError> {
    let mut items = value.items()?;
    let entries: Vec<Value<'a>> = items.by_ref().take(max).collect();
    if items.next().is_some() {
        return Err(JsonError::over_limit("has too many entries"));
    }
    entries.into_iter().map(read).collect()
}

fn read_event_ref(value: Value<'_>) -> Result<EventRef, JsonError> {
    let mut members = value.members()?;
    let event = take_event_ref(&mut members)?;
    members.finish()?;
    Ok(event)
}

fn take_event_ref(members: &mut Members<'_>) -> Result<EventRef, JsonError> {
    let seq = members.required("seq", Value::counter)?;
    Ok(EventRef { seq, event_id: members.required("event_id", Value::uuid)? })
}

fn read_relation(value: Value<'_>) -> Result<(EventRef, Option<Cow<'_, str>>, bool), JsonError> {
    let mut members = value.members()?;
    let relation = (take_event_ref(&mut members)?, members.optional("key", Value::text)?, members.flag("remove")?);
    members.finish()?;
    Ok(relation)
}

/// A name and a value.
type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

fn read_properties(value: Value<'_>) -> Result<Vec<Pair<'_>>, JsonError> {
    let mut entries = value.entries()?;
    let found: Vec<_> = entries.by_ref().take(PROPERTIES_MAX).collect();
    if entries.next().is_some() {
        return Err(JsonError::over_limit("has too many entries"));
    }
    found.into_iter().map(|(key, value)| Ok((key, value.text()?))).collect()
}

/// An attachment whose texts may have had escapes.
#[derive(Debug)]
struct File<'a> {
    url: Cow<'a, str>,
    name: Option<Cow<'a, str>>,
    mime: Option<Cow<'a, str>>,
    size: u64,
    width: u32,
    height: u32,
    duration_ms: u64,
    thumbnail_url: Option<Cow<'a, str>>,
}

fn read_file(value: Value<'_>) -> Result<File<'_>, JsonError> {
    let mut members = value.members()?;
    let file = File {
        url: members.required("url", Value::text)?,
        name: members.optional("name", Value::text)?,
        mime: members.optional("mime", Value::text)?,
        size: members.optional("size", Value::counter)?.unwrap_or_default(),
        width: members.optional("width", Value::u32)?.unwrap_or_default(),
        height: members.optional("height", Value::u32)?.unwrap_or_default(),
        duration_ms: members.optional("duration_ms", Value::counter)?.unwrap_or_default(),
        thumbnail_url: members.optional("thumbnail_url", Value::text)?,
    };
    members.finish()?;
    Ok(file)
}

impl File<'_> {
    fn attachment(&self) -> Attachment<'_> {
        Attachment {
            url: &self.url,
            name: self.name.as_deref(),
            mime: self.mime.as_deref(),
            size: self.size,
            width: self.width,
            height: self.height,
            duration_ms: self.duration_ms,
            thumbnail_url: self.thumbnail_url.as_deref(),
        }
    }
}
