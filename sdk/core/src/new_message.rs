//! What an application sends: messages, and what changes an earlier one.

use antiphon_protocol::{ContentType, EventKind, EventRef, LogName, NewEnvelope, Rel, Relation, UserId};
use bytes::Bytes;
use uuid::Uuid;

/// A message to send, or an event that changes an earlier message.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Where it is appended.
    pub log: LogName,
    /// What it is; [`EventKind::MESSAGE`] unless it relates to another.
    pub kind: EventKind,
    /// How to read the body.
    pub content_type: ContentType,
    /// The content, at most 64 KiB.
    pub body: Bytes,
    /// Encoded attributes, at most 16 KiB; mostly empty.
    pub envelope: Bytes,
    /// The user for whom a service acts.
    pub act_as: Option<UserId>,
    /// The id of an earlier attempt, as by an outbox that outlives the process. Otherwise the client makes one.
    pub client_message_id: Option<Uuid>,
}

impl NewMessage {
    /// A text message.
    pub fn text(log: LogName, text: impl Into<String>) -> Self {
        Self::new(log, ContentType::Text, Bytes::from(text.into()))
    }

    /// A message of any content.
    pub fn new(log: LogName, content_type: ContentType, body: Bytes) -> Self {
        Self {
            log,
            kind: EventKind::MESSAGE,
            content_type,
            body,
            envelope: Bytes::new(),
            act_as: None,
            client_message_id: None,
        }
    }

    /// A text that answers an earlier message.
    pub fn reply(log: LogName, to: EventRef, text: impl Into<String>) -> Self {
        Self::text(log, text).with_attributes(&NewEnvelope { reply_to: Some(to), ..NewEnvelope::default() })
    }

    /// Gives one's own message a new text. A message has at most 500 edits.
    pub fn edit(log: LogName, message: EventRef, text: impl Into<String>) -> Self {
        let body = Bytes::from(text.into());
        Self { body, ..Self::change(log, EventKind::EDIT, message, None, false) }
    }

    /// Removes a message's content for everyone, for good: one's own, or anybody's with the authority `manage`.
    pub fn redact(log: LogName, message: EventRef) -> Self {
        Self::change(log, EventKind::REDACT, message, None, false)
    }

    /// Adds a reaction of 1 to 64 bytes, mostly an emoji, to a message. The same one twice counts once.
    pub fn react(log: LogName, message: EventRef, key: &str) -> Self {
        Self::change(log, EventKind::REACTION, message, Some(key), false)
    }

    /// Takes one's own reaction back.
    pub fn unreact(log: LogName, message: EventRef, key: &str) -> Self {
        Self::change(log, EventKind::REACTION, message, Some(key), true)
    }

    /// Pins a message in its conversation, for everyone.
    pub fn pin(log: LogName, message: EventRef) -> Self {
        Self::change(log, EventKind::PIN, message, None, false)
    }

    /// Takes a message's pin back.
    pub fn unpin(log: LogName, message: EventRef) -> Self {
        Self::change(log, EventKind::PIN, message, None, true)
    }

    /// Whether its sender has read up to it: a service says nothing about the user for whom it sends.
    pub(crate) fn moves_cursor(&self) -> bool {
        self.kind == EventKind::MESSAGE && self.act_as.is_none()
    }

    fn change(log: LogName, kind: EventKind, target: EventRef, key: Option<&str>, remove: bool) -> Self {
        let relates_to = Rel::of(kind).map(|rel| Relation { rel, target, key, remove });
        let change = Self { kind, ..Self::new(log, ContentType::Text, Bytes::new()) };
        change.with_attributes(&NewEnvelope { relates_to, ..NewEnvelope::default() })
    }

    /// Gives it attributes: mentions, attachments, a thread and more. They take the place of those it had, so a reply or
    /// an edit names its message again.
    pub fn with_attributes(self, attributes: &NewEnvelope<'_>) -> Self {
        Self { envelope: attributes.to_bytes().into(), ..self }
    }

    /// The user for whom a service acts, who becomes the sender.
    pub fn act_as(self, user: UserId) -> Self {
        Self { act_as: Some(user), ..self }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::Envelope;

    use super::*;

    #[test]
    fn everything_that_can_be_made_is_something_that_the_broker_takes() {
        let log: LogName = "c:a".parse().unwrap();
        let message = EventRef { event_id: Uuid::from_u128(1), seq: 3 };
        let made = [
            NewMessage::text(log.clone(), "x"),
            NewMessage::reply(log.clone(), message, "x"),
            NewMessage::edit(log.clone(), message, "x"),
            NewMessage::redact(log.clone(), message),
            NewMessage::react(log.clone(), message, "+1"),
            NewMessage::unreact(log.clone(), message, "+1"),
            NewMessage::pin(log.clone(), message),
            NewMessage::unpin(log, message),
        ];
        for new in made {
            let envelope = Envelope::verify(&new.envelope, new.kind);
            let envelope = envelope.unwrap_or_else(|error| panic!("{}: {error}", new.kind.name()));
            let target = envelope.relates_to().map(|relation| (relation.rel.0, relation.target));
            assert_eq!(target, Rel::of(new.kind).map(|rel| (rel.0, message)));
        }
    }
}
