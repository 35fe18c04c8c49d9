//! A message as it stands as one line of output.

use antiphon_sdk::{ContentType, Mark, Message};
use serde_json::{Value, json};

use super::event_line::{self, printable};

/// For people: position, sender, content, and what became of it.
pub(super) fn text(message: &Message) -> String {
    let mut line = match (message.is_redacted(), message.text()) {
        (true, _) => "(message removed)".to_owned(),
        (false, Some(text)) => text,
        (false, None) => format!("({} bytes)", message.body().len()),
    };
    if message.edit().is_some() {
        line += " (edited)";
    }
    if message.pinned().is_some() {
        line += " (pinned)";
    }
    for reactions in message.reactions() {
        line += &format!(" [{} {}]", reactions.key, reactions.count);
    }
    let reply = message.reply().map(|reply| format!(" (to {})", reply.sender)).unwrap_or_default();
    format!("{} {}{reply}: {}", message.event().position(), message.event().sender(), printable(&line))
}

/// For machines: the event with the content as it stands, and what became of it.
pub(super) fn json(message: &Message) -> Value {
    let mut line = event_line::json(message.event());
    line["body"] = match message.content_type() {
        ContentType::Text => json!(message.text()),
        ContentType::Json => serde_json::from_slice(&message.body()).unwrap_or(Value::Null),
        ContentType::Octets | ContentType::Control => Value::Null,
    };
    line["body_bytes"] = json!(message.body().len());
    line["edits"] = json!(message.edits());
    line["edited_at_ms"] = json!(message.edit().map(|edit| edit.time_ms));
    line["redacted_by"] = json!(message.redacted_by().map(|mark| mark.user));
    line["pinned"] = message.pinned().map_or(Value::Null, mark);
    let reactions = message.reactions().into_iter();
    line["reactions"] =
        reactions.map(|r| json!({"key": r.key, "count": r.count, "mine": r.mine, "users": r.users})).collect();
    line["reply_to"] = message.reply().map_or(Value::Null, |reply| {
        json!({
            "seq": reply.message.seq,
            "sender": reply.sender,
            "redacted": reply.redacted,
            "preview": String::from_utf8_lossy(&reply.body),
        })
    });
    line
}

fn mark(mark: Mark<'_>) -> Value {
    json!({"user": mark.user, "time_ms": mark.time_ms, "seq": mark.seq})
}
