/**
 * One's own cursors: merged, at most one CURSOR a second per log, restated after a reconnect.
 *
 * They also move without a CURSOR: with each message that the user sends, from this device or another, and when another
 * device moves them. What the broker knows so is not told to it again.
 */

import type { RefusedError } from "./error.js";
import { CURSOR_INTERVAL_MS, CURSORS_MAX } from "./limits.js";
import type { Link } from "./link.js";

interface OwnCursor {
  delivered: number;
  read: number;
  /** Whether the broker has yet to be told. */
  dirty: boolean;
  /** Whether the application has moved it, so that it is restated: the broker may have lost its last two seconds. */
  moved: boolean;
  /** Whether it is restated once the log is attached. */
  awaitsAttach: boolean;
}

export class Cursors {
  readonly #link: Link;
  readonly #logs = new Map<string, OwnCursor>();

  constructor(link: Link) {
    this.#link = link;
  }

  /** Moves cursors; never back. */
  advance(log: string, delivered: number, read: number): void {
    this.#makeRoom(log);
    const cursor = this.#of(log);
    // What has been read has also arrived.
    const moves = Math.max(delivered, read) > cursor.delivered || read > cursor.read;
    cursor.dirty ||= moves;
    cursor.moved ||= moves;
    raise(cursor, delivered, read);
    if (!this.#link.timers.isSet("cursor", log)) this.#write(log);
  }

  /** The broker has them here by itself. */
  note(log: string, delivered: number, read: number): void {
    // Without it at most a CURSOR too many is sent, so nothing is forgotten for its sake.
    if (this.#logs.size >= CURSORS_MAX && !this.#logs.has(log)) return;
    const cursor = this.#of(log);
    cursor.dirty &&= Math.max(delivered, read) < cursor.delivered || read < cursor.read;
    raise(cursor, delivered, read);
  }

  /** The log's positions mean other events now. */
  forget(log: string): void {
    this.#logs.delete(log);
    this.#link.timers.cancel("cursor", log);
  }

  #of(log: string): OwnCursor {
    const known = this.#logs.get(log);
    if (known) return known;
    const fresh = { delivered: 0, read: 0, dirty: false, moved: false, awaitsAttach: false };
    this.#logs.set(log, fresh);
    return fresh;
  }

  #makeRoom(log: string): void {
    if (this.#logs.size < CURSORS_MAX || this.#logs.has(log)) return;
    const [first] = this.#logs.keys();
    const clean = [...this.#logs].find(([, cursor]) => !cursor.dirty)?.[0] ?? first;
    if (clean !== undefined) this.forget(clean);
  }

  /** Writes one cursor, if there is news and a session; the next one follows a second later at the earliest. */
  #write(log: string): void {
    const cursor = this.#logs.get(log);
    if (!cursor?.dirty || !this.#link.ready) return;
    cursor.dirty = false;
    const { delivered, read } = cursor;
    const members = { log, ...(delivered && { delivered }), ...(read && { read }) };
    this.#link.request({ of: "cursor", log }, { op: "CURSOR", ...members });
    this.#link.setTimer("cursor", log, CURSOR_INTERVAL_MS);
  }

  /** A cursor may be written again. */
  due(log: string): void {
    this.#write(log);
  }

  refused(log: string, refusal: RefusedError): void {
    const cursor = this.#logs.get(log);
    if (!refusal.isTransient) {
      this.forget(log);
    } else if (cursor) {
      cursor.dirty = true;
      this.#link.setTimer("cursor", log, Math.max(CURSOR_INTERVAL_MS, refusal.retryAfterMs));
    }
  }

  /**
   * A session stands: the broker may have lost the last cursors, so they are restated. Those of logs that are followed
   * wait for the ATTACH, which says whether their positions still mean the same.
   */
  ready(followed: (log: string) => boolean): void {
    for (const [log, cursor] of this.#logs) {
      if (!cursor.moved) continue;
      cursor.awaitsAttach = followed(log);
      cursor.dirty ||= !cursor.awaitsAttach;
      this.#write(log);
    }
  }

  /** ATTACH, with positions that mean the same as before. */
  attached(log: string): void {
    const cursor = this.#logs.get(log);
    if (!cursor?.awaitsAttach) return;
    cursor.awaitsAttach = false;
    cursor.dirty = true;
    this.#write(log);
  }
}

function raise(cursor: OwnCursor, delivered: number, read: number): void {
  cursor.delivered = Math.max(cursor.delivered, delivered, read);
  cursor.read = Math.max(cursor.read, read);
}
