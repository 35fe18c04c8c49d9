//! The logs that a shard has in memory, found by hash, and which of them goes when there are too many.
//!
//! Invariant: every log stands once in the clock (Corbató 1968), whose hand is its front.

use std::collections::VecDeque;

use antiphon_protocol::LogKey;
use hashbrown::{HashMap, hash_map::Entry};

use crate::{hash_key::HashKey, log::Log};

/// Logs that the hand passes at most in search of one that may go.
const LOOKED_AT_MAX: usize = 16;

#[derive(Debug)]
struct Resident {
    /// In a box, because up to half of a table's places are free.
    log: Box<Log>,
    is_recently_used: bool,
}

/// The logs of one shard.
#[derive(Debug)]
pub(crate) struct Logs {
    by_key: HashMap<LogKey, Resident, HashKey>,
    clock: VecDeque<LogKey>,
}

impl Logs {
    pub(crate) fn new(hash_key: HashKey) -> Self {
        Self { by_key: HashMap::with_hasher(hash_key), clock: VecDeque::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn get(&self, key: LogKey) -> Option<&Log> {
        self.by_key.get(&key).map(|resident| &*resident.log)
    }

    pub(crate) fn get_mut(&mut self, key: LogKey) -> Option<&mut Log> {
        self.by_key.get_mut(&key).map(|resident| &mut *resident.log)
    }

    /// The same for a request, which makes the log one that was used recently.
    pub(crate) fn use_mut(&mut self, key: LogKey) -> Option<&mut Log> {
        let resident = self.by_key.get_mut(&key)?;
        resident.is_recently_used = true;
        Some(&mut resident.log)
    }

    /// Puts a log in that is not there, for a request.
    pub(crate) fn insert(&mut self, key: LogKey, log: Log) -> &mut Log {
        let resident = Resident { log: Box::new(log), is_recently_used: true };
        match self.by_key.entry(key) {
            Entry::Occupied(mut there) => {
                there.insert(resident);
                &mut there.into_mut().log
            }
            Entry::Vacant(free) => {
                self.clock.push_back(key);
                &mut free.insert(resident).log
            }
        }
    }

    /// Takes out a log that may go: one that was not used since the hand passed it, or the first of those that it passes now.
    pub(crate) fn take_unused(&mut self, may_go: impl Fn(LogKey, &Log) -> bool) -> Option<Log> {
        let (mut unused, mut used) = (None, None);
        for _ in 0..LOOKED_AT_MAX.min(self.clock.len()) {
            let key = self.clock.pop_front()?;
            let Some(resident) = self.by_key.get_mut(&key) else { continue };
            let was_used = std::mem::take(&mut resident.is_recently_used);
            match may_go(key, &resident.log) {
                true if !was_used => {
                    unused = Some(key);
                    break;
                }
                true if used.is_none() => used = Some(key),
                _ => self.clock.push_back(key),
            }
        }
        if unused.is_some() {
            self.clock.extend(used.take());
        }
        self.by_key.remove(&unused.or(used)?).map(|resident| *resident.log)
    }

    /// All of them, in the order of the clock.
    pub(crate) fn keys(&self) -> Vec<LogKey> {
        self.clock.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use antiphon_protocol::{LogName, TenantId};

    use super::*;
    use crate::{
        effects::Effects,
        log::Place,
        routing::{Routing, ShardId},
    };

    /// So many logs in a shard's memory; their keys in the order in which they came.
    fn logs(count: u32) -> (Logs, Vec<LogKey>) {
        let mut fx = Effects::new(ShardId(0), Routing::new(1), [7; 32]);
        let mut logs = Logs::new(fx.hash_key);
        let tenant = TenantId::new("acme").unwrap();
        let load = |handle| {
            let name: LogName = format!("c:{handle}").parse().unwrap();
            let key = name.key(&tenant);
            logs.insert(key, Log::load(&mut fx, Place { tenant: tenant.clone(), name, key, handle }, false));
            key
        };
        let keys = (0..count).map(load).collect();
        (logs, keys)
    }

    #[test]
    fn what_was_not_used_since_the_hand_passed_goes_first() {
        let (mut logs, keys) = logs(3);
        assert!(logs.take_unused(|_, _| false).is_none(), "the hand passes all of them");
        assert!(logs.use_mut(keys[0]).is_some());
        assert!(logs.take_unused(|_, _| true).is_some());
        assert!(logs.get(keys[1]).is_none(), "the first that nobody used");
        assert!(logs.use_mut(keys[2]).is_some());
        assert!(logs.take_unused(|_, _| true).is_some());
        assert!(logs.get(keys[0]).is_none(), "it was used before the hand passed it, and not since");
        assert_eq!((logs.len(), logs.keys()), (1, vec![keys[2]]));
    }

    #[test]
    fn where_all_were_used_the_first_one_goes() {
        let (mut logs, keys) = logs(40);
        assert!(logs.take_unused(|_, _| true).is_some());
        assert!(logs.get(keys[0]).is_none());
        assert_eq!(logs.keys().len(), logs.len());
    }

    #[test]
    fn what_may_not_go_stays_and_the_search_has_an_end() {
        let (mut logs, keys) = logs(40);
        assert!(logs.take_unused(|_, _| false).is_none());
        assert_eq!(logs.len(), 40);
        // The hand has passed sixteen, and stands before the next one.
        assert_eq!(logs.keys()[0], keys[LOOKED_AT_MAX]);
        let last = keys[39];
        let taken: Vec<_> = (0..3).filter_map(|_| logs.take_unused(|key, _| key == last)).collect();
        assert!(taken.len() == 1 && logs.get(last).is_none());
    }
}
