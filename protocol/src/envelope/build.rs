//! Making an envelope.

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, WIPOffset};

use super::{Attachment, EventRef, Property, Relation, wire};
use crate::ids::UserId;

/// The attributes of an event that is being made.
///
/// The limits are those of [`Envelope::verify`](super::Envelope::verify), which tells a sender what the broker would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewEnvelope<'a> {
    /// What the event is about, unless it is a message.
    pub relates_to: Option<Relation<'a>>,
    /// The message that this one answers.
    pub reply_to: Option<EventRef>,
    /// The first event of the thread that this message belongs to.
    pub thread: Option<EventRef>,
    /// Users whom the message names, each once.
    pub mentions: &'a [UserId],
    /// Files.
    pub attachments: &'a [Attachment<'a>],
    /// The application's own attributes, no key twice.
    pub properties: &'a [Property<'a>],
    /// Whether the event notifies nobody.
    pub silent: bool,
    /// When the message goes away, Unix milliseconds; `None` = never.
    pub expires_at_ms: Option<u64>,
}

impl NewEnvelope<'_> {
    /// The envelope's bytes; none where there is no attribute. The same attributes always give the same bytes, so a
    /// send that is made anew for a retry still has the content hash of the first.
    pub fn to_bytes(&self) -> Vec<u8> {
        if *self == Self::default() {
            return Vec::new();
        }
        let mut builder = FlatBufferBuilder::with_capacity(256);
        let fields = wire::EnvelopeArgs {
            relates_to: self.relates_to.map(|relation| write_relation(&mut builder, relation)),
            reply_to: self.reply_to.map(|event| write_event_ref(&mut builder, event)),
            thread: self.thread.map(|event| write_event_ref(&mut builder, event)),
            mentions: write_list(&mut builder, self.mentions, |builder, user| builder.create_string(user.as_str())),
            attachments: write_list(&mut builder, self.attachments, write_attachment),
            properties: write_list(&mut builder, self.properties, write_property),
            silent: self.silent,
            expires_at_ms: self.expires_at_ms.unwrap_or(0),
        };
        let root = wire::Envelope::create(&mut builder, &fields);
        builder.finish(root, None);
        builder.finished_data().to_vec()
    }
}

type Builder<'b> = FlatBufferBuilder<'b>;
type Table<T> = WIPOffset<T>;

/// `None` for an empty list, which is written as no list.
fn write_list<'b, T, W>(
    builder: &mut Builder<'b>,
    entries: &[T],
    write: impl Fn(&mut Builder<'b>, &T) -> WIPOffset<W>,
) -> Option<WIPOffset<Vector<'b, ForwardsUOffset<W>>>> {
    if entries.is_empty() {
        return None;
    }
    let offsets: Vec<_> = entries.iter().map(|entry| write(builder, entry)).collect();
    Some(builder.create_vector(&offsets))
}

fn write_event_ref<'b>(builder: &mut Builder<'b>, event: EventRef) -> Table<wire::EventRef<'b>> {
    let event_id = wire::EventId(event.event_id.into_bytes());
    wire::EventRef::create(builder, &wire::EventRefArgs { event_id: Some(&event_id), seq: event.seq })
}

fn write_relation<'b>(builder: &mut Builder<'b>, relation: Relation<'_>) -> Table<wire::Relation<'b>> {
    let event_id = wire::EventId(relation.target.event_id.into_bytes());
    let fields = wire::RelationArgs {
        rel: wire::Rel(relation.rel.0),
        event_id: Some(&event_id),
        seq: relation.target.seq,
        key: relation.key.map(|key| builder.create_string(key)),
        remove: relation.remove,
    };
    wire::Relation::create(builder, &fields)
}

fn write_attachment<'b>(builder: &mut Builder<'b>, file: &Attachment<'_>) -> Table<wire::Attachment<'b>> {
    let fields = wire::AttachmentArgs {
        url: Some(builder.create_string(file.url)),
        name: file.name.map(|name| builder.create_string(name)),
        mime: file.mime.map(|mime| builder.create_string(mime)),
        size: file.size,
        width: file.width,
        height: file.height,
        duration_ms: file.duration_ms,
        thumbnail_url: file.thumbnail_url.map(|url| builder.create_string(url)),
    };
    wire::Attachment::create(builder, &fields)
}

fn write_property<'b>(builder: &mut Builder<'b>, property: &Property<'_>) -> Table<wire::Property<'b>> {
    let key = builder.create_string(property.key);
    let value = builder.create_string(property.value);
    wire::Property::create(builder, &wire::PropertyArgs { key: Some(key), value: Some(value) })
}
