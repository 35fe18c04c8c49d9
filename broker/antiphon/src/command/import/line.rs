//! A line of an import: what it says, and the IMPORT record that it becomes.

use std::collections::BTreeMap;

use antiphon_gateway_ws::json;
use antiphon_protocol::{Direction, EventKind, EventRef, LogName, frames::imported_id};
use antiphon_sdk::{ConversationKind, History, Role, UserId};
use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};
use thiserror::Error;
use uuid::Uuid;

/// Longest id of another system, in bytes.
const ID_BYTES_MAX: usize = 255;

/// What is wrong with a line.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum LineError {
    /// It is no JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// A member is missing or is not what it has to be.
    #[error("{field}: {problem}")]
    Member {
        /// Which.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl LineError {
    pub(super) fn member(field: &str, problem: impl Into<String>) -> Self {
        Self::Member { field: field.to_owned(), problem: problem.into() }
    }
}

/// A line that was read.
#[derive(Debug)]
pub(super) enum Line {
    Conversation(ConversationLine),
    Event(EventLine),
    Cursor(CursorLine),
}

/// A conversation that is to be there.
#[derive(Debug)]
pub(super) struct ConversationLine {
    pub(super) id: String,
    pub(super) kind: ConversationKind,
    pub(super) title: String,
    pub(super) owner: UserId,
    pub(super) members: Vec<(UserId, Role)>,
    pub(super) history: History,
    pub(super) retention_s: u32,
}

/// Something that happened in a conversation.
#[derive(Debug)]
pub(super) struct EventLine {
    pub(super) conversation: String,
    pub(super) kind: EventKind,
    /// Made of its name in the other system.
    pub(super) id: Uuid,
    /// Names of messages that it refers to, by the member of an IMPORT record that says so.
    pub(super) refers: Vec<(&'static str, String)>,
    sender: String,
    time_ms: u64,
    key: Option<String>,
    remove: bool,
    /// Content and attributes, in the words of the protocol.
    rest: BTreeMap<String, Box<RawValue>>,
}

/// How far a member had got.
#[derive(Debug)]
pub(super) struct CursorLine {
    pub(super) conversation: String,
    pub(super) user: String,
    pub(super) read: Option<String>,
    pub(super) delivered: Option<String>,
}

impl Line {
    /// Reads one line.
    pub(super) fn parse(text: &str) -> Result<Self, LineError> {
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text).map_err(|error| LineError::Json(error.to_string()))?;
        let mut members = Members(members);
        let name = members.required::<String>("type")?;
        let line = match name.as_str() {
            "conversation" => Self::Conversation(ConversationLine::read(&mut members)?),
            "cursor" => Self::Cursor(CursorLine::read(&mut members)?),
            _ => match EventKind::from_name(&name).filter(|kind| kind.is_client_sent()) {
                Some(kind) => return Ok(Self::Event(EventLine::read(kind, members)?)),
                None => return Err(LineError::member("type", format!("{name:?} is no type of a line"))),
            },
        };
        match members.0.into_keys().next() {
            Some(unknown) => Err(LineError::member(&unknown, "is not known here")),
            None => Ok(line),
        }
    }

    /// The conversation that it is about.
    pub(super) fn conversation(&self) -> &str {
        match self {
            Self::Conversation(line) => &line.id,
            Self::Event(line) => &line.conversation,
            Self::Cursor(line) => &line.conversation,
        }
    }
}

impl ConversationLine {
    fn read(members: &mut Members) -> Result<Self, LineError> {
        let kind = match members.optional::<String>("kind")?.as_deref() {
            None | Some("group") => ConversationKind::Group,
            Some("direct") => ConversationKind::Direct,
            Some("channel") => ConversationKind::Channel,
            Some(_) => return Err(LineError::member("kind", "is group, direct or channel")),
        };
        let history = match members.optional::<String>("history")?.as_deref() {
            None | Some("full") => History::Full,
            Some("joined") => History::Joined,
            Some(_) => return Err(LineError::member("history", "is full or joined")),
        };
        let others = members.optional::<Vec<Value>>("members")?.unwrap_or_default();
        Ok(Self {
            id: members.required("id")?,
            kind,
            title: members.optional("title")?.unwrap_or_default(),
            owner: user("owner", &members.required::<String>("owner")?)?,
            members: others.iter().map(read_member).collect::<Result<_, _>>()?,
            history,
            retention_s: members.optional("retention_s")?.unwrap_or_default(),
        })
    }
}

/// A user, or an object with `user` and `role`.
fn read_member(member: &Value) -> Result<(UserId, Role), LineError> {
    let wrong = || LineError::member("members", "has users, or objects with user and role (member or admin)");
    let (id, role) = match member {
        Value::String(id) => (id.as_str(), Role::Member),
        Value::Object(members) => {
            let role = match members.get("role").map(|role| role.as_str()) {
                None | Some(Some("member")) => Role::Member,
                Some(Some("admin")) => Role::Admin,
                Some(_) => return Err(wrong()),
            };
            (members.get("user").and_then(Value::as_str).ok_or_else(wrong)?, role)
        }
        _ => return Err(wrong()),
    };
    Ok((user("members", id)?, role))
}

fn user(field: &str, id: &str) -> Result<UserId, LineError> {
    id.parse().map_err(|error: antiphon_sdk::InvalidId| LineError::member(field, error.to_string()))
}

impl EventLine {
    fn read(kind: EventKind, mut members: Members) -> Result<Self, LineError> {
        let (conversation, sender): (String, String) = (members.required("conversation")?, members.required("sender")?);
        let time_ms = members.required("time_ms")?;
        let (key, remove) = (members.optional::<String>("key")?, members.optional("remove")?.unwrap_or_default());
        let mut refers = Vec::new();
        if kind != EventKind::MESSAGE {
            refers.push(("relates_to", members.required("of")?));
        }
        for member in ["reply_to", "thread"] {
            refers.extend(members.optional(member)?.map(|id| (member, id)));
        }
        let id = match members.optional::<String>("id")? {
            Some(id) if id.is_empty() || id.len() > ID_BYTES_MAX => {
                return Err(LineError::member("id", format!("has 1 to {ID_BYTES_MAX} bytes")));
            }
            Some(id) => imported_id(&id),
            // Other systems give no names to these; nobody does the same thing twice in a millisecond.
            None if [EventKind::REACTION, EventKind::PIN, EventKind::REDACT].contains(&kind) => {
                imported_id(&json!([kind.name(), refers[0].1, sender, key, remove, time_ms]).to_string())
            }
            None => return Err(LineError::member("id", "is missing")),
        };
        Ok(Self { conversation, kind, id, refers, sender, time_ms, key, remove, rest: members.0 })
    }

    /// The record of an IMPORT into `log`, once the place of every message is known that it refers to.
    pub(super) fn record(&self, log: &LogName, place: impl Fn(&str) -> Option<EventRef>) -> Result<Bytes, LineError> {
        let mut record = String::from("{\"op\":\"IMPORT\",\"id\":1,\"records\":[{");
        let mut add = |name: &str, value: &str| {
            if !record.ends_with('{') {
                record.push(',');
            }
            record.push_str(&format!("{}:{value}", Value::from(name)));
        };
        add("log", &Value::from(log.to_string()).to_string());
        add("client_message_id", &Value::from(self.id.to_string()).to_string());
        add("time_ms", &self.time_ms.to_string());
        add("act_as", &Value::from(self.sender.as_str()).to_string());
        add("kind", &Value::from(self.kind.name()).to_string());
        for (member, id) in &self.refers {
            let known = place(id).ok_or_else(|| self.unknown(member, id))?;
            let mut target = json!({ "seq": known.seq, "event_id": known.event_id.to_string() });
            if let (&"relates_to", Some(key)) = (member, &self.key) {
                target["key"] = json!(key);
            }
            if *member == "relates_to" && self.remove {
                target["remove"] = json!(true);
            }
            add(member, &target.to_string());
        }
        for (name, value) in &self.rest {
            add(name, value.get());
        }
        record.push_str("}]}");
        let wrong = |error: json::JsonError| {
            let field = error.field.trim_start_matches("records").trim_start_matches('.');
            LineError::member(if field.is_empty() { "line" } else { field }, error.message)
        };
        Ok(json::decode(record.as_bytes(), Direction::ToBroker).map_err(wrong)?.body())
    }

    fn unknown(&self, member: &str, id: &str) -> LineError {
        let field = if member == "relates_to" { "of" } else { member };
        LineError::member(field, format!("no message {id:?} of this conversation comes before this line"))
    }
}

impl CursorLine {
    fn read(members: &mut Members) -> Result<Self, LineError> {
        Ok(Self {
            conversation: members.required("conversation")?,
            user: members.required("user")?,
            read: members.optional("read")?,
            delivered: members.optional("delivered")?,
        })
    }
}

/// The members of a line that were not read yet, as they are written.
struct Members(BTreeMap<String, Box<RawValue>>);

impl Members {
    fn optional<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, LineError> {
        let Some(value) = self.0.remove(name) else { return Ok(None) };
        let read = serde_json::from_str(value.get());
        read.map(Some).map_err(|error| LineError::member(name, error.to_string()))
    }

    fn required<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<T, LineError> {
        self.optional(name)?.ok_or_else(|| LineError::member(name, "is missing"))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{Envelope, frames::Import};

    use super::*;

    fn event(text: &str) -> EventLine {
        match Line::parse(text).unwrap() {
            Line::Event(event) => event,
            other => panic!("an event was expected, not {other:?}"),
        }
    }

    fn place(id: &str) -> Option<EventRef> {
        (id == "m1").then(|| EventRef { seq: 7, event_id: Uuid::from_u128(9) })
    }

    #[test]
    fn a_message_keeps_its_bytes_time_and_sender() {
        let text = r#"{"type":"message","conversation":"tea","id":"m2","sender":"ann","time_ms":5,"reply_to":"m1","data":{"b":1.50,"a":[1 ,2]}}"#;
        let log = "c:tea".parse().unwrap();
        let import = Import::decode(&event(text).record(&log, place).unwrap()).unwrap();
        let [record] = import.records.as_slice() else { panic!("one record") };
        assert_eq!((record.time_ms, record.send.act_as.as_ref().unwrap().as_str()), (5, "ann"));
        assert_eq!(&record.send.body[..], br#"{"b":1.50,"a":[1 ,2]}"#);
        assert_eq!(record.send.client_message_id, imported_id("m2"));
        let envelope = Envelope::verify(&record.send.envelope, EventKind::MESSAGE).unwrap();
        assert_eq!(envelope.reply_to().unwrap().seq, 7);
    }

    #[test]
    fn a_reaction_needs_no_name_and_is_the_same_every_time() {
        let text = r#"{"type":"reaction","conversation":"tea","of":"m1","sender":"bob","time_ms":5,"key":"+1"}"#;
        assert_eq!(event(text).id, event(text).id);
        assert_ne!(event(text).id, event(&text.replace("+1", "-1")).id);
        let import = Import::decode(&event(text).record(&"c:tea".parse().unwrap(), place).unwrap()).unwrap();
        let envelope = Envelope::verify(&import.records[0].send.envelope, EventKind::REACTION).unwrap();
        assert_eq!(envelope.relates_to().unwrap().key, Some("+1"));
    }

    #[test]
    fn what_is_wrong_is_said_by_its_name() {
        let good = r#"{"type":"message","conversation":"tea","id":"m2","sender":"ann","time_ms":5,"text":"hi"}"#;
        let cases = [
            ("[]", "Json"),
            (r#"{"type":"poke"}"#, "type"),
            (r#"{"type":"conversation","id":"tea"}"#, "owner"),
            (r#"{"type":"conversation","id":"tea","owner":"ann","colour":"red"}"#, "colour"),
            (
                r#"{"type":"conversation","id":"tea","owner":"ann","members":[{"user":"bob","role":"owner"}]}"#,
                "members",
            ),
            (r#"{"type":"cursor","conversation":"tea"}"#, "user"),
            (&good.replace(r#""id":"m2","#, ""), "id"),
            (&good.replace("5", "-5"), "time_ms"),
            (&good.replace("message", "message.edit"), "of"),
        ];
        for (text, expected) in cases {
            match Line::parse(text).unwrap_err() {
                LineError::Json(_) => assert_eq!(expected, "Json", "{text}"),
                LineError::Member { field, .. } => assert_eq!(field, expected, "{text}"),
            }
        }
        let log = "c:tea".parse().unwrap();
        for (text, expected) in [
            (good.replace("hi\"", "hi\",\"colour\":1"), "colour"),
            (good.replace("ann", "not a user"), "act_as"),
            (good.replace("hi\"", "hi\",\"reply_to\":\"m9\""), "reply_to"),
        ] {
            let error = event(&text).record(&log, place).unwrap_err();
            assert!(matches!(&error, LineError::Member { field, .. } if field == expected), "{text}: {error}");
        }
    }
}
