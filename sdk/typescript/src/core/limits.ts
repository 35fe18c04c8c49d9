/** Every bound of the client, with what happens when it is reached. Times are in milliseconds. */

/** Live events that one log holds while its pages are pulled. One more drops them, and the log is subscribed again. */
export const HELD_EVENTS_MAX = 256;
/** Page requests in flight; later ones wait. The broker refuses a fifth. */
export const PAGES_IN_FLIGHT_MAX = 4;
/** Sends that may wait for their ACK; later ones wait in the outbox. */
export const SENDS_IN_FLIGHT_MAX = 512;
/** Requests, other than sends, subscriptions and pages, that may wait for their answer; later ones queue. */
export const REQUESTS_IN_FLIGHT_MAX = 128;
/** Requests and page requests that the client keeps; one more is refused. */
export const REQUESTS_MAX = 4_096;
/** Times a request is sent before a transient refusal is shown to the application. */
export const REQUEST_ATTEMPTS_MAX = 6;
/** Messages that are not acknowledged yet; one more fails. */
export const OUTBOX_MESSAGES_MAX = 4_096;
/** Their bytes; a message that would exceed them fails. */
export const OUTBOX_BYTES_MAX = 16 << 20;
/** Bytes of the body of an event; a longer one fails. */
export const BODY_BYTES_MAX = 65_536;
/** Own sends to one log that nobody has read yet; of one more the oldest gets no receipts any more. */
export const RECEIPTS_MAX = 256;
/** Logs whose receipts are remembered; for one more the first without own sends is forgotten. */
export const RECEIPT_LOGS_MAX = 256;
/** Users whose presence is watched at once; a longer list is refused. */
export const PRESENCE_WATCHED_MAX = 64;
/** Logs whose own cursors are remembered; one more makes the client forget the first that is not waiting. */
export const CURSORS_MAX = 1_024;
/** Logs whose send order is remembered; one more makes the client forget those without unsent messages. */
export const LANES_MAX = 4_096;
/** Refusals in a row of the oldest send of a log as out of order before the client starts a new connection. */
export const OUT_OF_ORDER_MAX = 4;
/** Bytes of a signal; a longer one fails. */
export const SIGNAL_BYTES_MAX = 1_024;
/** Bytes of a token; a longer one stops the client. */
export const TOKEN_BYTES_MAX = 8_192;
/** Users that a reaction names. */
export const REACTION_USERS_SHOWN_MAX = 8;
/** Bytes of the body in the preview of a reply. */
export const REPLY_PREVIEW_BYTES_MAX = 128;

/** First wait after a failure; doubles with each further one. */
export const BACKOFF_MIN_MS = 200;
/** Longest wait between two attempts. */
export const BACKOFF_MAX_MS = 30_000;
/** A connection that lived this long starts over with the shortest wait. */
export const STABLE_AFTER_MS = 10_000;
/** From the wish to connect to WELCOME; then the client tries anew. */
export const CONNECT_TIMEOUT_MS = 15_000;
/** How long a close waits for its BYE to be answered. */
export const CLOSE_TIMEOUT_MS = 1_000;
/** A broker that says nothing for this long while an answer is awaited is taken for lost. */
export const SILENCE_MAX_MS = 60_000;
/** The same for the answer to a check that the application asked for. */
export const CHECK_TIMEOUT_MS = 5_000;
/** Least time between two CURSORs of one log; newer positions are merged. */
export const CURSOR_INTERVAL_MS = 1_000;
/** A fresh token is asked for this long before the old one ends, or half-way if that is sooner. */
export const TOKEN_REFRESH_LEAD_MS = 60_000;
