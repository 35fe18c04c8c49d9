//! An event as one line of output.

use antiphon_sdk::{ContentType, Event};
use serde_json::{Value, json};

/// For people: position, sender, and what happened.
pub(super) fn text(event: &Event) -> String {
    let what = match (event.kind(), event.text()) {
        (kind, _) if event.is_redacted() => format!("({} removed)", kind.name()),
        (antiphon_sdk::EventKind::MESSAGE, Some(text)) => text,
        (antiphon_sdk::EventKind::MESSAGE, None) => format!("({} bytes)", event.body().len()),
        (kind, Some(text)) => format!("({}) {text}", kind.name()),
        (kind, None) => format!("({})", kind.name()),
    };
    format!("{} {}: {}", event.position(), event.sender(), printable(&what))
}

/// A line of output is an event: nothing in a message may look like another one, or steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// For machines.
pub(super) fn json(event: &Event) -> Value {
    let body = match event.content_type() {
        ContentType::Text => json!(event.text()),
        ContentType::Json => serde_json::from_slice(&event.body()).unwrap_or(Value::Null),
        ContentType::Octets | ContentType::Control => Value::Null,
    };
    json!({
        "position": event.position().to_string(),
        "seq": event.seq(),
        "msgno": event.msgno(),
        "time_ms": event.time_ms(),
        "event_id": event.event_id().to_string(),
        "client_message_id": event.client_message_id().map(|id| id.to_string()),
        "sender": event.sender(),
        "kind": event.kind().name(),
        "redacted": event.is_redacted(),
        "body": body,
        "body_bytes": event.body().len(),
    })
}
