//! The Antiphon client as a state machine without I/O: bytes, commands and time in; bytes, requests to the shell and
//! news for the application out.
//!
//! A shell (`sdk/rust`, the simulator) passes every [`Input`] to [`Client::handle`] with the time, then takes all
//! [`Output`]s, then sleeps until [`Client::poll_timeout`] or the next input. Same seed and inputs, same outputs.
//!
//! | module | holds |
//! |---|---|
//! | [`Client`], `incoming` | dispatch only |
//! | `link`, `timers` | what all parts work with: outputs, requests in flight, deadlines, randomness |
//! | `connection`, `handshake` | token, handshake, GOAWAY, RESUME, errors of the connection, reconnecting |
//! | `streams` | bytes of the broker's streams -> frames |
//! | `subscription`, `subscriptions` | each event once and in order: hand-over, gaps, resume |
//! | `pages` | page requests, at most four in flight |
//! | `sends`, `receipts` | the outbox, and what became of messages |
//! | `request`, `conversation`, `inbox`, `notice` | requests with typed answers, and what they and the broker's events say |
//! | `requests`, `cursors`, `presence` | everything else that the application asks for |
//!
//! Invariants: an application sees each position of a log once and in order, or is told of a reset; a message stays
//! in the outbox until its ACK or a final refusal; every queue is bounded (`limits`). Deliberately absent: sockets,
//! clocks, storage of the outbox across processes.

mod client;
mod connection;
mod conversation;
mod cursors;
mod error;
mod event;
mod handshake;
mod inbox;
mod incoming;
mod input;
pub mod limits;
mod link;
mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
mod new_message;
mod notice;
mod output;
mod pages;
mod presence;
mod receipts;
mod request;
mod requests;
mod sends;
mod streams;
mod subscription;
mod subscriptions;
mod time;
mod timers;

pub use client::{Client, Config, OutboxLimits};
pub use conversation::{
    Conversation, ConversationChanges, ConversationKind, History, JoinPolicy, Member, NewConversation, Role,
};
pub use error::{Outcome, Refusal, RequestError, SendError, StopReason};
pub use event::Event;
pub use inbox::{InboxEntry, InboxPage, LastMessage, Overview};
pub use input::{Command, CommandId, Direction, From, Input, NewSignal, Range, StreamId, SubscriptionId, Token};
pub use message::{Edit, Mark, Message, Messages, Reactions, ReplyPreview};
pub use new_message::NewMessage;
pub use notice::{ConversationChange, MemberChange, Notice, RemovalReason};
pub use output::{
    Answer, Attached, ConnectionState, Cursor, DetachReason, Digest, Item, Output, Page, Receipt, ResetReason,
    SendState, Session, Signal,
};
pub use presence::{Presence, PresenceStatus};
pub use request::{Preferences, Request};
pub use time::Time;
