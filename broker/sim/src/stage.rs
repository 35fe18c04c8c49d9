//! What every part of the world shares: the time, the agenda, chance, and the record of what happened.

use std::net::SocketAddr;

use antiphon_core::{Claims, Input, ShardMessage, TokenRefusal, VerifyTicket};
use bytes::BytesMut;

use crate::{
    agenda::Agenda,
    clock::{Clock, Moment},
    digest::Running,
    random::Random,
    tally::Tally,
};

/// One of the broker's starts; what belongs to an earlier one no longer happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Boot(pub(crate) u64);

/// Place of a client in the world's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClientIndex(pub(crate) usize);

/// Place of a shard in the broker's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShardIndex(pub(crate) usize);

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A datagram reaches the broker's address.
    AtBroker {
        /// The client's address as the broker sees it.
        from: SocketAddr,
        /// Its content.
        bytes: BytesMut,
    },
    /// A datagram reaches a client's address.
    AtClient {
        /// Whose link it came by.
        client: ClientIndex,
        /// The address that it was sent to; the client may have another one by now.
        to: SocketAddr,
        /// Its content.
        bytes: BytesMut,
    },
    /// A shard takes a turn of its loop.
    Turn(Boot, ShardIndex),
    /// A shard's own time has come.
    ShardDue(Boot, ShardIndex),
    /// One of the disk requests of a shard finishes.
    DiskDone(Boot, ShardIndex),
    /// Something is ready for a shard: a completion that took time.
    Ready(Boot, ShardIndex, Box<Input>),
    /// A token has been verified.
    Verified(Boot, ShardIndex, VerifyTicket, Box<Result<Claims, TokenRefusal>>),
    /// Mail reaches a shard.
    Mail(Boot, ShardIndex, ShardIndex, Box<ShardMessage>),
    /// The broker crashes.
    Crash(Boot),
    /// The broker, after its drain, closes its connections and brings its logs to rest.
    Stop(Boot),
    /// The broker's process ends after that, whether or not everything came to rest.
    Ended(Boot),
    /// The broker starts.
    Start,
    /// The disk has space again.
    SpaceReturns,
    /// A client's own time has come.
    ClientDue(ClientIndex),
    /// The token provider of a client answers; of this life of the client.
    Token(ClientIndex, u32),
    /// The workload does its next step.
    Act,
}

/// The world's common ground.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Now.
    pub(crate) now: Moment,
    /// Translates it.
    pub(crate) clock: Clock,
    /// What is going to happen.
    pub(crate) agenda: Agenda<Happening>,
    /// Chance of everything but the workload.
    pub(crate) random: Random,
    /// Counts.
    pub(crate) tally: Tally,
    /// Digest of everything that happened.
    pub(crate) digest: Running,
    trace: Option<Vec<String>>,
}

impl Stage {
    /// Before the beginning. Keeps lines of text only if `with_trace`.
    pub(crate) fn new(seed: u64, with_trace: bool) -> Self {
        Self {
            now: Moment::default(),
            clock: Clock::start(),
            agenda: Agenda::default(),
            random: Random::new(seed, "stage"),
            tally: Tally::default(),
            digest: Running::default(),
            trace: with_trace.then(Vec::new),
        }
    }

    /// Lets something happen then.
    pub(crate) fn at(&mut self, when: Moment, what: Happening) {
        self.agenda.add(when.max(self.now), what);
    }

    /// Records bytes that went from one part of the world to another.
    pub(crate) fn saw_bytes(&mut self, bytes: &[u8]) {
        self.digest.add(&self.now.0.to_le_bytes());
        self.digest.add(bytes);
    }

    /// Records a step. `line` is called only where its text is kept or the step would otherwise leave no mark.
    pub(crate) fn saw(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>13.6} {}", self.now.0 as f64 / 1e9, line()));
        }
    }

    /// The lines so far, if they are kept.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }
}
