//! What fields the Protobuf bodies have, from the descriptors of `antiphon.proto`, and what section 13 makes of each.

use std::sync::LazyLock;

use antiphon_protocol::{DESCRIPTORS, EventKind, FrameType};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Most fields of a message, with room for more.
pub(super) const FIELDS_MAX: usize = 24;

static SCHEMA: LazyLock<Vec<Message>> = LazyLock::new(|| {
    // Invariant: the descriptors are a constant of the protocol crate; the tests below read all of them.
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    set.file.iter().flat_map(|file| file.message_type.iter().map(|message| Message::new(message, file))).collect()
});

/// A message of the package; messages in it are not nested.
#[derive(Debug)]
pub(super) struct Message {
    name: String,
    /// By number, as they are written.
    pub(super) fields: Vec<Field>,
    /// Whether `content_type` and `body` are among them, and `envelope`.
    pub(super) content: Option<HasEnvelope>,
}

/// Whether content comes with an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HasEnvelope(pub(super) bool);

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) is_repeated: bool,
    /// Whether a default that is set differs from one that is not.
    pub(super) has_presence: bool,
    /// Of the fields with the same number here at most one is set.
    pub(super) oneof: Option<i32>,
}

/// What a field is in JSON.
#[derive(Debug)]
pub(super) enum Kind {
    U32,
    U64,
    Bool,
    Text,
    Bytes,
    Uuid,
    Position,
    /// Names in lower case, and their numbers.
    Enum(Vec<(String, i32)>),
    /// By its name, looked up when it is met.
    Message(String),
    Row,
    /// Of [`Message::content`]: together they are the members of content.
    ContentType,
    Envelope,
    Body,
    /// Said by the frame's header.
    Handle,
}

/// The message of this name.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    SCHEMA.iter().find(|message| message.name == name)
}

/// What the body of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyForm {
    /// A Protobuf message.
    Message(&'static str),
    /// Laid by hand, or empty, or by request.
    Special,
    /// Of trunks, which JSON does not travel on.
    Trunk,
}

/// What the body of a frame of this type is.
pub(super) fn body_of(frame_type: FrameType) -> BodyForm {
    use FrameType as F;
    BodyForm::Message(match frame_type {
        F::Hello => "Hello",
        F::Welcome => "Welcome",
        F::Auth => "Auth",
        F::Bye => "Bye",
        F::Goaway => "Goaway",
        F::Error => "Error",
        F::Resume => "Resume",
        F::Subscribe => "Subscribe",
        F::Attach => "Attach",
        F::Unsubscribe => "Unsubscribe",
        F::Fetch => "Fetch",
        F::MessagesPage => "MessagesPage",
        F::Detach => "Detach",
        F::Cursor => "Cursor",
        F::Cursors => "MemberCursor",
        F::Head => "Head",
        F::Sync => "Sync",
        F::BatchAck => "BatchAck",
        F::Hide => "Hide",
        F::ConversationCreate => "ConversationCreate",
        F::ConversationGet => "ConversationGet",
        F::ConversationUpdate => "ConversationUpdate",
        F::ConversationDelete => "ConversationDelete",
        F::MemberAdd => "MemberAdd",
        F::MemberRemove => "MemberRemove",
        F::MemberSetRole => "MemberSetRole",
        F::Join => "Join",
        F::Leave => "Leave",
        F::Preferences => "Preferences",
        F::Block => "Block",
        F::Signal => "Signal",
        F::Signaled => "Signaled",
        F::PresenceSet => "PresenceSet",
        F::Presence => "Presence",
        F::PresenceSubscribe => "PresenceSubscribe",
        F::Revoke => "Revoke",
        F::ChannelOpen | F::ChannelClose | F::Lag | F::ChannelClosed => return BodyForm::Trunk,
        F::Open | F::Ok | F::Page | F::Event | F::Skip | F::Behind | F::Send | F::Ack | F::SendBatch | F::Import => {
            return BodyForm::Special;
        }
    })
}

/// The message in an OK to this request; `None`: its OK is empty, or it has another answer.
pub(super) fn answer_of(request: FrameType) -> Option<&'static Message> {
    use FrameType as F;
    message(match request {
        F::Auth => "Authenticated",
        F::Sync => "Synced",
        F::ConversationCreate | F::ConversationGet | F::ConversationUpdate | F::ConversationDelete => "Conversation",
        F::MemberAdd | F::MemberRemove | F::MemberSetRole | F::Join => "Conversation",
        _ => return None,
    })
}

/// The message in the body of an event that the broker makes.
pub(super) fn event_of(kind: EventKind) -> Option<&'static Message> {
    message(match kind {
        EventKind::MEMBER => "MemberEvent",
        EventKind::CONVERSATION => "ConversationEvent",
        EventKind::CONVERSATION_ADDED => "ConversationAdded",
        EventKind::CONVERSATION_REMOVED => "ConversationRemoved",
        EventKind::PREFERENCES => "Preferences",
        EventKind::BLOCK => "Block",
        EventKind::HIDE => "Hide",
        EventKind::REVOKED => "Revoked",
        _ => return None,
    })
}

impl Message {
    fn new(descriptor: &DescriptorProto, file: &FileDescriptorProto) -> Self {
        let enums = || descriptor.enum_type.iter().chain(&file.enum_type);
        let has = |name: &str| descriptor.field.iter().any(|field| field.name() == name);
        let content = has("content_type").then(|| HasEnvelope(has("envelope")));
        let kind = |field: &FieldDescriptorProto| match (descriptor.name(), field.name()) {
            (_, "content_type") => Kind::ContentType,
            (_, "envelope") if content.is_some() => Kind::Envelope,
            (_, "body") if content.is_some() => Kind::Body,
            ("MessageView", "row") => Kind::Row,
            ("Signaled", "handle") => Kind::Handle,
            _ => Kind::new(field, enums()),
        };
        let mut fields: Vec<Field> = descriptor.field.iter().map(|field| Field::new(field, kind(field))).collect();
        fields.sort_by_key(|field| field.number);
        Self { name: descriptor.name().to_owned(), fields, content }
    }
}

impl Field {
    fn new(descriptor: &FieldDescriptorProto, kind: Kind) -> Self {
        let is_optional = descriptor.proto3_optional();
        let is_repeated = descriptor.label() == Label::Repeated;
        // An `optional` field is written as the only one of a group, which says nothing more.
        let oneof = descriptor.oneof_index.filter(|_| !is_optional);
        let is_message = descriptor.r#type() == Type::Message && !is_repeated;
        let has_presence = is_optional || oneof.is_some() || is_message;
        let name = descriptor.name().to_owned();
        Self { name, number: descriptor.number().cast_unsigned(), kind, is_repeated, has_presence, oneof }
    }
}

impl Kind {
    fn new<'a>(field: &FieldDescriptorProto, mut enums: impl Iterator<Item = &'a EnumDescriptorProto>) -> Self {
        let type_name = field.type_name().rsplit('.').next().unwrap_or_default();
        match field.r#type() {
            Type::Uint32 => Self::U32,
            Type::Bool => Self::Bool,
            Type::String => Self::Text,
            Type::Bytes if ["session_id", "sender_instance", "event_id"].contains(&field.name()) => Self::Uuid,
            Type::Bytes => Self::Bytes,
            Type::Message if type_name == "Position" => Self::Position,
            Type::Message => Self::Message(type_name.to_owned()),
            Type::Enum => {
                let values = enums.find(|found| found.name() == type_name).map(|found| &found.value[..]);
                let values = values.unwrap_or_default().iter();
                Self::Enum(values.map(|value| (value.name().to_ascii_lowercase(), value.number())).collect())
            }
            // The schema has no other numbers; a test holds it to that.
            _ => Self::U64,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    fn every_field() -> impl Iterator<Item = (&'static Message, &'static Field)> {
        SCHEMA.iter().flat_map(|message| message.fields.iter().map(move |field| (message, field)))
    }

    #[test]
    fn the_schema_has_only_what_is_read_here() {
        let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
        assert!(messages.iter().all(|message| message.nested_type.is_empty() && message.field.len() <= FIELDS_MAX));
        let types: BTreeSet<_> =
            messages.iter().flat_map(|message| &message.field).map(|field| field.r#type()).collect();
        assert_eq!(
            types,
            BTreeSet::from([
                Type::Uint32,
                Type::Uint64,
                Type::Bool,
                Type::String,
                Type::Bytes,
                Type::Message,
                Type::Enum
            ])
        );
        for (of, field) in every_field() {
            match &field.kind {
                Kind::Message(name) => assert!(message(name).is_some(), "{} {}", of.name, field.name),
                Kind::Enum(values) => assert_eq!(values[0].1, 0, "{} {}", of.name, field.name),
                _ => {}
            }
        }
    }

    /// `SPEC.md` names the body of every frame, of every OK, and of every event that the broker makes.
    #[test]
    fn bodies_are_those_of_the_specification() {
        let spec = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol/SPEC.md")).unwrap();
        let rows = spec.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let mut seen = (0, 0, 0);
        for cells in rows.filter(|cells| cells.len() > 5) {
            if let Some(frame_type) = FrameType::from_name(cells[2]).filter(|_| cells.len() == 10) {
                let is_message = cells[7].starts_with(|first: char| first.is_ascii_uppercase());
                let is_trunk = cells[3] == "edge" || frame_type == FrameType::ChannelClosed;
                match body_of(frame_type) {
                    BodyForm::Trunk => assert!(is_trunk, "{}", cells[2]),
                    BodyForm::Message(name) => assert_eq!((name, is_trunk), (cells[7], false), "{}", cells[2]),
                    BodyForm::Special => assert!(!is_message && !is_trunk, "{}", cells[2]),
                }
                let answer = cells[8].strip_prefix("OK(").and_then(|rest| rest.split(')').next());
                assert_eq!(answer_of(frame_type).map(|message| &*message.name), answer, "{}", cells[2]);
                (seen.0, seen.1) = (seen.0 + 1, seen.1 + usize::from(answer.is_some()));
            } else if let Some(kind) = EventKind::from_name(cells[2]).filter(|kind| cells[1] == kind.0.to_string()) {
                let body =
                    cells[4].strip_suffix(", content type 3").map(|body| body.trim_start_matches("in an inbox: "));
                assert_eq!(event_of(kind).map(|message| &*message.name), body, "{}", cells[2]);
                seen.2 += 1;
            }
        }
        assert_eq!(seen, (FrameType::ALL.len(), 10, EventKind::ALL.len()));
    }
}
