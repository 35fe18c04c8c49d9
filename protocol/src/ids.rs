//! Names and positions: who, where, and which event.
//!
//! Applications choose tenant, user, device and conversation ids; they are validated once, here, and are opaque
//! afterwards. A [`LogKey`] is what the broker routes and stores by; it is derived, never chosen.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use sha2::{Digest, Sha256};
use thiserror::Error;
use uuid::Uuid;

use crate::limits::{ID_BYTES_MAX, VIRTUAL_SHARDS, VIRTUAL_SHARDS_PER_PARTITION};

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Ids are 1 to 64 bytes long.
    #[error("an id has 1 to {ID_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A byte outside `[A-Za-z0-9._:@|~-]`.
    #[error("an id may hold A-Z a-z 0-9 . _ : @ | ~ -, not byte {0:#04x}")]
    Byte(u8),
    /// A log name begins with `c:` (conversation) or `u:` (inbox).
    #[error("a log is named c:<conversation> or u:<user>")]
    LogKind,
}

/// Checks length and alphabet without making an id.
pub(crate) fn check_id(id: &str) -> Result<(), InvalidId> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(InvalidId::Length(id.len()));
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:@|~-".contains(&b);
    match id.bytes().find(|&b| !allowed(b)) {
        Some(byte) => Err(InvalidId::Byte(byte)),
        None => Ok(()),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        ///
        /// 1-64 bytes of `[A-Za-z0-9._:@|~-]`, case-sensitive. Cloning shares the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks length and alphabet.
            pub fn new(id: &str) -> Result<Self, InvalidId> {
                check_id(id)?;
                Ok(Self(id.into()))
            }

            /// The id as its application wrote it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Whether a clone shares the text.
            pub fn has_clones(&self) -> bool {
                Arc::strong_count(&self.0) > 1
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(id: &str) -> Result<Self, InvalidId> {
                Self::new(id)
            }
        }

        /// Ids order and hash as their text, so a map of them is searched by text.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )+};
}

ids! {
    /// A customer of the broker; every other id is unique within its tenant only.
    TenantId,
    /// A person, bot or service account of a tenant.
    UserId,
    /// One installation or tab of a user; a session belongs to exactly one.
    DeviceId,
    /// A direct chat, group, channel or AI chat. Ids that begin with `~` are made by the broker.
    ConversationId,
}

/// A totally ordered log: a conversation, or a user's inbox. Written `c:<id>` and `u:<id>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogName {
    /// The events of a conversation, the same for every member.
    Conversation(ConversationId),
    /// The events that concern one user: invitations, notifications, own-device sync.
    Inbox(UserId),
}

impl LogName {
    fn parts(&self) -> (char, &str) {
        match self {
            Self::Conversation(id) => ('c', id.as_str()),
            Self::Inbox(user) => ('u', user.as_str()),
        }
    }

    /// The key under which `tenant`'s log of this name is routed and stored.
    pub fn key(&self, tenant: &TenantId) -> LogKey {
        let (kind, id) = self.parts();
        LogKey::derive(&[tenant.as_str().as_bytes(), &[kind as u8], id.as_bytes()])
    }
}

impl FromStr for LogName {
    type Err = InvalidId;

    fn from_str(name: &str) -> Result<Self, InvalidId> {
        match name.split_once(':') {
            Some(("c", id)) => Ok(Self::Conversation(id.parse()?)),
            Some(("u", id)) => Ok(Self::Inbox(id.parse()?)),
            _ => Err(InvalidId::LogKind),
        }
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, id) = self.parts();
        write!(f, "{kind}:{id}")
    }
}

impl fmt::Debug for LogName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a log is routed and stored by: UUIDv8 (RFC 9562) of SHA-256 over tenant, kind and id, zero-separated.
///
/// Its first twelve bits are the virtual shard, so keys of one virtual shard are neighbours in an ordered index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogKey(pub [u8; 16]);

impl LogKey {
    fn derive(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
            hash.update([0]);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(uuid::Builder::from_custom_bytes(key).into_uuid().into_bytes())
    }

    /// One of the 4,096 virtual shards; fixed for the life of the product.
    pub fn virtual_shard(self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]]) >> 4
    }

    /// One of the 64 index partitions of a data directory; fixed for the life of the directory.
    pub fn partition(self) -> u8 {
        // Invariant: 4,096 virtual shards over 64 per partition leaves 64 partitions, asserted in `limits`.
        (self.virtual_shard() / VIRTUAL_SHARDS_PER_PARTITION) as u8
    }
}

const _: () = assert!(VIRTUAL_SHARDS == 1 << 12);

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Uuid::from_bytes(self.0))
    }
}

/// Where an event stands in its log. `seq` is dense within an `epoch`; the epoch changes only when positions may have
/// been reused (restore from a backup). Written `<epoch>-<seq>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// History generation of the log.
    pub epoch: u32,
    /// Dense number of the event, from 1; below 2^53.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, seq) = text.split_once('-').ok_or(InvalidPosition)?;
        let parse = || Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? });
        parse().ok_or(InvalidPosition)
    }
}

/// A position is written `<epoch>-<seq>`, both decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a position is written <epoch>-<seq>")]
pub struct InvalidPosition;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_once_and_kept_as_written() {
        assert_eq!(UserId::new("Ann.Lee@example|1~-").unwrap().as_str(), "Ann.Lee@example|1~-");
        assert_eq!(UserId::new(""), Err(InvalidId::Length(0)));
        assert_eq!(UserId::new(&"a".repeat(65)), Err(InvalidId::Length(65)));
        assert_eq!(UserId::new("a b"), Err(InvalidId::Byte(b' ')));
        assert_eq!(UserId::new("\u{e9}"), Err(InvalidId::Byte(0xc3)));
    }

    #[test]
    fn a_log_is_named_by_kind_and_id() {
        let lobby: LogName = "c:lobby".parse().unwrap();
        assert_eq!(lobby.to_string(), "c:lobby");
        assert_eq!("x:lobby".parse::<LogName>(), Err(InvalidId::LogKind));
        assert_eq!("c:".parse::<LogName>(), Err(InvalidId::Length(0)));
        assert_ne!(lobby, "u:lobby".parse().unwrap());
    }

    #[test]
    fn equal_ids_of_two_tenants_never_share_a_key() {
        let (a, b) = (TenantId::new("a").unwrap(), TenantId::new("b").unwrap());
        let (conversation, inbox): (LogName, LogName) = ("c:x".parse().unwrap(), "u:x".parse().unwrap());
        assert_ne!(conversation.key(&a), conversation.key(&b));
        assert_ne!(conversation.key(&a), inbox.key(&a));
        let uuid = Uuid::from_bytes(conversation.key(&a).0);
        assert_eq!(uuid.get_version_num(), 8);
        assert!(conversation.key(&a).virtual_shard() < VIRTUAL_SHARDS);
    }

    #[test]
    fn a_position_is_one_value() {
        let position = Position { epoch: 3, seq: 41 };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert_eq!("3".parse::<Position>(), Err(InvalidPosition));
        assert_eq!("3--1".parse::<Position>(), Err(InvalidPosition));
    }
}
