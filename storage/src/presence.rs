//! Presence on one machine, and what every presence store is made of.
//!
//! [`ProcessPresence`] is the default and the reference: a table in the memory of this process, which all shards share.
//! [`Desk`] is a handle's queue of events with its bounds; [`Buckets`] are rate limits of this process alone, to which
//! a shared store falls back.

mod buckets;
mod desk;
mod process;
mod user;

pub use antiphon_storage_contract::presence::{
    Answer, EVENTS_MAX, FRESH_WITHIN, Look, Payer, Presence, PresenceError, PresenceEvent, PresenceOp, QUESTIONS_MAX,
    Question, REVOCATION_TTL, SEAT_REFRESH, SEAT_TTL, SEATS_MAX, SIGNALS_MAX, STALE_WITHIN, SUBSCRIPTIONS_MAX, Seat,
    Seen, Take, UserKey, WATCHES_MAX,
};
pub use buckets::Buckets;
pub use desk::Desk;
pub use process::{Clock, ProcessPresence};
