//! The storage contract as a test suite over any backend.
//!
//! A backend's own tests implement [`Backend`] and call [`run_all`] and [`model::compare`]. Every check panics with
//! what it expected; the model comparison also prints its seed.

pub mod made_up;
pub mod model;
mod named;
pub mod presence;
pub mod rows;

use std::collections::HashMap;

use antiphon_storage_contract::{Completion, EventLog, Op, Outcome, StoreError, Token};

/// A store under test.
pub trait Backend: EventLog {
    /// Blocks until completions may be ready. Fails the test if nothing happens for long.
    fn wait(&mut self);

    /// Stops and starts the store, as after an orderly stop. Operations that did not complete may be lost.
    fn reopen(self: Box<Self>) -> Box<dyn Backend>;
}

/// Makes empty stores.
pub type Factory<'a> = dyn FnMut() -> Box<dyn Backend> + 'a;

/// A test on an empty store.
type Test = fn(&mut Session);

/// Runs every named test of the contract, each on a store of its own.
pub fn run_all(fresh: &mut Factory<'_>) {
    for (name, test) in named::TESTS {
        eprintln!("contract: {name}");
        test(&mut Session::new(fresh()));
    }
}

/// Drives one store: gives out tokens and matches completions.
pub struct Session {
    backend: Option<Box<dyn Backend>>,
    next_token: u64,
    completed: HashMap<Token, Result<Outcome, StoreError>>,
    order: Vec<Token>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("next_token", &self.next_token).finish_non_exhaustive()
    }
}

impl Session {
    /// Drives `backend`.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        Self { backend: Some(backend), next_token: 0, completed: HashMap::new(), order: Vec::new() }
    }

    fn backend(&mut self) -> &mut dyn Backend {
        self.backend.as_deref_mut().unwrap_or_else(|| panic!("the store did not come back from a stop"))
    }

    /// Begins an operation.
    pub fn submit(&mut self, op: Op) -> Token {
        self.next_token += 1;
        let token = Token(self.next_token);
        self.backend().submit(op, token);
        token
    }

    /// Takes in what is ready now.
    pub fn poll(&mut self) {
        let mut completions = Vec::new();
        self.backend().poll_completions(&mut completions);
        for Completion { token, result } in completions {
            assert!((1..=self.next_token).contains(&token.0), "a completion of {token:?}, which nobody submitted");
            self.order.push(token);
            assert!(self.completed.insert(token, result).is_none(), "a second completion of {token:?}");
        }
    }

    /// Waits for one operation.
    pub fn result(&mut self, token: Token) -> Result<Outcome, StoreError> {
        loop {
            self.poll();
            if let Some(result) = self.completed.get(&token) {
                return result.clone();
            }
            self.backend().wait();
        }
    }

    /// Performs one operation.
    pub fn perform(&mut self, op: Op) -> Result<Outcome, StoreError> {
        let token = self.submit(op);
        self.result(token)
    }

    /// Tokens in the order in which they completed.
    pub fn completion_order(&self) -> &[Token] {
        &self.order
    }

    /// Stops and starts the store.
    pub fn reopen(&mut self) {
        self.backend = self.backend.take().map(Backend::reopen);
    }
}
