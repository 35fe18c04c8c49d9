//! One shard of the broker as a sans-IO state machine.
//!
//! # The way of a message
//!
//! 1. [`Input::Received`]: bytes of a session's control stream; `home` decodes SEND and asks the log's owner.
//! 2. Owner, on this shard or another ([`ShardMessage::Request`]): allowed? duplicate? then a position, then
//!    [`Output::Store`].
//! 3. [`Input::Stored`]: the row is durable; the sender is answered, and each shard with readers gets one copy.
//! 4. `home` of that shard puts it into the outboxes of the sessions that follow the log.
//!
//! Time, randomness, completions and verified tokens are inputs; effects are outputs; bytes and mail wait in bounded
//! queues. There is no socket, task, clock, file or lock in this crate.

pub mod actor;
pub mod authority;
pub mod claims;
mod connection_id;
mod counters;
mod digests;
mod effect;
mod effects;
pub mod explain;
mod hash_key;
mod held;
mod home;
mod ids;
mod input;
mod journal;
pub mod limits;
pub mod log;
mod logs;
mod mailbox;
#[cfg(feature = "mutants")]
pub mod mutants;
mod outbox;
mod output;
mod refusal;
mod refusals;
mod resume;
mod routing;
mod seldom;
mod shard;
mod shard_message;
mod time;
mod users;

pub use claims::Claims;
pub use connection_id::ConnectionId;
pub use counters::Counters;
pub use held::Held;
pub use input::{Input, TokenRefusal, VerifyTicket};
pub use outbox::{Lane, Outbox};
pub use output::{Output, Secret};
pub use refusals::Refusals;
pub use resume::ResumeKey;
pub use routing::{Routing, ShardId};
pub use shard::{Shard, ShardConfig};
pub use shard_message::ShardMessage;
pub use time::Time;
