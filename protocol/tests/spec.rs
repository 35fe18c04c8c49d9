//! `SPEC.md` is for strangers; its tables are held to the code here.

// Helpers of tests are not `#[test]` functions themselves.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use antiphon_protocol::{Action, Authority, Class, Direction, ErrorCode, FrameType, limits::*};

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Rows of the table whose header has exactly these cells.
fn table(header: &[&str]) -> Vec<Vec<String>> {
    let spec = read("SPEC.md");
    let rows = spec.lines().map(cells).skip_while(|row| row != header);
    let rows: Vec<_> = rows.skip(2).take_while(|row| !row.is_empty()).collect();
    assert!(!rows.is_empty(), "SPEC.md has no table {header:?}");
    assert!(rows.iter().all(|row| row.len() == header.len()), "a row of the table {header:?} has another length");
    rows
}

fn cells(line: &str) -> Vec<String> {
    let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { return Vec::new() };
    inner.split('|').map(|cell| cell.trim().to_owned()).collect()
}

fn frames() -> Vec<Vec<String>> {
    table(&["Number", "Name", "From", "Class", "Authority", "Id", "Body", "Answer, or meaning"])
}

fn class_name(class: Class) -> String {
    format!("{class:?}").to_lowercase()
}

fn authority_name(authority: Authority) -> String {
    format!("{authority:?}").to_lowercase()
}

#[test]
fn every_frame_is_specified_as_it_is_registered() {
    let specified: Vec<Vec<String>> = frames().into_iter().map(|row| row[..5].to_vec()).collect();
    let registered = FrameType::ALL.iter().map(|frame| {
        let from = match frame.direction() {
            Direction::ToBroker if frame.authority() == Authority::Edge => "edge",
            Direction::ToBroker => "client",
            Direction::ToClient => "broker",
        };
        let number = format!("{:#04x}", *frame as u8);
        [number, frame.name().into(), from.into(), class_name(frame.class()), authority_name(frame.authority())]
            .to_vec()
    });
    assert_eq!(specified, registered.collect::<Vec<_>>());
}

#[test]
fn every_class_is_specified() {
    let specified = table(&["Class", "Number", "Carries", "When its queue is full"]);
    let specified: Vec<_> = specified.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected = Class::ALL.map(|class| (class_name(class), (class as u32).to_string()));
    assert_eq!(specified, expected);
}

/// A body is a Protobuf message, laid by hand, empty, or reserved; and what is not reserved has vectors.
#[test]
fn every_body_is_defined_and_has_a_vector() {
    let proto = read("proto/antiphon.proto");
    let vectors = ["hot_frames", "control_frames", "trunk"].map(|file| read(&format!("vectors/{file}.json"))).concat();
    for frame in frames() {
        let (name, body) = (&frame[1], frame[6].as_str());
        let is_message = body.starts_with(|first: char| first.is_ascii_uppercase());
        assert!(
            is_message || ["section 6", "one row", "empty", "by request", "reserved"].contains(&body),
            "{name} has the body {body}"
        );
        assert!(!is_message || proto.contains(&format!("message {body} {{")), "no message {body} for {name}");
        let vector = format!("\"frame\": \"{name}\"");
        assert_eq!(vectors.contains(&vector), body != "reserved", "vectors of {name}, whose body is {body}");
    }
}

#[test]
fn every_error_is_specified_as_it_is_registered() {
    let specified = table(&["Number", "Code", "Action", "Meaning"]);
    let specified: Vec<_> = specified.into_iter().map(|row| row[..3].to_vec()).collect();
    let registered = ErrorCode::ALL.iter().map(|code| {
        let action = match code.action() {
            Action::Retry => "retry",
            Action::Authenticate => "authenticate",
            Action::Fix => "fix",
            Action::Forbidden => "forbidden",
            Action::Stop => "stop",
        };
        [(*code as u32).to_string(), code.code().to_owned(), action.to_owned()].to_vec()
    });
    assert_eq!(specified, registered.collect::<Vec<_>>());
}

macro_rules! values {
    ($($name:ident)+) => {
        [$((stringify!($name).to_owned(), u64::try_from($name).unwrap().to_string())),+]
    };
}

#[test]
fn every_limit_is_specified() {
    let expected = values! {
        ID_BYTES_MAX LOG_NAME_BYTES_MAX VIRTUAL_SHARDS PARTITIONS VIRTUAL_SHARDS_PER_PARTITION FRAME_BYTES_MAX
        PRE_AUTH_BYTES_MAX TOKEN_BYTES_MAX BODY_BYTES_MAX ENVELOPE_BYTES_MAX BATCH_RECORDS_MAX PAGE_BYTES_MAX
        PAGE_ROWS_MAX PAGE_MESSAGES_MAX INLINE_ROWS_MAX INLINE_BYTES_MAX SUBSCRIPTIONS_MAX REQUESTS_IN_FLIGHT_MAX PAGES_IN_FLIGHT_MAX
        CLOCK_SKEW_MS_MAX MEMBERS_PER_REQUEST_MAX MEMBERS_MAX CURSORS_AT_HANDOVER_MEMBERS_MAX RECEIPTS_MEMBERS_MAX
        RETENTION_MIN_S SIGNAL_BYTES_MAX COUNTER_MAX MENTIONS_MAX ATTACHMENTS_MAX ATTACHMENT_URL_BYTES_MAX ATTACHMENT_NAME_BYTES_MAX
        ATTACHMENT_MIME_BYTES_MAX PROPERTIES_MAX PROPERTY_KEY_BYTES_MAX PROPERTY_VALUE_BYTES_MAX REACTION_KEY_BYTES_MAX
        REACTION_KEYS_MAX REACTIONS_MAX REACTION_USERS_SHOWN_MAX EDITS_MAX REPLY_PREVIEW_BYTES_MAX
    };
    let specified = table(&["Name", "Value", "What is bounded"]);
    let specified: Vec<_> = specified.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(specified, expected);

    let source = read("src/limits.rs");
    let defined = source.lines().filter_map(|line| line.strip_prefix("pub const ")?.split(':').next());
    let expected: Vec<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(defined.collect::<Vec<_>>(), expected, "a limit is missing here and in SPEC.md");
}

#[test]
fn every_request_stands_with_its_authority_in_the_table_of_rights() {
    let mut specified = BTreeSet::new();
    for row in table(&["Authority", "member", "admin", "owner", "grant", "Operations"]) {
        let operations = row[5].split(':').next().unwrap_or_default();
        specified.extend(operations.split_whitespace().map(|name| (row[0].clone(), name.to_owned())));
    }
    let requests = FrameType::ALL.iter().filter(|frame| frame.direction() == Direction::ToBroker);
    let registered = requests.map(|frame| (authority_name(frame.authority()), frame.name().to_owned()));
    assert_eq!(specified, registered.collect());
}
