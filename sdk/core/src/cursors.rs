//! One's own cursors: merged, at most one CURSOR a second per log, restated after a reconnect.
//!
//! They also move without a CURSOR: with each message that the user sends, from this device or another, and when another
//! device moves them. What the broker knows so is not told to it again.

use std::collections::BTreeMap;

use antiphon_protocol::{FrameType, LogName, control, frames};

use crate::{
    error::Refusal,
    limits::{CURSOR_INTERVAL, CURSORS_MAX},
    link::{Link, Pending},
    timers::Timer,
};

#[derive(Debug, Default)]
struct OwnCursor {
    delivered: u64,
    read: u64,
    /// Whether the broker has yet to be told.
    dirty: bool,
    /// Whether the application has moved it, so that it is restated: the broker may have lost its last two seconds.
    moved: bool,
    /// Whether it is restated once the log is attached.
    awaits_attach: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Cursors {
    logs: BTreeMap<LogName, OwnCursor>,
}

impl Cursors {
    /// Moves cursors; never back.
    pub(crate) fn advance(&mut self, link: &mut Link, log: LogName, delivered: u64, read: u64) {
        self.make_room(&log, link);
        let cursor = self.logs.entry(log.clone()).or_default();
        // What has been read has also arrived.
        let delivered = delivered.max(read);
        let moves = delivered > cursor.delivered || read > cursor.read;
        cursor.dirty |= moves;
        cursor.moved |= moves;
        cursor.delivered = cursor.delivered.max(delivered);
        cursor.read = cursor.read.max(read);
        if !link.timers.is_set(&Timer::Cursor(log.clone())) {
            self.write(link, &log);
        }
    }

    /// The broker has them here by itself.
    pub(crate) fn note(&mut self, log: &LogName, delivered: u64, read: u64) {
        // Without it at most a CURSOR too many is sent, so nothing is forgotten for its sake.
        if self.logs.len() >= CURSORS_MAX && !self.logs.contains_key(log) {
            return;
        }
        let cursor = self.logs.entry(log.clone()).or_default();
        let delivered = delivered.max(read);
        cursor.dirty &= delivered < cursor.delivered || read < cursor.read;
        cursor.delivered = cursor.delivered.max(delivered);
        cursor.read = cursor.read.max(read);
    }

    /// The log's positions mean other events now.
    pub(crate) fn forget(&mut self, link: &mut Link, log: &LogName) {
        self.logs.remove(log);
        link.timers.cancel(&Timer::Cursor(log.clone()));
    }

    fn make_room(&mut self, log: &LogName, link: &mut Link) {
        if self.logs.len() < CURSORS_MAX || self.logs.contains_key(log) {
            return;
        }
        let clean = self.logs.iter().find(|(_, cursor)| !cursor.dirty).map(|(log, _)| log.clone());
        if let Some(log) = clean.or_else(|| self.logs.keys().next().cloned()) {
            self.logs.remove(&log);
            link.timers.cancel(&Timer::Cursor(log));
        }
    }

    /// Writes one cursor, if there is news and a session; the next one follows a second later at the earliest.
    fn write(&mut self, link: &mut Link, log: &LogName) {
        let Some(cursor) = self.logs.get_mut(log).filter(|cursor| cursor.dirty && link.ready) else { return };
        cursor.dirty = false;
        let body = control::Cursor {
            log: log.to_string(),
            delivered: cursor.delivered,
            read: cursor.read,
            act_as: String::new(),
        };
        link.request(Pending::Cursor(log.clone()), |id| frames::control(FrameType::Cursor, id, &body));
        link.set_timer(Timer::Cursor(log.clone()), CURSOR_INTERVAL);
    }

    /// A cursor may be written again.
    pub(crate) fn due(&mut self, link: &mut Link, log: &LogName) {
        self.write(link, log);
    }

    pub(crate) fn refused(&mut self, link: &mut Link, log: &LogName, refusal: &Refusal) {
        if !refusal.is_transient() {
            self.logs.remove(log);
        } else if let Some(cursor) = self.logs.get_mut(log) {
            cursor.dirty = true;
            let delay = CURSOR_INTERVAL.max(refusal.retry_after.unwrap_or_default());
            link.set_timer(Timer::Cursor(log.clone()), delay);
        }
    }

    /// A session stands: the broker may have lost the last cursors, so they are restated. Those of logs that are
    /// `followed` wait for the ATTACH, which says whether their positions still mean the same.
    pub(crate) fn ready(&mut self, link: &mut Link, followed: impl Fn(&LogName) -> bool) {
        let logs: Vec<LogName> = self.logs.keys().cloned().collect();
        for log in logs {
            let Some(cursor) = self.logs.get_mut(&log).filter(|cursor| cursor.moved) else { continue };
            cursor.awaits_attach = followed(&log);
            cursor.dirty |= !cursor.awaits_attach;
            self.write(link, &log);
        }
    }

    /// ATTACH, with positions that mean the same as before.
    pub(crate) fn attached(&mut self, link: &mut Link, log: &LogName) {
        if let Some(cursor) = self.logs.get_mut(log)
            && std::mem::take(&mut cursor.awaits_attach)
        {
            cursor.dirty = true;
            self.write(link, log);
        }
    }
}
