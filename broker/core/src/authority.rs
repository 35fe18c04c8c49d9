//! The one place that decides who may do what to a log. Live delivery, resume, pages and sends all ask here.

use antiphon_protocol::{Authority, LogName, UserId, control::Role};

use crate::{actor::Actor, claims::Ability, log::Conversation};

/// First position that `actor`, acting as `user`, may read of the log called `name`, if it may read the log at all.
///
/// A member of a conversation with history [`antiphon_protocol::control::History::Joined`] reads from its own joining on. A grant opens the
/// log from its beginning, to members too: what is allowed is what the role allows or what a grant allows.
pub fn visible_from(actor: &Actor, user: &UserId, name: &LogName, conversation: &Conversation) -> u64 {
    if actor.is_granted(name, Ability::Read) { 1 } else { conversation.visible_from(user) }
}

/// Why something is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The user cannot know that the log exists; a foreign and an absent one answer alike.
    NotFound,
    /// The user was removed at this position.
    Removed {
        /// Position of the removal.
        seq: u64,
    },
    /// The user can read the log, but may not do this.
    Forbidden,
}

/// Decides whether `actor`, acting as `user`, has `authority` over the log called `name`.
///
/// Allowed is what the role in the conversation allows, or what a grant of the token allows; a removal beats both.
pub fn authorize(
    authority: Authority,
    actor: &Actor,
    user: &UserId,
    name: &LogName,
    conversation: &Conversation,
) -> Result<(), Denied> {
    if let LogName::Inbox(owner) = name {
        let own = owner == user && matches!(authority, Authority::Read);
        let granted = ability(authority).is_some_and(|ability| actor.is_granted(name, ability));
        return if own || granted { Ok(()) } else { Err(Denied::NotFound) };
    }
    if authority == Authority::Import {
        return authorize_import(actor, name, conversation);
    }
    if let Some(seq) = conversation.removed_at(user) {
        return Err(Denied::Removed { seq });
    }
    let role = conversation.member(user).map(|membership| membership.role);
    let can_read = role.is_some() || actor.is_granted(name, Ability::Read);
    if conversation.deleted {
        return Err(Denied::NotFound);
    }
    let by_role = role.is_some_and(|role| role_has(role, authority));
    let by_grant = ability(authority).is_some_and(|ability| actor.is_granted(name, ability));
    match (by_role || by_grant, can_read) {
        (true, _) => Ok(()),
        (false, true) => Err(Denied::Forbidden),
        (false, false) => Err(Denied::NotFound),
    }
}

/// Whose events are brought in does not matter, as they may have left long ago; who brings them in does.
fn authorize_import(actor: &Actor, name: &LogName, conversation: &Conversation) -> Result<(), Denied> {
    let manages = actor.is_granted(name, Ability::Manage);
    let knows = manages || actor.is_granted(name, Ability::Read);
    if conversation.deleted || !knows {
        return Err(Denied::NotFound);
    }
    if manages && actor.acts_for_users() { Ok(()) } else { Err(Denied::Forbidden) }
}

/// What a role allows by itself.
fn role_has(role: Role, authority: Authority) -> bool {
    match authority {
        Authority::Read | Authority::Send | Authority::Signal => true,
        Authority::Manage => matches!(role, Role::Admin | Role::Owner),
        Authority::Own => role == Role::Owner,
        Authority::Open | Authority::Edge | Authority::Session | Authority::Join => false,
        Authority::Import | Authority::Broker => false,
    }
}

/// The ability of a grant that stands for an authority.
fn ability(authority: Authority) -> Option<Ability> {
    match authority {
        Authority::Read => Some(Ability::Read),
        Authority::Send => Some(Ability::Send),
        Authority::Signal => Some(Ability::Signal),
        Authority::Manage | Authority::Own => Some(Ability::Manage),
        Authority::Open | Authority::Edge | Authority::Session | Authority::Join => None,
        // It takes more than a grant, and no grant opens an inbox to it.
        Authority::Import | Authority::Broker => None,
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{ContentType, EventKind, NewRow, control};
    use prost::Message;
    use uuid::Uuid;

    use super::*;
    use crate::claims::{Abilities, ActorKind, Claims, Grant, GrantPattern, Scopes};

    fn actor(user: &str, grants: Vec<Grant>) -> std::sync::Arc<Actor> {
        let claims = Claims {
            tenant: "acme".parse().unwrap(),
            user: user.parse().unwrap(),
            kind: ActorKind::User,
            device: None,
            name: None,
            grants,
            scopes: Scopes::NONE,
            issued_at_ms: 0,
            expires_at_ms: u64::MAX,
            token_id: "t".into(),
        };
        Actor::new(claims, "phone".parse().unwrap())
    }

    fn apply(conversation: &mut Conversation, seq: u64, kind: EventKind, body: Vec<u8>) {
        let row = NewRow {
            seq,
            msgno: 0,
            time_ms: 0,
            event_id: Uuid::nil(),
            client_message_id: Uuid::nil(),
            kind,
            content_type: ContentType::Control,
            sender: &"ann".parse().unwrap(),
            via: None,
            envelope: b"",
            body: &body,
        };
        conversation.apply(&row.to_row());
    }

    fn conversation() -> Conversation {
        let member = |user: &str, role: Role| control::Member { user: user.into(), role: role.into(), joined_seq: 0 };
        let members = vec![
            member("owner", Role::Owner),
            member("admin", Role::Admin),
            member("member", Role::Member),
            member("gone", Role::Member),
        ];
        let created = control::ConversationEvent { members, ..Default::default() };
        let removed = control::MemberEvent {
            change: control::member_event::Change::Removed.into(),
            members: vec![member("gone", Role::Member)],
        };
        let mut conversation = Conversation::default();
        apply(&mut conversation, 1, EventKind::CONVERSATION, created.encode_to_vec());
        apply(&mut conversation, 2, EventKind::MEMBER, removed.encode_to_vec());
        conversation
    }

    fn decide(authority: Authority, user: &str, grants: Vec<Grant>) -> Result<(), Denied> {
        let actor = actor(user, grants);
        authorize(authority, &actor, &actor.user, &"c:tea".parse().unwrap(), &conversation())
    }

    #[test]
    fn the_matrix_of_roles_and_authorities() {
        use Authority::{Manage, Own, Read, Send, Signal};
        let forbidden = Err(Denied::Forbidden);
        let removed = Err(Denied::Removed { seq: 2 });
        let absent = Err(Denied::NotFound);
        let matrix = [
            ("owner", [Ok(()), Ok(()), Ok(()), Ok(()), Ok(())]),
            ("admin", [Ok(()), Ok(()), Ok(()), Ok(()), forbidden]),
            ("member", [Ok(()), Ok(()), Ok(()), forbidden, forbidden]),
            ("gone", [removed; 5]),
            ("stranger", [absent; 5]),
        ];
        for (user, expected) in matrix {
            for (authority, expected) in [Read, Send, Signal, Manage, Own].into_iter().zip(expected) {
                assert_eq!(decide(authority, user, vec![]), expected, "{user} {authority:?}");
            }
        }
    }

    #[test]
    fn a_grant_adds_to_a_role_and_a_removal_beats_it() {
        let grant = |on: &str, abilities| vec![Grant { on: GrantPattern::new(on).unwrap(), can: abilities }];
        let read = Abilities::NONE.with(Ability::Read);
        assert_eq!(decide(Authority::Read, "stranger", grant("c:te*", read)), Ok(()));
        assert_eq!(decide(Authority::Send, "stranger", grant("c:te*", read)), Err(Denied::Forbidden));
        assert_eq!(decide(Authority::Read, "stranger", grant("c:other", read)), Err(Denied::NotFound));
        assert_eq!(decide(Authority::Read, "gone", grant("c:te*", read)), Err(Denied::Removed { seq: 2 }));
        assert_eq!(decide(Authority::Own, "member", grant("c:tea", Abilities::NONE.with(Ability::Manage))), Ok(()));
    }

    #[test]
    fn history_begins_for_a_member_with_the_joining_unless_a_grant_opens_it() {
        let mut conversation = conversation();
        let joined = control::MemberEvent {
            change: control::member_event::Change::Joined.into(),
            members: vec![control::Member { user: "gone".into(), role: Role::Member.into(), joined_seq: 0 }],
        };
        apply(&mut conversation, 7, EventKind::MEMBER, joined.encode_to_vec());
        let from = |user: &str, grants: &[Grant], conversation: &Conversation| {
            let actor = actor(user, grants.to_vec());
            visible_from(&actor, &actor.user, &"c:tea".parse().unwrap(), conversation)
        };
        assert_eq!(from("gone", &[], &conversation), 1, "history is full");
        conversation.history = control::History::Joined;
        assert_eq!((from("member", &[], &conversation), from("gone", &[], &conversation)), (1, 7));
        let read = Grant { on: GrantPattern::new("c:*").unwrap(), can: Abilities::NONE.with(Ability::Read) };
        let send = Grant { on: GrantPattern::new("c:*").unwrap(), can: Abilities::NONE.with(Ability::Send) };
        assert_eq!(
            (from("stranger", std::slice::from_ref(&read), &conversation), from("gone", &[read], &conversation)),
            (1, 1)
        );
        assert_eq!(from("gone", &[send], &conversation), 7, "a grant to send opens nothing");
    }

    #[test]
    fn an_inbox_is_its_users_alone() {
        let (ann, bob) = (actor("ann", vec![]), actor("bob", vec![]));
        let inbox: LogName = "u:ann".parse().unwrap();
        let none = Conversation::default();
        assert_eq!(authorize(Authority::Read, &ann, &ann.user, &inbox, &none), Ok(()));
        assert_eq!(authorize(Authority::Send, &ann, &ann.user, &inbox, &none), Err(Denied::NotFound));
        assert_eq!(authorize(Authority::Read, &bob, &bob.user, &inbox, &none), Err(Denied::NotFound));
    }
}
