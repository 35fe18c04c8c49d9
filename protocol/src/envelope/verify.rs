//! What bytes must be to become an [`Envelope`]: their structure, the rules by kind of event, and the limits.

use std::borrow::Cow;

use flatbuffers::{ErrorTraceDetail, InvalidFlatbuffer, Table, VOffsetT, VerifierOptions};

use super::{Envelope, EnvelopeError, Rel, Relation, wire};
use crate::{
    ids::check_id,
    limits::{
        ATTACHMENT_MIME_BYTES_MAX, ATTACHMENT_NAME_BYTES_MAX, ATTACHMENT_URL_BYTES_MAX, ATTACHMENTS_MAX, COUNTER_MAX,
        ENVELOPE_BYTES_MAX, MENTIONS_MAX, PROPERTIES_MAX, PROPERTY_KEY_BYTES_MAX, PROPERTY_VALUE_BYTES_MAX,
        REACTION_KEY_BYTES_MAX,
    },
    row::EventKind,
};

type Checked = Result<(), EnvelopeError>;

/// Bounds the work on bytes whose offsets point at the same table or text many times. Honest envelopes stay far below:
/// what is counted twice there are vtables and offsets. Counts of entries have limits of their own, with names.
const STRUCTURE: VerifierOptions = VerifierOptions {
    max_depth: 2,
    max_tables: ENVELOPE_BYTES_MAX / size_of::<u32>(),
    max_apparent_size: 4 * ENVELOPE_BYTES_MAX,
    ignore_missing_null_terminator: false,
};

/// Every part of a table that an error of the structure can name.
const PARTS: &[&str] = &[
    "relates_to.rel",
    "relates_to.event_id",
    "relates_to.seq",
    "relates_to.key",
    "relates_to.remove",
    "reply_to.event_id",
    "reply_to.seq",
    "thread.event_id",
    "thread.seq",
    "attachments.url",
    "attachments.name",
    "attachments.mime",
    "attachments.size",
    "attachments.width",
    "attachments.height",
    "attachments.duration_ms",
    "attachments.thumbnail_url",
    "properties.key",
    "properties.value",
];

/// The root table, if there are bytes and their offsets, lengths and texts are sound.
pub(super) fn structure(bytes: &[u8]) -> Result<Option<wire::Envelope<'_>>, EnvelopeError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    length("envelope", bytes.len(), 1, ENVELOPE_BYTES_MAX)?;
    match flatbuffers::root_with_opts::<wire::Envelope<'_>>(&STRUCTURE, bytes) {
        Ok(root) => Ok(Some(root)),
        Err(error) => Err(EnvelopeError::Malformed { field: field_at_fault(&error) }),
    }
}

/// Which attributes an event of this kind must, may and cannot have; see the table of the module.
pub(super) fn rules(envelope: &Envelope<'_>, kind: EventKind) -> Checked {
    match (Rel::of(kind), envelope.relates_to()) {
        (None, None) => {}
        (None, Some(_)) => return Err(EnvelopeError::NotAllowed { field: "relates_to", kind }),
        (Some(_), None) => return Err(EnvelopeError::Missing { field: "relates_to", kind }),
        (Some(rel), Some(relation)) => relation_rules(relation, rel, kind)?,
    }
    let is_message = kind == EventKind::MESSAGE;
    let has_body = is_message || kind == EventKind::EDIT;
    for (field, is_present, is_allowed) in [
        ("reply_to", envelope.reply_to().is_some(), is_message),
        ("thread", envelope.thread().is_some(), is_message),
        ("expires_at_ms", envelope.expires_at_ms().is_some(), is_message),
        ("mentions", envelope.mentions().len() > 0, has_body),
        ("attachments", envelope.attachments().len() > 0, has_body),
    ] {
        if is_present && !is_allowed {
            return Err(EnvelopeError::NotAllowed { field, kind });
        }
    }
    Ok(())
}

/// Counts, lengths, ranges, ids, repetitions and unknown fields.
pub(super) fn limits(envelope: &Envelope<'_>) -> Checked {
    let Some(root) = envelope.root else { return Ok(()) };
    known("envelope", root._tab, wire::Envelope::VT_EXPIRES_AT_MS)?;
    if let Some(relation) = root.relates_to() {
        known("relates_to", relation._tab, wire::Relation::VT_REMOVE)?;
        counter("relates_to.seq", relation.seq(), 1)?;
        length("relates_to.key", relation.key().map_or(1, str::len), 1, REACTION_KEY_BYTES_MAX)?;
    }
    for (table, seq, event) in [("reply_to", "reply_to.seq", root.reply_to()), ("thread", "thread.seq", root.thread())]
    {
        let Some(event) = event else { continue };
        known(table, event._tab, wire::EventRef::VT_SEQ)?;
        counter(seq, event.seq(), 1)?;
    }
    counter("expires_at_ms", root.expires_at_ms(), 0)?;
    mentions(envelope)?;
    attachments(root)?;
    properties(root)
}

fn relation_rules(relation: Relation<'_>, rel: Rel, kind: EventKind) -> Checked {
    let is_reaction = rel == Rel::REACTION;
    if relation.rel != rel {
        return Err(EnvelopeError::NotAllowed { field: "relates_to.rel", kind });
    }
    match relation.key {
        None if is_reaction => return Err(EnvelopeError::Missing { field: "relates_to.key", kind }),
        Some(_) if !is_reaction => return Err(EnvelopeError::NotAllowed { field: "relates_to.key", kind }),
        _ => {}
    }
    if relation.remove && !is_reaction && rel != Rel::PIN {
        return Err(EnvelopeError::NotAllowed { field: "relates_to.remove", kind });
    }
    Ok(())
}

fn mentions(envelope: &Envelope<'_>) -> Checked {
    let field = "mentions";
    count(field, envelope.mentions().len(), MENTIONS_MAX)?;
    for user in envelope.mentions() {
        check_id(user).map_err(|source| EnvelopeError::InvalidId { field, source })?;
    }
    distinct(field, envelope.mentions())
}

fn attachments(root: wire::Envelope<'_>) -> Checked {
    let files = root.attachments().unwrap_or_default();
    count("attachments", files.len(), ATTACHMENTS_MAX)?;
    for file in files {
        known("attachments", file._tab, wire::Attachment::VT_THUMBNAIL_URL)?;
        let text = |field, text: Option<&str>, max| length(field, text.map_or(0, str::len), 0, max);
        length("attachments.url", file.url().len(), 1, ATTACHMENT_URL_BYTES_MAX)?;
        text("attachments.name", file.name(), ATTACHMENT_NAME_BYTES_MAX)?;
        text("attachments.mime", file.mime(), ATTACHMENT_MIME_BYTES_MAX)?;
        text("attachments.thumbnail_url", file.thumbnail_url(), ATTACHMENT_URL_BYTES_MAX)?;
        counter("attachments.size", file.size(), 0)?;
        counter("attachments.duration_ms", file.duration_ms(), 0)?;
    }
    Ok(())
}

fn properties(root: wire::Envelope<'_>) -> Checked {
    let properties = root.properties().unwrap_or_default();
    count("properties", properties.len(), PROPERTIES_MAX)?;
    for property in properties {
        known("properties", property._tab, wire::Property::VT_VALUE)?;
        length("properties.key", property.key().len(), 1, PROPERTY_KEY_BYTES_MAX)?;
        length("properties.value", property.value().len(), 0, PROPERTY_VALUE_BYTES_MAX)?;
    }
    distinct("properties.key", properties.iter().map(|property| property.key()))
}

/// Refuses fields behind the last one that this version knows.
fn known(field: &'static str, table: Table<'_>, last: VOffsetT) -> Checked {
    let vtable = table.vtable();
    // Invariant: a vtable's length is two bytes, so every slot of it is a `VOffsetT`.
    let mut later = (usize::from(last)..vtable.num_bytes()).step_by(size_of::<VOffsetT>()).skip(1);
    match later.any(|slot| vtable.get(slot as VOffsetT) != 0) {
        true => Err(EnvelopeError::UnknownField { field }),
        false => Ok(()),
    }
}

fn count(field: &'static str, count: usize, max: usize) -> Checked {
    if count > max { Err(EnvelopeError::TooMany { field, count, max }) } else { Ok(()) }
}

fn length(field: &'static str, bytes: usize, min: usize, max: usize) -> Checked {
    if (min..=max).contains(&bytes) { Ok(()) } else { Err(EnvelopeError::Length { field, bytes, min, max }) }
}

fn counter(field: &'static str, number: u64, min: u64) -> Checked {
    if (min..=COUNTER_MAX).contains(&number) { Ok(()) } else { Err(EnvelopeError::OutOfRange { field }) }
}

/// Compares all pairs: at most 64 entries, mostly of different lengths, and nothing is allocated.
fn distinct<'a>(field: &'static str, entries: impl Iterator<Item = &'a str> + Clone) -> Checked {
    let mut rest = entries;
    while let Some(entry) = rest.next() {
        if rest.clone().any(|other| other == entry) {
            return Err(EnvelopeError::Repeated { field });
        }
    }
    Ok(())
}

/// `relates_to.key` for a broken key of the relation, `envelope` for bytes that are broken further out.
fn field_at_fault(error: &InvalidFlatbuffer) -> &'static str {
    let (trace, required) = match error {
        InvalidFlatbuffer::MissingRequiredField { required, error_trace } => (error_trace, Some(required)),
        InvalidFlatbuffer::Utf8Error { error_trace, .. }
        | InvalidFlatbuffer::InconsistentUnion { error_trace, .. }
        | InvalidFlatbuffer::MissingNullTerminator { error_trace, .. }
        | InvalidFlatbuffer::Unaligned { error_trace, .. }
        | InvalidFlatbuffer::RangeOutOfBounds { error_trace, .. }
        | InvalidFlatbuffer::SignedOffsetOutOfBounds { error_trace, .. } => (error_trace, None),
        InvalidFlatbuffer::TooManyTables
        | InvalidFlatbuffer::ApparentSizeTooLarge
        | InvalidFlatbuffer::DepthLimitReached => return "envelope",
    };
    let fields = trace.as_ref().iter().filter_map(|step| match step {
        ErrorTraceDetail::TableField { field_name, .. } => Some(field_name),
        _ => None,
    });
    // The verifier lists the innermost field first. The schema nests tables once, and names are literals of `generated`.
    let mut path = required.into_iter().chain(fields);
    match (path.next(), path.last()) {
        (Some(inner), Some(Cow::Borrowed(outer))) => {
            let is_part = |part: &&&str| part.split_once('.') == Some((outer, inner));
            PARTS.iter().find(is_part).copied().unwrap_or(outer)
        }
        (Some(Cow::Borrowed(outer)), None) => outer,
        _ => "envelope",
    }
}
