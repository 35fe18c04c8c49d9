//! The envelope: the attributes of an event, between the names and the body of its row, read in place.
//!
//! ```text
//! sender:   NewEnvelope --to_bytes--> bytes          no attributes: no bytes
//! broker:   bytes --verify(kind)--> Envelope         once, at SEND; the bytes are stored and delivered as they came
//! reader:   bytes --trusted--> Envelope              structure only, as the row comes from the broker
//! ```
//!
//! | attribute | message | edit | redact | reaction | pin | other kinds |
//! |---|---|---|---|---|---|---|
//! | `relates_to` | - | required | required | required | required | - |
//! | `relates_to.key` | - | - | - | required | - | - |
//! | `relates_to.remove` | - | - | - | optional | optional | - |
//! | `reply_to`, `thread`, `expires_at_ms` | optional | - | - | - | - | - |
//! | `mentions`, `attachments` | optional | optional | - | - | - | - |
//! | `properties`, `silent` | optional | optional | optional | optional | optional | optional |
//!
//! Invariants: an [`Envelope`] was checked before its accessors can be called, so they neither fail nor allocate, and
//! what they return lies in its bytes. The work to check one is bounded by its length, however its offsets are laid.
//!
//! The schema is `fbs/envelope.fbs`; `generated` is written by `regenerate/` and never edited. Absent on purpose:
//! whether the related event exists (the log's owner knows), what a URL, key or value means (the application knows).

mod build;
mod error;
// flatc's output. Its accessors are `unsafe` inside and sound on verified bytes only, which is why nothing outside this
// module can make an `Envelope` without the verifier.
#[rustfmt::skip]
#[allow(unsafe_code, dead_code, unused_imports, unreachable_pub, missing_debug_implementations, deprecated)]
#[allow(clippy::all, clippy::unwrap_used)]
mod generated;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;

use uuid::Uuid;

use self::generated::antiphon::v_1 as wire;
pub use self::{build::NewEnvelope, error::EnvelopeError};
use crate::row::EventKind;

/// How an event changes the event that it relates to. Numbers are those of the kinds of event, and open like them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rel(pub u8);

impl Rel {
    /// Gives it a new body.
    pub const EDIT: Self = Self(EventKind::EDIT.0);
    /// Removes it for everyone.
    pub const REDACT: Self = Self(EventKind::REDACT.0);
    /// Adds or removes a reaction to it.
    pub const REACTION: Self = Self(EventKind::REACTION.0);
    /// Pins or unpins it.
    pub const PIN: Self = Self(EventKind::PIN.0);

    /// The relation that an event of this kind must have; `None` = it must have none.
    pub fn of(kind: EventKind) -> Option<Self> {
        (EventKind::EDIT..=EventKind::PIN).contains(&kind).then_some(Self(kind.0))
    }
}

/// Names another event of the same log: `seq` finds it, `event_id` proves that it is the one that was meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventRef {
    /// Its identity.
    pub event_id: Uuid,
    /// Its number in the log, from 1 and below 2^53.
    pub seq: u64,
}

/// What an edit, redaction, reaction or pin is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Relation<'a> {
    /// What happens to `target`.
    pub rel: Rel,
    /// To which event it happens.
    pub target: EventRef,
    /// Which reaction, 1 to [`REACTION_KEY_BYTES_MAX`](crate::limits::REACTION_KEY_BYTES_MAX) bytes.
    pub key: Option<&'a str>,
    /// Takes the reaction or the pin back.
    pub remove: bool,
}

/// A file that lies elsewhere. Numbers that are not known are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attachment<'a> {
    /// Where it lies; not empty. The broker does not look at it.
    pub url: &'a str,
    /// The file's name.
    pub name: Option<&'a str>,
    /// Its media type.
    pub mime: Option<&'a str>,
    /// Its length in bytes.
    pub size: u64,
    /// Width of a picture or video, in pixels.
    pub width: u32,
    /// Height of a picture or video, in pixels.
    pub height: u32,
    /// Length of audio or video, in milliseconds.
    pub duration_ms: u64,
    /// Where a small picture of it lies.
    pub thumbnail_url: Option<&'a str>,
}

/// An attribute that only the application reads. No key stands twice in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Property<'a> {
    /// 1 to [`PROPERTY_KEY_BYTES_MAX`](crate::limits::PROPERTY_KEY_BYTES_MAX) bytes.
    pub key: &'a str,
    /// Up to [`PROPERTY_VALUE_BYTES_MAX`](crate::limits::PROPERTY_VALUE_BYTES_MAX) bytes.
    pub value: &'a str,
}

/// The attributes of one event, read in place. No bytes are an envelope without attributes.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    root: Option<wire::Envelope<'a>>,
}

impl<'a> Envelope<'a> {
    /// Checks everything: structure, limits, and which attributes an event of this `kind` must and may have.
    ///
    /// Also for no bytes, as some kinds need a relation. Fields of a later version are refused, so that whatever is
    /// stored was checked by someone who knew what it means.
    pub fn verify(bytes: &'a [u8], kind: EventKind) -> Result<Self, EnvelopeError> {
        let envelope = Self::trusted(bytes)?;
        verify::rules(&envelope, kind)?;
        verify::limits(&envelope)?;
        Ok(envelope)
    }

    /// Checks the structure only, for bytes that the broker verified when the event was sent.
    ///
    /// Safe on any bytes. Limits and rules are not checked, and fields of a later version are passed over.
    pub fn trusted(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        Ok(Self { root: verify::structure(bytes)? })
    }

    /// What the event is about, unless it is a message.
    pub fn relates_to(&self) -> Option<Relation<'a>> {
        self.root?.relates_to().map(|relation| Relation {
            rel: Rel(relation.rel().0),
            target: EventRef { event_id: Uuid::from_bytes(relation.event_id().0), seq: relation.seq() },
            key: relation.key(),
            remove: relation.remove(),
        })
    }

    /// The message that this one answers.
    pub fn reply_to(&self) -> Option<EventRef> {
        self.root?.reply_to().map(event_ref)
    }

    /// The first event of the thread that this message belongs to.
    pub fn thread(&self) -> Option<EventRef> {
        self.root?.thread().map(event_ref)
    }

    /// Users whom the message names, each once. They are valid ids if the envelope was verified.
    pub fn mentions(&self) -> impl ExactSizeIterator<Item = &'a str> + Clone + use<'a> {
        self.root.and_then(|root| root.mentions()).unwrap_or_default().iter()
    }

    /// Files, in the sender's order.
    pub fn attachments(&self) -> impl ExactSizeIterator<Item = Attachment<'a>> + use<'a> {
        self.root.and_then(|root| root.attachments()).unwrap_or_default().iter().map(attachment)
    }

    /// The application's own attributes, in the sender's order.
    pub fn properties(&self) -> impl ExactSizeIterator<Item = Property<'a>> + use<'a> {
        let properties = self.root.and_then(|root| root.properties()).unwrap_or_default();
        properties.iter().map(|property| Property { key: property.key(), value: property.value() })
    }

    /// Whether the event notifies nobody.
    pub fn is_silent(&self) -> bool {
        self.root.is_some_and(|root| root.silent())
    }

    /// When the message goes away, Unix milliseconds; `None` = never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.root.map(|root| root.expires_at_ms()).filter(|&at| at != 0)
    }
}

fn event_ref(event: wire::EventRef<'_>) -> EventRef {
    EventRef { event_id: Uuid::from_bytes(event.event_id().0), seq: event.seq() }
}

fn attachment(file: wire::Attachment<'_>) -> Attachment<'_> {
    Attachment {
        url: file.url(),
        name: file.name(),
        mime: file.mime(),
        size: file.size(),
        width: file.width(),
        height: file.height(),
        duration_ms: file.duration_ms(),
        thumbnail_url: file.thumbnail_url(),
    }
}

/// Says what there is, not what it says: attributes are content, which does not belong into logs.
impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("relates_to", &self.relates_to().map(|relation| (relation.rel, relation.target.seq)))
            .field("reply_to", &self.reply_to().map(|event| event.seq))
            .field("thread", &self.thread().map(|event| event.seq))
            .field("mentions", &self.mentions().len())
            .field("attachments", &self.attachments().len())
            .field("properties", &self.properties().len())
            .finish_non_exhaustive()
    }
}
