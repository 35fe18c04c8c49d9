//! The same tests with every client on a trunk, as a session of an edge: nothing that a client sees may differ.
//!
//! Left out is what is the edge's own there: how many bytes of a client wait, and when it is read.

#[cfg(test)]
mod rules;

/// Whether clients come on trunks.
#[cfg(test)]
const ON_TRUNKS: bool = true;

#[cfg(test)]
#[path = "../it/batch.rs"]
mod batch;
#[cfg(test)]
#[path = "../it/client.rs"]
mod client;
#[cfg(test)]
#[path = "../it/cross_shard.rs"]
mod cross_shard;
#[cfg(test)]
#[path = "../it/cursors.rs"]
mod cursors;
#[cfg(test)]
#[path = "../it/dates.rs"]
mod dates;
#[cfg(test)]
#[path = "../it/dedupe.rs"]
mod dedupe;
#[cfg(test)]
#[path = "../it/digests.rs"]
mod digests;
#[cfg(test)]
#[path = "../it/edge.rs"]
mod edge;
#[cfg(test)]
#[path = "../it/explain.rs"]
mod explain;
#[cfg(test)]
#[path = "../it/handshake.rs"]
mod handshake;
#[cfg(test)]
#[path = "../it/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "../it/history.rs"]
mod history;
#[cfg(test)]
#[path = "../it/import.rs"]
mod import;
#[cfg(test)]
#[path = "../it/limits.rs"]
mod limits;
#[cfg(test)]
#[path = "../it/members.rs"]
mod members;
#[cfg(test)]
#[path = "../it/messages_random.rs"]
mod messages_random;
#[cfg(test)]
#[path = "../it/messages_view.rs"]
mod messages_view;
#[cfg(test)]
#[path = "../it/order.rs"]
mod order;
#[cfg(test)]
#[path = "../it/own_view.rs"]
mod own_view;
#[cfg(test)]
#[path = "../it/pages.rs"]
mod pages;
#[cfg(test)]
#[path = "../it/presence.rs"]
mod presence;
#[cfg(test)]
#[path = "../it/presence_shared.rs"]
mod presence_shared;
#[cfg(test)]
#[path = "../it/random.rs"]
mod random;
#[cfg(test)]
#[path = "../it/relations.rs"]
mod relations;
#[cfg(test)]
#[path = "../it/rest.rs"]
mod rest;
#[cfg(test)]
#[path = "../it/retention.rs"]
mod retention;
#[cfg(test)]
#[path = "../it/retention_dedupe.rs"]
mod retention_dedupe;
#[cfg(test)]
#[path = "../it/retention_store.rs"]
mod retention_store;
#[cfg(test)]
#[path = "../it/send.rs"]
mod send;
#[cfg(test)]
#[path = "../it/slow_reader.rs"]
mod slow_reader;
#[cfg(test)]
#[path = "../it/store.rs"]
mod store;
#[cfg(test)]
#[path = "../it/store_failure.rs"]
mod store_failure;
#[cfg(test)]
#[path = "../it/subscribe.rs"]
mod subscribe;
#[cfg(test)]
#[path = "../it/sync.rs"]
mod sync;
#[cfg(test)]
#[path = "../it/users.rs"]
mod users;
