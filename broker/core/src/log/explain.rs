//! What a log's owner knows about an event and a user, for [`crate::explain`].

use antiphon_protocol::{Authority, ErrorCode, LogName, Row};
use antiphon_storage_contract::{Direction, Op, Outcome, ReadRows, StoreError};

use super::{Log, Purpose, State};
use crate::{
    authority::{authorize, visible_from},
    effects::Effects,
    explain::{AtInbox, AtLog, Explaining, Found, StoredEvent},
    refusal::Refusal,
    shard_message::{Operation, Request},
};

impl Log {
    /// Looks the event up, in the store if it has left memory.
    pub(super) fn explain(&mut self, fx: &mut Effects, request: Box<Request>) {
        let (Operation::Explain(explaining), State::Ready(contents)) = (&request.operation, &self.state) else {
            return;
        };
        let seq = explaining.explanation.question.seq;
        let found = match contents.tail.get(seq) {
            _ if seq > contents.head || seq == 0 => Found::NotYet,
            _ if seq < contents.floor() => Found::Gone,
            Some(row) => Found::Event(stored(row)),
            None => {
                let range =
                    ReadRows { from: seq, to: seq + 1, direction: Direction::Forward, rows_max: 1, bytes_max: 0 };
                fx.store(Op::Read { log: self.key, range }, Purpose::Explain(request));
                return;
            }
        };
        self.explain_with(fx, *request, found);
    }

    /// The store has answered.
    pub(super) fn explain_read(&mut self, fx: &mut Effects, request: Request, result: Result<Outcome, StoreError>) {
        let found = match result {
            Ok(Outcome::Rows(rows)) => rows.first().map_or(Found::Gone, |row| Found::Event(stored(row))),
            Ok(_) => Found::Gone,
            Err(error) => Found::Unreadable(Refusal::from(&error).code),
        };
        self.explain_with(fx, request, found);
    }

    fn explain_with(&self, fx: &mut Effects, request: Request, event: Found) {
        let Operation::Explain(mut explaining) = request.operation else { return };
        let user = &explaining.explanation.question.user;
        explaining.explanation.log = match &self.state {
            State::Ready(contents) => {
                let conversation = &contents.conversation;
                let cursor = contents.cursors.get(user);
                // The broker itself asks, which has no grants: what is found is what the user may without any.
                let is_allowed = authorize(Authority::Read, &request.actor, user, &self.name, conversation);
                let first = || visible_from(&request.actor, user, &self.name, conversation);
                Ok(AtLog {
                    epoch: contents.epoch,
                    head: contents.head,
                    floor: contents.floor(),
                    event,
                    reads_from: is_allowed.map(|()| first()).map_err(|denied| Refusal::from(denied).code),
                    is_deleted: conversation.deleted,
                    member: conversation.member(user),
                    removed_at: conversation.removed_at(user),
                    is_blocked: self.blocks.is_any(),
                    delivered: cursor.delivered,
                    read: cursor.read,
                })
            }
            _ => Err(ErrorCode::Overloaded),
        };
        explaining.go_to_inbox(fx);
    }

    /// What the user's inbox says about the event.
    pub(super) fn explain_user(&self, fx: &mut Effects, request: Box<Request>) {
        let (Operation::ExplainUser(mut explaining), State::Ready(contents)) = (request.operation, &self.state) else {
            return;
        };
        let (inbox, explanation) = (&contents.inbox, &mut explaining.explanation);
        let question = &explanation.question;
        let sender = match &explanation.log {
            Ok(AtLog { event: Found::Event(event), .. }) => Some(event.sender.as_str()),
            _ => None,
        };
        let mine = match &question.log {
            LogName::Conversation(id) => inbox.membership(id),
            LogName::Inbox(_) => None,
        };
        explanation.inbox = Ok(AtInbox {
            is_hidden: inbox.is_hidden(&question.log, question.seq),
            blocks_sender: sender.is_some_and(|sender| inbox.blocked().contains(sender)),
            is_muted: mine.is_some_and(|mine| mine.muted),
            tokens_not_before_ms: inbox.not_before_ms(),
        });
        explaining.go_to_seats(fx);
    }
}

/// The question goes on although this log cannot be read.
pub(super) fn refused(fx: &mut Effects, operation: &Operation, code: ErrorCode) {
    match operation {
        Operation::Explain(explaining) => {
            let mut explaining: Explaining = explaining.as_ref().clone();
            explaining.explanation.log = Err(code);
            explaining.go_to_inbox(fx);
        }
        Operation::ExplainUser(explaining) => {
            let mut explaining: Explaining = explaining.as_ref().clone();
            explaining.explanation.inbox = Err(code);
            explaining.go_to_seats(fx);
        }
        _ => {}
    }
}

fn stored(row: &Row) -> StoredEvent {
    StoredEvent {
        event_id: row.event_id(),
        kind: row.kind(),
        sender: row.sender().to_owned(),
        time_ms: row.time_ms(),
        is_redacted: row.is_redacted(),
    }
}
