//! What a shard publishes about itself once a second.

use std::time::{Duration, Instant};

use antiphon_core::ShardId;

use super::ShardThread;
use crate::{
    admin::{
        Report,
        metrics::{ShardMetrics, publish, publish_sync_times},
    },
    store::{ShardStore, StoreNumbers},
};

const INTERVAL: Duration = Duration::from_secs(1);

/// When a shard published last, and what only its loop counts.
pub(super) struct Published {
    shard: ShardId,
    due: Instant,
    pub(super) tokens_refused: u64,
    pub(super) mailbox_full: u64,
    turns: u64,
    busy: Duration,
    /// Since the last publication.
    longest_turn: Duration,
}

impl Published {
    pub(super) fn new(shard: ShardId) -> Self {
        Self {
            shard,
            due: Instant::now(),
            tokens_refused: 0,
            mailbox_full: 0,
            turns: 0,
            busy: Duration::ZERO,
            longest_turn: Duration::ZERO,
        }
    }

    /// When the next publication is due.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// A turn that began at that moment has done its work.
    pub(super) fn turn_ended(&mut self, began: Instant) {
        let turn = began.elapsed();
        self.turns += 1;
        self.busy += turn;
        self.longest_turn = self.longest_turn.max(turn);
    }

    /// Whether it was.
    pub(super) fn publish_if_due(&mut self, thread: &ShardThread, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        self.due = now + INTERVAL;
        let store = thread.store.as_ref().map(ShardStore::numbers).unwrap_or_default();
        let report = Report {
            numbers: self.gather(thread, &store),
            sync_times: store.sync_times,
            refusals: thread.node.counters().refusals,
        };
        publish(self.shard.0, &report.numbers);
        publish_sync_times(self.shard.0, &report.sync_times);
        thread.board.put(self.shard.0, &report, now);
        self.longest_turn = Duration::ZERO;
        true
    }

    fn gather(&self, thread: &ShardThread, store: &StoreNumbers) -> ShardMetrics {
        let core = thread.node.counters();
        let transport = thread.node.transport_counters();
        let (clients, trunks) = (&thread.clients.counters, &thread.trunks.counters);
        ShardMetrics {
            loop_turns: self.turns,
            loop_busy_us: self.busy.as_micros() as u64,
            datagrams_in: clients.datagrams_in + trunks.datagrams_in,
            datagrams_out: clients.datagrams_out + trunks.datagrams_out,
            datagrams_forwarded: clients.forwarded + trunks.forwarded,
            bytes_in: clients.bytes_in + trunks.bytes_in,
            bytes_out: clients.bytes_out + trunks.bytes_out,
            handshakes_accepted: transport.accepted,
            handshakes_refused: transport.refused,
            retries_sent: transport.retried,
            sessions_authenticated: core.sessions_established,
            tokens_refused: self.tokens_refused,
            events_appended: core.appends,
            sends_deduplicated: core.duplicates,
            requests_refused: core.refusals.total(),
            events_delivered: core.deliveries,
            events_crossed: core.deliveries_crossed,
            pages_served: core.pages,
            subscribers_behind: core.behind,
            state_dropped: core.state_dropped,
            mailbox_full: self.mailbox_full,
            store_blocks: store.blocks,
            store_syncs: store.syncs,
            store_bytes: store.bytes,
            store_requests: store.requests,
            store_failures: store.failures,
            connections: core.connections,
            sessions: core.sessions,
            logs_loaded: core.logs_resident,
            outbox_bytes: thread.node.outbox_bytes() as u64,
            loop_turn_us_max: self.longest_turn.as_micros() as u64,
        }
    }
}
