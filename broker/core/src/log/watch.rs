//! Presence at inboxes: a session's wish goes through its own user's inbox, which knows the user's conversations, to the
//! inbox of each target, which knows the target's and whom the target blocked.
//!
//! A user is shown to themselves, to users with whom they share a conversation, and to those whose token grants `read` on
//! their inbox; never to users whom they blocked. Decided when the session asks; a later block is heeded at once.

use std::{collections::BTreeSet, sync::Arc};

use antiphon_protocol::{ConversationId, ErrorCode, LogName};

use super::{Log, State, answer, own::done};
use crate::{
    claims::Ability,
    effects::Effects,
    limits::PRESENCE_TEXT_BYTES_MAX,
    refusal::Refusal,
    shard_message::{Operation, Origin, Request, ShardMessage, Watch},
};

impl Log {
    /// The user says how to be shown.
    pub(super) fn set_presence(&mut self, fx: &mut Effects, request: &Request) {
        let Operation::SetPresence(set) = &request.operation else { return };
        if set.text.len() > PRESENCE_TEXT_BYTES_MAX {
            let message = format!("a text has at most {PRESENCE_TEXT_BYTES_MAX} bytes");
            return self.refuse(fx, request, &Refusal::field(ErrorCode::InvalidField, "text", message));
        }
        answer(fx, request.origin, done(request.origin.request_id));
        fx.post(fx.shard, ShardMessage::SetPresence { key: self.key, status: set.status(), text: set.text.clone() });
    }

    /// A session of this inbox's user wants to watch others: tells their inboxes which conversations the user is in.
    pub(super) fn watch(&mut self, fx: &mut Effects, request: &Request) {
        let (Operation::Watch { users, list }, State::Ready(contents)) = (&request.operation, &self.state) else {
            return;
        };
        let conversations: BTreeSet<ConversationId> =
            contents.inbox.memberships(None).map(|(id, _)| id.clone()).collect();
        let conversations = Arc::new(conversations);
        answer(fx, request.origin, done(request.origin.request_id));
        for target in users {
            let log = LogName::Inbox(target.clone());
            let key = log.key(&request.actor.tenant);
            let watch = Watch {
                seat: (request.origin.shard, request.origin.connection),
                watcher: request.actor.user.clone(),
                list: *list,
                tenant: request.actor.tenant.clone(),
                target: target.clone(),
                key,
                conversations: conversations.clone(),
            };
            let (origin, actor) = (Origin::nobody(fx.shard), request.actor.clone());
            let operation = Operation::Watched(Box::new(watch));
            let request = Request { origin, actor, log, key, operation };
            fx.post(fx.routing.owner(key), ShardMessage::Request(Box::new(request)));
        }
    }

    /// Somebody wants to watch this inbox's user.
    pub(super) fn watched(&mut self, fx: &mut Effects, request: Box<Request>) {
        let (Operation::Watched(watch), State::Ready(contents)) = (&request.operation, &self.state) else { return };
        let inbox = &contents.inbox;
        let shares = || inbox.memberships(None).any(|(id, _)| watch.conversations.contains(id));
        let is_allowed = !inbox.blocked().contains(&watch.watcher)
            && (watch.watcher == watch.target || request.actor.is_granted(&self.name, Ability::Read) || shares());
        let Operation::Watched(watch) = request.operation else { return };
        fx.post(fx.shard, ShardMessage::Watched { watch, is_allowed });
    }
}
