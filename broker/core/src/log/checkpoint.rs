//! The checkpoint of a log: its fold through some row, so that taking the log up reads few rows.

use antiphon_protocol::control::{LastMessage, MemberCursor};
use antiphon_storage_contract::Loaded;
use bytes::Bytes;
use prost::Message;

use super::{
    across::OwedState,
    conversation::{Conversation, State},
    inbox::{self, Inbox},
    retention::Gone,
};
use crate::ids::Ids;

/// What a checkpoint holds. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Checkpoint {
    /// Countable messages through the checkpoint's row.
    #[prost(uint64, tag = "1")]
    pub(super) msgno: u64,
    /// Newest reading of the owner's clock in a row through the checkpoint's, Unix milliseconds.
    #[prost(uint64, tag = "2")]
    pub(super) time_ms: u64,
    /// The conversation through the checkpoint's row.
    #[prost(message, optional, tag = "3")]
    pub(super) conversation: Option<State>,
    /// Records of messages through the checkpoint's row whose own writes were not known to be durable.
    #[prost(message, repeated, tag = "4")]
    pub(super) records: Vec<Record>,
    /// The inbox through the checkpoint's row.
    #[prost(message, optional, tag = "5")]
    pub(super) inbox: Option<inbox::State>,
    /// The newest message through the checkpoint's row.
    #[prost(message, optional, tag = "6")]
    pub(super) newest: Option<LastMessage>,
    /// What rows through the checkpoint's row still owe to other logs.
    #[prost(message, repeated, tag = "7")]
    pub(super) owed: Vec<OwedState>,
    /// The rows that are gone; absent if none is.
    #[prost(message, optional, tag = "8")]
    pub(super) gone: Option<Gone>,
    /// Time of the checkpoint's row, Unix milliseconds, where it is another one: the row was imported.
    #[prost(uint64, optional, tag = "9")]
    pub(super) head_time_ms: Option<u64>,
    /// Cursors that rows through the checkpoint's row told, and that no record was known to hold.
    #[prost(message, repeated, tag = "10")]
    pub(super) cursors: Vec<MemberCursor>,
}

/// A record inside a checkpoint. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) value: Bytes,
}

impl Checkpoint {
    /// The checkpoint of a log as found in the store; the default for a log that has none.
    pub(super) fn of(loaded: &Loaded) -> Result<Self, prost::DecodeError> {
        match &loaded.checkpoint {
            Some((_, value)) => Self::decode(value.clone()),
            None => Ok(Self::default()),
        }
    }

    /// Its stored bytes.
    pub(super) fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// The inbox that it holds.
    pub(super) fn inbox(&self, ids: &mut Ids) -> Inbox {
        self.inbox.as_ref().map(|state| Inbox::from_state(state, ids)).unwrap_or_default()
    }

    /// The conversation that it holds.
    pub(super) fn conversation(&self, ids: &mut Ids) -> Conversation {
        self.conversation.as_ref().map(|state| Conversation::from_state(state, ids)).unwrap_or_default()
    }
}
