//! Hostile traffic: clients that mean no good against the broker's own node, and witnesses that must not suffer.
//!
//! ```text
//! mill -> guilty peers (quinn-proto) -> node (quinn-proto -> decoder -> session -> outbox) <- witnesses
//!                             noise -> /                  store in memory
//! ```
//!
//! A world goes through rounds. In each, a crowd of guilty clients comes and goes until so many frames have been read;
//! then all of them go, and what the broker holds must be what it held before. Half of the worlds have a store that is
//! full for the guilty, so that nothing that they send may stay in memory either.
//!
//! Everything is virtual time and one seed, as in the rest of this crate; links lose nothing, because that is the
//! business of the rest.

mod guilty;
mod mill;
mod noise;
mod peer;
mod requests;
mod rig;
mod witness;
mod world;

use std::{collections::BTreeMap, fmt};

use antiphon_protocol::ErrorCode;

use world::World;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// Frames that the broker must read at least, all shards together.
    pub frames: u64,
    /// Tells how many bytes the calling thread has allocated and not freed; a constant where nobody counts.
    pub heap: fn() -> i64,
}

/// What came of a world, or of several.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Frames that the broker's decoders gave out.
    pub frames: u64,
    /// Of these, refused or the end of their connection.
    pub refused: u64,
    /// Rows that they made durable, those of witnesses included.
    pub appended: u64,
    /// Connections of guilty clients.
    pub connections: u64,
    /// Of these, closed by the broker, by number.
    pub closed: BTreeMap<ErrorCode, u64>,
    /// Raw datagrams beside connections.
    pub datagrams: u64,
    /// Sends of witnesses that were acknowledged and delivered, while all that went on.
    pub pings: u64,
    /// Rounds after which everything was as before.
    pub rounds: u64,
    /// What the broker did that it must not do; empty if all is well.
    pub violations: Vec<String>,
}

impl Outcome {
    /// Adds another world's.
    pub fn merge(&mut self, other: Self) {
        self.frames += other.frames;
        self.refused += other.refused;
        self.appended += other.appended;
        self.connections += other.connections;
        for (code, count) in other.closed {
            *self.closed.entry(code).or_default() += count;
        }
        self.datagrams += other.datagrams;
        self.pings += other.pings;
        self.rounds += other.rounds;
        self.violations.extend(other.violations);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, refused, appended, connections, datagrams, pings, rounds, .. } = self;
        write!(f, "{frames} frames ({refused} refused, {appended} rows) on {connections} connections, ")?;
        write!(f, "{datagrams} raw datagrams, {rounds} rounds, ")?;
        write!(f, "{pings} pings of witnesses; closed:")?;
        for (code, count) in &self.closed {
            write!(f, " {} {count}", code.code())?;
        }
        self.violations.iter().try_for_each(|violation| write!(f, "\n  {violation}"))
    }
}

/// Runs one world.
pub fn run(settings: Settings) -> Outcome {
    World::new(settings).run()
}
