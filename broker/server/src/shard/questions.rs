//! Operators' questions that the shard has not answered.

use std::collections::BTreeMap;

use antiphon_core::explain::{Explanation, Question};
use tokio::sync::oneshot;

/// Who waits, by ticket. Bounded by the admin listener's connections, each of which asks once.
#[derive(Debug, Default)]
pub(super) struct Questions {
    waiting: BTreeMap<u64, oneshot::Sender<Box<Explanation>>>,
    tickets: u64,
}

impl Questions {
    /// Gives the question its ticket.
    pub(super) fn add(&mut self, question: &mut Question, answer: oneshot::Sender<Box<Explanation>>) {
        // Who has given up waiting needs no answer.
        self.waiting.retain(|_, waiting| !waiting.is_closed());
        self.tickets += 1;
        question.ticket = self.tickets;
        self.waiting.insert(self.tickets, answer);
    }

    /// Hands the answer to whoever waits for it.
    pub(super) fn answer(&mut self, explanation: Box<Explanation>) {
        if let Some(waiting) = self.waiting.remove(&explanation.question.ticket) {
            let _ = waiting.send(explanation);
        }
    }
}
