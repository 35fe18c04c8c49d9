//! What became of sent messages: delivered to somebody, read by somebody.

use std::collections::VecDeque;

use antiphon_protocol::LogName;

use crate::{
    input::CommandId,
    limits::RECEIPTS_MAX,
    link::Link,
    output::{Cursor, Output, SendState},
};

#[derive(Debug)]
struct Awaited {
    id: CommandId,
    log: LogName,
    seq: u64,
    delivered: bool,
}

/// The newest own messages that nobody has read yet.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    awaited: VecDeque<Awaited>,
}

impl Receipts {
    pub(crate) fn sent(&mut self, id: CommandId, log: LogName, seq: u64) {
        if self.awaited.len() >= RECEIPTS_MAX {
            self.awaited.pop_front();
        }
        self.awaited.push_back(Awaited { id, log, seq, delivered: false });
    }

    /// A member other than the user has come this far.
    pub(crate) fn cursor(&mut self, link: &mut Link, log: &LogName, cursor: &Cursor) {
        self.awaited.retain_mut(|awaited| {
            if awaited.log != *log {
                return true;
            }
            let read = awaited.seq <= cursor.read;
            if read {
                link.emit(Output::Send { id: awaited.id, state: SendState::Read });
            } else if awaited.seq <= cursor.delivered && !awaited.delivered {
                awaited.delivered = true;
                link.emit(Output::Send { id: awaited.id, state: SendState::Delivered });
            }
            !read
        });
    }
}
