/**
 * One followed log: each event once and in order, whatever way it comes.
 *
 *     idle -> subscribing -> (pulling ->) live
 *      ^         |              |          |
 *      +- backoff+--------------+----------+   lost connection, BEHIND, a gap: subscribe again after the last position
 *
 * The last position is the only thing that survives an attachment, so resuming, falling behind and repairing a gap are
 * the same path. Deliberately absent: frames and ids of the wire (see `subscriptions`).
 */

import type { AnswerOf, Position, RowMembers } from "../json.js";
import type { DetachReason, RefusedError } from "./error.js";
import { readEvent } from "./event.js";
import type { From } from "./input.js";
import { HELD_EVENTS_MAX } from "./limits.js";
import type { Cursor, Item, ResetReason } from "./output.js";

/** What is to be done next for a subscription. */
export type Next =
  | undefined
  /** Pull positions `from..to`. */
  | { readonly next: "pull"; readonly from: number; readonly to: number }
  /** The live part ended at the client's wish: UNSUBSCRIBE, the pull goes on. */
  | { readonly next: "detach"; readonly handle: number }
  /** Subscribe again after the last position. The handle is still attached if there is one. */
  | { readonly next: "repair"; readonly handle: number | undefined }
  | { readonly next: "over"; readonly reason: DetachReason };

/** Owed rows on their way, and what has come live meanwhile. */
interface Pull {
  readonly is: "pulling";
  readonly number: number;
  readonly handle: number;
  from: number;
  readonly to: number;
  held: Held[];
  end: End | undefined;
}

type Held = { readonly row: RowMembers } | { readonly first: number; readonly last: number };

/** How the live part ended before the pull did; `dropped` = too much would have been held. */
type End = "behind" | "dropped" | { readonly detached: DetachReason };

type Phase =
  /** There is no connection, or another attachment of the log has to end first. */
  | { readonly is: "idle" }
  /** A refusal or a fruitless repair; the timer runs. */
  | { readonly is: "backoff" }
  | { readonly is: "subscribing" }
  | { readonly is: "live"; readonly handle: number }
  | Pull;

const NOWHERE: Position = { epoch: 0, seq: 0 };

export class Subscription {
  readonly log: string;
  readonly from: From;
  /** The last position that the application knows of; undefined before the first attachment. */
  last: Position | undefined;
  phase: Phase = { is: "idle" };
  /** Repairs since the last event. */
  fruitless = 0;
  readonly #tell: (item: Item) => void;

  constructor(log: string, from: From, tell: (item: Item) => void) {
    this.log = log;
    this.from = from;
    this.last = from.at === "position" ? from.position : undefined;
    this.#tell = tell;
  }

  /** The handle that is attached, and stays so unless it is unsubscribed. */
  get attachedHandle(): number | undefined {
    const { phase } = this;
    return phase.is === "live" || (phase.is === "pulling" && !phase.end) ? phase.handle : undefined;
  }

  get #lastKnown(): Position {
    return this.last ?? NOWHERE;
  }

  get #expected(): number {
    return this.#lastKnown.seq + 1;
  }

  /** ATTACH: what the application is told, and whether rows have to be pulled. */
  attach(attach: AnswerOf<"ATTACH">, pullNumber: number): Next {
    const { epoch, head, floor, handle } = attach;
    const reason = this.#resetReason(attach);
    const begin = { epoch, seq: Math.max(attach.replay_from - 1, 0) };
    const last = this.last && !reason ? { epoch, seq: this.last.seq } : begin;
    this.last = last;
    const attached = {
      after: last,
      head: { epoch, seq: head },
      floor,
      headMsgno: attach.head_msgno,
      cursors: attach.cursors.map(readCursor),
    };
    this.#tell({ type: "attached", attached });
    if (reason) this.#tell({ type: "reset", reason, after: last });
    const [from, to] = [this.#expected, attach.live_from];
    if (attach.inlined || from >= to) {
      this.phase = { is: "live", handle };
      return undefined;
    }
    this.phase = { is: "pulling", number: pullNumber, handle, from, to, held: [], end: undefined };
    return { next: "pull", from, to };
  }

  /**
   * Why the last position cannot be resumed, if it cannot. What the broker does not say but does is said here: nothing
   * is ever left out silently.
   */
  #resetReason(attach: AnswerOf<"ATTACH">): ResetReason | undefined {
    if (attach.reset === "epoch_changed" || attach.reset === 1) return "epochChanged";
    if (attach.reset === "history_gone" || attach.reset === 2) return "historyGone";
    if (!this.last) return undefined;
    if (this.last.seq > 0 && this.last.epoch !== attach.epoch) return "epochChanged";
    return attach.replay_from > this.last.seq + 1 ? "historyGone" : undefined;
  }

  /** EVENT. */
  event(row: RowMembers): Next {
    const { phase } = this;
    if (phase.is === "live") return this.#accept(row) ? undefined : { next: "repair", handle: phase.handle };
    return phase.is === "pulling" ? hold(phase, { row }) : undefined;
  }

  /** SKIP. */
  skip(first: number, last: number): Next {
    const { phase } = this;
    if (phase.is === "live")
      return this.#acceptSkip(first, last) ? undefined : { next: "repair", handle: phase.handle };
    return phase.is === "pulling" ? hold(phase, { first, last }) : undefined;
  }

  /** BEHIND: the live part is over. */
  behind(): Next {
    if (this.phase.is === "live") return { next: "repair", handle: undefined };
    if (this.phase.is === "pulling") this.phase.end ??= "behind";
    return undefined;
  }

  /** DETACH. A pull that is under way may still bring what the reader was owed. */
  detach(reason: DetachReason): Next {
    if (this.phase.is === "live") return { next: "over", reason };
    if (this.phase.is === "pulling" && this.phase.end !== "dropped") this.phase.end = { detached: reason };
    return undefined;
  }

  /** PAGE. */
  page(page: AnswerOf<"PAGE">): Next {
    const { phase } = this;
    if (phase.is !== "pulling") return undefined;
    const { from, to } = phase;
    const stuck = page.next !== 0 && page.next <= from;
    if (page.epoch !== this.#lastKnown.epoch || stuck) return { next: "repair", handle: this.attachedHandle };
    for (const row of page.rows) {
      this.#missBefore(row.seq);
      this.#accept(row);
    }
    if (page.next !== 0 && page.next < to) {
      phase.from = page.next;
      return { next: "pull", from: page.next, to };
    }
    this.#missBefore(to);
    return this.#finishPull(phase);
  }

  /** FETCH was refused. */
  pageRefused(refusal: RefusedError): Next {
    const { phase } = this;
    if (phase.is !== "pulling") return undefined;
    if (refusal.isTransient) {
      this.fruitless = Math.max(this.fruitless, 1);
      return { next: "repair", handle: this.attachedHandle };
    }
    if (typeof phase.end !== "object") return { next: "over", reason: { why: "refused", refusal } };
    // The reader was removed meanwhile: the rest of the pull is out of reach, but what had come live is not.
    if (this.#expected < phase.to) this.#acceptSkip(this.#expected, phase.to - 1);
    return this.#finishPull(phase);
  }

  /** Everything owed is here: on with what was held. */
  #finishPull(pull: Pull): Next {
    const { handle, end } = pull;
    this.phase = { is: "idle" };
    for (const held of pull.held) {
      const fits = "row" in held ? this.#accept(held.row) : this.#acceptSkip(held.first, held.last);
      if (!fits) return { next: "repair", handle: end ? undefined : handle };
    }
    if (typeof end === "object") return { next: "over", reason: end.detached };
    if (end) return { next: "repair", handle: undefined };
    this.phase = { is: "live", handle };
    return undefined;
  }

  /** Hands an event over if it is the next one. False on a gap. */
  #accept(row: RowMembers): boolean {
    const { epoch, seq } = this.#lastKnown;
    if (row.seq <= seq) return true;
    if (row.seq > seq + 1) return false;
    this.last = { epoch, seq: row.seq };
    this.fruitless = 0;
    this.#tell({ type: "event", event: readEvent(epoch, row) });
    return true;
  }

  #acceptSkip(first: number, last: number): boolean {
    const expected = this.#expected;
    if (last < expected) return true;
    if (first > expected) return false;
    this.last = { epoch: this.#lastKnown.epoch, seq: last };
    this.fruitless = 0;
    this.#tell({ type: "skipped", first: expected, last });
    return true;
  }

  /** A page goes on at `seq`: what lies before it and has not come no longer exists. */
  #missBefore(seq: number): void {
    if (seq <= this.#expected) return;
    const after = { epoch: this.#lastKnown.epoch, seq: seq - 1 };
    this.last = after;
    this.#tell({ type: "reset", reason: "historyGone", after });
  }
}

function hold(pull: Pull, held: Held): Next {
  if (pull.end) return undefined;
  if (pull.held.length < HELD_EVENTS_MAX) {
    pull.held.push(held);
    return undefined;
  }
  pull.held = [];
  pull.end = "dropped";
  return { next: "detach", handle: pull.handle };
}

export function readCursor(cursor: AnswerOf<"ATTACH">["cursors"][number]): Cursor {
  const { user, delivered, read, read_msgno } = cursor;
  return { user, delivered, read, readMsgno: read_msgno };
}
