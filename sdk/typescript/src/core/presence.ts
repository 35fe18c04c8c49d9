/**
 * Who is there: the users whom the application watches, restated to every new session.
 *
 * A session has one list, and a newer one takes its place, so at most one wish waits for the broker: the newest.
 * Deliberately absent: the user's own presence, which nobody restates, since another device may have changed it.
 */

import type { AnswerOf } from "../json.js";
import {
  type AntiphonError,
  LimitError,
  type RefusedError,
  type Result,
  StoppedError,
  type StopReason,
} from "./error.js";
import { PRESENCE_WATCHED_MAX, REQUESTS_MAX } from "./limits.js";
import type { Link } from "./link.js";

/** `unknown` is told while the broker cannot say; it cannot be set. */
export type PresenceStatus = "offline" | "online" | "away" | "busy" | "unknown";

/** How a user is now, as far as it is known: a change may be lost, and comes with the next one. */
export interface Presence {
  readonly user: string;
  readonly status: PresenceStatus;
  /** What they say about it; mostly empty. */
  readonly text: string;
}

export class Watch {
  readonly #link: Link;
  #users: ReadonlySet<string> = new Set();
  /** Whether the broker has yet to be told, on this connection. */
  #dirty = false;
  #inFlight = false;
  /** Refusals since the last OK. */
  #refusals = 0;
  /** Who waits until the list is in force. */
  #waiting: number[] = [];

  constructor(link: Link) {
    this.#link = link;
  }

  /** Takes a new list, or tells why not. */
  set(id: number, users: ReadonlySet<string>): void {
    let error: AntiphonError | undefined;
    if (users.size > PRESENCE_WATCHED_MAX) error = new LimitError("watched users", users.size, PRESENCE_WATCHED_MAX);
    else if (this.#waiting.length >= REQUESTS_MAX) error = new LimitError("requests", REQUESTS_MAX + 1, REQUESTS_MAX);
    if (error) {
      this.#link.emit({ type: "done", id, result: { error } });
      return;
    }
    this.#waiting.push(id);
    this.#users = users;
    this.#dirty = true;
    this.#write();
  }

  /** Tells the broker, if there is news, a session, and no earlier list under way. */
  #write(): void {
    if (!this.#dirty || this.#inFlight || !this.#link.ready || this.#link.timers.isSet("presence")) return;
    this.#dirty = false;
    this.#inFlight = true;
    this.#link.request({ of: "presence" }, { op: "PRESENCE_SUBSCRIBE", users: [...this.#users] });
  }

  /** A session stands: it watches nobody yet. */
  ready(): void {
    this.#dirty = this.#users.size > 0 || this.#waiting.length > 0;
    this.#write();
  }

  answered(): void {
    this.#inFlight = false;
    this.#refusals = 0;
    if (!this.#dirty) this.#finish({ value: undefined });
    this.#write();
  }

  refused(refusal: RefusedError): void {
    this.#inFlight = false;
    if (refusal.isTransient) {
      this.#dirty = true;
      const delay = Math.max(this.#link.backoff(this.#refusals), refusal.retryAfterMs);
      this.#refusals += 1;
      this.#link.setTimer("presence", "", delay);
    } else if (!this.#dirty) {
      // It would be refused after every reconnect again.
      this.#users = new Set();
      this.#finish({ error: refusal });
    }
    this.#write();
  }

  /** The wait after a refusal is over. */
  due(): void {
    this.#write();
  }

  /** PRESENCE. What is left of an earlier list is nobody's business any more. */
  told({ user, status, text }: AnswerOf<"PRESENCE">): void {
    if (!this.#users.has(user)) return;
    this.#link.emit({ type: "presence", presence: { user, status: readStatus(status), text } });
  }

  /** The connection is lost, and with it what the session watched. */
  down(): void {
    this.#inFlight = false;
    this.#refusals = 0;
    this.#link.timers.cancel("presence");
  }

  stop(reason: StopReason): void {
    this.#finish({ error: new StoppedError(reason) });
  }

  #finish(result: Result<void>): void {
    const ids = this.#waiting;
    this.#waiting = [];
    for (const id of ids) this.#link.emit({ type: "done", id, result });
  }
}

/** Whoever has a status of a later version is there in some way. */
export function readStatus(status: string | number): PresenceStatus {
  if (status === "" || status === "offline") return "offline";
  return status === "away" || status === "busy" || status === "unknown" ? status : "online";
}
