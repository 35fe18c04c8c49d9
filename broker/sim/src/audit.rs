//! Reads the whole history of every log at the end of a run, through a client of its own.

use std::time::Duration;

use antiphon_sdk_core::{Command, CommandId, Event, Page, Range, RequestError};

use crate::{person::LogIndex, stage::ClientIndex, world::World};

/// Longest virtual time for one page.
const PATIENCE: Duration = Duration::from_secs(60);

/// A reading in progress.
#[derive(Debug)]
pub(crate) struct Audit {
    /// Who reads.
    pub(crate) client: ClientIndex,
    answer: Option<Result<Page, RequestError>>,
}

impl Audit {
    /// Nothing has been asked.
    pub(crate) fn new(client: ClientIndex) -> Self {
        Self { client, answer: None }
    }

    /// A page, or why there is none.
    pub(crate) fn page_came(&mut self, result: Result<Page, RequestError>) {
        self.answer = Some(result);
    }
}

impl World {
    /// Reads a log from its beginning to its end.
    pub(crate) fn read_history(&mut self, log: LogIndex) -> Result<Vec<Event>, String> {
        let mut events = Vec::new();
        let mut from = 1;
        loop {
            let page = self.read_page(log, from)?;
            if page.floor > from {
                // What was read of it is gone meanwhile, and more behind that.
                events.clear();
            }
            events.extend(page.events);
            match page.next {
                Some(next) if next > from => from = next,
                Some(next) => return Err(format!("log {} goes on at {next} after {from}", log.0)),
                None => return Ok(events),
            }
        }
    }

    fn read_page(&mut self, log: LogIndex, from: u64) -> Result<Page, String> {
        let Some(client) = self.audit.as_ref().map(|audit| audit.client) else { return Err("no auditor".into()) };
        let id = CommandId(self.recorder.people[client.0].next_command());
        let name = self.recorder.logs[log.0].clone();
        let range = Range { from, ..Range::all(name) };
        self.clients[client.0].command(&self.stage, Command::Fetch { id, range });
        self.poke(client);
        let is_answered = |world: &Self| world.audit.as_ref().is_some_and(|audit| audit.answer.is_some());
        if !self.run_until_so(PATIENCE, is_answered) {
            return Err(format!("log {} could not be read in time", log.0));
        }
        match self.audit.as_mut().and_then(|audit| audit.answer.take()) {
            Some(result) => result.map_err(|error| format!("log {} could not be read: {error}", log.0)),
            None => Err("no answer".into()),
        }
    }
}
