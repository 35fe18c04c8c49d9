//! The store of a shard, whichever engine keeps it.

use std::os::fd::BorrowedFd;

use antiphon_storage::{
    Completion, EventLog, Op, Token,
    embedded::{EmbeddedShard, Latencies},
};
use antiphon_storage_cql::CqlShard;

/// One shard's part of the store.
#[derive(Debug)]
pub(crate) enum ShardStore {
    /// In the data directory.
    Embedded(Box<EmbeddedShard>),
    /// On a cluster.
    Cql(Box<CqlShard>),
}

/// What a store tells about itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreNumbers {
    /// Writes of rows: blocks of the write-ahead log, or batches to the cluster.
    pub(crate) blocks: u64,
    pub(crate) syncs: u64,
    pub(crate) bytes: u64,
    pub(crate) sync_times: Latencies,
    /// Requests to a cluster, and those that were given up.
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

impl ShardStore {
    /// The descriptor to wait on besides the bell, if there is one.
    pub(crate) fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Embedded(store) => store.wait_fd(),
            Self::Cql(_) => None,
        }
    }

    pub(crate) fn numbers(&self) -> StoreNumbers {
        match self {
            Self::Embedded(store) => {
                let writer = store.counters().writer;
                StoreNumbers {
                    blocks: writer.blocks,
                    syncs: writer.syncs,
                    bytes: writer.bytes,
                    sync_times: writer.sync_times,
                    ..StoreNumbers::default()
                }
            }
            Self::Cql(store) => {
                let engine = store.counters();
                StoreNumbers {
                    blocks: engine.appends,
                    requests: engine.requests,
                    failures: engine.failures,
                    ..StoreNumbers::default()
                }
            }
        }
    }

    /// Ends it in order, so that the next start is quick.
    pub(crate) fn close(self) {
        match self {
            Self::Embedded(store) => store.close(),
            Self::Cql(store) => drop(store),
        }
    }
}

impl EventLog for ShardStore {
    fn submit(&mut self, op: Op, token: Token) {
        match self {
            Self::Embedded(store) => store.submit(op, token),
            Self::Cql(store) => store.submit(op, token),
        }
    }

    fn poll_completions(&mut self, completions: &mut Vec<Completion>) {
        match self {
            Self::Embedded(store) => store.poll_completions(completions),
            Self::Cql(store) => store.poll_completions(completions),
        }
    }
}
