//! Which logs owe effects to other logs: what makes a shard finish, after a crash, what it had begun.
//!
//! Before a log writes an event that has consequences elsewhere, its name is put into the journal of its partition; when
//! every consequence is durable, it is taken out again. At its start a shard reads the journals of its partitions and
//! takes up the logs that it finds there, so nobody has to use a conversation for its new member to hear of it. The
//! journal is the records of a log without rows whose key nobody can choose.

use std::collections::BTreeSet;

use antiphon_protocol::{
    LogKey, LogName, TenantId,
    limits::{PARTITIONS, VIRTUAL_SHARDS_PER_PARTITION},
};
use antiphon_storage_contract::{Op, Outcome, RecordWrite, StoreError};
use bytes::Bytes;
use prost::Message;
use uuid::Builder;

use crate::{
    actor::Actor,
    effects::Effects,
    limits::RETRY_EFFECTS_AFTER,
    log::Purpose,
    routing::ShardId,
    shard_message::{Operation, Origin, Request},
};

/// Entries read at a time.
const PAGE_RECORDS: u32 = 1_000;
const RECORD_PREFIX: &[u8] = b"owes/";

/// An entry. Stored, so its tags are never reused.
#[derive(Clone, PartialEq, Eq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    tenant: String,
    #[prost(string, tag = "2")]
    log: String,
}

/// The log that holds the journal of a partition.
fn journal_key(partition: u8) -> LogKey {
    let virtual_shard = u16::from(partition) * VIRTUAL_SHARDS_PER_PARTITION;
    let mut bytes = *b"\0\0~~~~~~~~~~~~~~";
    bytes[..2].copy_from_slice(&(virtual_shard << 4).to_be_bytes());
    LogKey(Builder::from_custom_bytes(bytes).into_uuid().into_bytes())
}

fn record_key(log: LogKey) -> Bytes {
    [RECORD_PREFIX, &log.0].concat().into()
}

/// Puts a log into the journal of its partition.
pub(crate) fn enter(log: LogKey, name: &LogName, tenant: &TenantId) -> Op {
    let entry = Entry { tenant: tenant.to_string(), log: name.to_string() };
    let record = RecordWrite { key: record_key(log), value: Some(entry.encode_to_vec().into()) };
    Op::PutRecords { log: journal_key(log.partition()), records: vec![record] }
}

/// Takes a log out of the journal.
pub(crate) fn strike(log: LogKey) -> Op {
    let record = RecordWrite { key: record_key(log), value: None };
    Op::PutRecords { log: journal_key(log.partition()), records: vec![record] }
}

/// The request that takes up a log that was found in the journal.
pub(crate) fn take_up(shard: ShardId, tenant: &TenantId, log: LogName) -> Request {
    let key = log.key(tenant);
    Request { origin: Origin::nobody(shard), actor: Actor::broker(tenant), log, key, operation: Operation::TakeUp }
}

/// The journals of a shard's partitions, as far as they have been read.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    unread: BTreeSet<u8>,
}

impl Journal {
    /// Begins to read.
    pub(crate) fn start(fx: &mut Effects) -> Self {
        let mut journal = Self::default();
        for partition in 0..PARTITIONS as u8 {
            if fx.routing.owner(journal_key(partition)) == fx.shard {
                journal.unread.insert(partition);
                read(fx, partition, None);
            }
        }
        journal
    }

    /// Whether a log that is not in memory surely owes nothing.
    pub(crate) fn is_read(&self, log: LogKey) -> bool {
        !self.unread.contains(&log.partition())
    }

    /// A page was read: the logs in it.
    pub(crate) fn found(
        &mut self,
        fx: &mut Effects,
        partition: u8,
        result: Result<Outcome, StoreError>,
    ) -> Vec<(TenantId, LogName)> {
        let Ok(Outcome::Records(records)) = result else {
            fx.wake(journal_key(partition), RETRY_EFFECTS_AFTER);
            return Vec::new();
        };
        match records.last() {
            Some((last, _)) if records.len() >= PAGE_RECORDS as usize => read(fx, partition, Some(last.clone())),
            _ => {
                self.unread.remove(&partition);
            }
        }
        let entry = |(_, value): &(Bytes, Bytes)| {
            let entry = Entry::decode(value.clone()).ok()?;
            Some((entry.tenant.parse().ok()?, entry.log.parse().ok()?))
        };
        records.iter().filter_map(entry).collect()
    }

    /// Reads a journal again that could not be read.
    pub(crate) fn retry(&self, fx: &mut Effects, key: LogKey) {
        if self.unread.contains(&key.partition()) && key == journal_key(key.partition()) {
            read(fx, key.partition(), None);
        }
    }
}

fn read(fx: &mut Effects, partition: u8, after: Option<Bytes>) {
    let (log, prefix) = (journal_key(partition), Bytes::from_static(RECORD_PREFIX));
    fx.store(Op::ScanRecords { log, prefix, after, records_max: PAGE_RECORDS }, Purpose::Journal(partition));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_a_journal_of_its_own_in_it() {
        let keys: BTreeSet<LogKey> = (0..PARTITIONS as u8).map(journal_key).collect();
        assert_eq!(keys.len(), usize::from(PARTITIONS));
        for partition in 0..PARTITIONS as u8 {
            assert_eq!(journal_key(partition).partition(), partition);
        }
    }
}
