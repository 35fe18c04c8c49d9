//! Owner side of HEAD: which shards want to hear that a log has changed, and when each log tells them next.
//!
//! A log tells at most once a second, and then what it is like at that moment: newest wins. It is told to the owners of
//! the users who follow their conversations, in one copy for each shard, and only of users who are members at that
//! moment. The interest is kept here, not in the log, so a log that nobody uses need not stay in memory for it.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_protocol::{LogKey, UserId};

use crate::{limits::DIGEST_INTERVAL, routing::ShardId, time::Time};

/// Users of one shard who follow a log, with the keys of their inboxes.
pub(crate) type Followers = BTreeMap<UserId, LogKey>;

#[derive(Debug, Default)]
struct Interest {
    shards: BTreeMap<ShardId, Followers>,
    /// Before this moment nothing is told.
    not_before: Time,
    is_due: bool,
}

/// The interest in the logs that this shard owns.
#[derive(Debug, Default)]
pub(crate) struct Digests {
    logs: BTreeMap<LogKey, Interest>,
    due: BTreeSet<(Time, LogKey)>,
}

impl Digests {
    /// A user whose owner is `shard` follows the log.
    pub(crate) fn follow(&mut self, log: LogKey, shard: ShardId, user: UserId, inbox: LogKey) {
        self.logs.entry(log).or_default().shards.entry(shard).or_default().insert(user, inbox);
    }

    /// The user does not follow the log any more.
    pub(crate) fn unfollow(&mut self, log: LogKey, shard: ShardId, user: &UserId) {
        let Some(interest) = self.logs.get_mut(&log) else { return };
        let Some(followers) = interest.shards.get_mut(&shard) else { return };
        followers.remove(user);
        if followers.is_empty() {
            interest.shards.remove(&shard);
        }
        if interest.shards.is_empty() {
            self.due.remove(&(interest.not_before, log));
            self.logs.remove(&log);
        }
    }

    /// The log has new rows.
    pub(crate) fn changed(&mut self, now: Time, log: LogKey) {
        let Some(interest) = self.logs.get_mut(&log) else { return };
        if !interest.is_due {
            interest.is_due = true;
            interest.not_before = interest.not_before.max(now);
            self.due.insert((interest.not_before, log));
        }
    }

    /// Logs in which there is interest.
    pub(crate) fn len(&self) -> usize {
        self.logs.len()
    }

    /// When something is to be told next.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.first().map(|(time, _)| *time)
    }

    /// A log that has something to tell now, and whom.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<(LogKey, &BTreeMap<ShardId, Followers>)> {
        let (_, log) = *self.due.first().filter(|(time, _)| *time <= now)?;
        self.due.pop_first();
        let interest = self.logs.get_mut(&log)?;
        interest.is_due = false;
        interest.not_before = now + DIGEST_INTERVAL;
        Some((log, &interest.shards))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_log_tells_at_once_and_then_once_a_second_and_interest_that_ends_leaves_nothing() {
        let (log, inbox, ann) = (LogKey([1; 16]), LogKey([2; 16]), "ann".parse::<UserId>().unwrap());
        let mut digests = Digests::default();
        let start = Time::from_unix_ms(1_000);
        digests.changed(start, log);
        assert_eq!(digests.next_due(), None, "nobody is interested");
        digests.follow(log, ShardId(1), ann.clone(), inbox);
        digests.changed(start, log);
        assert!(digests.take_due(start).is_some());
        digests.changed(start, log);
        digests.changed(start, log);
        assert!(digests.take_due(start).is_none());
        let later = start + DIGEST_INTERVAL;
        assert_eq!(digests.next_due(), Some(later));
        assert!(digests.take_due(later).is_some());
        assert!(digests.take_due(later + Duration::from_secs(60)).is_none(), "once");
        digests.changed(later, log);
        digests.unfollow(log, ShardId(1), &ann);
        assert_eq!((digests.next_due(), digests.logs.len()), (None, 0));
    }
}
