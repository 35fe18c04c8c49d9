//! The shards of a broker through their public calls, without a socket, a clock or a sleep.
//!
//! [`harness`] moves mail between shards, performs their effects on a store in memory, and plays clients. It checks on
//! every frame what must hold always: an acknowledged or delivered row is in the store, live events have no gap and no
//! repetition, every request is answered at most once, nothing follows a farewell.

/// Whether clients come on trunks.
#[cfg(test)]
const ON_TRUNKS: bool = false;

#[cfg(test)]
mod batch;
#[cfg(test)]
mod client;
#[cfg(test)]
mod cross_shard;
#[cfg(test)]
mod cursors;
#[cfg(test)]
mod dates;
#[cfg(test)]
mod dedupe;
#[cfg(test)]
mod digests;
#[cfg(test)]
mod edge;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod handshake;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod history;
#[cfg(test)]
mod import;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod members;
#[cfg(test)]
mod messages_random;
#[cfg(test)]
mod messages_view;
#[cfg(test)]
mod order;
#[cfg(test)]
mod own_view;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod presence_shared;
#[cfg(test)]
mod random;
#[cfg(test)]
mod relations;
#[cfg(test)]
mod rest;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod retention_dedupe;
#[cfg(test)]
mod retention_store;
#[cfg(test)]
mod send;
#[cfg(test)]
mod slow_reader;
#[cfg(test)]
mod store;
#[cfg(test)]
mod store_failure;
#[cfg(test)]
mod subscribe;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod users;
