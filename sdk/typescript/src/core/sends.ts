/**
 * The outbox: messages in order per log, from the application's call to the ACK or a final refusal.
 *
 * Each log has a lane. The written messages of a lane are its first ones; the others follow as the window allows. When
 * one is refused for now, the lane stops until all its written ones are answered (the broker refuses them with
 * `out_of_order`) and the wait is over; then everything is written again in order. The same happens after a reconnect.
 * `dseq` numbers what is written without holes: a message that was refused for good leaves none behind, because what is
 * written again is numbered anew from the first one.
 */

import type { Position } from "../json.js";
import { type AntiphonError, LimitError, RefusedError, StoppedError, type StopReason } from "./error.js";
import {
  BODY_BYTES_MAX,
  LANES_MAX,
  OUT_OF_ORDER_MAX,
  OUTBOX_BYTES_MAX,
  OUTBOX_MESSAGES_MAX,
  SENDS_IN_FLIGHT_MAX,
} from "./limits.js";
import type { Link } from "./link.js";
import { bodyBytes, type NewMessage, newMovesCursor, sendMembers, weight } from "./newMessage.js";

/** Records of a batch, and the bytes that one aims at; what exceeds them goes into the next one. */
const BATCH_RECORDS_MAX = 100;
const BATCH_BYTES_MAX = 256 << 10;
/** What a record of a batch takes besides its content, at most. */
const RECORD_BYTES = 256;

interface Entry {
  readonly id: number;
  readonly message: NewMessage;
  readonly weight: number;
  /** Given at the first write, when the broker's clock is known. */
  clientMessageId: string | undefined;
  /** The batch that it is written with, if the broker takes batches. */
  readonly batch: number | undefined;
  /** 0 before the first write. */
  dseq: number;
  /** The request that carries it now. */
  request: number | undefined;
  /** What became of an earlier write of it is unknown, so a later refusal does not mean that it was not stored. */
  doubtful: boolean;
}

/** How a lane recovers from a refusal: `draining` = the wait is over, but not all written messages are answered. */
type Hold = "open" | "waiting" | "draining";

class Lane {
  readonly entries: Entry[] = [];
  nextDseq = 1;
  inFlight = 0;
  hold: Hold = "open";
  /** Refusals since the last ACK. */
  refusals = 0;
  /** Of them, refusals of the oldest message as out of order. */
  outOfOrder = 0;
  /** Whether the lane waits for its turn to write. */
  queued = false;

  /** Makes ready to write everything again, numbered without holes from the first one that was written before. */
  reopen(): void {
    this.hold = "open";
    const base = this.entries[0]?.dseq ?? 0;
    if (base > 0) this.nextDseq = base;
  }
}

/** What an ACK says. */
export interface Ack {
  readonly position: Position;
  readonly msgno: number;
  readonly time_ms: number;
  readonly event_id: string;
  readonly duplicate: boolean;
}

/** A message that is durable. */
export interface Acked {
  readonly id: number;
  readonly at: Position;
  /** Whether its sender, the session's user, has read up to it thereby. */
  readonly hasRead: boolean;
}

/** Whether the connection still serves; `reconnect` = client and broker disagree on what comes next. */
export type Verdict = "fine" | "reconnect";

export class Outbox {
  readonly #link: Link;
  readonly #lanes = new Map<string, Lane>();
  /** Lanes with something to write, in turn. */
  #writable: string[] = [];
  #messages = 0;
  #bytes = 0;
  #inFlight = 0;
  /** Numbers given to batches. */
  #batches = 0;

  constructor(link: Link) {
    this.#link = link;
  }

  /** Takes a message, or tells why not. */
  add(id: number, message: NewMessage): void {
    this.#push(id, message, undefined);
    this.write();
  }

  /** Takes messages that are written together, as far as they are for one log and fit a frame. */
  addBatch(messages: readonly { readonly id: number; readonly message: NewMessage }[]): void {
    let open = { log: "", records: BATCH_RECORDS_MAX, bytes: 0 };
    for (const { id, message } of messages) {
      const length = weight(message) + RECORD_BYTES;
      const { log } = message;
      const fits = open.log === log && open.records < BATCH_RECORDS_MAX && open.bytes + length <= BATCH_BYTES_MAX;
      if (!fits) {
        this.#batches += 1;
        open = { log, records: 0, bytes: 0 };
      }
      open = { log, records: open.records + 1, bytes: open.bytes + length };
      this.#push(id, message, this.#batches);
    }
    this.write();
  }

  #push(id: number, message: NewMessage, batch: number | undefined): void {
    const weighs = weight(message);
    const error = this.#check(message, weighs);
    if (error) {
      this.#link.emit({ type: "send", id, state: { is: "failed", error } });
      return;
    }
    this.#messages += 1;
    this.#bytes += weighs;
    this.#link.emit({ type: "send", id, state: { is: "queued" } });
    if (this.#lanes.size >= LANES_MAX) this.#forgetEmptyLanes();
    const lane = this.#lanes.get(message.log) ?? new Lane();
    this.#lanes.set(message.log, lane);
    const { clientMessageId } = message;
    // An id from an earlier process says that it may have been written there.
    const doubtful = clientMessageId !== undefined;
    lane.entries.push({ id, message, weight: weighs, clientMessageId, batch, dseq: 0, request: undefined, doubtful });
    this.#enqueue(message.log);
  }

  #check(message: NewMessage, weighs: number): AntiphonError | undefined {
    const body = bodyBytes(message.content);
    if (body > BODY_BYTES_MAX) return new LimitError("bytes of the body", body, BODY_BYTES_MAX);
    if (this.#messages >= OUTBOX_MESSAGES_MAX) {
      return new LimitError("unacknowledged messages", this.#messages + 1, OUTBOX_MESSAGES_MAX);
    }
    const bytes = this.#bytes + weighs;
    return bytes > OUTBOX_BYTES_MAX ? new LimitError("unacknowledged bytes", bytes, OUTBOX_BYTES_MAX) : undefined;
  }

  #forgetEmptyLanes(): void {
    for (const [log, lane] of this.#lanes) if (lane.entries.length === 0) this.#lanes.delete(log);
  }

  #enqueue(log: string): void {
    const lane = this.#lanes.get(log);
    if (!lane || lane.queued || lane.hold !== "open" || lane.inFlight >= lane.entries.length) return;
    lane.queued = true;
    this.#writable.push(log);
  }

  /** Writes what the window allows, one message or batch of each lane in turn. */
  write(): void {
    while (this.#link.ready && this.#inFlight < SENDS_IN_FLIGHT_MAX) {
      const log = this.#writable.shift();
      if (log === undefined) return;
      const lane = this.#lanes.get(log);
      if (!lane) continue;
      lane.queued = false;
      const written = this.#writeNext(log, lane);
      this.#inFlight += written;
      if (written > 0) this.#enqueue(log);
    }
  }

  /** Writes the first message that is not written, with the rest of its batch. Returns how many messages. */
  #writeNext(log: string, lane: Lane): number {
    const first = lane.entries[lane.inFlight];
    if (lane.hold !== "open" || !first) return 0;
    const written = [first];
    if (first.batch !== undefined && this.#link.batches) {
      const rest = lane.entries.slice(lane.inFlight + 1);
      const end = rest.findIndex((entry) => entry.batch !== first.batch);
      written.push(...(end < 0 ? rest : rest.slice(0, end)));
    }
    const dseq = lane.nextDseq;
    // A batch has one place in the order, named by its first record.
    const records = written.map((entry, at) => {
      const clientMessageId = this.#number(entry, dseq);
      return sendMembers(entry.message, clientMessageId, at === 0 ? dseq : 0);
    });
    const [only] = records;
    const request =
      records.length === 1 && only
        ? this.#link.request({ of: "send", log }, { op: "SEND", ...only })
        : this.#link.request({ of: "send", log }, { op: "SEND_BATCH", records });
    for (const entry of written) entry.request = request;
    lane.nextDseq += 1;
    lane.inFlight += written.length;
    return written.length;
  }

  /** Gives an entry its place, which it may have had before, and at the first time its id. */
  #number(entry: Entry, dseq: number): string {
    const clientMessageId = entry.clientMessageId ?? this.#link.messageId();
    entry.clientMessageId = clientMessageId;
    if (entry.dseq === 0) this.#link.emit({ type: "send", id: entry.id, state: { is: "sending", clientMessageId } });
    entry.dseq = dseq;
    return clientMessageId;
  }

  /** An ACK of the first message that waits for this request. */
  acked(log: string, request: number, ack: Ack): Acked | undefined {
    const entry = this.#settle(log, request);
    const lane = this.#lanes.get(log);
    if (!entry || !lane) return undefined;
    lane.refusals = 0;
    lane.outOfOrder = 0;
    const receipt = {
      ...ack.position,
      clientMessageId: entry.clientMessageId ?? "",
      eventId: ack.event_id,
      msgno: ack.msgno,
      timeMs: ack.time_ms,
      duplicate: ack.duplicate,
    };
    this.#link.emit({ type: "send", id: entry.id, state: { is: "sent", receipt } });
    this.#resumeDrained(log);
    return { id: entry.id, at: ack.position, hasRead: newMovesCursor(entry.message) };
  }

  /** How many messages wait for the answer to this request. */
  written(log: string, request: number): number {
    return this.#lanes.get(log)?.entries.filter((entry) => entry.request === request).length ?? 0;
  }

  /** A refusal of everything that the request carried. */
  refusedAll(log: string, request: number, refusal: RefusedError): Verdict {
    let verdict: Verdict = "fine";
    for (let count = this.written(log, request); count > 0; count--) {
      if (this.refused(log, request, refusal) === "reconnect") verdict = "reconnect";
    }
    return verdict;
  }

  /** A refusal of the first message that waits for this request: it fails, or its lane waits and repeats. */
  refused(log: string, request: number, refusal: RefusedError): Verdict {
    if (!refusal.isTransient) {
      const entry = this.#settle(log, request);
      if (entry) {
        const error = entry.doubtful ? asUnknown(refusal) : refusal;
        this.#link.emit({ type: "send", id: entry.id, state: { is: "failed", error } });
      }
      this.#resumeDrained(log);
      return "fine";
    }
    const lane = this.#lanes.get(log);
    const at = lane?.entries.findIndex((entry) => entry.request === request) ?? -1;
    const entry = lane?.entries[at];
    if (!lane || !entry) return "fine";
    entry.request = undefined;
    entry.doubtful ||= refusal.outcomeUnknown;
    lane.inFlight -= 1;
    this.#inFlight -= 1;
    const stuck = this.#hold(log, lane, at, refusal);
    this.#resumeDrained(log);
    return stuck ? "reconnect" : "fine";
  }

  /** Stops the lane after a refusal of the message at `at`. True if it gets nowhere on this connection. */
  #hold(log: string, lane: Lane, at: number, refusal: RefusedError): boolean {
    if (lane.hold !== "open") return false;
    if (at === 0 && refusal.code === "out_of_order") lane.outOfOrder += 1;
    lane.hold = "waiting";
    this.#link.setTimer("sends", log, Math.max(this.#link.backoff(lane.refusals), refusal.retryAfterMs));
    lane.refusals += 1;
    return lane.outOfOrder >= OUT_OF_ORDER_MAX;
  }

  /** Takes out a message that is settled for good. */
  #settle(log: string, request: number): Entry | undefined {
    const lane = this.#lanes.get(log);
    const at = lane?.entries.findIndex((entry) => entry.request === request) ?? -1;
    if (!lane || at < 0) return undefined;
    const [entry] = lane.entries.splice(at, 1);
    lane.inFlight -= 1;
    this.#inFlight -= 1;
    this.#messages -= 1;
    this.#bytes -= entry?.weight ?? 0;
    return entry;
  }

  /** The wait of a lane is over. */
  due(log: string): void {
    const lane = this.#lanes.get(log);
    if (lane?.hold !== "waiting") return;
    lane.hold = "draining";
    this.#resumeDrained(log);
  }

  #resumeDrained(log: string): void {
    const lane = this.#lanes.get(log);
    if (lane?.hold === "draining" && lane.inFlight === 0) {
      lane.reopen();
      this.#enqueue(log);
    }
    this.write();
  }

  /** The connection is lost: what was written will be written again. */
  down(): void {
    this.#inFlight = 0;
    this.#writable = [];
    // The first `dseq` of a connection is its base, so a lane without messages has nothing to remember.
    this.#forgetEmptyLanes();
    for (const [log, lane] of this.#lanes) {
      this.#link.timers.cancel("sends", log);
      for (const entry of lane.entries) {
        entry.doubtful ||= entry.request !== undefined;
        entry.request = undefined;
      }
      lane.inFlight = 0;
      lane.queued = false;
      lane.outOfOrder = 0;
      lane.reopen();
      this.#enqueue(log);
    }
  }

  /** The client has stopped: everything fails. */
  stop(reason: StopReason): void {
    for (const lane of this.#lanes.values()) {
      for (const { id } of lane.entries) {
        this.#link.emit({ type: "send", id, state: { is: "failed", error: new StoppedError(reason) } });
      }
    }
    this.#lanes.clear();
    this.#writable = [];
    this.#messages = 0;
    this.#bytes = 0;
    this.#inFlight = 0;
  }
}

function asUnknown(refusal: RefusedError): RefusedError {
  const { number, code, retryAfterMs, field, message } = refusal;
  return new RefusedError({ number, code, outcome: "unknown", retry_after_ms: retryAfterMs, field, message });
}
