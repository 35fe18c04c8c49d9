use flatbuffers::{FlatBufferBuilder, VOffsetT, WIPOffset};

use super::*;
use crate::{
    error::ErrorCode,
    ids::{InvalidId, UserId},
    limits::*,
};

const KINDS: [EventKind; 8] = [
    EventKind::MESSAGE,
    EventKind::EDIT,
    EventKind::REDACT,
    EventKind::REACTION,
    EventKind::PIN,
    EventKind::MEMBER,
    EventKind::CONVERSATION,
    EventKind(200),
];

const EVENT: EventRef = EventRef { event_id: Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001), seq: 41 };

const PHOTO: Attachment<'static> = Attachment {
    url: "https://files.example/1.jpg",
    name: Some("beach.jpg"),
    mime: Some("image/jpeg"),
    size: 120_000,
    width: 1_600,
    height: 1_200,
    duration_ms: 0,
    thumbnail_url: Some("https://files.example/1-small.jpg"),
};

fn relation(rel: Rel) -> Relation<'static> {
    let key = (rel == Rel::REACTION).then_some("\u{1f44d}");
    Relation { rel, target: EVENT, key, remove: false }
}

fn related(relation: Relation<'_>) -> Vec<u8> {
    NewEnvelope { relates_to: Some(relation), ..NewEnvelope::default() }.to_bytes()
}

/// Bytes of a message that has every attribute that a message may have.
fn full_message() -> Vec<u8> {
    let mentions = [UserId::new("ann").unwrap(), UserId::new("bob@example").unwrap()];
    let properties = [Property { key: "lang", value: "en" }, Property { key: "draft", value: "" }];
    NewEnvelope {
        reply_to: Some(EVENT),
        thread: Some(EventRef { seq: 7, ..EVENT }),
        mentions: &mentions,
        attachments: &[PHOTO, Attachment { url: "x:y", duration_ms: 5, ..Attachment::default() }],
        properties: &properties,
        silent: true,
        expires_at_ms: Some(1_800_000_000_000),
        ..NewEnvelope::default()
    }
    .to_bytes()
}

fn refusal(bytes: &[u8], kind: EventKind) -> EnvelopeError {
    Envelope::verify(bytes, kind).unwrap_err()
}

fn refused_message(new: NewEnvelope<'_>) -> EnvelopeError {
    refusal(&new.to_bytes(), EventKind::MESSAGE)
}

#[test]
fn a_message_gives_back_its_attributes() {
    let bytes = full_message();
    let envelope = Envelope::verify(&bytes, EventKind::MESSAGE).unwrap();
    assert_eq!(envelope.relates_to(), None);
    assert_eq!(envelope.reply_to(), Some(EVENT));
    assert_eq!(envelope.thread(), Some(EventRef { seq: 7, ..EVENT }));
    assert_eq!(envelope.mentions().collect::<Vec<_>>(), ["ann", "bob@example"]);
    let files: Vec<_> = envelope.attachments().collect();
    assert_eq!(files, [PHOTO, Attachment { url: "x:y", duration_ms: 5, ..Attachment::default() }]);
    let properties: Vec<_> = envelope.properties().map(|property| (property.key, property.value)).collect();
    assert_eq!(properties, [("lang", "en"), ("draft", "")]);
    assert!(envelope.is_silent());
    assert_eq!(envelope.expires_at_ms(), Some(1_800_000_000_000));
}

#[test]
fn a_relation_gives_back_its_parts() {
    for kind in [EventKind::EDIT, EventKind::REDACT, EventKind::REACTION, EventKind::PIN] {
        let relation = relation(Rel::of(kind).unwrap());
        let bytes = related(relation);
        assert_eq!(Envelope::verify(&bytes, kind).unwrap().relates_to(), Some(relation), "{}", kind.name());
    }
}

#[test]
fn no_attributes_are_no_bytes() {
    assert!(NewEnvelope::default().to_bytes().is_empty());
    let envelope = Envelope::verify(&[], EventKind::MESSAGE).unwrap();
    assert_eq!((envelope.relates_to(), envelope.reply_to(), envelope.thread()), (None, None, None));
    assert_eq!((envelope.mentions().len(), envelope.attachments().len(), envelope.properties().len()), (0, 0, 0));
    assert_eq!((envelope.is_silent(), envelope.expires_at_ms()), (false, None));
}

#[test]
fn the_same_attributes_are_the_same_bytes() {
    assert_eq!(full_message(), full_message());
}

#[test]
fn an_envelope_is_read_at_any_address() {
    let bytes = full_message();
    for shift in 0..8 {
        let moved = [&vec![0xff; shift], &bytes[..]].concat();
        let envelope = Envelope::verify(&moved[shift..], EventKind::MESSAGE).unwrap();
        assert_eq!((envelope.reply_to(), envelope.mentions().len()), (Some(EVENT), 2));
    }
}

/// Laid out by hand from the FlatBuffers format, otherwise than our builder would: parts in another order, and gaps.
#[test]
fn an_envelope_written_by_hand_is_read() {
    #[rustfmt::skip]
    let bytes = [
        12, 0, 0, 0,                    //  0 offset of the envelope: 12
        6, 0, 8, 0, 4, 0,               //  4 its vtable: 6 bytes, table of 8, relates_to at 4
        0, 0,                           // 10 padding
        8, 0, 0, 0,                     // 12 envelope: vtable at 12 - 8 = 4
        20, 0, 0, 0,                    // 16 relates_to at 16 + 20 = 36
        14, 0, 36, 0,                   // 20 the relation's vtable: 14 bytes, table of 36;
        4, 0, 5, 0, 24, 0, 32, 0, 21, 0, // 24 rel at 4, event_id at 5, seq at 24, key at 32, remove at 21
        0, 0,                           // 34 padding
        16, 0, 0, 0,                    // 36 relation: vtable at 36 - 16 = 20
        4,                              // 40 rel: reaction
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, // 41 event_id
        1,                              // 57 remove: true
        0, 0,                           // 58 padding
        41, 0, 0, 0, 0, 0, 0, 0,        // 60 seq: 41
        4, 0, 0, 0,                     // 68 key at 68 + 4 = 72
        2, 0, 0, 0, b'+', b'1', 0,      // 72 key: two bytes and the end mark
    ];
    // `seq` stands at 60, which is no multiple of eight: the format wants numbers aligned within the envelope.
    assert_eq!(refusal(&bytes, EventKind::REACTION), EnvelopeError::Malformed { field: "relates_to.seq" });
    // Four bytes more before the relation's parts put it at 64.
    let mut aligned = bytes.to_vec();
    aligned.splice(58..58, [0; 4]);
    (aligned[28], aligned[30]) = (28, 36);
    let envelope = Envelope::verify(&aligned, EventKind::REACTION).unwrap();
    let target = EventRef { event_id: Uuid::from_bytes(std::array::from_fn(|i| i as u8)), seq: 41 };
    let expected = Relation { rel: Rel::REACTION, target, key: Some("+1"), remove: true };
    assert_eq!(envelope.relates_to(), Some(expected));
}

/// The bytes take part in the content hash, so an update of the builder must not change them unseen.
#[test]
fn a_reply_has_these_bytes() {
    let bytes = NewEnvelope { reply_to: Some(EVENT), silent: true, ..NewEnvelope::default() }.to_bytes();
    #[rustfmt::skip]
    let expected = [
        24, 0, 0, 0,                    //  0 offset of the envelope: 24
        0, 0,                           //  4 padding
        18, 0, 12, 0,                   //  6 its vtable: 18 bytes, table of 12;
        0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, // 10 reply_to at 8, silent at 7
        18, 0, 0, 0,                    // 24 envelope: vtable at 24 - 18 = 6
        0, 0, 0, 1,                     // 28 padding, silent: true
        12, 0, 0, 0,                    // 32 reply_to at 32 + 12 = 44
        8, 0, 28, 0, 4, 0, 20, 0,       // 36 its vtable: 8 bytes, table of 28; event_id at 4, seq at 20
        8, 0, 0, 0,                     // 44 reply_to: vtable at 44 - 8 = 36
        1, 153, 0, 0, 0, 0, 112, 0, 128, 0, 0, 0, 0, 0, 0, 1, // 48 event_id
        41, 0, 0, 0, 0, 0, 0, 0,        // 64 seq: 41
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn each_kind_has_its_own_relation_or_none() {
    for kind in KINDS {
        for rel in [0, 2, 3, 4, 5, 9].map(Rel) {
            let bytes = related(relation(rel));
            let result = Envelope::verify(&bytes, kind).map(|_| ());
            let expected = match Rel::of(kind) {
                None => Err(EnvelopeError::NotAllowed { field: "relates_to", kind }),
                Some(own) if own == rel => Ok(()),
                Some(_) => Err(EnvelopeError::NotAllowed { field: "relates_to.rel", kind }),
            };
            assert_eq!(result, expected, "{rel:?} in a {}", kind.name());
        }
        let missing = Rel::of(kind).map(|_| EnvelopeError::Missing { field: "relates_to", kind });
        assert_eq!(Envelope::verify(&[], kind).err(), missing);
    }
}

#[test]
fn only_a_reaction_has_a_key_and_it_must() {
    let keyless = related(Relation { key: None, ..relation(Rel::REACTION) });
    let kind = EventKind::REACTION;
    assert_eq!(refusal(&keyless, kind), EnvelopeError::Missing { field: "relates_to.key", kind });
    for kind in [EventKind::EDIT, EventKind::REDACT, EventKind::PIN] {
        let keyed = related(Relation { key: Some("k"), ..relation(Rel::of(kind).unwrap()) });
        assert_eq!(refusal(&keyed, kind), EnvelopeError::NotAllowed { field: "relates_to.key", kind });
    }
}

#[test]
fn only_a_reaction_or_a_pin_is_taken_back() {
    for kind in [EventKind::EDIT, EventKind::REDACT, EventKind::REACTION, EventKind::PIN] {
        let bytes = related(Relation { remove: true, ..relation(Rel::of(kind).unwrap()) });
        let may = matches!(kind, EventKind::REACTION | EventKind::PIN);
        let expected = (!may).then_some(EnvelopeError::NotAllowed { field: "relates_to.remove", kind });
        assert_eq!(Envelope::verify(&bytes, kind).err(), expected);
    }
}

#[test]
fn attributes_stand_only_where_they_mean_something() {
    let (mention, property) = ([UserId::new("ann").unwrap()], [Property { key: "k", value: "v" }]);
    let none = NewEnvelope::default();
    let attributes: [(&str, NewEnvelope<'_>, &[EventKind]); 7] = [
        ("reply_to", NewEnvelope { reply_to: Some(EVENT), ..none }, &KINDS[..1]),
        ("thread", NewEnvelope { thread: Some(EVENT), ..none }, &KINDS[..1]),
        ("expires_at_ms", NewEnvelope { expires_at_ms: Some(1), ..none }, &KINDS[..1]),
        ("mentions", NewEnvelope { mentions: &mention, ..none }, &KINDS[..2]),
        ("attachments", NewEnvelope { attachments: &[PHOTO], ..none }, &KINDS[..2]),
        ("properties", NewEnvelope { properties: &property, ..none }, &KINDS),
        ("silent", NewEnvelope { silent: true, ..none }, &KINDS),
    ];
    for (field, new, may) in attributes {
        for kind in KINDS {
            let bytes = NewEnvelope { relates_to: Rel::of(kind).map(relation), ..new }.to_bytes();
            let expected = (!may.contains(&kind)).then_some(EnvelopeError::NotAllowed { field, kind });
            assert_eq!(Envelope::verify(&bytes, kind).err(), expected, "{field} in a {}", kind.name());
        }
    }
}

#[test]
fn lists_are_taken_up_to_their_limit() {
    let users: Vec<_> = (0..=MENTIONS_MAX).map(|i| UserId::new(&format!("{i:064}")).unwrap()).collect();
    let files = [Attachment { url: "x:y", ..PHOTO }; ATTACHMENTS_MAX + 1];
    let keys: Vec<_> = (0..=PROPERTIES_MAX).map(|i| i.to_string()).collect();
    let properties: Vec<_> = keys.iter().map(|key| Property { key, value: "v" }).collect();
    let most = NewEnvelope {
        mentions: &users[1..],
        attachments: &files[1..],
        properties: &properties[1..],
        ..NewEnvelope::default()
    };
    Envelope::verify(&most.to_bytes(), EventKind::MESSAGE).unwrap();
    for (field, count, new) in [
        ("mentions", users.len(), NewEnvelope { mentions: &users, ..most }),
        ("attachments", files.len(), NewEnvelope { attachments: &files, ..most }),
        ("properties", properties.len(), NewEnvelope { properties: &properties, ..most }),
    ] {
        assert_eq!(refused_message(new), EnvelopeError::TooMany { field, count, max: count - 1 });
    }
}

#[test]
fn texts_are_taken_up_to_their_limit() {
    let long = "x".repeat(4_096);
    let with = |field: &str, text: &str| {
        let mut file = PHOTO;
        let mut property = Property { key: "k", value: "v" };
        match field {
            "attachments.url" => file.url = text,
            "attachments.name" => file.name = Some(text),
            "attachments.mime" => file.mime = Some(text),
            "attachments.thumbnail_url" => file.thumbnail_url = Some(text),
            "properties.key" => property.key = text,
            "properties.value" => property.value = text,
            "relates_to.key" => return (related(Relation { key: Some(text), ..relation(Rel::REACTION) }), 4),
            other => panic!("{other}"),
        }
        (NewEnvelope { attachments: &[file], properties: &[property], ..NewEnvelope::default() }.to_bytes(), 1)
    };
    for (field, min, max) in [
        ("attachments.url", 1, ATTACHMENT_URL_BYTES_MAX),
        ("attachments.name", 0, ATTACHMENT_NAME_BYTES_MAX),
        ("attachments.mime", 0, ATTACHMENT_MIME_BYTES_MAX),
        ("attachments.thumbnail_url", 0, ATTACHMENT_URL_BYTES_MAX),
        ("properties.key", 1, PROPERTY_KEY_BYTES_MAX),
        ("properties.value", 0, PROPERTY_VALUE_BYTES_MAX),
        ("relates_to.key", 1, REACTION_KEY_BYTES_MAX),
    ] {
        for bytes in [0, 1, max, max + 1] {
            let (envelope, kind) = with(field, &long[..bytes]);
            let expected = (!(min..=max).contains(&bytes)).then_some(EnvelopeError::Length { field, bytes, min, max });
            assert_eq!(Envelope::verify(&envelope, EventKind(kind)).err(), expected);
        }
    }
}

#[test]
fn a_whole_envelope_is_taken_up_to_its_limit() {
    let value = "v".repeat(PROPERTY_VALUE_BYTES_MAX);
    let keys: Vec<_> = (0..PROPERTIES_MAX).map(|i| i.to_string()).collect();
    let sized = |count: usize| {
        let properties: Vec<_> = keys[..count].iter().map(|key| Property { key, value: &value }).collect();
        NewEnvelope { properties: &properties, ..NewEnvelope::default() }.to_bytes()
    };
    let fitting = ENVELOPE_BYTES_MAX / (PROPERTY_VALUE_BYTES_MAX + 64);
    Envelope::verify(&sized(fitting), EventKind::MESSAGE).unwrap();
    let (bytes, max) = (sized(PROPERTIES_MAX), ENVELOPE_BYTES_MAX);
    let expected = EnvelopeError::Length { field: "envelope", bytes: bytes.len(), min: 1, max };
    assert_eq!(refusal(&bytes, EventKind::MESSAGE), expected);
    assert_eq!(Envelope::trusted(&bytes).unwrap_err(), expected);
}

#[test]
fn numbers_are_taken_up_to_what_json_holds() {
    let none = NewEnvelope::default();
    let event = |seq| Some(EventRef { seq, ..EVENT });
    let file = |size, duration_ms| [Attachment { size, duration_ms, ..PHOTO }];
    for (number, is_seq, is_number) in [(0, false, true), (1, true, true), (COUNTER_MAX, true, true)] {
        let check = |new: NewEnvelope<'_>| Envelope::verify(&new.to_bytes(), EventKind::MESSAGE).is_ok();
        assert_eq!(check(NewEnvelope { reply_to: event(number), ..none }), is_seq);
        assert_eq!(check(NewEnvelope { attachments: &file(number, number), ..none }), is_number);
    }
    let over = COUNTER_MAX + 1;
    for (field, new) in [
        ("reply_to.seq", NewEnvelope { reply_to: event(0), ..none }),
        ("reply_to.seq", NewEnvelope { reply_to: event(over), ..none }),
        ("thread.seq", NewEnvelope { thread: event(0), ..none }),
        ("thread.seq", NewEnvelope { thread: event(over), ..none }),
        ("expires_at_ms", NewEnvelope { expires_at_ms: Some(over), ..none }),
        ("attachments.size", NewEnvelope { attachments: &file(over, 0), ..none }),
        ("attachments.duration_ms", NewEnvelope { attachments: &file(0, over), ..none }),
    ] {
        assert_eq!(refused_message(new), EnvelopeError::OutOfRange { field });
    }
    for seq in [0, over] {
        let bytes = related(Relation { target: EventRef { seq, ..EVENT }, ..relation(Rel::PIN) });
        assert_eq!(refusal(&bytes, EventKind::PIN), EnvelopeError::OutOfRange { field: "relates_to.seq" });
    }
}

#[test]
fn a_mention_is_a_user_id() {
    let users = [UserId::new("carl-gustav").unwrap()];
    let bytes = NewEnvelope { mentions: &users, ..NewEnvelope::default() }.to_bytes();
    let swapped = replaced(&bytes, b"carl-gustav", b"carl gustav");
    let expected = EnvelopeError::InvalidId { field: "mentions", source: InvalidId::Byte(b' ') };
    assert_eq!(refusal(&swapped, EventKind::MESSAGE), expected);
}

#[test]
fn nobody_is_mentioned_twice_and_no_key_used_twice() {
    let users = ["ann", "bob", "ann"].map(|user| UserId::new(user).unwrap());
    let mentions = NewEnvelope { mentions: &users, ..NewEnvelope::default() };
    assert_eq!(refused_message(mentions), EnvelopeError::Repeated { field: "mentions" });
    let properties = [Property { key: "k", value: "1" }, Property { key: "k", value: "2" }];
    let properties = NewEnvelope { properties: &properties, ..NewEnvelope::default() };
    assert_eq!(refused_message(properties), EnvelopeError::Repeated { field: "properties.key" });
}

#[test]
fn a_broken_text_is_refused_by_its_field() {
    let bytes = full_message();
    for (text, field) in [
        (&b"bob@example"[..], "mentions"),
        (b"beach.jpg", "attachments.name"),
        (b"image/jpeg", "attachments.mime"),
        (b"https://files.example/1.jpg", "attachments.url"),
        (b"https://files.example/1-small.jpg", "attachments.thumbnail_url"),
        (b"lang", "properties.key"),
    ] {
        let broken = replaced(&bytes, text, &[&text[1..], b"\xff"].concat());
        assert_eq!(refusal(&broken, EventKind::MESSAGE), EnvelopeError::Malformed { field });
    }
    let broken = replaced(&related(relation(Rel::REACTION)), "\u{1f44d}".as_bytes(), b"\xff\xff\xff\xff");
    assert_eq!(refusal(&broken, EventKind::REACTION), EnvelopeError::Malformed { field: "relates_to.key" });
}

#[test]
fn a_reference_without_an_event_id_is_refused() {
    let mut builder = FlatBufferBuilder::new();
    let table = builder.start_table();
    builder.push_slot::<u64>(wire::EventRef::VT_SEQ, 3, 0);
    let reply_to = Some(WIPOffset::new(builder.end_table(table).value()));
    let root = wire::Envelope::create(&mut builder, &wire::EnvelopeArgs { reply_to, ..Default::default() });
    builder.finish(root, None);
    let expected = EnvelopeError::Malformed { field: "reply_to.event_id" };
    assert_eq!(refusal(builder.finished_data(), EventKind::MESSAGE), expected);
}

/// A table with one field behind the last that this version knows.
fn table_of_later_version(builder: &mut FlatBufferBuilder<'_>, last: VOffsetT) -> u32 {
    let id = wire::EventId([7; 16]);
    let table = builder.start_table();
    builder.push_slot_always::<&wire::EventId>(wire::EventRef::VT_EVENT_ID, &id);
    builder.push_slot::<u64>(wire::EventRef::VT_SEQ, 3, 0);
    builder.push_slot::<u8>(last + 2, 1, 0);
    builder.end_table(table).value()
}

#[test]
fn fields_of_a_later_version_are_refused_from_senders_and_passed_over_by_readers() {
    let mut builder = FlatBufferBuilder::new();
    let table = builder.start_table();
    builder.push_slot::<bool>(wire::Envelope::VT_SILENT, true, false);
    builder.push_slot::<u8>(wire::Envelope::VT_EXPIRES_AT_MS + 2, 1, 0);
    let root = builder.end_table(table);
    builder.finish(root, None);
    let bytes = builder.finished_data();
    assert_eq!(refusal(bytes, EventKind::MESSAGE), EnvelopeError::UnknownField { field: "envelope" });
    assert!(Envelope::trusted(bytes).unwrap().is_silent());

    let mut builder = FlatBufferBuilder::new();
    let thread = Some(WIPOffset::new(table_of_later_version(&mut builder, wire::EventRef::VT_SEQ)));
    let root = wire::Envelope::create(&mut builder, &wire::EnvelopeArgs { thread, ..Default::default() });
    builder.finish(root, None);
    let bytes = builder.finished_data();
    assert_eq!(refusal(bytes, EventKind::MESSAGE), EnvelopeError::UnknownField { field: "thread" });
    let expected = EventRef { event_id: Uuid::from_bytes([7; 16]), seq: 3 };
    assert_eq!(Envelope::trusted(bytes).unwrap().thread(), Some(expected));
}

/// A list of `count` attachments that are all the same one, with a URL of `url_bytes`.
fn one_attachment_many_times(count: usize, url_bytes: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let url = Some(builder.create_string(&"u".repeat(url_bytes)));
    let file = wire::Attachment::create(&mut builder, &wire::AttachmentArgs { url, ..Default::default() });
    let attachments = Some(builder.create_vector(&vec![file; count]));
    let root = wire::Envelope::create(&mut builder, &wire::EnvelopeArgs { attachments, ..Default::default() });
    builder.finish(root, None);
    builder.finished_data().to_vec()
}

#[test]
fn a_table_listed_many_times_does_not_multiply_the_work() {
    let few = one_attachment_many_times(ATTACHMENTS_MAX + 1, 10);
    let (count, max) = (ATTACHMENTS_MAX + 1, ATTACHMENTS_MAX);
    assert_eq!(refusal(&few, EventKind::MESSAGE), EnvelopeError::TooMany { field: "attachments", count, max });
    for (count, url_bytes) in [(1_000, 2_000), (3_000, 10)] {
        let many = one_attachment_many_times(count, url_bytes);
        assert!(many.len() <= ENVELOPE_BYTES_MAX);
        assert_eq!(Envelope::trusted(&many).unwrap_err(), EnvelopeError::Malformed { field: "envelope" });
    }
}

#[test]
fn a_truncated_envelope_is_refused() {
    for (bytes, kind) in [(full_message(), EventKind::MESSAGE), (related(relation(Rel::REACTION)), EventKind::REACTION)]
    {
        // Padding at the end belongs to no field.
        let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
        for len in 1..=end {
            let cut = bytes[..len].to_vec();
            assert!(matches!(refusal(&cut, kind), EnvelopeError::Malformed { .. }), "{len} of {} bytes", bytes.len());
        }
    }
}

/// Reads everything and proves that it lies within `bytes`.
fn read_all(bytes: &[u8], envelope: &Envelope<'_>) {
    let within = bytes.as_ptr_range();
    let inside = |text: &str| {
        let range = text.as_bytes().as_ptr_range();
        assert!(text.is_empty() || (within.start <= range.start && range.end <= within.end));
    };
    let relation = envelope.relates_to();
    relation.and_then(|relation| relation.key).iter().for_each(|key| inside(key));
    assert!(envelope.mentions().len() + envelope.attachments().len() + envelope.properties().len() <= bytes.len());
    envelope.mentions().for_each(inside);
    for file in envelope.attachments() {
        [Some(file.url), file.name, file.mime, file.thumbnail_url].into_iter().flatten().for_each(inside);
    }
    envelope.properties().for_each(|property| [property.key, property.value].into_iter().for_each(inside));
    assert!(!format!("{envelope:?}").is_empty());
}

#[test]
fn any_changed_byte_is_refused_or_read_within_the_envelope() {
    for (valid, kind) in [(full_message(), EventKind::MESSAGE), (related(relation(Rel::REACTION)), EventKind::REACTION)]
    {
        let (mut refused, mut taken) = (0, 0);
        for at in 0..valid.len() {
            for flip in 1..=255 {
                let mut bytes = valid.clone();
                bytes[at] ^= flip;
                if let Ok(envelope) = Envelope::trusted(&bytes) {
                    read_all(&bytes, &envelope);
                }
                match Envelope::verify(&bytes, kind) {
                    Ok(envelope) => {
                        assert!(envelope.mentions().len() <= MENTIONS_MAX);
                        assert!(envelope.attachments().len() <= ATTACHMENTS_MAX);
                        taken += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(refused > 0 && taken > 0, "changed offsets are refused, changed texts are taken");
    }
}

#[test]
fn errors_name_field_and_code() {
    let missing = EnvelopeError::Missing { field: "relates_to", kind: EventKind::REACTION };
    assert_eq!(missing.to_string(), "relates_to is missing, which a reaction must have");
    assert_eq!((missing.field(), missing.code()), ("relates_to", ErrorCode::InvalidField));
    let length = |bytes| EnvelopeError::Length { field: "relates_to.key", bytes, min: 1, max: 64 };
    assert_eq!((length(0).code(), length(65).code()), (ErrorCode::InvalidField, ErrorCode::LimitExceeded));
    let many = EnvelopeError::TooMany { field: "mentions", count: 65, max: 64 };
    assert_eq!((many.field(), many.code()), ("mentions", ErrorCode::LimitExceeded));
    assert_eq!(EnvelopeError::Malformed { field: "envelope" }.code(), ErrorCode::Malformed);
    assert_eq!(EnvelopeError::UnknownField { field: "thread" }.code(), ErrorCode::UnknownFields);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}
