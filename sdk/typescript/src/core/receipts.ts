/**
 * What became of sent messages: delivered to somebody, read by somebody.
 *
 * A message and a receipt for it may come in either order: what is kept of a log is how far the others have come, and
 * the messages beyond that.
 */

import type { Position } from "../json.js";
import { RECEIPT_LOGS_MAX, RECEIPTS_MAX } from "./limits.js";
import type { Link } from "./link.js";

/** How far a user other than the session's has come in a log. */
export interface Reached {
  readonly epoch: number;
  readonly delivered: number;
  readonly read: number;
}

interface LogReceipts {
  /** Positions of another epoch mean other events. */
  readonly epoch: number;
  delivered: number;
  read: number;
  /** The newest own messages that nobody has read yet. */
  awaited: { readonly id: number; readonly seq: number; delivered: boolean }[];
}

export class Receipts {
  readonly #link: Link;
  readonly #logs = new Map<string, LogReceipts>();

  constructor(link: Link) {
    this.#link = link;
  }

  /** A message is durable, which was just told. */
  sent(id: number, log: string, at: Position): void {
    const receipts = this.#enter(log, at.epoch);
    if (!receipts) return;
    if (receipts.awaited.length >= RECEIPTS_MAX) receipts.awaited.shift();
    receipts.awaited.push({ id, seq: at.seq, delivered: false });
    this.#tell(receipts);
  }

  /** Somebody else has come this far. */
  reached(log: string, reached: Reached): void {
    const receipts = this.#enter(log, reached.epoch);
    if (!receipts) return;
    receipts.read = Math.max(receipts.read, reached.read);
    receipts.delivered = Math.max(receipts.delivered, reached.delivered, receipts.read);
    this.#tell(receipts);
  }

  /** What is kept of a log in this epoch; a newer epoch begins anew, an older one is over. */
  #enter(log: string, epoch: number): LogReceipts | undefined {
    const known = this.#logs.get(log);
    if (known && known.epoch >= epoch) return known.epoch === epoch ? known : undefined;
    if (!known && this.#logs.size >= RECEIPT_LOGS_MAX) this.#forgetOne();
    const fresh = { epoch, delivered: 0, read: 0, awaited: [] };
    this.#logs.set(log, fresh);
    return fresh;
  }

  #forgetOne(): void {
    let forgotten: string | undefined;
    for (const [log, receipts] of this.#logs) {
      forgotten ??= log;
      if (receipts.awaited.length > 0) continue;
      forgotten = log;
      break;
    }
    if (forgotten !== undefined) this.#logs.delete(forgotten);
  }

  #tell(receipts: LogReceipts): void {
    const { delivered, read } = receipts;
    receipts.awaited = receipts.awaited.filter((awaited) => {
      const { id, seq } = awaited;
      if (seq <= read) {
        this.#link.emit({ type: "send", id, state: { is: "read" } });
      } else if (seq <= delivered && !awaited.delivered) {
        awaited.delivered = true;
        this.#link.emit({ type: "send", id, state: { is: "delivered" } });
      }
      return seq > read;
    });
  }
}
