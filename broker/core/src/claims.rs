//! What a verified token says about its bearer.
//!
//! The shell verifies a token (cryptography is an effect) and hands the core these plain values. The core never sees
//! the token. A session is allowed what its role in a conversation allows, plus what a [`Grant`] allows; a removal and
//! a block beat both, and are decided elsewhere.

use std::fmt;

use antiphon_protocol::{DeviceId, LogName, TenantId, UserId};
use thiserror::Error;

/// Who speaks, for how long, and with which extra rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The tenant; every name in the session is looked up below it.
    pub tenant: TenantId,
    /// The user the token was issued to.
    pub user: UserId,
    /// What kind of program bears the token.
    pub kind: ActorKind,
    /// The one device that may use the token; `None` leaves the choice to HELLO.
    pub device: Option<DeviceId>,
    /// Display name, if the issuer gives one; at most [`NAME_BYTES_MAX`] bytes, no control characters.
    pub name: Option<String>,
    /// Rights beyond the user's roles; at most [`GRANTS_MAX`].
    pub grants: Vec<Grant>,
    /// Rights that concern no single log.
    pub scopes: Scopes,
    /// Issue time, Unix milliseconds; compared with a revocation's `not_before`.
    pub issued_at_ms: u64,
    /// Expiry, Unix milliseconds; the session ends here unless a newer token arrives.
    pub expires_at_ms: u64,
    /// The issuer's name for this token (`jti`); at most [`TOKEN_ID_BYTES_MAX`] bytes.
    pub token_id: String,
}

/// Longest display name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest `jti`, in bytes.
pub const TOKEN_ID_BYTES_MAX: usize = 128;
/// Most grants in one token.
pub const GRANTS_MAX: usize = 64;

impl Claims {
    /// Whether any grant gives `ability` on the log of this name.
    pub fn granted(&self, log_name: &str, ability: Ability) -> bool {
        self.grants.iter().any(|grant| grant.allows(log_name, ability))
    }
}

/// What kind of program bears a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorKind {
    /// A person's device.
    User,
    /// An application's back end.
    Service,
    /// A producer of AI streams or a media server.
    Worker,
    /// A gateway that carries other users' sessions.
    Edge,
}

impl ActorKind {
    /// Reads the word used in tokens.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "user" => Self::User,
            "service" => Self::Service,
            "worker" => Self::Worker,
            "edge" => Self::Edge,
            _ => return None,
        })
    }

    /// The word used in tokens.
    pub fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Worker => "worker",
            Self::Edge => "edge",
        }
    }
}

macro_rules! bit_set {
    (
        $(#[$one_doc:meta])* $one:ident,
        $(#[$set_doc:meta])* $set:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }
    ) => {
        $(#[$one_doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $one {
            $($(#[$doc])* $variant,)+
        }

        impl $one {
            /// Every member, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Reads the word used in tokens.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word used in tokens.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        $(#[$set_doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $set(u8);

        impl $set {
            /// The empty set.
            pub const NONE: Self = Self(0);

            /// The set with `member` added.
            #[must_use]
            pub const fn with(self, member: $one) -> Self {
                Self(self.0 | 1 << member as u8)
            }

            /// Whether `member` is in the set.
            pub const fn contains(self, member: $one) -> bool {
                self.0 & 1 << member as u8 != 0
            }

            /// Whether the set has no member.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The members, in declaration order.
            pub fn iter(self) -> impl Iterator<Item = $one> {
                $one::ALL.iter().copied().filter(move |member| self.contains(*member))
            }
        }

        impl FromIterator<$one> for $set {
            fn from_iter<I: IntoIterator<Item = $one>>(members: I) -> Self {
                members.into_iter().fold(Self::NONE, Self::with)
            }
        }

        impl fmt::Debug for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self.iter().map($one::word)).finish()
            }
        }
    };
}

bit_set! {
    /// One thing that can be done with a log.
    Ability,
    /// What may be done with a log.
    Abilities {
        /// Subscribe, page, keep cursors.
        Read = "read",
        /// Append messages and the events that relate to them.
        Send = "send",
        /// Send ephemeral signals.
        Signal = "signal",
        /// Produce AI streams.
        Stream = "stream",
        /// Join and publish in the log's room.
        Room = "room",
        /// Change members, roles and settings.
        Manage = "manage",
    }
}

bit_set! {
    /// One right that concerns no single log.
    Scope,
    /// Rights that concern no single log.
    Scopes {
        /// Act in the name of other users of the tenant; the event records who did.
        ActAs = "act_as",
        /// Read operator views.
        AdminRead = "admin:read",
        /// Change the broker: backup, drain, revoke.
        AdminWrite = "admin:write",
    }
}

/// A right on one log, or on all logs whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which logs.
    pub on: GrantPattern,
    /// What may be done with them.
    pub can: Abilities,
}

impl Grant {
    /// Whether this grant gives `ability` on the log of this name.
    pub fn allows(&self, log_name: &str, ability: Ability) -> bool {
        self.can.contains(ability) && self.on.matches(log_name)
    }
}

/// A log's name, or a prefix of names written with one `*` at its end (`c:support-*`, `c:*`).
///
/// The kind (`c:` or `u:`) is always spelled out, so no pattern reaches conversations and inboxes at once.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GrantPattern {
    text: Box<str>,
    is_prefix: bool,
}

impl GrantPattern {
    /// Checks and keeps a pattern.
    pub fn new(pattern: &str) -> Result<Self, InvalidGrantPattern> {
        let (text, is_prefix) = match pattern.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (pattern, false),
        };
        // A bare kind is a fine prefix but no name, so one stand-in byte completes it for the check.
        let complete = if matches!(text, "c:" | "u:") && is_prefix { format!("{text}x") } else { text.to_owned() };
        complete.parse::<LogName>().map_err(|_| InvalidGrantPattern)?;
        Ok(Self { text: text.into(), is_prefix })
    }

    /// Whether the pattern covers the log of this name.
    pub fn matches(&self, log_name: &str) -> bool {
        if self.is_prefix { log_name.starts_with(&*self.text) } else { log_name == &*self.text }
    }
}

impl fmt::Display for GrantPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

impl fmt::Debug for GrantPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A grant names logs as `c:<id>`, `u:<id>`, or a prefix of those followed by `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a grant is on c:<id>, u:<id> or a prefix of those followed by one *")]
pub struct InvalidGrantPattern;

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(on: &str, can: &[Ability]) -> Grant {
        Grant { on: GrantPattern::new(on).unwrap(), can: can.iter().copied().collect() }
    }

    #[test]
    fn an_exact_grant_covers_that_log_only() {
        let grant = grant("c:lobby", &[Ability::Read, Ability::Send]);
        assert!(grant.allows("c:lobby", Ability::Read));
        assert!(grant.allows("c:lobby", Ability::Send));
        assert!(!grant.allows("c:lobby", Ability::Manage));
        for other in ["c:lobby2", "c:lobb", "u:lobby", "C:lobby", "c:Lobby", "c:lobby*", ""] {
            assert!(!grant.allows(other, Ability::Read), "{other}");
        }
    }

    #[test]
    fn a_prefix_grant_covers_names_that_begin_with_it() {
        let grant = grant("c:support-*", &[Ability::Read]);
        for name in ["c:support-", "c:support-1", "c:support-a:b"] {
            assert!(grant.allows(name, Ability::Read), "{name}");
            assert!(!grant.allows(name, Ability::Send), "{name}");
        }
        for name in ["c:support", "u:support-1", "xc:support-1", "c:Support-1"] {
            assert!(!grant.allows(name, Ability::Read), "{name}");
        }
    }

    #[test]
    fn a_prefix_never_crosses_from_conversations_to_inboxes() {
        let all = grant("c:*", &[Ability::Read]);
        assert!(all.allows("c:x", Ability::Read));
        assert!(!all.allows("u:x", Ability::Read));
        for pattern in ["*", "", "c*", "c", "x:*", "c:a*b", "c:**", "c:", "c:a b*", "c:\u{e9}*", "u:"] {
            assert_eq!(GrantPattern::new(pattern), Err(InvalidGrantPattern), "{pattern}");
        }
        assert_eq!(GrantPattern::new(&format!("c:{}*", "a".repeat(65))), Err(InvalidGrantPattern));
    }

    #[test]
    fn a_grant_without_abilities_allows_nothing() {
        for ability in Ability::ALL {
            assert!(!grant("c:*", &[]).allows("c:x", *ability));
        }
    }

    #[test]
    fn words_and_sets_agree() {
        for ability in Ability::ALL {
            assert_eq!(Ability::from_word(ability.word()), Some(*ability));
            let only = Abilities::NONE.with(*ability);
            assert_eq!(only.iter().collect::<Vec<_>>(), [*ability]);
        }
        for scope in Scope::ALL {
            assert_eq!(Scope::from_word(scope.word()), Some(*scope));
        }
        assert_eq!(Scope::from_word("admin"), None);
        assert_eq!(ActorKind::from_word("root"), None);
        assert_eq!(format!("{:?}", Scopes::NONE.with(Scope::ActAs)), r#"{"act_as"}"#);
        assert!(Scopes::NONE.is_empty());
        for kind in [ActorKind::User, ActorKind::Service, ActorKind::Worker, ActorKind::Edge] {
            assert_eq!(ActorKind::from_word(kind.word()), Some(kind));
        }
    }

    #[test]
    fn patterns_print_as_written() {
        for pattern in ["c:support-*", "c:*", "u:ann", "c:~dxyz"] {
            assert_eq!(GrantPattern::new(pattern).unwrap().to_string(), pattern);
        }
    }
}
