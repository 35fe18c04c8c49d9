//! Who waits for what: the calls that the client's outputs answer.

use std::collections::{BTreeMap, VecDeque};

use antiphon_sdk_core::{
    Answer, Attached, CommandId, DetachReason, Messages, Page, Receipt, RequestError, SendError, SendState,
};
use tokio::sync::{oneshot, watch};

use crate::queued::Fate;

/// Sent messages whose receipts are still told; the oldest is forgotten.
const RECEIPTS_MAX: usize = 256;

pub(crate) type SendReply = oneshot::Sender<Result<Receipt, SendError>>;
pub(crate) type PageReply = oneshot::Sender<Result<Page, RequestError>>;
pub(crate) type MessagesReply = oneshot::Sender<Result<Messages, RequestError>>;
pub(crate) type AnswerReply = oneshot::Sender<Result<Answer, RequestError>>;
pub(crate) type DoneReply = oneshot::Sender<Result<(), RequestError>>;
pub(crate) type AttachReply = oneshot::Sender<Result<Attached, DetachReason>>;

/// One map per kind of call. A caller that has gone away is noticed when its answer comes.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) sends: BTreeMap<CommandId, SendReply>,
    pub(crate) followers: BTreeMap<CommandId, watch::Sender<Fate>>,
    sent: VecDeque<CommandId>,
    pub(crate) pages: BTreeMap<CommandId, PageReply>,
    pub(crate) messages: BTreeMap<CommandId, MessagesReply>,
    pub(crate) answers: BTreeMap<CommandId, AnswerReply>,
    pub(crate) done: BTreeMap<CommandId, DoneReply>,
}

impl Waiters {
    pub(crate) fn send_state(&mut self, id: CommandId, state: SendState) {
        if self.followers.contains_key(&id) {
            return self.followed_state(id, state);
        }
        let result = match state {
            SendState::Sent(receipt) => Ok(receipt),
            SendState::Failed(error) => Err(error),
            _ => return,
        };
        if let Some(reply) = self.sends.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    fn followed_state(&mut self, id: CommandId, state: SendState) {
        let ended = matches!(state, SendState::Failed(_) | SendState::Read);
        if matches!(state, SendState::Sent(_)) {
            self.sent.push_back(id);
            if self.sent.len() > RECEIPTS_MAX
                && let Some(oldest) = self.sent.pop_front()
            {
                self.followers.remove(&oldest);
            }
        }
        if let Some(follower) = self.followers.get(&id) {
            follower.send_modify(|fate| fate.enter(state));
        }
        if ended {
            self.followers.remove(&id);
            self.sent.retain(|sent| *sent != id);
        }
    }

    pub(crate) fn page(&mut self, id: CommandId, result: Result<Page, RequestError>) {
        if let Some(reply) = self.pages.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn messages(&mut self, id: CommandId, result: Result<Messages, RequestError>) {
        if let Some(reply) = self.messages.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn answer(&mut self, id: CommandId, result: Result<Answer, RequestError>) {
        if let Some(reply) = self.answers.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }

    pub(crate) fn done(&mut self, id: CommandId, result: Result<(), RequestError>) {
        if let Some(reply) = self.done.remove(&id) {
            // The caller may have stopped waiting.
            let _ = reply.send(result);
        }
    }
}
