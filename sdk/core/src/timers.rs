//! The client's deadlines: at most one for each thing that waits.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::LogName;

use crate::{
    input::{CommandId, SubscriptionId},
    time::Time,
};

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The next step of the connection's phase.
    Connection,
    /// A fresh token is due.
    Token,
    /// Sends to a log are due again after a refusal.
    Sends(LogName),
    /// A subscription is due again.
    Subscription(SubscriptionId),
    /// A cursor may be sent again.
    Cursor(LogName),
    /// A request is due again after a refusal.
    Request(CommandId),
    /// The list of watched users is due again after a refusal.
    Presence,
    /// A page request is due again after a refusal.
    Page(CommandId),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_key: BTreeMap<Timer, Time>,
    by_time: BTreeSet<(Time, Timer)>,
}

impl Timers {
    /// Sets, or moves, a deadline.
    pub(crate) fn set(&mut self, timer: Timer, at: Time) {
        self.cancel(&timer);
        self.by_key.insert(timer.clone(), at);
        self.by_time.insert((at, timer));
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, at)) = self.by_key.remove_entry(timer) {
            self.by_time.remove(&(at, timer));
        }
    }

    pub(crate) fn cancel_all(&mut self) {
        self.by_key.clear();
        self.by_time.clear();
    }

    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.by_key.contains_key(timer)
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out the earliest deadline that has passed.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (_, timer) = self.by_time.pop_first()?;
        self.by_key.remove(&timer);
        Some(timer)
    }
}
