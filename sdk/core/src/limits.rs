//! Every bound of the client, with what happens when it is reached.

use std::time::Duration;

/// Live events that one log holds while its pages are pulled. One more drops them all, and the log is subscribed
/// again from its last position once the pull is done.
pub const HELD_EVENTS_MAX: usize = 256;
/// Sends that may wait for their ACK; later ones wait in the outbox.
pub const SENDS_IN_FLIGHT_MAX: usize = 512;
/// Bytes that one batch aims at, well below what a frame may hold; what exceeds it goes into the next one.
pub const BATCH_BYTES_MAX: usize = 256 << 10;
/// Requests, other than sends, subscriptions and pages, that may wait for their answer; later ones wait in a queue.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 128;
/// Requests and page requests that the client keeps; one more is refused with `QueueFull`.
pub const REQUESTS_MAX: usize = 4_096;
/// Times a request is sent before a transient refusal is shown to the application.
pub const REQUEST_ATTEMPTS_MAX: u32 = 6;
/// Own sends to one log that nobody has read yet; of one more the oldest gets no receipts any more.
pub const RECEIPTS_MAX: usize = 256;
/// Logs with own sends, or receipts of others, that are remembered; for one more the first without own sends is
/// forgotten.
pub const RECEIPT_LOGS_MAX: usize = 256;
/// Users whose presence is watched at once; a longer list is refused with `TooMany`.
pub const PRESENCE_WATCHED_MAX: usize = 64;
/// Logs whose send order is remembered; one more makes the client forget those without unsent messages.
pub const LANES_MAX: usize = 4_096;
/// Logs whose own cursors are remembered; one more makes the client forget the first that is not waiting.
pub const CURSORS_MAX: usize = 1_024;
/// Consecutive `out_of_order` refusals of the oldest send of a log before the client starts a new connection, which
/// makes the broker forget what it expected.
pub const OUT_OF_ORDER_MAX: u32 = 4;

/// Longest wait between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// First wait after a failure; doubles with each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Doublings of the wait while a broker answers that another one is active, which is so for seconds only.
pub const BACKOFF_DOUBLINGS_STANDBY_MAX: u32 = 5;
/// A connection that lived this long starts over with the shortest backoff.
pub const STABLE_AFTER: Duration = Duration::from_secs(10);
/// From the wish to connect to WELCOME; then the client tries anew.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a close waits for its BYE to be answered.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last answers are waited for before the client moves to a better way. Shorter than a broker waits for the
/// HELLO of a connection that has been made for it.
pub const MOVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Least time between two CURSORs of one log; newer positions are merged.
pub const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// A fresh token is asked for this long before the old one ends, or half-way if that is sooner.
pub const TOKEN_REFRESH_LEAD: Duration = Duration::from_secs(60);

const _: () = {
    use antiphon_protocol::limits;
    let others = limits::SUBSCRIPTIONS_MAX + limits::PAGES_IN_FLIGHT_MAX;
    assert!(SENDS_IN_FLIGHT_MAX + REQUESTS_IN_FLIGHT_MAX + others < limits::REQUESTS_IN_FLIGHT_MAX);
};
