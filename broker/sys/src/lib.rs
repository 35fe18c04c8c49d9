//! What a shard thread's event loop uses to talk to the kernel and to its sibling threads.
//!
//! One turn of a shard, in the words of this crate:
//!
//! 1. [`udp::Receiver`] hands over at most a budget of datagrams from the shard's [`udp::ShardSocket`].
//! 2. [`mesh::MeshPort::drain`] hands over at most a budget of messages from the other shards.
//! 3. The turn's packets gather in a [`udp::SendBatch`], its messages go out by [`mesh::MeshPort::try_send`]; one
//!    `flush` and one `ring_pending` end the turn.
//! 4. With nothing left to do the shard arms its [`doorbell::Doorbell`], looks once more, and sleeps in
//!    [`poller::wait`] until a packet, a ring or a timer.
//!
//! A store that writes its log through a [`ring::WriteRing`] adds that ring to what the shard sleeps on.
//!
//! At start [`group::SocketGroup`] binds one socket per shard to one address and steers packets between them by a byte
//! of the connection id; [`cid::shard_of_datagram`] is the same rule in user space, for a kernel that cannot steer.
//!
//! Invariants: this is the only crate of the workspace with `unsafe` code, and each unsafe block lies in a small module
//! that allows it and says why. Nothing here allocates per packet once its buffers have grown. No lock is shared by
//! threads.
//!
//! Deliberately absent: QUIC, timers, an executor, logging. The crate targets Linux; on other unixes it keeps its
//! interface and leaves steering to user space.
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod cid;
pub mod cpu;
pub mod doorbell;
pub mod group;
pub mod heap;
pub mod mesh;
pub mod poller;
pub mod priority;
pub mod ring;
pub mod rlimit;
mod rusage;
mod steering;
mod sync;
pub mod udp;
