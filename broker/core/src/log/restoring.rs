//! Last step of taking a log up: the records of the messages that the rows behind the checkpoint concern are read, and
//! those rows folded in, before the first request is carried out.

use std::collections::BTreeMap;

use antiphon_protocol::{Row, fold};
use antiphon_storage_contract::{Op, Outcome, StoreError, Token};
use bytes::Bytes;

use super::{Contents, Log, Purpose, State, send};
use crate::effects::Effects;

/// A log that is read but for the records of messages that its newest rows concern.
#[derive(Debug)]
pub(super) struct Restoring {
    pub(super) contents: Box<Contents>,
    /// The rows behind the checkpoint that concern messages.
    rows: Vec<Row>,
    missing: BTreeMap<Token, Bytes>,
    found: BTreeMap<Bytes, Bytes>,
}

impl Log {
    /// Reads what `rows` concern, and then begins.
    pub(super) fn restore(&mut self, fx: &mut Effects, contents: Contents, mut rows: Vec<Row>) {
        // Nobody asks for what became of a message that is gone.
        rows.retain(|row| fold::target(row).is_some_and(|seq| seq >= contents.floor()));
        let read = |key: Bytes| {
            let op = Op::GetRecord { log: self.key, key: key.clone() };
            (fx.store(op, Purpose::RestoreState(key.clone())), key)
        };
        let missing = contents.messages.missing_for(rows.iter()).into_iter().map(read).collect();
        let restoring = Restoring { contents: Box::new(contents), rows, missing, found: BTreeMap::new() };
        self.state = State::Restoring(Box::new(restoring));
        self.take_up(fx);
    }

    /// A record of a message was read, for the rows behind the checkpoint.
    pub(super) fn state_restored(
        &mut self,
        fx: &mut Effects,
        token: Token,
        key: Bytes,
        result: Result<Outcome, StoreError>,
    ) {
        let State::Restoring(restoring) = &mut self.state else { return };
        if restoring.missing.remove(&token).is_none() {
            return;
        }
        match result {
            Ok(Outcome::Record(record)) => restoring.found.extend(record.map(|record| (key, record))),
            Ok(_) => {}
            Err(error) => {
                self.cursors = std::mem::take(&mut restoring.contents.cursors);
                return self.load_failed(fx, &error);
            }
        }
        self.take_up(fx);
    }

    /// Begins to carry requests out, once everything was read.
    fn take_up(&mut self, fx: &mut Effects) {
        let Restoring { mut contents, rows, found, .. } =
            match std::mem::replace(&mut self.state, State::Failing { outstanding: 0 }) {
                State::Restoring(restoring) if restoring.missing.is_empty() => *restoring,
                other => {
                    self.state = other;
                    return;
                }
            };
        contents.messages.restore(&rows, &found);
        contents.messages.save(fx, self.key);
        // The tail may end in redactions whose rewrite was lost with the process; they are written again.
        send::repair_redactions(&mut contents, &rows);
        contents.redactions.submit(fx, self.key);
        self.state = State::Ready(contents);
        self.settle(fx);
        self.expire_first(fx);
        self.drain(fx);
    }
}
