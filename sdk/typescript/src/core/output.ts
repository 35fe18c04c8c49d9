/** Everything that a client may ask of its shell or tell the application. */

import type { Members, Position, Request } from "../json.js";
import type { AntiphonError, DetachReason, Result, StopReason } from "./error.js";
import type { Event } from "./event.js";
import type { LastMessage, MessageView } from "./message.js";
import type { Presence } from "./presence.js";

/** What the shell does next, in order, once each. */
export type Output =
  /** Connect now; answer with `connected` or `disconnected`. A connection that still stands is over. */
  | { readonly type: "connect" }
  | { readonly type: "write"; readonly frame: Request }
  /** Write a signal, unless much is unwritten: signals may be lost. */
  | { readonly type: "writeSignal"; readonly frame: Request }
  /** Close the connection, or give up making it. No `disconnected` is expected for it. */
  | { readonly type: "close" }
  | { readonly type: "needToken" }
  | { readonly type: "state"; readonly state: ConnectionState }
  | { readonly type: "send"; readonly id: number; readonly state: SendState }
  | { readonly type: "subscription"; readonly id: number; readonly item: Item }
  | { readonly type: "page"; readonly id: number; readonly result: Result<Page> }
  | { readonly type: "messages"; readonly id: number; readonly result: Result<Messages> }
  /** Answer to `request`: the members of its OK. */
  | { readonly type: "answer"; readonly id: number; readonly result: Result<Members> }
  /** Answer to `signal` (it was written) and `watchPresence` (the broker knows). */
  | { readonly type: "done"; readonly id: number; readonly result: Result<void> }
  /** News of a log that is followed but not subscribed. */
  | { readonly type: "digest"; readonly digest: Digest }
  | { readonly type: "presence"; readonly presence: Presence };

export type ConnectionState =
  /** On the way: token, transport, handshake. */
  | { readonly is: "connecting" }
  | { readonly is: "ready"; readonly session: Session }
  /** The connection is lost; the next attempt follows by itself. */
  | { readonly is: "waiting"; readonly cause: string }
  | { readonly is: "stopped"; readonly reason: StopReason };

export interface Session {
  /** The same after the session was resumed. */
  readonly sessionId: string;
  /** Whether it is the session of the connection before. */
  readonly resumed: boolean;
  readonly user: string;
  readonly device: string;
  readonly bodyBytesMax: number;
  readonly subscriptionsMax: number;
  /** When the token ends, Unix milliseconds; 0 = never. */
  readonly expiresAtMs: number;
}

/**
 * The life of a message: `queued`, `sending`, `sent`, `delivered`, `read`, or `failed` at any time before `sent`.
 * `delivered` and `read` come while the log is subscribed, in conversations of up to 100 members, for the newest 256
 * messages of each log; `read` may come without `delivered`.
 */
export type SendState =
  | { readonly is: "queued" }
  /** It is about to be written for the first time, with this id. */
  | { readonly is: "sending"; readonly clientMessageId: string }
  /** It is durable. */
  | { readonly is: "sent"; readonly receipt: Receipt }
  /** It reached somebody else's device. */
  | { readonly is: "delivered" }
  /** Somebody else read it. */
  | { readonly is: "read" }
  | { readonly is: "failed"; readonly error: AntiphonError };

/** Where a message ended up. */
export interface Receipt extends Position {
  readonly clientMessageId: string;
  readonly eventId: string;
  readonly msgno: number;
  readonly timeMs: number;
  /** An earlier attempt had been stored already. */
  readonly duplicate: boolean;
}

/** What a subscription brings, in order. Every event comes exactly once, until a `reset` says otherwise. */
export type Item =
  | { readonly type: "attached"; readonly attached: Attached }
  | { readonly type: "event"; readonly event: Event }
  /** Positions that this reader does not get, both included. */
  | { readonly type: "skipped"; readonly first: number; readonly last: number }
  /** Forget what there is: events begin anew after this position. */
  | { readonly type: "reset"; readonly reason: ResetReason; readonly after: Position }
  | { readonly type: "cursor"; readonly cursor: Cursor }
  | { readonly type: "signal"; readonly signal: Signal }
  | { readonly type: "detached"; readonly reason: DetachReason };

export type ResetReason = "epochChanged" | "historyGone";

/** State of a log at the moment a subscription took hold. */
export interface Attached {
  /** Events follow from the position after this one. */
  readonly after: Position;
  readonly head: Position;
  /** Oldest event that still exists. */
  readonly floor: number;
  readonly headMsgno: number;
  /** Where the members stand, unless the conversation is large. */
  readonly cursors: readonly Cursor[];
}

/** How far a member has come. */
export interface Cursor {
  readonly user: string;
  readonly delivered: number;
  readonly read: number;
  readonly readMsgno: number;
}

export interface Signal {
  readonly user: string;
  /** What it is, as `typing`. */
  readonly kind: string;
  readonly data: Uint8Array;
  /** How long it holds. */
  readonly ttlMs: number;
}

/** A part of a log's history, in the direction of the read. */
export interface Page {
  readonly events: readonly Event[];
  /** Where to go on: the next `from`, or reading backward the next `to`; 0 = nothing is left. */
  readonly next: number;
  readonly head: Position;
  readonly floor: number;
}

/** Messages as they stand at `head`; later events apply on top. May be empty although there are more. */
export interface Messages {
  readonly messages: readonly MessageView[];
  readonly next: number;
  readonly head: Position;
  readonly floor: number;
}

/** Newest state of a log that is followed but not subscribed. */
export interface Digest {
  readonly log: string;
  readonly head: Position;
  readonly headMsgno: number;
  readonly last: LastMessage | undefined;
}
