//! What became of sent messages: delivered to somebody, read by somebody.
//!
//! A message and a receipt for it come on different streams, so either may come first: what is kept of a log is how far
//! the others have come, and the messages beyond that.

use std::collections::{BTreeMap, VecDeque};

use antiphon_protocol::{LogName, Position};

use crate::{
    input::CommandId,
    limits::{RECEIPT_LOGS_MAX, RECEIPTS_MAX},
    link::Link,
    output::{Output, SendState},
};

/// How far a user other than the session's has come in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reached {
    pub(crate) epoch: u32,
    pub(crate) delivered: u64,
    pub(crate) read: u64,
}

#[derive(Debug)]
struct Awaited {
    id: CommandId,
    seq: u64,
    delivered: bool,
}

#[derive(Debug, Default)]
struct LogReceipts {
    /// Positions of another epoch mean other events.
    epoch: u32,
    /// How far somebody else has come.
    delivered: u64,
    read: u64,
    /// The newest own messages that nobody has read yet.
    awaited: VecDeque<Awaited>,
}

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    logs: BTreeMap<LogName, LogReceipts>,
}

impl Receipts {
    /// A message is durable, which was just told.
    pub(crate) fn sent(&mut self, link: &mut Link, id: CommandId, log: &LogName, at: Position) {
        let receipts = self.log(log);
        receipts.enter(at.epoch);
        if receipts.epoch != at.epoch {
            return;
        }
        if receipts.awaited.len() >= RECEIPTS_MAX {
            receipts.awaited.pop_front();
        }
        receipts.awaited.push_back(Awaited { id, seq: at.seq, delivered: false });
        receipts.tell(link);
    }

    /// Somebody else has come this far.
    pub(crate) fn reached(&mut self, link: &mut Link, log: &LogName, reached: Reached) {
        let receipts = self.log(log);
        receipts.enter(reached.epoch);
        if receipts.epoch != reached.epoch {
            return;
        }
        receipts.read = receipts.read.max(reached.read);
        receipts.delivered = receipts.delivered.max(reached.delivered).max(receipts.read);
        receipts.tell(link);
    }

    fn log(&mut self, log: &LogName) -> &mut LogReceipts {
        if self.logs.len() >= RECEIPT_LOGS_MAX && !self.logs.contains_key(log) {
            let unawaited = self.logs.iter().find(|(_, receipts)| receipts.awaited.is_empty());
            let forgotten = unawaited.or_else(|| self.logs.first_key_value()).map(|(log, _)| log.clone());
            if let Some(forgotten) = forgotten {
                self.logs.remove(&forgotten);
            }
        }
        self.logs.entry(log.clone()).or_default()
    }
}

impl LogReceipts {
    /// A newer epoch begins anew.
    fn enter(&mut self, epoch: u32) {
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
    }

    fn tell(&mut self, link: &mut Link) {
        let (delivered, read) = (self.delivered, self.read);
        self.awaited.retain_mut(|awaited| {
            if awaited.seq <= read {
                link.emit(Output::Send { id: awaited.id, state: SendState::Read });
            } else if awaited.seq <= delivered && !awaited.delivered {
                awaited.delivered = true;
                link.emit(Output::Send { id: awaited.id, state: SendState::Delivered });
            }
            awaited.seq > read
        });
    }
}
