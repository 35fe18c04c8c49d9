//! What an event of one log makes happen in another: a member of a conversation hears of it in the inbox, a block in an
//! inbox closes a direct conversation.
//!
//! The source's owner sends an [`Effect`] until the target's owner has made it durable. It may arrive more than once and
//! takes effect once: its [`id`](Effect::id) is made of where it comes from.

use antiphon_protocol::{
    LogKey, LogName, TenantId, UserId,
    control::{ConversationKind, conversation_removed::Reason},
};
use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

/// What happens in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The inbox's user became a member of the source.
    Added(ConversationKind),
    /// The inbox's user is no member of the source any more.
    Removed(Reason),
    /// The source's user blocked the other member of the direct conversation, or does not any more.
    Blocked(bool),
}

/// One consequence of one row, for one other log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The log of the row, by key.
    pub source: LogKey,
    /// The log of the row, by name.
    pub source_name: LogName,
    /// Position of the row.
    pub seq: u64,
    /// Who caused it.
    pub by: UserId,
    /// What it comes to.
    pub consequence: Consequence,
}

impl Effect {
    /// The client message id of the event that it makes in the log of this key: UUIDv8 of what it comes from, so that the
    /// duplicate index knows it again.
    pub(crate) fn id(&self, target: LogKey) -> Uuid {
        let mut hash = Sha256::new();
        hash.update(self.source.0);
        hash.update(self.seq.to_be_bytes());
        hash.update(target.0);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.finalize()[..16]);
        Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// The one name that two users' direct conversation has, so that find-or-create needs no lookup.
pub(crate) fn direct_name(tenant: &TenantId, one: &UserId, other: &UserId) -> String {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    let mut hash = Sha256::new();
    for part in [tenant.as_str(), first.as_str(), second.as_str()] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digest = hash.finalize();
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{DIRECT_PREFIX}{hex}")
}

/// What the ids of direct conversations begin with.
const DIRECT_PREFIX: &str = "~d";

/// Whether the log may be that of a direct conversation.
pub(crate) fn is_direct(name: &LogName) -> bool {
    matches!(name, LogName::Conversation(id) if id.as_str().starts_with(DIRECT_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_is_known_by_where_it_comes_from_and_goes_to() {
        let effect = |seq| Effect {
            source: LogKey([1; 16]),
            source_name: "c:tea".parse().unwrap(),
            seq,
            by: "ann".parse().unwrap(),
            consequence: Consequence::Added(ConversationKind::Group),
        };
        let (here, there) = (LogKey([2; 16]), LogKey([3; 16]));
        assert_eq!(effect(5).id(here), effect(5).id(here));
        assert_ne!(effect(5).id(here), effect(6).id(here));
        assert_ne!(effect(5).id(here), effect(5).id(there));
        assert_eq!(effect(5).id(here).get_version_num(), 8);
    }

    #[test]
    fn two_users_have_one_direct_conversation_whoever_begins() {
        let (tenant, ann, bob) = ("acme".parse().unwrap(), "ann".parse().unwrap(), "bob".parse().unwrap());
        let name = direct_name(&tenant, &ann, &bob);
        assert_eq!(name, direct_name(&tenant, &bob, &ann));
        assert_ne!(name, direct_name(&"other".parse().unwrap(), &ann, &bob));
        assert!(is_direct(&LogName::Conversation(name.parse().unwrap())));
    }
}
