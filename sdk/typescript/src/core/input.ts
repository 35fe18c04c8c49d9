/** Everything that can happen to a client. */

import type { Answer, Position, Request, RequestOp } from "../json.js";
import type { NewMessage } from "./newMessage.js";

/** What a shell tells the client. After each one the shell takes every output. */
export type Input =
  /** The connection that `connect` asked for stands. */
  | { readonly type: "connected" }
  /** The connection could not be made, or has ended. Frames of it must not be passed in any more. */
  | { readonly type: "disconnected"; readonly cause: string; readonly closeCode?: number }
  /** A frame of the broker, in the order of the socket; undefined = one that this version does not know. */
  | { readonly type: "frame"; readonly frame: Answer | undefined }
  /** What came is no frame of the protocol. */
  | { readonly type: "unreadable"; readonly cause: string }
  /** Answer to `needToken`. */
  | { readonly type: "token"; readonly token: string }
  /** The token provider failed; it is asked again later. */
  | { readonly type: "tokenFailed"; readonly cause: string }
  /** The time of `pollTimeout` has come. */
  | { readonly type: "timeout" }
  /** The network may have changed: find out whether the connection still lives, or try to connect now. */
  | { readonly type: "check" }
  | { readonly type: "command"; readonly command: Command };

/** Where a subscription begins. */
export type From =
  /** Only what comes. */
  | { readonly at: "tail" }
  /** After the last event that the application has. */
  | { readonly at: "position"; readonly position: Position }
  /** With the newest n events. */
  | { readonly at: "last"; readonly count: number }
  /** With the oldest event that still exists. */
  | { readonly at: "start" };

/** A part of a log to read. */
export interface Range {
  readonly log: string;
  /** First position; 0 = the oldest that still exists. */
  readonly from: number;
  /** Position after the last; 0 = up to the head. */
  readonly to: number;
  /** At most this many; 0 = as many as fit one page. */
  readonly limit: number;
  /** Newest first. */
  readonly backward: boolean;
  /**
   * A date, Unix milliseconds: only what came from then on or, backward, only what came before. The pages after the
   * first are asked for by position, without a date.
   */
  readonly atMs?: number;
}

/** A request without a command of its own. */
export type PlainRequest = Extract<
  Request,
  {
    op: Exclude<
      RequestOp,
      | "HELLO"
      | "AUTH"
      | "BYE"
      | "SUBSCRIBE"
      | "UNSUBSCRIBE"
      | "FETCH"
      | "CURSOR"
      | "SEND"
      | "SEND_BATCH"
      | "PRESENCE_SUBSCRIBE"
      | "SIGNAL"
    >;
  }
>;

/** What an application wants. Ids are chosen by the shell, unique within the client. */
export type Command =
  /** Append one event; its fate comes as `send`. */
  | { readonly type: "send"; readonly id: number; readonly message: NewMessage }
  /** Append several, in order, written together where the broker takes batches. Not atomic. */
  | { readonly type: "sendBatch"; readonly messages: readonly { readonly id: number; readonly message: NewMessage }[] }
  /** Follow a log until told otherwise, across reconnects. */
  | { readonly type: "subscribe"; readonly id: number; readonly log: string; readonly from: From }
  | { readonly type: "unsubscribe"; readonly id: number }
  /** Read history; repeated by itself after a lost connection. */
  | { readonly type: "fetch"; readonly id: number; readonly range: Range }
  /** Read messages as they stand; the limit counts messages. */
  | { readonly type: "fetchMessages"; readonly id: number; readonly range: Range }
  /** Move one's own cursors; 0 = unchanged. Merged, sent at most once a second per log, restated after a reconnect. */
  | { readonly type: "cursor"; readonly log: string; readonly delivered: number; readonly read: number }
  /** Send a signal now, or fail at once. */
  | {
      readonly type: "signal";
      readonly id: number;
      readonly log: string;
      readonly kind: string;
      readonly data: Uint8Array;
      readonly ttlMs: number;
    }
  /** Watch the presence of these users, and no others. */
  | { readonly type: "watchPresence"; readonly id: number; readonly users: ReadonlySet<string> }
  | { readonly type: "request"; readonly id: number; readonly request: PlainRequest }
  /** Ask the token provider now, and take its token for the running session. */
  | { readonly type: "renewToken" }
  /** End the session; everything that waits fails. */
  | { readonly type: "close" };
