//! An engine on a simulated cluster, driven by hand.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::{cell::RefCell, rc::Rc};

use antiphon_cql_engine::{Counters, Engine, Failure, Reply, RequestId, Term, simulated::Cluster};
use antiphon_storage::{Completion, EventLog, Op, Token, conformance::Backend, dice::Dice};

/// The wall clock of the simulation, microseconds.
const NOW_US: i64 = 1_700_000_000_000_000;

/// An owner. What it asks is carried out at once; the answers come in any order.
pub(crate) struct Owner {
    pub(crate) engine: Engine,
    pub(crate) cluster: Rc<RefCell<Cluster>>,
    pub(crate) term: u64,
    dice: Dice,
    answers: Vec<(RequestId, Result<Reply, Failure>)>,
    /// Whether its term is over: writes that succeed count as unknown.
    pub(crate) is_over: bool,
}

impl Owner {
    pub(crate) fn new(cluster: &Rc<RefCell<Cluster>>, term: u64, stamps_after: i64, seed: u64) -> Self {
        let engine = Engine::new(Term { number: term, stamps_after, epoch: 1 });
        Self { engine, cluster: Rc::clone(cluster), term, dice: Dice::new(seed), answers: Vec::new(), is_over: false }
    }

    pub(crate) fn fresh(seed: u64) -> Self {
        Self::new(&Rc::new(RefCell::new(Cluster::new(seed))), 1, 0, seed)
    }

    /// Carries out what the engine asks.
    pub(crate) fn work(&mut self) {
        while let Some((id, request)) = self.engine.poll_request(NOW_US) {
            let result = self.cluster.borrow_mut().perform(&request);
            self.answers.push((id, result));
        }
    }

    /// Gives the engine one answer; false if there is none.
    pub(crate) fn answer_one(&mut self) -> bool {
        if self.answers.is_empty() {
            return false;
        }
        let at = self.dice.below(self.answers.len() as u64) as usize;
        let (id, mut result) = self.answers.swap_remove(at);
        if self.is_over && matches!(result, Ok(Reply::Done)) {
            result = Err(Failure("the term is over".into()));
        }
        self.engine.answered(id, result);
        true
    }

    /// Until nothing is under way.
    pub(crate) fn settle(&mut self, completions: &mut Vec<Completion>) {
        loop {
            self.work();
            self.engine.poll_completions(completions);
            if !self.answer_one() {
                return;
            }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// The owner of the next term, on the same cluster.
    pub(crate) fn successor(&self, seed: u64) -> Self {
        let stamps_after = self.engine.last_stamp().max(NOW_US);
        Self::new(&self.cluster, self.term + 1, stamps_after, seed)
    }
}

impl EventLog for Owner {
    fn submit(&mut self, op: Op, token: Token) {
        self.engine.submit(op, token);
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        self.work();
        self.engine.poll_completions(completions);
    }
}

impl Backend for Owner {
    fn wait(&mut self) {
        self.work();
        assert!(self.answer_one(), "nothing is under way");
    }

    fn reopen(mut self: Box<Self>) -> Box<dyn Backend> {
        let seed = self.dice.roll();
        Box::new(self.successor(seed))
    }
}
