//! What one client's application knows: its sends, its subscriptions, and what it is in the middle of.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_checker::{BodyHash, Instance, OpId, Subscriber};
use antiphon_sdk_core::{CommandId, From, SubscriptionId};
use bytes::Bytes;
use uuid::Uuid;

use crate::{clock::Moment, phase::Phase, tap::Tap};

/// A log of the world, by its place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogIndex(pub(crate) usize);

/// How a client stands with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// On the way.
    Connecting,
    /// The session stands.
    Ready,
    /// The next attempt follows by itself.
    Waiting,
}

/// A message that has not been answered.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Where to.
    pub(crate) log: LogIndex,
    /// Its content.
    pub(crate) body: Bytes,
    /// Of the content.
    pub(crate) hash: BodyHash,
    /// Its id, once it has one.
    pub(crate) id: Option<Uuid>,
    /// The attempt, once its first byte may leave.
    pub(crate) op: Option<OpId>,
}

/// A subscription and what it has brought.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    /// Its name for the checker.
    pub(crate) subscriber: Subscriber,
    /// What is followed.
    pub(crate) log: LogIndex,
    /// Where it was to begin.
    pub(crate) from: From,
    /// The last position that it brought or skipped, once it has taken hold.
    pub(crate) last: Option<u64>,
    /// The log's newest position when it last took hold.
    pub(crate) head: u64,
    /// Whether it has taken hold on this connection.
    pub(crate) is_attached: bool,
}

/// A page that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// Of which log.
    pub(crate) log: LogIndex,
    /// When.
    pub(crate) at: Moment,
    /// First position wanted; 0 = whatever there is.
    pub(crate) from: u64,
    /// Whether newest first.
    pub(crate) is_backward: bool,
    /// From which date on or, newest first, before which; Unix milliseconds, 0 = of any time.
    pub(crate) at_ms: u64,
}

/// One client's application.
#[derive(Debug)]
pub(crate) struct Person {
    /// Number of its user.
    pub(crate) user: u32,
    /// Counts its processes.
    pub(crate) life: u32,
    /// This process, for the checker.
    pub(crate) instance: Instance,
    /// How it stands.
    pub(crate) standing: Standing,
    /// Commands given so far, over all lives.
    pub(crate) commands: u64,
    /// Messages without an answer.
    pub(crate) outgoing: BTreeMap<CommandId, Outgoing>,
    /// Messages of earlier lives without an answer.
    pub(crate) lost: Vec<Outgoing>,
    /// Subscriptions.
    pub(crate) readers: BTreeMap<SubscriptionId, Reader>,
    /// Pages that were asked for.
    pub(crate) asked: BTreeMap<CommandId, Asked>,
    /// Requests without an answer.
    pub(crate) requests: BTreeSet<CommandId>,
    /// The last position of each log that the application has kept.
    pub(crate) kept: BTreeMap<LogIndex, u64>,
    /// The next opportunity to cut its connection in this phase is taken.
    pub(crate) cut_in: Option<Phase>,
}

impl Person {
    /// An application that has done nothing.
    pub(crate) fn new(user: u32, instance: Instance) -> Self {
        Self {
            user,
            life: 0,
            instance,
            standing: Standing::Connecting,
            commands: 0,
            outgoing: BTreeMap::new(),
            lost: Vec::new(),
            readers: BTreeMap::new(),
            asked: BTreeMap::new(),
            requests: BTreeSet::new(),
            kept: BTreeMap::new(),
            cut_in: None,
        }
    }

    /// A number for the next command.
    pub(crate) fn next_command(&mut self) -> u64 {
        self.commands += 1;
        self.commands
    }

    /// The subscription of a log, if there is one.
    pub(crate) fn reader_of(&self, log: LogIndex) -> Option<SubscriptionId> {
        self.readers.iter().find(|(_, reader)| reader.log == log).map(|(id, _)| *id)
    }

    /// Whether nothing is going on and everything that was asked for has come, given the newest position of each log.
    pub(crate) fn is_settled(&self, heads: &[u64]) -> bool {
        let is_current = |reader: &Reader| reader.is_attached && reader.last == heads.get(reader.log.0).copied();
        self.standing == Standing::Ready
            && self.outgoing.is_empty()
            && self.asked.is_empty()
            && self.requests.is_empty()
            && self.readers.values().all(is_current)
    }

    /// What a lost connection would interrupt. `is_durable` tells whether a send is.
    pub(crate) fn is_in(&self, phase: Phase, tap: &Tap, is_durable: impl Fn(&Uuid) -> bool) -> bool {
        let written = || self.outgoing.values().filter(|send| send.op.is_some()).filter_map(|send| send.id.as_ref());
        let is_owed = |reader: &Reader| reader.is_attached && reader.last.is_some_and(|last| last < reader.head);
        let is_owed_anything = || self.readers.values().any(is_owed);
        let is_handed_over = || self.readers.values().all(|reader| reader.is_attached);
        match phase {
            Phase::Connect => self.standing == Standing::Connecting,
            _ if self.standing != Standing::Ready => false,
            Phase::Send => written().any(|id| !is_durable(id)),
            Phase::Ack => written().any(is_durable),
            Phase::HandOver => !is_handed_over() || (is_owed_anything() && tap.inlined),
            Phase::Page => !self.asked.is_empty() || (is_owed_anything() && !tap.inlined),
            Phase::Live => !self.readers.is_empty() && is_handed_over() && !is_owed_anything() && self.asked.is_empty(),
        }
    }
}
