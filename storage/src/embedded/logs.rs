//! What a shard knows of the logs it writes to: their bounds, counting writes that are still in flight.
//!
//! A log is looked up in the index once, before its first write, and forgotten when it has been quiet and too many
//! others came. While a log has writes in flight or a lookup under way it is never forgotten, so an old answer can
//! never take the place of newer bounds.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
};

use antiphon_protocol::LogKey;
use antiphon_storage_contract::{Op, Token};

use super::query::Bounds;

/// Logs that a shard remembers at most, unless more are in use at once.
const LOGS_KNOWN_MAX: usize = 1 << 18;

/// One log.
#[derive(Debug, Default)]
pub(crate) struct Log {
    /// Bounds after every accepted write; unknown until the index has answered.
    pub(crate) bounds: Option<Bounds>,
    /// Writes that wait for the bounds.
    pub(crate) waiting: VecDeque<(Op, Token)>,
    /// Lookups whose answer is still to come.
    pub(crate) lookups: u32,
    /// Last block that holds a write of this log.
    pub(crate) last_block: u64,
    recently_used: bool,
}

/// The logs of one shard.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    known: HashMap<LogKey, Log, BuildHasherDefault<KeyHasher>>,
    /// Every known log once; the front is the next to be forgotten.
    clock: VecDeque<LogKey>,
}

impl Logs {
    /// The log, made if need be. Forgets up to two quiet ones if there are too many; `durable` is the last block that
    /// is known to be durable.
    pub(crate) fn entry(&mut self, key: LogKey, durable: u64) -> &mut Log {
        if self.known.len() >= LOGS_KNOWN_MAX && !self.known.contains_key(&key) {
            self.forget_one(durable);
            self.forget_one(durable);
        }
        match self.known.entry(key) {
            Entry::Occupied(entry) => {
                let log = entry.into_mut();
                log.recently_used = true;
                log
            }
            Entry::Vacant(entry) => {
                self.clock.push_back(key);
                entry.insert(Log::default())
            }
        }
    }

    /// The log, if it is known.
    pub(crate) fn get(&mut self, key: LogKey) -> Option<&mut Log> {
        self.known.get_mut(&key)
    }

    fn forget_one(&mut self, durable: u64) {
        let Some(key) = self.clock.pop_front() else { return };
        let Some(log) = self.known.get_mut(&key) else { return };
        let in_use = log.lookups > 0 || !log.waiting.is_empty() || log.last_block > durable;
        if in_use || log.recently_used {
            log.recently_used = false;
            self.clock.push_back(key);
        } else {
            self.known.remove(&key);
        }
    }
}

/// Log keys are hashes already; mixing their words is enough, and the same in every run.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of a key, always the same.
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> LogKey {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&n.to_be_bytes());
        LogKey(key)
    }

    #[test]
    fn quiet_logs_are_forgotten_and_busy_ones_kept() {
        let mut logs = Logs::default();
        logs.entry(key(0), 0).last_block = 10;
        logs.entry(key(1), 0).lookups = 1;
        for n in 2..3 * LOGS_KNOWN_MAX as u32 {
            logs.entry(key(n), 9);
        }
        assert!(logs.known.len() <= LOGS_KNOWN_MAX + 1);
        assert!(logs.get(key(0)).is_some() && logs.get(key(1)).is_some());
        assert!(logs.get(key(2)).is_none());
    }
}
