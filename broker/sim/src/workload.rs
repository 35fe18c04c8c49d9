//! What clients and fate do next: a closed list of actions, drawn from a seed.

use std::time::Duration;

use crate::{person::LogIndex, phase::Phase, random::Random, stage::ClientIndex};

/// Something that is done. Indexes are drawn from the whole range; the world takes them modulo what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send messages to one log, one after the other without waiting.
    Send { client: ClientIndex, log: LogIndex, count: u32, bytes: usize },
    /// Send again what an earlier life left without an answer.
    Retry { client: ClientIndex },
    /// Follow a log.
    Subscribe { client: ClientIndex, log: LogIndex, from: Start },
    /// Follow it no more.
    Unsubscribe { client: ClientIndex, log: LogIndex },
    /// Read a page.
    Page { client: ClientIndex, log: LogIndex, is_backward: bool, rows: u32, from: u64 },
    /// Move the own cursor to the last event.
    Cursor { client: ClientIndex, log: LogIndex },
    /// Show that somebody types.
    Signal { client: ClientIndex, log: LogIndex },
    /// The manager adds a user to a conversation.
    AddMember { user: u32, log: LogIndex },
    /// The manager removes a user from a conversation.
    RemoveMember { user: u32, log: LogIndex },
    /// The link carries nothing for a while.
    Cut { client: ClientIndex, time: Duration },
    /// The connection is lost at the next moment in which the client is in this phase.
    CutIn { client: ClientIndex, phase: Phase },
    /// The client's address changes.
    Rebind { client: ClientIndex, notices: bool },
    /// The client does not read for a while.
    Sleep { client: ClientIndex, time: Duration },
    /// The client's process starts anew.
    RestartClient { client: ClientIndex },
    /// The client's link becomes another one.
    ChangeLink { client: ClientIndex },
    /// The broker crashes; `at_writes`: at the next moment with writes under way.
    Crash { at_writes: bool },
    /// The broker stops in an orderly manner.
    Drain,
    /// A shard does nothing for a while.
    Pause { shard: usize, time: Duration },
    /// A shard's disk does nothing for a while.
    StallDisk { shard: usize, time: Duration },
    /// The disk has no space for a while.
    FillDisk { time: Duration },
    /// The next sync fails.
    FailSync,
}

/// Where a subscription is to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// With what comes.
    Tail,
    /// With the newest.
    Last(u32),
    /// With the oldest.
    Oldest,
    /// After what the application has kept.
    Kept,
}

/// Sizes of a run, drawn from its seed.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Operations at least.
    pub operations: u64,
    /// Crashes at least.
    pub crashes: u64,
    /// Clients besides the manager.
    pub clients: usize,
    /// Users among whom they are divided.
    pub users: u32,
    /// Logs that are open to all.
    pub open_logs: usize,
    /// Conversations with members.
    pub rooms: usize,
    /// Further ones, which keep their events for the shortest time only.
    pub fading_rooms: usize,
    /// Longest time between two actions.
    pub pause_max: Duration,
    /// Numbers of shards that a start may choose from.
    pub shard_counts: Vec<u16>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed, "plan");
        let shard_counts = match random.below(5) {
            0 => vec![1],
            1 => vec![4],
            2 => vec![1, 2, 4],
            _ => vec![2],
        };
        Self {
            operations: 2_000 + random.below(400),
            crashes: 3 + random.below(3),
            clients: 5 + random.index(5),
            users: 3 + random.below(3) as u32,
            open_logs: 2 + random.index(3),
            rooms: 1 + random.index(2),
            pause_max: Duration::from_millis(20 + random.below(100)),
            shard_counts,
            fading_rooms: random.index(2),
        }
    }
}

/// Draws actions.
#[derive(Debug)]
pub(crate) struct Workload {
    random: Random,
    clients: usize,
    users: u32,
    open_logs: usize,
    logs: usize,
    pause_max: Duration,
}

impl Workload {
    /// The workload of a seed.
    pub(crate) fn new(seed: u64, plan: &Plan) -> Self {
        Self {
            random: Random::new(seed, "workload"),
            clients: plan.clients,
            users: plan.users,
            open_logs: plan.open_logs,
            logs: plan.open_logs + plan.rooms + plan.fading_rooms,
            pause_max: plan.pause_max,
        }
    }

    /// Time until the next action.
    pub(crate) fn pause(&mut self) -> Duration {
        if self.random.per_mille(300) {
            return Duration::ZERO;
        }
        self.random.duration(Duration::ZERO, self.pause_max)
    }

    /// Chance for the details of actions.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// A user and a conversation with members.
    fn membership(&mut self) -> (u32, LogIndex) {
        let rooms = (self.logs - self.open_logs) as u64;
        let log = LogIndex(self.open_logs + self.random.below(rooms) as usize);
        (self.random.below(self.users.into()) as u32, log)
    }

    fn ms(&mut self, min: u64, max: u64) -> Duration {
        self.random.duration(Duration::from_millis(min), Duration::from_millis(max))
    }

    /// The next action.
    pub(crate) fn next(&mut self) -> Action {
        let client = ClientIndex(self.random.index(self.clients));
        let log = LogIndex(self.random.index(self.logs));
        match self.random.below(1_000) {
            0..560 => Action::Send { client, log, count: 1, bytes: self.body_bytes() },
            560..590 => Action::Send { client, log, count: 2 + self.random.below(12) as u32, bytes: self.body_bytes() },
            590..592 => Action::Send { client, log, count: 64, bytes: 4_000 },
            592..610 => Action::Retry { client },
            610..690 => Action::Subscribe { client, log, from: self.start() },
            690..715 => Action::Unsubscribe { client, log },
            715..795 => {
                let (is_backward, rows) = (self.random.per_mille(500), self.random.below(120) as u32);
                let from = if self.random.per_mille(500) { 1 + self.random.below(60) } else { 0 };
                Action::Page { client, log, is_backward, rows, from }
            }
            795..840 => Action::Cursor { client, log },
            840..860 => Action::Signal { client, log },
            860..875 => {
                let (user, log) = self.membership();
                Action::AddMember { user, log }
            }
            875..885 => {
                let (user, log) = self.membership();
                Action::RemoveMember { user, log }
            }
            rest => self.fault(rest, client),
        }
    }

    fn fault(&mut self, choice: u64, client: ClientIndex) -> Action {
        match choice {
            885..893 => Action::Cut { client, time: self.cut_time() },
            893..955 => Action::CutIn { client, phase: Phase::ALL[self.random.index(Phase::ALL.len())] },
            955..963 => Action::Rebind { client, notices: self.random.per_mille(500) },
            963..969 => Action::Sleep { client, time: self.ms(500, 8_000) },
            969..974 => Action::RestartClient { client },
            974..980 => Action::ChangeLink { client },
            980..983 => Action::Crash { at_writes: self.random.per_mille(700) },
            983 => Action::Drain,
            984..990 => Action::Pause { shard: self.random.index(64), time: self.ms(5, 300) },
            990..997 => Action::StallDisk { shard: self.random.index(64), time: self.ms(5, 400) },
            997..999 => Action::FillDisk { time: self.ms(50, 2_000) },
            _ => Action::FailSync,
        }
    }

    /// How long a link is cut: mostly shorter than the idle timeout, sometimes longer.
    pub(crate) fn cut_time(&mut self) -> Duration {
        if self.random.per_mille(800) { self.ms(20, 3_000) } else { self.ms(9_000, 14_000) }
    }

    fn body_bytes(&mut self) -> usize {
        match self.random.below(100) {
            0 => 20_000 + self.random.index(40_000),
            1..10 => 1_000 + self.random.index(3_000),
            _ => 12 + self.random.index(200),
        }
    }

    fn start(&mut self) -> Start {
        match self.random.below(5) {
            0 => Start::Tail,
            1 => Start::Last(self.random.below(100) as u32),
            2 => Start::Oldest,
            _ => Start::Kept,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_draws_the_same_actions() {
        let draw = |seed| {
            let mut workload = Workload::new(seed, &Plan::new(seed));
            (0..500).map(|_| workload.next()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn every_plan_has_work_and_crashes() {
        for seed in 0..200 {
            let plan = Plan::new(seed);
            assert!(plan.operations >= 2_000 && plan.crashes >= 3 && plan.rooms >= 1, "{plan:?}");
        }
    }
}
