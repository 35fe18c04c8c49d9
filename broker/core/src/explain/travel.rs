//! Where a question goes.

use antiphon_protocol::LogName;

use super::{Explanation, Question};
use crate::{
    actor::Actor,
    connection_id::ConnectionId,
    effects::Effects,
    output::Output,
    routing::ShardId,
    shard_message::{Operation, Origin, Request, ShardMessage},
};

/// A question on its way.
#[derive(Debug, Clone)]
pub struct Explaining {
    /// What has been written down.
    pub(crate) explanation: Explanation,
    /// The shard that was asked.
    pub(crate) asked: ShardId,
    /// Where it goes next.
    pub(crate) next: Next,
    /// Sessions that have not been visited.
    pub(crate) seats: Vec<(ShardId, ConnectionId)>,
}

/// Where a question goes once both logs have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// To the list of the user's devices.
    Seats,
    /// To a session.
    Session(ConnectionId),
    /// Back.
    Answer,
}

/// Sends a question to the log's owner.
pub(crate) fn ask(fx: &mut Effects, question: Question) {
    let log = question.log.clone();
    let explanation = Explanation::new(question);
    let explaining = Explaining { explanation, asked: fx.shard, next: Next::Seats, seats: Vec::new() };
    explaining.ask_owner(fx, log, Operation::Explain);
}

impl Explaining {
    fn ask_owner(self, fx: &mut Effects, log: LogName, operation: impl FnOnce(Box<Self>) -> Operation) {
        let tenant = &self.explanation.question.tenant;
        let (key, actor) = (log.key(tenant), Actor::broker(tenant));
        let operation = operation(Box::new(self));
        let request = Request { origin: Origin::nobody(fx.shard), actor, log, key, operation };
        fx.post(fx.routing.owner(key), ShardMessage::Request(Box::new(request)));
    }

    /// The log's owner has answered.
    pub(crate) fn go_to_inbox(self, fx: &mut Effects) {
        let inbox = LogName::Inbox(self.explanation.question.user.clone());
        self.ask_owner(fx, inbox, Operation::ExplainUser);
    }

    /// The inbox's owner, which is this shard, has answered.
    pub(crate) fn go_to_seats(self, fx: &mut Effects) {
        fx.post(fx.shard, ShardMessage::Explain(Box::new(self)));
    }

    /// To the next session, or back.
    pub(crate) fn travel_on(mut self, fx: &mut Effects) {
        let (shard, next) = match self.seats.pop() {
            Some((shard, connection)) => (shard, Next::Session(connection)),
            None => (self.asked, Next::Answer),
        };
        self.next = next;
        fx.post(shard, ShardMessage::Explain(Box::new(self)));
    }

    /// It has come back.
    pub(crate) fn finish(self, fx: &mut Effects) {
        fx.outputs.push_back(Output::Explained(Box::new(self.explanation)));
    }
}
